"""What Fisher and RegMean merging need to know of an expert, measured on its own rows."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from motet._errors import RequestError


def collect_grams(model: nn.Module, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """The mean inner products of every linear layer's inputs, for `RegMean(statistics=…)`.

    Args:
        model: an expert; it is set to evaluation and back.
        batches: inputs of its own task, without labels; a few hundred rows suffice.

    Returns:
        G = XᵀX / n (in, in) under the name of each linear layer's weight. Save it with safetensors.

    Raises:
        RequestError: the model has no linear layer, or there are no batches.

    Cost: a forward pass, and one product (in, n)(n, in) for each layer and batch.
    """
    grams: dict[str, Tensor] = {}
    rows: dict[str, int] = {}

    def watch(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            flat = inputs[0].detach().reshape(-1, inputs[0].shape[-1]).float()
            grams[name] = grams.get(name, torch.zeros(())) + flat.T @ flat
            rows[name] = rows.get(name, 0) + len(flat)

        return hook

    handles = [
        module.register_forward_pre_hook(watch(f"{name}.weight" if name else "weight"))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    ]
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for batch in batches:
                model(batch)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    if not grams:
        message = "No linear layer saw an input; a model with nn.Linear and one batch at least were expected."
        raise RequestError(message)
    return {name: gram / rows[name] for name, gram in grams.items()}


def collect_fisher(model: nn.Module, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """The diagonal Fisher information of a classifier's parameters, for `Fisher(statistics=…)`.

        F = mean over rows x of Σ_y p(y | x) (∂ log p(y | x) / ∂θ)²

    Args:
        model: an expert that maps inputs (B, …) to logits (B, C); it is set to evaluation and back.
        batches: inputs of its own task, without labels; a few hundred rows suffice.

    Returns:
        F by the names of the parameters. Save it with safetensors.

    Raises:
        RequestError: there are no batches.

    Cost: C gradients for each row, a row at a time in one vectorised call a batch: memory of batch · C copies of the
        model.

    Source: the definition, example by example. MergeLM and FusionBench square a sum over the batch, which is another
        number.
    """
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def logs(given: dict[str, Tensor], row: Tensor) -> tuple[Tensor, Tensor]:
        found = torch.log_softmax(torch.func.functional_call(model, {**given, **buffers}, (row.unsqueeze(0),))[0], -1)
        return found, found.detach()

    def one(row: Tensor) -> dict[str, Tensor]:
        jacobians, values = torch.func.jacrev(logs, has_aux=True)(parameters, row)
        return {name: torch.tensordot(values.exp(), jacobian.square(), 1) for name, jacobian in jacobians.items()}

    total = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    rows = 0
    training = model.training
    model.eval()
    try:
        for batch in batches:
            for name, found in torch.func.vmap(one)(batch).items():
                total[name] += found.sum(dim=0)
            rows += len(batch)
    finally:
        model.train(training)
    if not rows:
        message = "No batch arrived; at least one batch of inputs was expected. Pass a list or a loader."
        raise RequestError(message)
    return {name: found / rows for name, found in total.items()}

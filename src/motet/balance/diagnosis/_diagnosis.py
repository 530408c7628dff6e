"""Who pulls against whom in which layer, watched while a model trains."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from motet._errors import RequestError
from motet.balance.diagnosis._record import LayerSums, diagnosis_record
from motet.balance.diagnosis._summary import summarise
from motet.balance.engine._graph import read_graph
from motet.balance.engine._passes import Passes


class Diagnosis:
    """Records every task's gradient at every layer of a trunk: its norm, its cosines with the others', its spectrum.

    Choose it to see where in a network the tasks fight before choosing a method against it; `Step.conflicts` says
    only who fights. It reads the graph that the forward pass left, touches no `.grad` and no random state, and between
    the sampled steps it only counts. For task k with gradient g_k,l at layer l, a record holds

        norms      ‖g_k,l‖
        cosines    ⟨g_i,l, g_j,l⟩ / (‖g_i,l‖ ‖g_j,l‖)
        conflict   −Σ_{i<j} min(0, ⟨g_i,l, g_j,l⟩ / (‖g_i‖ ‖g_j‖)) / pairs, with ‖g_k‖ over all layers
        nuclear    Σ σ(G_k,l), the nuclear norm of the gradient as a matrix; of several matrices in a layer, the sum
        top_share  max σ(G_k,l) / Σ σ(G_k,l)

    and `differences`, for each of norms, nuclear and top_share the mean of |s_l+1 − s_l| over neighbouring layers
    that have a matrix. Over layers, the terms of `conflict` add up to the cosine of the tasks' whole gradients: it says
    how much of the fight happens in the layer. A kernel or stack of more axes is a matrix (first, rest).

    Args:
        trunk: the shared module, each of whose submodules with parameters of its own is a layer; or layers by name,
            each a list of parameters.
        every: steps from one observation to the next, at least 1.
        max_tasks: tasks observed at a time; of more, those that were observed least recently.
        keep: records kept for `summary`; of more, every second one is dropped.
        seed: of the choice among tasks that were observed equally long ago.

    Raises:
        RequestError: no parameter, a number below 1; in `observe`, a loss that is no scalar, has no graph, or whose
            graph a backward has already used up.

    Cost: an observed step costs about T/3 plain steps for the layers' gradients, T/3 for forming them layer by layer
        and, for each task and n × m matrix, n ≤ m, n²·m + n³ for the singular values (see `spectrum` in
        `balance/diagnosis/_nuclear.py`, which takes the leading ones of large matrices). T copies of the largest layer
        in memory, never of all.

    Source: Li, Li and Zhou, What Happened in LLMs Layers when Trained for Fast vs. Slow Thinking: A Gradient
        Perspective, ACL 2025: nuclear norm, share of the largest singular value, and mean absolute difference of
        neighbouring layers. Departures: it takes each kind of projection (Q, K, V, O) for itself and examples in the
        place of tasks; here neighbours are the trunk's layers in the order of their registration, whatever their kind.
        Its relative difference compares two sets of examples; two records give it. Norms, cosines and `conflict` by
        layer are not in the paper.

    Example:
        >>> trunk, x = nn.Linear(2, 2), torch.eye(2)
        >>> z = trunk(x)
        >>> record = Diagnosis(trunk, every=100).observe({"up": z.sum(), "down": -z.sum()}, step=0)
        >>> record["layers"][0]["pair"], record["layers"][0]["least"]
        (['up', 'down'], -1.0)
    """

    def __init__(
        self,
        trunk: nn.Module | Mapping[str, Iterable[Tensor]],
        *,
        every: int = 500,
        max_tasks: int = 16,
        keep: int = 64,
        seed: int = 0,
    ) -> None:
        for name, value in {"every": every, "max_tasks": max_tasks, "keep": keep}.items():
            if value < 1:
                message = (
                    f"{name}={value} was given; a whole number of at least 1 was expected. Leave it out, or raise it."
                )
                raise RequestError(message)
        self.layers = _layers(trunk)
        if not any(self.layers.values()):
            message = "The trunk has no parameter; a diagnosis needs layers. Pass the module that the tasks share."
            raise RequestError(message)
        self.every, self.max_tasks, self.keep, self.seed = every, max_tasks, keep, seed
        self.reset()

    def reset(self) -> None:
        """Forgets every record, and counts from zero again."""
        self.records: list[dict[str, Any]] = []
        self._num_calls = self._num_observed = 0
        self._stride = 1
        self._seen: dict[str, int] = {}

    def observe(self, losses: Mapping[str, Tensor], *, step: int | None = None) -> dict[str, Any] | None:
        """Records one step's gradients if the step is due; call it before the backward, which uses the graph up.

        Args:
            losses: a scalar a task, with its graph; one that is not finite is left out.
            step: the number of the step, due when `every` divides it; without it, the calls are counted.

        Returns:
            the record, ready for JSON, or None: `step`, `tasks`, their whole `norms` and `cosines`, `layers`
            (`layer`, `norms`, `cosines` below the diagonal, `least` with its `pair`, `conflict`, and of a layer with a
            matrix `nuclear`, `nuclear_sum` of the summed gradient, `top_share`, `held`), and `differences`.
        """
        at = self._num_calls if step is None else step
        self._num_calls += 1
        if at % self.every:
            return None
        chosen = self._chosen(_usable(losses))
        if not chosen:
            return None
        record = diagnosis_record(at, list(chosen), self._measured(chosen))
        self._num_observed += 1
        self._seen |= dict.fromkeys(chosen, self._num_observed)
        self._store(record)
        return record

    def summary(self) -> dict[str, Any]:
        """What the records say together.

        Returns:
            ready for JSON: `observations`; `layers`, the one that carries most of the conflict first, each with its
            `share` of it, mean `least` cosine, lowest `pair` and `trend`; `pairs`, the lowest mean cosine first, each
            with the `layer` where it is lowest and its `trend`: the mean of the later half less that of the earlier.
        """
        return summarise(self.records)

    def _chosen(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        if len(losses) <= self.max_tasks:
            return losses
        generator = torch.Generator().manual_seed(self.seed + self._num_observed)
        names = [list(losses)[place] for place in torch.randperm(len(losses), generator=generator).tolist()]
        oldest = set(sorted(names, key=lambda name: self._seen.get(name, 0))[: self.max_tasks])
        return {name: loss for name, loss in losses.items() if name in oldest}

    def _measured(self, losses: Mapping[str, Tensor]) -> dict[str, LayerSums]:
        """What every layer that the losses reach gives, in the trunk's order."""
        owner = {id(parameter): name for name, parameters in self.layers.items() for parameter in parameters}
        parameters = [parameter for listed in self.layers.values() for parameter in listed]
        _check_reached(losses, parameters)
        found: dict[str, LayerSums] = {}
        with _reading(losses):
            for layer in Passes(losses, parameters).layers:
                for key, rows in layer.rows().items():
                    found.setdefault(owner[key], LayerSums(len(losses))).add(rows)
        return {name: found[name] for name in self.layers if name in found}

    def _store(self, record: dict[str, Any]) -> None:
        if (self._num_observed - 1) % self._stride == 0:
            self.records.append(record)
        if len(self.records) > self.keep:
            # Every second one, so that what is left is spread over the whole training and not only its end.
            self.records = self.records[::2]
            self._stride *= 2


def _layers(trunk: nn.Module | Mapping[str, Iterable[Tensor]]) -> dict[str, list[Tensor]]:
    if isinstance(trunk, Mapping):
        return {name: list(parameters) for name, parameters in trunk.items()}
    found: dict[str, list[Tensor]] = {}
    known: set[int] = set()
    for name, module in trunk.named_modules():
        own = [parameter for parameter in module.parameters(recurse=False) if id(parameter) not in known]
        known |= {id(parameter) for parameter in own}
        if own:
            # torch.compile puts a name of its own around a module's.
            parts = [part for part in name.split(".") if part != "_orig_mod"]
            found[".".join(parts) or type(module).__name__] = own
    return found


def _usable(losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The finite losses; an infinite one has nothing to show, and a diagnosis must not end a training over it."""
    for name, loss in losses.items():
        if loss.numel() != 1:
            shape = tuple(loss.shape)
            message = f"Task '{name}' has a loss of shape {shape}; a scalar was expected. Take its mean over rows."
            raise RequestError(message)
        if not loss.requires_grad:
            message = (
                f"Task '{name}' has a loss without a graph; a diagnosis reads its gradients. Compute it from the "
                "model's outputs, outside torch.no_grad()."
            )
            raise RequestError(message)
    return {name: loss.reshape(()) for name, loss in losses.items() if bool(torch.isfinite(loss.detach()))}


@contextlib.contextmanager
def _reading(losses: Mapping[str, Tensor]) -> Iterator[None]:
    """Says what to do where the graph has been used up."""
    try:
        yield
    except RuntimeError as error:
        if "second time" not in str(error):
            raise
        message = (
            f"The graph of the losses ({', '.join(losses)}) is used up; a diagnosis reads it. Call observe before the "
            "backward, or pass retain_graph=True to the backward."
        )
        raise RequestError(message) from error


def _check_reached(losses: Mapping[str, Tensor], parameters: Sequence[Tensor]) -> None:
    reached = read_graph(losses, parameters).leaves
    if not any(id(parameter) in reached for parameter in parameters):
        message = (
            f"No loss ({', '.join(losses)}) depends on the trunk's parameters; a diagnosis compares gradients there. "
            "Pass the module that the tasks share, with parameters that require gradients."
        )
        raise RequestError(message)

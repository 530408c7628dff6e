"""Coefficients finer than a tensor, and the step that all learned merges take."""

import pytest
import torch
from learned_cases import experts_of, inputs, network, uncertainty
from torch import nn

from motet.merge import TaskArithmetic, merge
from motet.merge.learned import (
    BlockWise,
    ConcreteMask,
    LayerWise,
    Merged,
    OutputWise,
    TaskWise,
    atlas,
    concrete_adamerging,
    entropy,
    total_loss,
)
from motet.merge.learned._descend import backward

SHAPES = {"w": (3, 4), "b": (3,), "s": ()}


def test_an_output_s_coefficient_scales_what_an_expert_adds_to_it():
    """By the identity (ω ⊙ τ) x = ω ⊙ (τ x), which is how ScaLearn scales what an adapter adds."""
    layer = nn.Linear(5, 4)
    base, experts = layer.state_dict(), experts_of(layer, 2)
    merged = Merged(layer, base, experts, coefficients=OutputWise({"weight": (4, 5), "bias": (4,)}, 2))
    omega = torch.randn(2, 4, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        merged.coefficients.values.copy_(torch.cat([omega, omega], dim=1))
    rows = inputs(1)[0]
    added = [torch.func.functional_call(layer, expert, (rows,)) - layer(rows) for expert in experts]
    wanted = layer(rows) + omega[0] * added[0] + omega[1] * added[1]
    assert torch.allclose(merged(rows), wanted, atol=1e-5)


def test_shapes_of_the_coefficients():
    outputs, blocks = OutputWise(SHAPES, 2)(), BlockWise(SHAPES, 2, blocks=5)()
    assert {name: tuple(part.shape) for name, part in outputs.items()} == {"w": (2, 3, 1), "b": (2, 3), "s": (2,)}
    assert {name: tuple(part.shape) for name, part in blocks.items()} == {"w": (2, 3, 4), "b": (2, 3), "s": (2,)}


@pytest.mark.parametrize("kind", [OutputWise, lambda *args, **kw: BlockWise(*args, blocks=3, **kw)])
def test_with_equal_coefficients_it_is_task_arithmetic(kind):
    base = {name: torch.randn(shape, generator=torch.Generator().manual_seed(0)) for name, shape in SHAPES.items()}
    experts = [{name: part + number for name, part in base.items()} for number in (1, 2)]
    merged = Merged(nn.Module(), base, experts, coefficients=kind(SHAPES, 2, start=0.25))
    wanted = merge(base, experts, method=TaskArithmetic(scale=0.25))
    for name, part in merged.merged_state().items():
        assert torch.allclose(part, wanted[name], atol=1e-6)


def test_blocks_are_random_of_equal_chance_and_come_from_the_seed():
    made = BlockWise({"w": (60, 50)}, 1, blocks=3, seed=1)
    with torch.no_grad():
        made.values.copy_(torch.arange(3.0).reshape(1, 1, 3))
    found = made()["w"][0]
    shares = [(found == block).double().mean().item() for block in range(3)]
    assert shares == pytest.approx([1 / 3] * 3, abs=0.04)  # four deviations of 3,000 draws
    assert torch.equal(made.assigned, BlockWise({"w": (60, 50)}, 1, blocks=3, seed=1).assigned)
    assert not torch.equal(made.assigned, BlockWise({"w": (60, 50)}, 1, blocks=3, seed=2).assigned)


@pytest.mark.parametrize("options", [{"by": "output"}, {"blocks": 6, "seed": 4}])
def test_atlas_finds_what_a_coefficient_a_tensor_cannot(options):
    """The truth scales one expert's outputs apart: finer coefficients come nearer to it on the same rows."""
    model = nn.Linear(5, 6, bias=False)
    base = model.state_dict()
    experts = experts_of(model, 1, change=1.0)
    omega = torch.tensor([[1.0], [-1.0], [0.5], [2.0], [0.0], [1.5]])
    truth = {"weight": base["weight"] + omega * (experts[0]["weight"] - base["weight"])}
    rows = inputs(1, 64)

    def squared(call, expert, batch):
        return (call(batch) - torch.func.functional_call(model, truth, (batch,))).square().mean()

    def left(**chosen) -> float:
        state = atlas(model, base, experts, [rows], loss=squared, steps=150, rate=0.1, weight_decay=0.0, **chosen)
        return float(squared(lambda batch: torch.func.functional_call(model, state, (batch,)), 0, rows[0]))

    assert left(**options) < (1e-4 if "by" in options else 0.9) * left()


def test_a_step_s_gradient_is_that_of_the_total_loss():
    """Stopping at the merged weights and going on once gives what one backward through everything gives."""
    net = network()
    base, experts, batches = net.state_dict(), experts_of(net, 3), [*inputs(2), None]
    merged = Merged(net, base, experts, coefficients=LayerWise(4, 3), mask=ConcreteMask({"0.weight": (8, 5)}).eval())
    found = total_loss(merged, batches, entropy)
    found.backward()
    wanted = [values.grad.clone() for values in merged.parameters()]
    merged.zero_grad()
    assert backward(merged, merged.weights(), batches, entropy) == pytest.approx(found.item())
    for values, grad in zip(merged.parameters(), wanted, strict=True):
        assert torch.allclose(values.grad, grad, atol=1e-6)
        assert grad.abs().sum() > 0


def test_concrete_adamerging_takes_the_steps_of_its_formula():
    """Two steps of the mask written out with autograd and Adam by hand, at a rate that shows them."""
    net = network()
    base, experts = {name: part.clone() for name, part in net.state_dict().items()}, experts_of(net, 2)
    batches = [inputs(2), [rows + 1 for rows in inputs(2)]]
    mine = concrete_adamerging(
        net, base, experts, batches, by="task", mask_steps=2, steps=0, mask_rate=0.3, inner_rate=0.2, seed=5
    )
    names = list(base)
    changes = {name: torch.stack([expert[name] - base[name] for expert in experts]) for name in names}
    mask = ConcreteMask({name: tuple(base[name].shape) for name in names}, seed=5)
    share = torch.full((2,), 0.3, requires_grad=True)
    inner, outer = torch.optim.Adam([share], 0.2), torch.optim.Adam(mask.parameters(), 0.3)

    def loss(masks, rows):
        weights = {name: base[name] + masks[name] * torch.tensordot(share, changes[name], 1) for name in names}
        return sum(entropy(lambda x: torch.func.functional_call(net, weights, (x,)), 0, batch) for batch in rows)

    for _ in range(2):
        drawn = mask()
        with torch.no_grad():
            share.fill_(0.3)
        inner.zero_grad()
        loss({name: part.detach() for name, part in drawn.items()}, batches[0]).backward()
        inner.step()
        outer.zero_grad()
        loss(drawn, batches[1]).backward()
        outer.step()
    last = mask.eval()()
    for name in names:
        wanted = base[name] + 0.3 * last[name] * changes[name].sum(dim=0)
        assert torch.allclose(mine[name], wanted, atol=1e-5)
        assert not torch.allclose(mine[name], base[name] + 0.3 * changes[name].sum(dim=0), atol=1e-3)


@pytest.mark.parametrize("by", ["tensor", "task"])
def test_concrete_adamerging_makes_the_model_surer(by):
    net = network()
    experts, batches = experts_of(net, 3), inputs(3)
    base = net.state_dict()
    options = {"by": by, "mask_rate": 0.1, "rate": 0.05}
    none, mask, both = (
        uncertainty(
            net, concrete_adamerging(net, base, experts, [batches], mask_steps=one, steps=two, **options), batches
        )
        for one, two in ((0, 0), (20, 0), (20, 30))
    )
    assert both < mask - 0.02
    assert mask < none - 0.02
    assert uncertainty(net, merge(base, experts, method="task_arithmetic"), batches) == pytest.approx(none, abs=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": 0}, "blocks=0; a whole number above 0"),
        ({"by": "output", "blocks": 2}, "by='output' and blocks=2 arrived.*Leave one of the two out"),
    ],
)
def test_wrong_requests(options, message):
    net = network()
    with pytest.raises(ValueError, match=message):
        atlas(net, net.state_dict(), experts_of(net, 1), [inputs(1)], loss=entropy, steps=1, **options)


def test_one_coefficient_an_expert_is_the_coarsest():
    """Of the same start, every kind of coefficient is the same merge; their gradients add up to the coarsest one's."""
    net = network()
    base, experts, batches = net.state_dict(), experts_of(net, 2), inputs(2)
    shapes = {name: tuple(part.shape) for name, part in base.items()}
    grads = []
    for kind in (
        TaskWise(2), LayerWise(4, 2), OutputWise(shapes, 2), BlockWise(shapes, 2, blocks=3, start=0.3),
    ):  # fmt: skip
        merged = Merged(net, base, experts, coefficients=kind)
        total_loss(merged, batches, entropy).backward()
        grad = kind.values.grad
        grads.append({1: grad, 3: grad.sum(dim=(0, 2)) if grad.ndim == 3 else None}.get(grad.ndim))
        if grad.ndim == 2:
            grads[-1] = grad.sum(dim=1) if isinstance(kind, OutputWise) else grad.sum(dim=0)
    for grad in grads[1:]:
        assert torch.allclose(grad, grads[0], atol=1e-5)

"""Learned merges on small networks: gradients and answers that are known otherwise."""

import copy

import pytest
import torch
from learned_cases import experts_of, inputs, network, uncertainty
from torch import nn

from motet.merge import Fisher, RegMean, TaskArithmetic, merge
from motet.merge.learned import (
    ConcreteMask,
    LayerWise,
    Merged,
    Position,
    TaskWise,
    adamerging,
    atlas,
    collect_fisher,
    collect_grams,
    concrete_task_arithmetic,
    entropy,
    fuse_logits,
    self_positioning,
    total_loss,
)


@pytest.fixture
def net() -> nn.Module:
    return network()


def test_at_its_start_it_is_task_arithmetic(net):
    experts = experts_of(net, 3)
    merged = Merged(net, net.state_dict(), experts, coefficients=TaskWise(3, start=0.3))
    wanted = merge(net.state_dict(), experts, method=TaskArithmetic(scale=0.3))
    for name, part in merged.merged_state().items():
        assert torch.allclose(part, wanted[name], atol=1e-6)
    other = copy.deepcopy(net)
    other.load_state_dict(wanted)
    assert torch.allclose(merged(inputs(1)[0]), other(inputs(1)[0]), atol=1e-5)


def test_gradients_are_those_of_one_merge_a_task(net):
    """Each task merged by itself, as the published code does, with the derivative ⟨τ, dL/dθ⟩ written out."""
    experts, batches = experts_of(net, 3), inputs(3)
    base = {name: part.detach().clone() for name, part in net.state_dict().items()}
    merged = Merged(net, base, experts, coefficients=LayerWise(4, 3, start=0.3))
    total_loss(merged, batches, entropy).backward()
    names = list(merged.shapes())
    wanted = torch.zeros(4, 3)
    for batch in batches:
        leaf = {
            name: (base[name] + 0.3 * sum(e[name] - base[name] for e in experts)).requires_grad_() for name in names
        }
        logits = torch.func.functional_call(net, leaf, (batch,))
        p = logits.softmax(-1)
        (-(p * p.log()).sum(-1).mean()).backward()
        for row, name in enumerate(names):
            for column, expert in enumerate(experts):
                wanted[row, column] += ((expert[name] - base[name]) * leaf[name].grad).sum()
    assert torch.allclose(merged.coefficients.values.grad, wanted, atol=1e-5)
    assert all(parameter.grad is None for parameter in net.parameters())


def test_tied_weights_and_counters_go_along():
    net = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False), nn.BatchNorm1d(4)).eval()
    net[1].weight = net[0].weight
    base = net.state_dict()
    expert = {name: part + 1 if part.is_floating_point() else part for name, part in base.items()}
    expert["1.weight"] = expert["0.weight"]
    merged = Merged(net, base, [expert], coefficients=TaskWise(1, start=0.5))
    state = merged.merged_state()
    assert set(state) == set(base)
    assert torch.equal(state["1.weight"], state["0.weight"])
    assert not torch.equal(state["0.weight"], base["0.weight"])
    other = copy.deepcopy(net)
    other.load_state_dict(state)
    rows = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(merged(rows), other(rows), atol=1e-6)


def test_a_step_merges_once(net, monkeypatch):
    counted = []
    weights = Merged.weights
    monkeypatch.setattr(Merged, "weights", lambda self: counted.append(1) or weights(self))
    merged = Merged(net, net.state_dict(), experts_of(net, 4), coefficients=TaskWise(4))
    total_loss(merged, [*inputs(3), None], entropy)
    assert len(counted) == 1


@pytest.mark.parametrize("options", [{}, {"by": "task"}, {"density": 0.3}])
def test_adamerging_makes_the_model_surer(net, options):
    experts, batches = experts_of(net, 3), inputs(3)
    base = net.state_dict()
    before = {name: part.clone() for name, part in base.items()}
    first = adamerging(net, base, experts, [batches], steps=0, **options)
    last = adamerging(net, base, experts, [batches], steps=30, rate=0.05, **options)
    assert uncertainty(net, last, batches) < uncertainty(net, first, batches) - 0.05
    assert all(torch.equal(base[name], before[name]) for name in base)


def squared(targets: list[torch.Tensor]):
    return lambda call, expert, batch: (call(batch) - targets[expert]).square().mean()


def test_atlas_starts_at_the_base_and_finds_the_coefficients():
    """A linear model is linear in the coefficients: least squares has one answer, which is planted."""
    model = nn.Linear(5, 2)
    base = model.state_dict()
    experts = experts_of(model, 2, change=1.0)
    planted = {"weight": (0.7, -0.4), "bias": (0.2, 0.9)}
    truth = {
        name: base[name] + sum(c * (e[name] - base[name]) for c, e in zip(planted[name], experts, strict=True))
        for name in base
    }
    rows = inputs(2, 64)
    targets = [torch.func.functional_call(model, truth, (row,)) for row in rows]
    start = atlas(model, base, experts, [rows], loss=squared(targets), steps=0)
    assert all(torch.equal(start[name], base[name]) for name in base)
    found = atlas(model, base, experts, [rows], loss=squared(targets), steps=150, rate=0.05, weight_decay=0.0)
    for name, part in truth.items():
        assert torch.allclose(found[name], part, atol=1e-2)


def test_self_positioning_finds_the_mixture():
    model = nn.Linear(5, 2)
    base = model.state_dict()
    experts = experts_of(model, 2, change=1.0)
    truth = {name: base[name] + 1.5 * (0.8 * (experts[0][name] - base[name]) + 0.2 * (experts[1][name] - base[name]))
             for name in base}  # fmt: skip
    rows = inputs(2, 64)
    targets = [torch.func.functional_call(model, truth, (row,)) for row in rows]
    found = self_positioning(model, base, experts, [rows], loss=squared(targets), steps=250, rate=0.12)
    for name, part in truth.items():
        assert torch.allclose(found[name], part, atol=5e-2)
    assert torch.allclose(Position(4, length=2.0)(), torch.full((4,), 0.5))


def test_a_mask_without_noise_is_by_hand():
    mask = ConcreteMask({"w": (2,)}, temperature=0.5).eval()
    assert mask()["w"].tolist() == [1.0, 1.0]
    with torch.no_grad():
        mask.logits[0].copy_(torch.tensor([0.0, torch.log(torch.tensor(3.0))]))
    assert mask()["w"].tolist() == pytest.approx(
        [0.5 / 0.625, 0.75 / 0.625]
    )  # sigmoid(0), sigmoid(log 3), over the mean


def test_the_last_mask_is_what_draws_are_on_average():
    """One that is sharper than any that was trained on cost the real experts two points."""
    mask = ConcreteMask({"w": (6,)})
    with torch.no_grad():
        mask.logits[0].copy_(torch.linspace(-2, 2, 6))
    draws = torch.stack([mask()["w"] for _ in range(4000)]).mean(dim=0)
    assert torch.allclose(mask.eval()()["w"], draws / draws.mean(), atol=0.06)


def test_a_mask_draws_from_its_seed():
    one, two, other = (ConcreteMask({"w": (50,)}, seed=seed)()["w"] for seed in (3, 3, 4))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert one.mean().item() == pytest.approx(1.0, abs=1e-5)


def test_concrete_task_arithmetic_makes_the_model_surer(net):
    experts, batches = experts_of(net, 3), inputs(3)
    first = concrete_task_arithmetic(net, net.state_dict(), experts, [batches], steps=0)
    plain = merge(net.state_dict(), experts, method="task_arithmetic")
    assert all(torch.allclose(first[name], plain[name], atol=1e-6) for name in plain)
    last = concrete_task_arithmetic(net, net.state_dict(), experts, [batches], steps=40, rate=0.2)
    assert uncertainty(net, last, batches) < uncertainty(net, first, batches) - 0.05


def test_logits_of_the_same_size_follow_the_expert():
    """Where the large model is the small one, the expert's own logits have objective zero: a = 1."""
    generator = torch.Generator().manual_seed(0)
    small, expert = torch.randn(2, 6, 11, generator=generator).double()
    fused, coefficients = fuse_logits(small, small, [expert])
    assert torch.allclose(coefficients, torch.ones(6, 1).double(), atol=1e-6)
    assert torch.allclose(fused, expert, atol=1e-5)


def test_logits_of_several_experts_against_a_fine_grid():
    generator = torch.Generator().manual_seed(1)
    large, small, one, two = torch.randn(4, 5, 7, generator=generator).double()
    fused, coefficients = fuse_logits(large, small, [one, two])
    assert ((coefficients != 0).sum(-1) <= 1).all()

    def divergence(a, b):
        p, q = a.softmax(-1), b.softmax(-1)
        return (p * (p / q).log()).sum(-1), (q * (q / p).log()).sum(-1)

    grid = torch.linspace(0, 2, 2001).double().reshape(-1, 1, 1)
    objectives = []
    for tuned in (one, two):
        mine = divergence(large + grid * (tuned - small), large)
        wanted = [divergence(each, small) for each in (one, two)]
        objectives.append(sum((mine[side] - target[side]) ** 2 for target in wanted for side in (0, 1)))
    values, places = torch.stack(objectives).min(dim=1)  # (2, 5): the best a of each expert alone
    expert = values.argmin(dim=0)
    assert coefficients.argmax(dim=-1).tolist() == expert.tolist()
    assert torch.allclose(coefficients.sum(-1), grid.flatten()[places.gather(0, expert[None])[0]], atol=1.5e-3)
    assert torch.allclose(fused, large + coefficients[:, :1] * (one - small) + coefficients[:, 1:] * (two - small))


def test_grams_and_fisher_are_the_definitions(net):
    rows = inputs(1, 12)[0]
    grams = collect_grams(net, [rows[:5], rows[5:]])
    hidden = torch.tanh(net[0](rows)).detach()
    assert set(grams) == {"0.weight", "2.weight"}
    assert torch.allclose(grams["0.weight"], rows.T @ rows / 12, atol=1e-5)
    assert torch.allclose(grams["2.weight"], hidden.T @ hidden / 12, atol=1e-5)
    fisher = collect_fisher(net, [rows[:5], rows[5:]])
    wanted = {name: torch.zeros_like(part) for name, part in net.named_parameters()}
    for row in rows:
        logs = net(row).log_softmax(-1)
        for klass in range(3):
            grads = torch.autograd.grad(logs[klass], net.parameters(), retain_graph=True)
            for name, grad in zip(wanted, grads, strict=True):
                wanted[name] += logs[klass].exp().detach() * grad**2 / 12
    for name, part in wanted.items():
        assert torch.allclose(fisher[name], part, atol=1e-6)
    assert net.training


def test_what_is_collected_is_what_the_methods_take(net):
    experts = experts_of(net, 2)
    nets = [copy.deepcopy(net) for _ in experts]
    for each, state in zip(nets, experts, strict=True):
        each.load_state_dict(state)
    rows = inputs(2, 40)
    for kind, collect in ((RegMean, collect_grams), (Fisher, collect_fisher)):
        found = tuple(collect(each, [row]) for each, row in zip(nets, rows, strict=True))
        merged = merge(net.state_dict(), experts, method=kind(statistics=found))
        assert all(torch.isfinite(part).all() for part in merged.values())


def test_regmean_answers_as_the_experts_do():
    """With one column of inputs each, both experts' outputs are kept exactly."""
    model = nn.Linear(2, 3, bias=False)
    experts = experts_of(model, 2)
    rows = [torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])]
    grams = []
    for state, row in zip(experts, rows, strict=True):
        model.load_state_dict(state)
        grams.append(collect_grams(model, [row]))
    merged = merge(model.state_dict(), experts, method=RegMean(statistics=tuple(grams)))["weight"]
    for state, row in zip(experts, rows, strict=True):
        assert torch.allclose(row @ merged.T, row @ state["weight"].T, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda net: adamerging(net, net.state_dict(), experts_of(net, 2), [inputs(3)]),
            "3 batches arrived for 2 experts",
        ),
        (lambda net: adamerging(net, net.state_dict(), experts_of(net, 2), []), "batches have ended.*Pass a list"),
        (
            lambda net: adamerging(net, {"0.bias": torch.zeros(8)}, [{"0.bias": torch.zeros(8)}], []),
            "base lacks '0.weight'",
        ),
        (lambda net: collect_grams(nn.Tanh(), inputs(1)), "No linear layer saw an input"),
        (lambda net: collect_fisher(net, []), "No batch arrived"),
        (lambda net: ConcreteMask({}, temperature=0), "temperature=0; a number above 0"),
        (lambda net: fuse_logits(torch.zeros(3), torch.zeros(4), [torch.zeros(3)]), "one vocabulary"),
        (lambda net: fuse_logits(torch.zeros(3), torch.zeros(3), []), "at least one expert"),
        (
            lambda net: adamerging(
                net, net.state_dict(), experts_of(net, 1), [inputs(1)], loss=lambda c, e, b: c(b).sum() * torch.nan
            ),
            "loss of expert 1 is nan.*Lower the rate",
        ),
    ],
)
def test_wrong_requests(net, call, message):
    with pytest.raises(ValueError, match=message):
        call(net)

"""Routed task vectors, against rows merged one after another."""

import copy

import pytest
import torch
from learned_cases import entropy
from torch import nn

from motet.merge import TaskArithmetic, merge
from motet.merge.learned import RoutedMerge, Routing, wemoe


class Block(nn.Module):
    """A residual block over tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(6)
        self.mlp = nn.Sequential(nn.Linear(6, 9), nn.GELU(), nn.Linear(9, 6))

    def forward(self, tokens):
        return tokens + self.mlp(self.norm(tokens))


class Tokens(nn.Module):
    """Two blocks and a head over the mean of the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(), Block())
        self.head = nn.Linear(6, 3)

    def forward(self, tokens):
        return self.head(self.blocks(tokens).mean(dim=1))


@pytest.fixture
def case():
    torch.manual_seed(0)
    model = Tokens()
    base = model.state_dict()
    experts = [{name: part + 0.4 * torch.randn(part.shape) for name, part in base.items()} for _ in range(3)]
    batches = [torch.randn(7, 4, 6) + number for number in range(3)]
    return model, {name: part.clone() for name, part in base.items()}, experts, batches


MLP = ("blocks.*.mlp",)


def stir(routed: RoutedMerge) -> None:
    """Routers that tell rows apart."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for values in routed.parameters():
            if values.requires_grad:
                values.add_(0.3 * torch.randn(values.shape, generator=generator))


def test_routers_without_weights_are_task_arithmetic(case):
    model, base, experts, (rows, *_) = case
    wanted = torch.func.functional_call(model, merge(base, experts, method=TaskArithmetic(scale=0.3)), (rows,))
    for by in ("row", "batch"):
        routed = RoutedMerge(model, base, experts, Routing(modules=MLP, by=by))
        with torch.no_grad():
            for name, values in routed.named_parameters():
                if "router" in name and name.endswith("weight"):
                    values.zero_()
        assert torch.allclose(routed(rows), wanted, atol=1e-5)
    assert all(torch.equal(part, base[name]) for name, part in model.state_dict().items())


@pytest.mark.parametrize("depth", [1, 2])
def test_every_row_has_the_weights_that_its_router_asks_for(case, depth):
    """Row after row and expert after expert, as the published code merges."""
    model, base, experts, (rows, *_) = case
    routed = RoutedMerge(model, base, experts, Routing(modules=MLP, depth=depth))
    stir(routed)
    plain = copy.deepcopy(model)
    plain.load_state_dict(merge(base, experts, method=TaskArithmetic(scale=0.3)))
    wanted = []
    for row in rows:
        tokens = row.unsqueeze(0)
        for number, block in enumerate(plain.blocks):
            inner = block.norm(tokens)
            shares = routed.model.blocks[number].mlp.router(inner).mean(dim=1)[0]
            weights = {}
            for part in block.mlp.state_dict():
                name = f"blocks.{number}.mlp.{part}"
                weights[part] = base[name] + sum(
                    share * (expert[name] - base[name]) for share, expert in zip(shares, experts, strict=True)
                )
            tokens = tokens + torch.func.functional_call(block.mlp, weights, (inner,))
        wanted.append(plain.head(tokens.mean(dim=1)))
    assert torch.allclose(routed(rows), torch.cat(wanted), atol=1e-5)


def test_rows_do_not_depend_on_their_batch_unless_it_is_asked_for(case):
    model, base, experts, (rows, *_) = case
    alone = {}
    for by in ("row", "batch"):
        routed = RoutedMerge(model, base, experts, Routing(modules=MLP, by=by))
        stir(routed)
        alone[by] = (routed(rows[:1]), routed(rows)[:1])
    assert torch.allclose(*alone["row"], atol=1e-5)
    assert not torch.allclose(*alone["batch"], atol=1e-3)
    assert torch.allclose(alone["row"][0], alone["batch"][0], atol=1e-5)  # a batch of one row is that row


def test_features_without_tokens():
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    base = layer.state_dict()
    experts = [{name: part + torch.randn(part.shape) for name, part in base.items()} for _ in range(2)]
    routed = RoutedMerge(layer, base, experts, Routing(modules=["2"]))
    stir(routed)
    rows = torch.randn(6, 4)
    hidden = torch.func.functional_call(layer[0], {
        part: base[f"0.{part}"] + 0.3 * sum(expert[f"0.{part}"] - base[f"0.{part}"] for expert in experts)
        for part in ("weight", "bias")
    }, (rows,)).relu()  # fmt: skip
    shares = routed.model[2].router(hidden)
    added = [
        torch.func.functional_call(layer[2], {"weight": e["2.weight"], "bias": e["2.bias"]}, (hidden,)) for e in experts
    ]
    plain = torch.func.functional_call(layer[2], {"weight": base["2.weight"], "bias": base["2.bias"]}, (hidden,))
    wanted = plain + sum(shares[:, [number]] * (one - plain) for number, one in enumerate(added))
    assert torch.allclose(routed(rows), wanted, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"by": "batch", "one_for_all": True, "density": 0.1, "depth": 1}])
def test_wemoe_makes_the_model_surer_and_trains_routers_alone(case, options):
    model, base, experts, batches = case
    routing = Routing(modules=MLP, **options)

    def unsure(routed) -> float:
        return sum(float(entropy(routed, 0, batch).detach()) for batch in batches)

    first = RoutedMerge(model, base, experts, routing)
    last = wemoe(model, base, experts, [batches], routing=routing, steps=25, rate=0.03)
    assert unsure(last) < unsure(first) - 0.05
    changed = {name for name, values in last.state_dict().items() if not torch.equal(values, first.state_dict()[name])}
    assert changed
    assert all("router" in name for name in changed)


def test_one_router_and_the_largest_changes(case):
    model, base, experts, _ = case
    routed = RoutedMerge(model, base, experts, Routing(modules=MLP, one_for_all=True, density=0.25))
    one, two = (block.mlp for block in routed.model.blocks)
    assert one.router is two.router
    kept = one.changes[:, :54].reshape(3, 9, 6)
    for expert, found in zip(experts, kept, strict=True):
        change = expert["blocks.0.mlp.0.weight"] - base["blocks.0.mlp.0.weight"]
        largest = change.abs().flatten().sort(descending=True).values[: round(0.25 * 54)].min()
        wanted = torch.where(change.abs() >= largest, change, 0.0)
        assert ((found != 0).sum() - (wanted != 0).sum()).abs() <= 1
        assert torch.allclose(found[found != 0], change[found != 0], atol=1e-6)


def test_it_is_saved_and_the_seed_counts(case):
    model, base, experts, (rows, *_) = case
    made = [RoutedMerge(model, base, experts, Routing(modules=MLP, seed=seed)) for seed in (1, 1, 2)]
    assert torch.equal(made[0](rows), made[1](rows))
    assert not torch.equal(made[0](rows), made[2](rows))
    stir(made[2])
    made[0].load_state_dict(made[2].state_dict())
    assert torch.equal(made[0](rows), made[2](rows))


WRONG = {
    "none fits": (["layers.*.mlp"], {}, "No module fits 'layers.*.mlp'.*look like 'blocks'"),
    "nested": (["blocks.0", "blocks.0.mlp"], {}, "'blocks.0.mlp' lies within 'blocks.0'.*outer or the inner"),
    "no linear layer": (["blocks.0.norm"], {}, "'blocks.0.norm' holds no nn.Linear.*Route another"),
    "two widths": (["blocks.0.mlp.0", "blocks.0.mlp.2"], {"one_for_all": True}, "reads 6 features.*9.*alike modules"),
    "density": (MLP, {"density": 2}, "density=2"),
    "depth": (MLP, {"depth": 3}, "depth 1 or 2"),
    "no list": ("blocks.*.mlp", {}, "a list of patterns"),
}


@pytest.mark.parametrize(("modules", "options", "message"), WRONG.values(), ids=WRONG)
def test_wrong_requests(case, modules, options, message):
    model, base, experts, _ = case
    with pytest.raises(ValueError, match=message):
        RoutedMerge(model, base, experts, Routing(modules=modules, **options))

"""The blocks, against loops over experts and outputs, in float64 and float32."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from motet import RequestError
from motet.models.blocks import (
    DSelectRoute,
    Experts,
    FeatureGate,
    FixedRoute,
    Gate,
    Levels,
    LinearRoute,
    Mix,
    NestedRoute,
    Route,
    SigmoidRoute,
    SoftmaxRoute,
    StackedLinear,
    SumRoute,
    TopKRoute,
    _mix,
)
from motet.models.blocks._groups import group, grouped_product

ROWS, WIDTH, EXPERTS, OUTPUTS = 7, 8, 16, 2


@pytest.fixture(autouse=True)
def sparse_at_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_mix, "WORTH", 0)


def features(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def expert(experts: Experts, number: int, rows: Tensor) -> Tensor:
    """One expert, layer by layer."""
    act = {"relu": torch.relu, "gelu": functional.gelu, "silu": functional.silu}[experts.activation]
    for place, layer in enumerate(experts.layers):
        rows = rows @ layer.weight[number] + layer.bias[number, 0]
        if place < experts.num_dressed:
            rows = act(rows)
    return rows


def weighted(route: Route, experts: Experts, rows: Tensor, context: Tensor) -> Tensor:
    """Σ_e w_oe u_e(rows), expert by expert."""
    weights = route(context).weights.expand(-1, len(rows), -1)
    values = [expert(experts, number, rows) for number in range(experts.num_experts)]
    return torch.stack([
        sum(weights[output, :, number, None] * value for number, value in enumerate(values))
        for output in range(route.num_outputs)
    ])  # fmt: skip


def seeded(build: object) -> object:
    torch.manual_seed(0)
    return build()  # pyrefly: ignore


ROUTES = {
    "softmax": lambda: SoftmaxRoute(Gate(OUTPUTS, EXPERTS, WIDTH)),
    "softmax, hidden layer": lambda: SoftmaxRoute(Gate(OUTPUTS, EXPERTS, WIDTH, hidden=(5,), bias=True)),
    "softmax of the task": lambda: SoftmaxRoute(Gate(OUTPUTS, EXPERTS, WIDTH, reads="task")),
    "softmax of both": lambda: SoftmaxRoute(Gate(OUTPUTS, EXPERTS, WIDTH, reads="both", hidden=(6,))),
    "sigmoid": lambda: SigmoidRoute(Gate(OUTPUTS, EXPERTS, WIDTH)),
    "linear": lambda: LinearRoute(features(OUTPUTS, EXPERTS)),
    "fixed": lambda: FixedRoute.mean(features(OUTPUTS, EXPERTS) > 0),
    "top 4": lambda: TopKRoute(Gate(OUTPUTS, EXPERTS, WIDTH), 4),
    "top 5 of sum one": lambda: TopKRoute(Gate(OUTPUTS, EXPERTS, WIDTH), 5, renormalise=True),
    "dselect": lambda: DSelectRoute(OUTPUTS, EXPERTS, WIDTH, k=3),
    "nested": lambda: NestedRoute(TopKRoute(Gate(OUTPUTS, 8, WIDTH), 1), Gate(OUTPUTS, EXPERTS, WIDTH)),
    "sum": lambda: SumRoute(SoftmaxRoute(Gate(OUTPUTS, EXPERTS, WIDTH)), LinearRoute(features(OUTPUTS, EXPERTS))),
}


@pytest.mark.parametrize("kind", ROUTES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_mix_is_the_weighted_sum_of_its_experts(kind: str, dtype: torch.dtype) -> None:
    route = seeded(ROUTES[kind])
    mix = Mix(Experts(EXPERTS, WIDTH, (12, 4)), route).to(dtype)
    rows = features(ROWS, WIDTH).to(dtype).requires_grad_()
    found, expected = mix(rows), weighted(mix.route, mix.experts, rows, rows)
    close = 1e-12 if dtype == torch.float64 else 1e-6
    torch.testing.assert_close(found, expected, rtol=close, atol=close)
    wanted = [rows, *mix.parameters()]
    push = features(*found.shape, seed=1).to(dtype)
    grads = torch.autograd.grad((found * push).sum(), wanted)
    loops = torch.autograd.grad((expected * push).sum(), wanted)
    for ours, theirs in zip(grads, loops, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=10 * close, atol=10 * close)


@pytest.mark.parametrize("kind", ROUTES)
def test_a_part_of_the_outputs_is_the_same_part(kind: str) -> None:
    mix = Mix(Experts(EXPERTS, WIDTH, (4,)), seeded(ROUTES[kind]))
    rows = features(ROWS, WIDTH)
    whole = mix(rows)
    for outputs in ([0], [1], [1, 0]):
        torch.testing.assert_close(mix(rows, outputs), whole[outputs])


@pytest.mark.parametrize("kind", ["top 4", "softmax", "fixed"])
def test_each_output_may_send_a_stream_of_its_own(kind: str) -> None:
    mix = Mix(Experts(EXPERTS, WIDTH, (8, 4)), seeded(ROUTES[kind]))
    streams = features(OUTPUTS, ROWS, WIDTH)
    found = mix(streams)
    for output in range(OUTPUTS):
        alone = weighted(mix.route, mix.experts, streams[output], streams[output])[output]
        torch.testing.assert_close(found[output], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("norm", ["none", "layer", "batch"])
def test_experts_are_networks_of_their_own(norm: str) -> None:
    torch.manual_seed(0)
    experts = Experts(3, WIDTH, (6, 4), norm=norm, activation="silu")
    rows, streams = features(ROWS, WIDTH), features(3, ROWS, WIDTH, seed=1)
    for norms in experts.norms:
        torch.nn.init.normal_(norms.scale)
        torch.nn.init.normal_(norms.shift)
    running = [(norms.mean.clone(), norms.variance.clone()) for norms in experts.norms] if norm == "batch" else []
    for inputs in (rows, streams):
        found = experts(inputs)
        for number in range(3):
            values = inputs if inputs.ndim == 2 else inputs[number]
            for place, layer in enumerate(experts.layers):
                values = values @ layer.weight[number] + layer.bias[number, 0]
                if norm == "layer":
                    values = functional.layer_norm(values, values.shape[-1:])
                elif norm == "batch":
                    mean, variance = (part[number, 0] for part in running[place])
                    values = functional.batch_norm(values, mean, variance, training=True)
                if norm != "none":
                    values = values * experts.norms[place].scale[number, 0] + experts.norms[place].shift[number, 0]
                values = functional.silu(values)
            torch.testing.assert_close(found[number], values, rtol=1e-4, atol=1e-5)
    for place, (mean, variance) in enumerate(running):
        torch.testing.assert_close(experts.norms[place].mean, mean)
        torch.testing.assert_close(experts.norms[place].variance, variance)


def test_a_batch_norm_of_some_experts_leaves_the_others_alone() -> None:
    experts = Experts(4, WIDTH, (6,), norm="batch")
    experts(features(ROWS, WIDTH), [1, 3])
    moved = (experts.norms[0].mean != 0).any(dim=(1, 2))
    assert moved.tolist() == [False, True, False, True]
    alone = experts(features(1, WIDTH))
    assert torch.isfinite(alone).all()
    rows = features(5, WIDTH)
    experts.eval()
    torch.testing.assert_close(experts(rows)[:, 2:3], experts(rows[2:3]))
    chosen = torch.tensor([3, 0, 0, 2, 3])
    groups = group(chosen, 4)
    sent = experts.grouped(rows[groups.order], groups)
    torch.testing.assert_close(sent[groups.places], experts(rows)[chosen, torch.arange(5)])


@pytest.mark.parametrize("sizes", [(8, 12), (7, 5)], ids=["as torch takes them", "padded"])
def test_a_grouped_product_is_a_product_for_each_row(sizes: tuple[int, int]) -> None:
    weights, chosen = features(5, *sizes), torch.tensor([4, 0, 4, 2, 2, 2, 0])
    rows = features(len(chosen), sizes[0], seed=1)
    groups = group(chosen, 5)  # experts 1 and 3 get no row
    found = grouped_product(rows[groups.order], weights, groups)[groups.places]
    torch.testing.assert_close(found, torch.stack([row @ weights[e] for row, e in zip(rows, chosen, strict=True)]))
    assert grouped_product(rows[:0], weights, group(chosen[:0], 5)).shape == (0, sizes[1])


def test_only_chosen_experts_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    mix = Mix(Experts(EXPERTS, WIDTH, (4,)), TopKRoute(Gate(1, EXPERTS, WIDTH), 3))
    seen = []
    kept = mix.experts.grouped
    monkeypatch.setattr(mix.experts, "grouped", lambda rows, groups: seen.append(len(rows)) or kept(rows, groups))
    mix(features(ROWS, WIDTH))
    assert seen == [3 * ROWS]


@pytest.mark.parametrize("width", [8, 5], ids=["as torch takes them", "padded"])
def test_sparse_experts_in_half_precision_are_near(width: int) -> None:
    torch.manual_seed(0)
    mix = Mix(Experts(EXPERTS, width, (4,)), TopKRoute(Gate(1, EXPERTS, width), 3))
    inputs = features(64, width)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = mix(inputs)
    found.float().square().sum().backward()
    grads = [parameter.grad.clone() for parameter in mix.parameters()]
    mix.zero_grad()
    expected = mix(inputs)
    expected.square().sum().backward()
    for ours, wanted in zip([found.float(), *grads], [expected, *(p.grad for p in mix.parameters())], strict=True):
        error = (ours - wanted).detach().norm() / wanted.detach().norm()
        assert float(error) < 0.15  # rounding may swap two experts that are nearly as good


def test_rows_are_sent_apart_only_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_mix, "WORTH", 64 * 12 * WIDTH * 4)
    mix = Mix(Experts(EXPERTS, WIDTH, (4,)), TopKRoute(Gate(4, EXPERTS, WIDTH), 4))
    sent = []
    kept = mix.experts.grouped
    monkeypatch.setattr(mix.experts, "grouped", lambda rows, groups: sent.append(len(rows)) or kept(rows, groups))
    mix(features(64, WIDTH))  # 4 tasks of 4 experts are all 16
    mix(features(63, WIDTH), [1])  # too few rows
    assert sent == []
    mix(features(64, WIDTH), [1])
    assert sent == [64 * 4]


def test_gradients_stop_where_the_mask_says() -> None:
    torch.manual_seed(0)
    live = torch.tensor([[True, False, True], [False, True, True]])
    mix = Mix(Experts(3, WIDTH, (4,)), SoftmaxRoute(Gate(2, 3, WIDTH)), live=live)
    plain = Mix(mix.experts, mix.route)
    rows = features(ROWS, WIDTH)
    found = mix(rows)
    torch.testing.assert_close(found, plain(rows))
    weight = mix.experts.layers[0].weight
    for output in range(2):
        grad = torch.autograd.grad(found[output].square().sum(), weight, retain_graph=True)[0]
        free = torch.autograd.grad(plain(rows)[output].square().sum(), weight)[0]
        assert (grad != 0).flatten(1).any(dim=1).tolist() == live[output].tolist()
        torch.testing.assert_close(grad[live[output]], free[live[output]])
    gates = torch.autograd.grad(found.sum(), next(mix.route.parameters()))[0]
    assert (gates != 0).flatten(1).any(dim=1).all()


def test_levels_compute_only_the_streams_that_are_needed() -> None:
    torch.manual_seed(0)
    see = torch.tensor([[True, True, False], [False, True, True], [False, False, True]])
    levels = Levels(
        [Mix(Experts(3, size, (6,)), SoftmaxRoute(Gate(3, 3, size), see), source=[0, 1, 2]) for size in (WIDTH, 6, 6)]
    )
    rows = features(ROWS, WIDTH)
    whole = levels(rows, [0, 1, 2])
    for outputs in ([2], [1], [0, 2], [2, 1]):
        torch.testing.assert_close(levels(rows, outputs), whole[outputs])
    assert levels.mixes[2].reads([2]) == [2]
    assert levels.mixes[2].reads([1]) == [1, 2]


def test_top_k_takes_the_softmax_first_and_the_largest_then() -> None:
    gate = Gate(1, 4, WIDTH)
    rows = features(ROWS, WIDTH)
    shares = (rows @ gate.layers[0].weight[0]).softmax(dim=-1)
    cut = shares * (shares >= shares.topk(2).values[:, -1:])
    torch.testing.assert_close(TopKRoute(gate, 2)(rows).weights[0], cut)
    summed = TopKRoute(gate, 2, renormalise=True)(rows).weights[0]
    torch.testing.assert_close(summed, cut / cut.sum(dim=1, keepdim=True))


def test_noise_gives_other_experts_a_chance_in_training_alone() -> None:
    torch.manual_seed(0)
    route = TopKRoute(Gate(1, 8, WIDTH), 2, noise=50.0)
    rows = features(200, WIDTH)
    noisy, again = route(rows), route(rows)
    assert (noisy.index != again.index).any()
    load = noisy.load.detach()
    # The chance of being chosen: about k in all, and right on average.
    assert abs(float(load.sum(dim=-1).mean()) - 2.0) < 0.15
    counts = torch.zeros(8)
    for _ in range(200):
        counts += torch.bincount(route(rows).index.flatten(), minlength=8) / 200
    torch.testing.assert_close(load.sum(dim=1)[0] / 200, counts / 200, atol=0.03, rtol=0.0)
    route.eval()
    assert route(rows).load is None
    torch.testing.assert_close(route(rows).weights, route(rows).weights, rtol=0, atol=0)


@pytest.mark.parametrize("num_experts", [2, 5, 8])
def test_dselect_by_its_formula(num_experts: int) -> None:
    torch.manual_seed(0)
    route = DSelectRoute(2, num_experts, WIDTH, k=2)
    bits = (num_experts - 1).bit_length()
    for parameter in route.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    rows = features(ROWS, WIDTH)
    raw = route.gate(rows).view(2, ROWS, 2, bits)
    shares = route.mixture(rows).softmax(dim=-1)
    expected = torch.zeros(2, ROWS, num_experts)
    for output, row, selector, number in torch.cartesian_prod(*map(torch.arange, (2, ROWS, 2, num_experts))).tolist():
        mass = 1.0
        for bit in range(bits):
            t = float(raw[output, row, selector, bit].detach().clamp(-0.5, 0.5))
            on = -2 * t**3 + 1.5 * t + 0.5
            mass *= on if number >> (bits - 1 - bit) & 1 else 1.0 - on
        expected[output, row, number] += float(shares[output, row, selector].detach()) * mass
    torch.testing.assert_close(route(rows).weights, expected)


def test_dselect_with_decided_bits_reads_exactly_k() -> None:
    torch.manual_seed(0)
    route = DSelectRoute(3, 8, WIDTH, k=2, reads="task")
    assert int((route(None).weights > 0).sum(dim=-1).max()) == 8  # undecided at the start
    with torch.no_grad():
        bits = torch.tensor([[0, 1, 1, 1, 0, 0], [0, 0, 0, 1, 1, 1], [1, 0, 1, 0, 1, 0]])
        route.gate.table.copy_((bits.float() - 0.5).unsqueeze(1))
    chosen = [row.nonzero().flatten().tolist() for row in route(None).weights[:, 0]]
    assert chosen == [[3, 4], [0, 7], [2, 5]]
    torch.testing.assert_close(route(None).weights.sum(dim=-1), torch.ones(3, 1))


def test_a_feature_gate_by_its_formula() -> None:
    torch.manual_seed(0)
    gate = FeatureGate(3, WIDTH, rank=2, num_gates=2)
    streams = features(3, ROWS, WIDTH)
    expected = []
    for number, rows in enumerate(streams):
        shares = (rows @ gate.mixture.layers[0].weight[number]).softmax(dim=-1)
        total = torch.zeros_like(rows)
        for place in range(2):
            narrow = rows @ gate.down.weight[number][:, 2 * place : 2 * place + 2]
            total = total + shares[:, place, None] * 2 * torch.sigmoid(narrow @ gate.up.weight[2 * number + place])
        expected.append(rows * total)
    torch.testing.assert_close(gate(streams), torch.stack(expected))
    torch.testing.assert_close(gate(streams[[2, 0]], [2, 0]), torch.stack(expected)[[2, 0]])
    torch.nn.init.zeros_(gate.up.weight)
    torch.testing.assert_close(gate(streams), streams)


def test_no_rows_are_fine() -> None:
    for kind in ("softmax", "softmax of both", "top 4", "fixed"):
        mix = Mix(Experts(EXPERTS, WIDTH, (4,)), seeded(ROUTES[kind]))
        assert mix(features(0, WIDTH)).shape == (OUTPUTS, 0, 4)
        assert mix(features(OUTPUTS, 0, WIDTH)).shape == (OUTPUTS, 0, 4)


def test_a_stacked_layer_may_have_no_bias() -> None:
    layer = StackedLinear(3, WIDTH, 4, bias=False)
    rows = features(ROWS, WIDTH)
    torch.testing.assert_close(layer(rows, [2, 0]), torch.stack([rows @ layer.weight[2], rows @ layer.weight[0]]))


def test_errors_say_what_to_do() -> None:
    gate = Gate(2, 3, WIDTH)
    with pytest.raises(RequestError, match=r"0 experts were asked for.*Ask for one or more"):
        Experts(0, WIDTH, (4,))
    with pytest.raises(RequestError, match=r"sizes \[\].*Give sizes such as"):
        Experts(2, WIDTH, ())
    with pytest.raises(RequestError, match=r"activation 'rleu'.*Did you mean 'relu'"):
        Experts(2, WIDTH, (4,), activation="rleu")
    with pytest.raises(RequestError, match=r"norm 'bach'.*Did you mean 'batch'"):
        Experts(2, WIDTH, (4,), norm="bach")
    with pytest.raises(RequestError, match=r"reads the input, the task or both.*There are: input"):
        Gate(2, 3, WIDTH, reads="everything")
    with pytest.raises(RequestError, match=r"reads the input got none. Give the features"):
        gate(None)
    with pytest.raises(RequestError, match=r"leaves output 1 without an expert.*Allow it one"):
        SoftmaxRoute(gate, torch.tensor([[True, True, False], [False, False, False]]))
    with pytest.raises(RequestError, match=r"shape \(3, 2\); 2 outputs and 3 experts need \(2, 3\)"):
        SoftmaxRoute(gate, torch.ones(3, 2))
    with pytest.raises(RequestError, match=r"top 4 experts.*Ask for 1 to 3"):
        TopKRoute(gate, 4)
    with pytest.raises(RequestError, match=r"top 2 experts.*Ask for 1 to 1"):
        TopKRoute(gate, 2, torch.tensor([[True, False, False], [True, True, True]]))
    with pytest.raises(RequestError, match=r"1 expert was given to choose from.*softmax route"):
        DSelectRoute(2, 1, WIDTH, k=1)
    with pytest.raises(RequestError, match=r"3 experts in 2 groups.*multiple of 2"):
        NestedRoute(TopKRoute(Gate(2, 2, WIDTH), 1), gate)
    with pytest.raises(RequestError, match=r"\(2, 3\) and \(2, 4\).*Build both"):
        SumRoute(SoftmaxRoute(gate), FixedRoute(torch.ones(2, 4)))
    with pytest.raises(RequestError, match=r"5 experts were given a route over 3.*Build them alike"):
        Mix(Experts(5, WIDTH, (4,)), SoftmaxRoute(gate))
    with pytest.raises(RequestError, match=r"3 experts were given 2 sources.*one number for each"):
        Mix(Experts(3, WIDTH, (4,)), SoftmaxRoute(gate), source=[0, 1])
    with pytest.raises(RequestError, match=r"whose gradient passes has shape \(2, 2\).*Give a row"):
        Mix(Experts(3, WIDTH, (4,)), SoftmaxRoute(gate), live=torch.ones(2, 2, dtype=torch.bool))
    with pytest.raises(RequestError, match=r"no auxiliary loss 'importence'. Did you mean 'importance'"):
        Mix(Experts(3, WIDTH, (4,)), SoftmaxRoute(gate), auxiliary={"importence": 1.0})
    with pytest.raises(RequestError, match=r"has the scale -1; give a number of zero or more"):
        Mix(Experts(3, WIDTH, (4,)), SoftmaxRoute(gate), auxiliary={"importance": -1})
    with pytest.raises(RequestError, match=r"'load' was asked of a route.*noise above zero. Drop it"):
        Mix(Experts(3, WIDTH, (4,)), TopKRoute(gate, 1), auxiliary={"load": 1.0})(features(ROWS, WIDTH))


def test_a_gate_that_is_not_a_number_says_so() -> None:
    mix = Mix(Experts(3, WIDTH, (4,)), SoftmaxRoute(Gate(2, 3, WIDTH)))
    torch.nn.init.constant_(mix.route.gate.layers[0].weight, torch.nan)
    with pytest.raises(RequestError, match=r"gate gives weights that are not finite.*learning rate"):
        mix(features(ROWS, WIDTH))

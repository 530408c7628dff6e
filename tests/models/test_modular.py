"""Experts taken away and tasks added later: what is left answers as before, to the last bit where that is promised."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from motet import RequestError
from motet.balance import EqualWeighting
from motet.models import ExtendedModel, MultiTaskModel, expert_usage, extend, keep_experts, prune
from motet.models.blocks import Experts, Gate, JoinedExperts, Mix, TopKRoute, _groups, _mix
from motet.models.sharing import HardSharing, from_name
from motet.tasks import Binary, Regression

ROWS, WIDTH = 12, 8
TASKS = (Regression("a", center=0.0, scale=1.0), Binary("b", classes=(False, True)))
LATER = (Regression("c", center=0.0, scale=1.0),)
KINDS = {
    "mmoe": {"num_experts": 5, "dims": [6, 4], "gate_hidden": [3]},
    "task_gated": {"num_experts": 6, "k": 2, "num_blocks": 2},
    "task_gated with attention": {"num_experts": 6, "k": 2, "num_blocks": 2, "num_heads": 2},
}


def model(kind: str = "task_gated") -> MultiTaskModel:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(4, WIDTH), nn.BatchNorm1d(WIDTH), nn.Dropout(0.3))
    sharing = from_name(kind.split()[0], len(TASKS), width=WIDTH, settings=KINDS.get(kind))
    net = MultiTaskModel(Folded(encoder), sharing, TASKS, head_width=5)
    net.train()(rows())  # moves the running statistics
    return net.eval()


class Folded(nn.Module):
    """The inner encoder's features as tokens, two a row."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, values: Tensor) -> Tensor:
        return self.inner(values.flatten(0, 1)).unflatten(0, values.shape[:2])


def rows(count: int = ROWS, seed: int = 0) -> Tensor:
    return torch.randn(count, 2, 4, generator=torch.Generator().manual_seed(seed))


def batch(*names: str, seed: int = 0) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    inputs = rows(seed=seed)
    values = {name: (inputs[:, 0, number] > 0).float() for number, name in enumerate(names)}
    return inputs, values, {name: torch.ones(len(inputs), dtype=torch.bool) for name in names}


def learn(net: ExtendedModel, steps: int = 20) -> list[float]:
    found = []
    learning = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=0.02, weight_decay=0.1)
    net.train()
    for _ in range(steps):
        inputs, targets, present = batch("a", "c")
        optimizer.zero_grad()
        losses = net.losses(net(inputs), targets, present)
        assert list(losses) == ["c"]
        EqualWeighting().backward(losses)
        optimizer.step()
        found.append(float(losses["c"].detach()))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_earlier_tasks_answer_bit_for_bit_as_before(kind: str) -> None:
    net, inputs = model(kind), rows(seed=1)
    before = {tasks: net(inputs, tasks) for tasks in (None, ("b",), ("b", "a"))}
    given = copy.deepcopy(net.state_dict())
    grown = extend(net, LATER, num_experts=3)
    losses = learn(grown)
    assert losses[-1] < 0.7 * losses[0]
    for training in (True, False):
        grown.train(training)
        for tasks, expected in before.items():
            found = grown(inputs, tasks) if tasks else grown(inputs)
            assert list(found) == [*(tasks or ("a", "b")), *(() if tasks else ("c",))]
            assert all(torch.equal(found[name], value) for name, value in expected.items())
        both = grown(inputs, ["c", "b"])
        assert list(both) == ["c", "b"]
        assert torch.equal(both["b"], before["b",]["b"])
    for name, value in net.state_dict().items():
        assert torch.equal(value, given[name])
        assert torch.equal(value, grown.earlier.state_dict()[name])


def test_an_added_task_reads_the_experts_that_there_were_and_its_own() -> None:
    grown = extend(model(), LATER, num_experts=3).eval()
    mix = grown.sharing.sparse[1]
    assert (mix.route.num_outputs, mix.route.num_experts, mix.experts.num_experts) == (1, 9, 9)
    earlier = grown.earlier.sharing.sparse[1].experts
    assert mix.experts.first is earlier
    read = torch.randn(ROWS, WIDTH)
    expected = torch.cat([earlier(read), mix.experts.more(read)])
    assert torch.equal(mix.experts(read), expected)
    assert torch.equal(mix.experts(read, [1, 6, 8]), expected[[1, 6, 8]])
    assert torch.equal(mix.experts(read, [0, 2]), expected[[0, 2]])
    learning = {name for name, parameter in grown.named_parameters() if parameter.requires_grad}
    assert learning
    assert all(name.startswith("added.") for name in learning)
    assert not any("norms" in name or "dense" in name or ".first." in name for name in learning)


def test_a_model_may_be_extended_again_and_its_state_comes_back(tmp_path: object) -> None:
    net, inputs = model(), rows(seed=1)
    once = extend(net, LATER, num_experts=1)
    learn(once)
    before = once.eval()(inputs)
    twice = extend(once, [Regression("d", center=0.0, scale=1.0)], num_experts=2).eval()
    found = twice(inputs)
    assert list(found) == ["a", "b", "c", "d"]
    assert all(torch.equal(found[name], value) for name, value in before.items())
    assert twice.sharing.sparse[0].experts.num_experts == 9
    torch.manual_seed(5)
    other = extend(extend(model(), LATER, num_experts=1), [Regression("d", center=0.0, scale=1.0)], num_experts=2)
    other.load_state_dict(twice.state_dict())
    assert all(torch.equal(value, found[name]) for name, value in other.eval()(inputs).items())


def test_rows_are_sent_to_joined_experts_as_all_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    experts = JoinedExperts(Experts(5, WIDTH, (6, 4), norm="layer"), Experts(3, WIDTH, (6, 4), norm="layer"))
    read = torch.randn(ROWS, WIDTH)
    for first in (True, False):  # all to one part: the other gets none
        route = TopKRoute(Gate(2, 8, WIDTH), 2)
        whole = Mix(experts, route)(read)
        monkeypatch.setattr(_mix, "WORTH", -1)
        sent = Mix(experts, route)(read)
        torch.testing.assert_close(sent, whole, rtol=1e-5, atol=1e-6)
        groups = _groups.group(torch.full((ROWS,), 1 if first else 7), 8)
        found = experts.grouped(read[groups.order], groups)
        torch.testing.assert_close(found, experts(read)[1 if first else 7][groups.order])
        monkeypatch.undo()


@pytest.mark.parametrize("kind", KINDS)
def test_dropping_what_was_never_chosen_changes_nothing(kind: str) -> None:
    net, data = model(kind), [batch("a"), batch("b", seed=1)]
    for mix in net.sharing._mixes() if kind != "mmoe" else []:
        mix.route.k = 1
        weight = mix.route.gate.layers[0].weight
        weight.data[..., 3] = (weight[..., 0] + weight[..., 1]) / 2  # never the best
    usage = expert_usage(net, data)
    for shares in usage:
        torch.testing.assert_close(shares.sum(dim=1), torch.ones(2, dtype=torch.float64))
    small, found = prune(net, data, threshold=0.0)
    assert max(found.change.values()) < 1e-6
    unused = sum(int((shares == 0).all(dim=0).sum()) for shares in usage)
    assert found.experts == (sum(shares.shape[1] for shares in usage), found.experts[0] - unused)
    assert (unused > 0) == (kind != "mmoe")
    for name, inputs in (("a", data[0][0]), ("b", data[1][0])):
        torch.testing.assert_close(small(inputs, [name])[name], net(inputs, [name])[name], rtol=1e-5, atol=1e-6)


def test_a_higher_threshold_drops_more_costs_more_and_says_how_much() -> None:
    net, data = model(), [batch("a", "b")]
    sizes, changes = [], []
    for threshold in (0.0, 0.4, 1.0):
        small, found = prune(net, data, threshold=threshold)
        sizes.append(found.experts[1])
        changes.append(found.change["a"])
        for task in ("a", "b"):
            whole, part = net(data[0][0])[task].double(), small(data[0][0])[task].double()
            expected = float(((part - whole).square().sum() / whole.square().sum()).sqrt().detach())
            assert found.change[task] == pytest.approx(expected, rel=1e-4, abs=1e-7)
    assert sizes[0] > sizes[1] > sizes[2]
    assert changes[0] < changes[1] < changes[2]
    assert [len(numbers) for numbers in found.kept[0]] == [1, 1]  # each output keeps the one that it uses most
    usage = expert_usage(net, data)
    assert [numbers[0] for numbers in found.kept[0]] == usage[0].argmax(dim=1).tolist()
    counts = []
    for part in (net, small):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            part(data[0][0], ["a"])
        counts.append(counter.get_total_flops())
    assert counts[1] < 0.6 * counts[0]


@pytest.mark.parametrize("name", ["cgc", "ple", "stem", "home", "cross_stitch", "adatt", "nested", "dselect_k"])
def test_other_architectures_can_be_pruned_and_loaded(name: str) -> None:
    net, data = model(name), [batch("a", "b")]
    small, found = prune(net, data, threshold=0.3)
    assert found.experts[1] <= found.experts[0]
    other = keep_experts(model(name), found.kept)
    for parameter in other.parameters():
        parameter.data.zero_()
    other.load_state_dict(small.state_dict())
    for tasks in (None, ["b"]):
        for task, value in small(data[0][0], tasks).items():
            assert torch.isfinite(value).all()
            torch.testing.assert_close(other(data[0][0], tasks)[task], value)
    sum(value.square().sum() for value in small.train()(data[0][0]).values()).backward()


@pytest.mark.parametrize("worth", [-1, 10**12])
def test_a_pruned_route_leaves_out_what_was_dropped_however_it_is_computed(
    worth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_mix, "WORTH", worth)
    torch.manual_seed(0)
    mix = Mix(Experts(8, WIDTH, (4,)), TopKRoute(Gate(1, 8, WIDTH), 2))
    read = torch.randn(40, WIDTH)
    holder = MultiTaskModel(nn.Identity(), HardSharing(1, width=WIDTH), TASKS[:1])
    holder.sharing.add_module("mix", mix)
    kept = [1, 2, 4, 5, 7]
    small = keep_experts(holder, [[kept]]).sharing.mix
    weights = mix.route(read).weights[0]
    values = mix.experts(read)
    expected = sum(weights[:, number, None] * values[number] for number in kept)
    torch.testing.assert_close(small(read)[0], expected, rtol=1e-5, atol=1e-6)


def test_a_pruned_model_can_be_extended() -> None:
    net, inputs = model(), rows(seed=1)
    small, found = prune(net, [batch("a", "b")], threshold=0.2)
    before = small(inputs)
    grown = extend(small, LATER, num_experts=2)
    learn(grown)
    assert all(torch.equal(grown(inputs)[name], value) for name, value in before.items())
    assert grown.sharing.sparse[0].experts.num_experts == small.sharing.sparse[0].experts.num_experts + 2
    assert found.experts[1] < found.experts[0]


def test_tasks_with_data_sets_of_their_own_learn_to_tell_themselves_by_their_experts() -> None:
    """With one task a batch, the mutual information with the other comes from what that was wont to read."""
    torch.manual_seed(0)
    mix = Mix(Experts(4, WIDTH, (4,)), TopKRoute(Gate(2, 4, WIDTH), 2), auxiliary={"mutual_information": 1.0})
    optimizer, read, found = torch.optim.Adam(mix.parameters(), lr=0.05), torch.randn(64, WIDTH), []
    with torch.no_grad():
        mix.route.gate.layers[0].weight.mul_(0.1)
    read[:, 0] = 1.0  # so that a gate can prefer one expert for all rows
    for step in range(160):
        mix(read, [step % 2])
        loss = mix.auxiliary["mutual_information"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    assert found[0] > -0.05
    assert found[-1] < -0.4  # minus log 2 is the least
    mix(read)
    assert float(mix.auxiliary["mutual_information"].detach()) < -0.4


@pytest.mark.slow
def test_pruned_and_extended_models_export_and_compile_whole() -> None:
    inputs = rows(seed=1)
    small, _ = prune(model(), [batch("a", "b")], threshold=0.2)
    for net in (small.eval(), extend(model(), LATER).eval()):
        expected = net(inputs)
        exported = torch.export.export(net, (inputs,), strict=False).module()
        torch.compiler.reset()
        compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
        for found in (exported(inputs), compiled(inputs)):
            for name, value in expected.items():
                torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)


def test_errors_say_what_to_do() -> None:
    net, data = model(), [batch("a", "b")]
    hard = MultiTaskModel(nn.Linear(4, WIDTH), HardSharing(2, width=WIDTH), TASKS)
    with pytest.raises(RequestError, match=r"model without any were asked for.*TaskGated"):
        prune(hard, data)
    with pytest.raises(RequestError, match=r"Task 'b' has no label in the batches.*Give batches"):
        prune(net, [batch("a")])
    with pytest.raises(RequestError, match=r"The threshold 2 was given.*Give 0.01"):
        prune(net, data, threshold=2)
    with pytest.raises(RequestError, match=r"empty when they were gone through again.*Give a list"):
        prune(net, iter(data))
    with pytest.raises(RequestError, match=r"given for 1 mixes; the model has 2"):
        keep_experts(net, [[[0], [1]]])
    for kept in ([[0]], [[0], []], [[0], [6]]):
        with pytest.raises(RequestError, match=r"2 outputs need a list each of one or more experts"):
            keep_experts(net, [kept, [[0], [1]]])
    with pytest.raises(RequestError, match=r"sharing module HardSharing; a task has more.*TaskGated or MMoE"):
        extend(hard, LATER)
    with pytest.raises(RequestError, match=r"Task 'a' was to be added; the model has one.*another name"):
        extend(net, TASKS[:1])
    grown = extend(net, LATER)
    with pytest.raises(RequestError, match=r"no task 'd'"):
        grown(rows(), ["d"])
    with pytest.raises(RequestError, match=r"experts were added later was to be pruned.*Prune first"):
        prune(grown, [batch("a", "b", "c")])
    with pytest.raises(RequestError, match=r"FixedRoute for 1 more outputs and 3 experts.*softmax or a top-k"):
        from_name("skillnet", 2, width=WIDTH).levels[0].route.fresh(1, 3)

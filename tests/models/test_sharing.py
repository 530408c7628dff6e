"""What holds for every sharing architecture."""

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import motet.models.sharing as room
from motet import RequestError
from motet.balance import EqualWeighting
from motet.models import MultiTaskModel
from motet.models.blocks import _groups, _mix
from motet.models.sharing import HoME, MMoE, Sharing, SkillNet, from_name, methods, settings_of
from motet.tasks import Binary, Regression

ROWS, WIDTH = 9, 16
NAMES = sorted(methods())


def build(name: str, num_tasks: int = 6, width: int = WIDTH) -> Sharing:
    torch.manual_seed(0)
    return from_name(name, num_tasks, width=width)


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*(shape or (ROWS, WIDTH)), generator=torch.Generator().manual_seed(seed))


def test_the_room_is_found_whole() -> None:
    assert {kind.__name__ for kind in methods().values()} <= set(room.__all__)
    assert {"hard", "cross_stitch", "attention", "mmoe", "cgc", "ple", "dselect_k", "adatt", "stem", "home"} <= set(
        NAMES
    )


@pytest.mark.parametrize("name", NAMES)
def test_one_feature_for_each_task(name: str) -> None:
    for num_tasks in (1, 6):
        net = build(name, num_tasks)
        assert net(rows()).shape == (num_tasks, ROWS, net.width)
        for count in (0, 1):
            found = net(rows(count, WIDTH))
            assert found.shape == (num_tasks, count, net.width)
            assert torch.isfinite(found).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_row_alone_and_in_a_batch_are_the_same(name: str) -> None:
    net = build(name).eval()
    whole = net(rows())
    for place in (0, 5):
        torch.testing.assert_close(net(rows()[place : place + 1])[:, 0], whole[:, place], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_some_tasks_are_the_same_as_among_all(name: str) -> None:
    net = build(name).eval()
    whole = net(rows())
    for tasks in ([2], [5, 0], [1, 2, 3], [0, 1, 2, 3, 4, 5]):
        torch.testing.assert_close(net(rows(), tasks), whole[tasks], rtol=1e-5, atol=1e-6)


# Of what all six tasks cost, what one task of them costs at most. Where every task reads every expert, that is all but
# the gates; PLE's and HoME's shared stream reads all experts below the last level.
SHARE = {
    "apem": 0.9, "attention": 0.31, "bridged": 0.67, "cascaded": 0.51, "cgc": 0.28, "channel_scaling": 1 / 6,
    "dtrn": 0.17, "ecmt": 0.29, "home": 0.57, "m3net": 0.34, "nested": 0.35, "ple": 0.61, "skillnet": 0.2,
    "task_expert": 0.42, "task_gated": 0.4, "task_indicator": 0.38,
}  # fmt: skip


def flops(net: Sharing, tasks: list[int] | None) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net.eval()(rows(256, 128), tasks)
    return counter.get_total_flops()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "hard"])
def test_one_task_of_six_costs_what_it_reads(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_groups, "_grouped_mm", None)  # torch's counter does not know it; padding counts more
    monkeypatch.setattr(_mix, "WORTH", 0)  # sizes as small as a test's are computed whole, which is faster
    net = build(name, width=128)
    assert flops(net, [2]) <= SHARE.get(name, 0.99) * flops(net, None)


def test_one_task_of_ple_is_cheap_where_the_shared_stream_reads_shared_experts_alone() -> None:
    net = from_name("ple", 6, width=128, settings={"shared_reads": "shared"})
    assert flops(net, [2]) <= 0.3 * flops(net, None)
    for mix in net.levels.mixes:
        assert mix.route.seen[6:] in ([[12, 13]], [])
    whole = from_name("ple", 6, width=128)
    assert flops(net, None) == flops(whole, None)
    assert whole.levels.mixes[0].route.seen[6] == list(range(14))


@pytest.mark.parametrize("name", [name for name in NAMES if methods()[name].reads == "features"])
def test_tokens_are_rows_and_a_feature_is_their_mean(name: str) -> None:
    net, tokens = build(name).eval(), rows(4, 5, WIDTH)
    expected = torch.stack([net(tokens[row]).mean(dim=1) for row in range(4)], dim=1)
    torch.testing.assert_close(net(tokens), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(net(tokens, [3]), expected[3:4], rtol=1e-4, atol=1e-6)


def drawn(net: Sharing) -> Tensor | float:
    """What the other configurations of the step give."""
    return sum(found.square().mean() for _, found in net.rehearsed)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_learns_and_a_state_comes_back_whole(name: str) -> None:
    net = build(name)
    optimizer = torch.optim.SGD([*net.parameters(), torch.zeros(1, requires_grad=True)], lr=0.1)
    before = {key: value.clone() for key, value in net.named_parameters()}
    inputs = rows(64, 3, WIDTH) if net.tokens_meet else rows(64, WIDTH)  # a token alone has nobody to choose from
    for _ in range(20 if name == "ecmt" else 1):  # a step runs some of its widths
        optimizer.zero_grad()
        (net(inputs).square().mean() + sum(net.auxiliary.values()) + drawn(net)).backward() if before else None
        optimizer.step()
    still = [key for key, value in net.named_parameters() if torch.equal(value, before[key])]
    assert still == []
    torch.manual_seed(1)
    other = from_name(name, 6, width=WIDTH)
    other.load_state_dict(net.state_dict())
    torch.testing.assert_close(other.eval()(rows()), net.eval()(rows()), rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("whole", [False, True], ids=["autocast", "weights"])
def test_half_precision_is_near(name: str, whole: bool) -> None:
    net = build(name).eval()
    expected = net(rows())
    if whole:
        found = net.bfloat16()(rows().bfloat16())
        assert found.dtype == torch.bfloat16
    else:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = net(rows())
    error = (found.float() - expected).square().mean().sqrt() / expected.square().mean().sqrt()
    assert float(error.detach()) < 0.1


def model(name: str) -> MultiTaskModel:
    torch.manual_seed(0)
    tasks = [Regression("a", center=0.0, scale=1.0), Binary("b", classes=(False, True)), Binary("c", classes=(0, 1))]
    return MultiTaskModel(torch.nn.Linear(4, WIDTH), from_name(name, 3, width=WIDTH), tasks)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", ["losses", "features", "shared"])
def test_balancing_passes_through_and_a_task_may_be_missing(name: str, place: str) -> None:
    net, inputs = model(name), rows(32, 4)
    targets = {task: (rows(32, seed=number) > 0).float() for number, task in enumerate("abc", start=1)}
    present = {task: rows(32, seed=number) > 0 for number, task in enumerate("ab", start=4)}
    present["c"] = torch.zeros(32, dtype=torch.bool)
    features = net.features(inputs)
    losses = net.losses(net.outputs(features), targets, present)
    assert list(losses) == ["a", "b"]
    expected = torch.autograd.grad(sum(losses.values()), list(net.parameters()), retain_graph=True, allow_unused=True)
    if place == "features":
        EqualWeighting().backward(losses, features=features)
    else:
        EqualWeighting().backward(losses, shared=None if place == "losses" else net.encoder.parameters())
    for parameter, grad in zip(net.parameters(), expected, strict=True):
        found = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(found, torch.zeros_like(parameter) if grad is None else grad, rtol=1e-4, atol=1e-6)


def test_settings_are_plain_data_and_build_the_same_again() -> None:
    settings = settings_of("ple", {"levels": (8, 4), "num_shared": 1})
    assert settings == {
        "num_specific": 2, "num_shared": 1, "levels": [8, 4], "shared_reads": "all", "auxiliary": None,
    }  # fmt: skip
    net = from_name("ple", 3, width=WIDTH, settings=settings)
    assert net(rows()).shape == (3, ROWS, 4)
    assert settings_of("hard") == {}


def test_errors_say_what_to_do() -> None:
    with pytest.raises(RequestError, match=r"no sharing architecture 'mmeo'. Did you mean 'mmoe'"):
        from_name("mmeo", 2, width=4)
    with pytest.raises(RequestError, match=r"'mmoe' has no setting 'experts'. Did you mean 'num_experts'"):
        from_name("mmoe", 2, width=4, settings={"experts": 3})
    with pytest.raises(RequestError, match=r"The setting 'dims' of 'mmoe' is <function.*lists and tables"):
        settings_of("mmoe", {"dims": rows})
    with pytest.raises(RequestError, match=r"shape \(9, 16\) arrived; MMoE was built for \(B, 5\).*width=16"):
        MMoE(2, width=5)(rows())
    with pytest.raises(RequestError, match=r"Tasks \[2\] were asked for; there are 2"):
        MMoE(2, width=WIDTH)(rows(), [2])
    with pytest.raises(RequestError, match=r"Tasks \[\] were asked for"):
        MMoE(2, width=WIDTH)(rows(), [])
    with pytest.raises(RequestError, match=r"0 tasks and features of size 4"):
        from_name("hard", 0, width=4)
    for name in ("ple", "cross_stitch", "adatt", "attention"):
        with pytest.raises(RequestError, match=r"Levels of sizes \[\].*Give \(128, 128\), say"):
            from_name(name, 2, width=4, settings={"levels": []})
    with pytest.raises(RequestError, match=r"0 experts a task and 0 shared.*Ask for one of either"):
        from_name("cgc", 2, width=4, settings={"num_specific": 0, "num_shared": 0})
    with pytest.raises(RequestError, match=r"stream is to read 'al'; it reads all experts or the shared.*Did you mean"):
        from_name("ple", 2, width=4, settings={"shared_reads": "al"})
    with pytest.raises(RequestError, match=r"0 shared experts.*adatt_sp"):
        from_name("adatt", 2, width=4, settings={"num_shared": 0})
    with pytest.raises(RequestError, match=r"0 blocks"):
        from_name("task_gated", 2, width=4, settings={"num_blocks": 0})
    with pytest.raises(RequestError, match=r"groups \[\[0\], \[0, 1\]\].*each task once"):
        HoME(2, width=4, groups=[[0], [0, 1]])
    with pytest.raises(RequestError, match=r"skills \[\[0\]\].*2 tasks need a list"):
        SkillNet(2, width=4, skills=[[0]])
    with pytest.raises(RequestError, match=r"leaves output 1 without an expert"):
        SkillNet(2, width=4, skills=[[0], []])


VARIANTS = {
    "task_gated with attention": {"num_heads": 2},
    "skillnet by token": {"skills": [[0, 2], [1], [0, 1, 2]], "kinds": [0, 1, 0]},
    "m3net of two kinds": {"kinds": [0, 1, 0]},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NAMES, *VARIANTS])
def test_it_exports_and_compiles_whole(name: str) -> None:
    torch.manual_seed(0)
    settings = VARIANTS.get(name)
    net = from_name(name.split()[0], 3, width=WIDTH, settings=settings).eval()
    shape = (ROWS, 3, WIDTH) if net.tokens_meet else (ROWS, WIDTH)
    exported = torch.export.export(net, (rows(*shape),), strict=False).module()
    torch.testing.assert_close(exported(rows(*shape, seed=1)), net(rows(*shape, seed=1)), rtol=1e-5, atol=1e-6)
    torch.compiler.reset()  # one forward serves all classes, and a process compiles it so many times only
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(
        compiled(rows(*shape, seed=1), [1]), net(rows(*shape, seed=1), [1]), rtol=1e-5, atol=1e-6
    )
    net.train()
    torch.testing.assert_close(compiled(rows(*shape, seed=2)), net(rows(*shape, seed=2)), rtol=1e-4, atol=1e-5)

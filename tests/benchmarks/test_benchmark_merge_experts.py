import numpy as np
import pytest

torch = pytest.importorskip("torch")

from _experts_case import Case  # noqa: E402
from _experts_contenders import contenders  # noqa: E402
from _experts_images import PARTS  # noqa: E402
from _experts_networks import Convolutions, VisionTransformer  # noqa: E402
from merge_experts import compared, summary  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from motet.merge.learned import entropy  # noqa: E402

CLASSES = 5


class Problem:
    tasks = tuple(part.name for part in PARTS)
    classes = (CLASSES,) * 8
    width, trunk = VisionTransformer.width, VisionTransformer
    routed, rate = "blocks.*.mlp", 1e-3

    def changed(self, inputs, generator):
        return inputs + 0.1 * torch.randn(inputs.shape, generator=generator)


@pytest.fixture
def case() -> Case:
    """Eight experts that have hardly learned anything, on random images."""
    torch.manual_seed(0)
    base = VisionTransformer().state_dict()
    experts = [{name: part + 0.01 * torch.randn(part.shape) for name, part in base.items()} for _ in PARTS]
    heads = [nn.Linear(VisionTransformer.width, CLASSES).requires_grad_(requires_grad=False) for _ in PARTS]
    rows = [(torch.randn(20, 28, 28), torch.randint(CLASSES, (20,))) for _ in PARTS]
    return Case(Problem(), base, experts, heads, rows, rows, 1, 0)


def test_batches_pair_the_tasks_row_by_row(case):
    first, second = case.batches()
    assert [len(images) for images, _ in first] == [16] * 8
    assert [len(images) for images, _ in second] == [4] * 8
    for batch, (images, classes) in zip(first, case.adapt, strict=True):
        assert torch.equal(batch[0], images[:16])
        assert torch.equal(batch[1], classes[:16])


def test_one_pass_for_all_tasks_has_the_losses_of_a_pass_for_each(case):
    trunk = case.at(case.base)
    batch = case.together()[0][0]
    wanted = sum(entropy(lambda rows, e=e: case.heads[e](trunk(rows)), e, one) for e, (one, _) in enumerate(batch))
    assert torch.allclose(case.unsure(trunk, 0, batch), wanted, atol=1e-5)
    wanted = sum(functional.cross_entropy(case.heads[e](trunk(one)), known) for e, (one, known) in enumerate(batch))
    assert torch.allclose(case.wrong(trunk, 0, batch), wanted, atol=1e-5)
    assert [part is None for part in case.together()[0]] == [False] + [True] * 7


def test_a_contender_is_scored_under_each_task_s_own_head(case):
    model = case.at(case.base)
    right = case.right([model] * 8, case.test)
    images, classes = case.test[3]
    wanted = (case.heads[3](model(images)).argmax(1) == classes).int().tolist()
    assert right[PARTS[3].name].tolist() == wanted
    assert set(contenders(case)["atlas"]()) == set(case.base)


def test_convolutions_give_features_of_their_width():
    assert Convolutions()(torch.zeros(3, 28, 28)).shape == (3, Convolutions.width)


def cell(rows: dict[str, list[int]]) -> dict:
    return {"right": {name: np.array(row, dtype=float) for name, row in rows.items()}, "cpu_seconds": 1.0}


def test_a_row_counts_once_however_many_seeds_share_it():
    draw = np.random.default_rng(0)
    rows = {part.name: draw.integers(0, 2, 50).tolist() for part in PARTS}
    others = {name: draw.integers(0, 2, 50).tolist() for name in rows}
    one = {0: {"atlas": cell(rows), "task arithmetic": cell(others)}}
    two = one | {1: one[0]}
    assert compared(one, "atlas", "task arithmetic")["ci95"] == compared(two, "atlas", "task arithmetic")["ci95"]
    assert compared(one, "atlas", "ties") is None
    found = summary(two)
    wanted = np.mean([np.mean(row) for row in rows.values()])
    assert found["contenders"]["atlas"]["accuracy"] == pytest.approx(wanted, abs=1e-4)
    assert [(claim["method"], claim["over"]) for claim in found["claims"]] == [("atlas", "task arithmetic")]

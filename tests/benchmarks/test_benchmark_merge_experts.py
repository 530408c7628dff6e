import numpy as np
import pytest

torch = pytest.importorskip("torch")

from merge_experts import CLASSES, PARTS, WIDTH, Case, VisionTransformer, compared, methods, summary  # noqa: E402
from torch import nn  # noqa: E402


@pytest.fixture
def case() -> Case:
    """Eight experts that have hardly learned anything, on random images."""
    torch.manual_seed(0)
    base = VisionTransformer().state_dict()
    experts = [{name: part + 0.01 * torch.randn(part.shape) for name, part in base.items()} for _ in PARTS]
    heads = [nn.Linear(WIDTH, CLASSES).requires_grad_(requires_grad=False) for _ in PARTS]
    rows = [(torch.randn(20, 28, 28), torch.randint(CLASSES, (20,))) for _ in PARTS]
    return Case(base, experts, heads, rows, rows, 1, 0)


def test_batches_pair_the_tasks_row_by_row(case):
    first, second = case.labelled()
    assert [len(images) for images, _ in first] == [16] * 8
    assert [len(images) for images, _ in second] == [4] * 8
    for batch, (images, classes) in zip(first, case.adapt, strict=True):
        assert torch.equal(batch[0], images[:16])
        assert torch.equal(batch[1], classes[:16])


def test_a_contender_is_scored_under_each_task_s_own_head(case):
    model = VisionTransformer()
    model.load_state_dict(case.base)
    right = case.right([model] * 8, case.test)
    images, classes = case.test[3]
    wanted = (case.heads[3](model(images)).argmax(1) == classes).int().tolist()
    assert right[PARTS[3].name].tolist() == wanted
    assert set(methods(case)["atlas"]()) == set(case.base)


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

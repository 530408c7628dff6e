"""The comparison of architectures: one encoder, one size of heads, and every sharing module between them."""

from dataclasses import replace

import pytest
import torch
from test_bench_grid import without_clocks
from tiny_problem import TinyTrunk, loaders, tiny_problem
from torch import Tensor, nn

from motet import RequestError
from motet.bench import (
    BUDGETS,
    COMPARISONS,
    PROBLEMS,
    Grid,
    Problem,
    Store,
    problem_loaders,
    result,
    run_cell,
    run_grid,
    sharing_contenders,
)
from motet.bench._cell import Training
from motet.bench._sharing_claims import SHARING_CLAIMS
from motet.bench._store import cell_key
from motet.models.sharing import methods

FULL, SHARING = BUDGETS["full"], COMPARISONS["sharing"]
UNFIT = {"dtrn", "m3net"}


class TinyTokens(nn.Module):
    """Each of the four features as a token."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 8
        self.directions = nn.Parameter(torch.randn(4, 8))

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return inputs["x"].unsqueeze(-1) * self.directions


def with_tokens(name: str = "tiny", num_rows: int = 128, epochs: int = 2) -> Problem:
    return replace(tiny_problem(name, num_rows, epochs), tokens=TinyTokens)


@pytest.mark.parametrize("name", [name for name in sharing_contenders() if name not in UNFIT])
def test_every_architecture_runs_and_repeats(name):
    one, two = (run_cell(with_tokens(), name, 3, FULL, SHARING) for _ in range(2))
    assert one["status"] == "done", one
    assert without_clocks(one) == without_clocks(two)
    assert set(one["scores"]) == {"first", "second"}


def test_an_architecture_learns_and_is_itself():
    problem = with_tokens(num_rows=512, epochs=5)
    cells = {name: run_cell(problem, name, 0, FULL, SHARING) for name in ("cgc", "multitab-net")}
    assert min(min(cell["scores"].values()) for cell in cells.values()) > 0.85
    assert len({cell["parameters"] for cell in cells.values()}) == 2


def test_hard_sharing_and_single_are_those_of_the_other_comparison():
    for name, other in (("single", "single"), ("hard", "equal")):
        here, there = run_cell(tiny_problem(), name, 1, FULL, SHARING), run_cell(tiny_problem(), other, 1, FULL)
        assert here["scores"] == there["scores"]
        assert here["parameters"] == there["parameters"]


def test_all_architectures_start_from_the_same_encoder_and_the_problems_biases():
    plain = problem_loaders(["multitab-bench"])["multitab-bench"]()
    found = {}
    for name in ("hard", "mmoe", "ple"):
        torch.manual_seed(0)
        found[name] = SHARING.build(plain, plain.tasks, name)[0]
    weights = [[part for _, part in sorted(model.encoder.state_dict().items())] for model in found.values()]
    for one, two, three in zip(*weights, strict=True):
        assert torch.equal(one, two)
        assert torch.equal(one, three)
    starts = [model.heads.bias_out for model in found.values()]
    assert torch.equal(starts[0], starts[1])
    assert torch.equal(starts[0], starts[2])


def test_what_is_counted_is_what_is_trained():
    cell = run_cell(tiny_problem(), "hard", 0, FULL, SHARING)
    trunk = sum(part.numel() for part in TinyTrunk().parameters())
    head = 8 * 4 + 4 + 4 * 1 + 1
    assert cell["parameters"] == trunk + 2 * head
    assert run_cell(tiny_problem(), "single", 0, FULL, SHARING)["parameters"] == 2 * (trunk + head)


def test_wide_hard_sharing_is_as_large_as_mmoe():
    wide, mmoe = (run_cell(tiny_problem(), name, 0, FULL, SHARING)["parameters"] for name in ("hard-wide", "mmoe"))
    assert wide == pytest.approx(mmoe, rel=0.03)


def test_auxiliary_losses_are_trained():
    torch.manual_seed(0)
    problem = tiny_problem()
    training = Training(problem, *SHARING.build(problem, problem.tasks, "nested"), 0)
    batch = problem.train.take(torch.arange(32))
    with torch.no_grad():
        model = training.model.train()
        outputs = model(batch.inputs)
        taken = sum(training.losses(batch)[0].values())
        plain = sum(model.tasks[name].loss(value, batch.targets[name]).mean() for name, value in outputs.items())
        extra = sum(model.sharing.auxiliary.values())
    assert float(extra) > 0
    assert float(taken - plain) == pytest.approx(float(extra), rel=1e-4)


def test_what_cannot_apply_is_left_out_with_the_reason(tmp_path):
    grid = Grid(sharing_contenders(["dtrn", "multitab-net", "mmoe"]), [0, 1], FULL, comparison=SHARING)
    measured = run_grid(loaders(), grid, Store(tmp_path))
    assert set(measured.left_out["tiny"]) == {"dtrn", "multitab-net"}
    assert "reads tokens" in measured.left_out["tiny"]["multitab-net"]
    document = result(measured, grid, command="motet bench sharing")
    assert document["left_out"] == measured.left_out
    assert (document["bench"], document["costs_against"]) == ("sharing", "hard")
    assert list(document["methods"]) == ["single", "hard", "mmoe"]
    assert document["methods"]["hard"]["tiny"]["cpu_ratio"] == 1.0
    assert document["methods"]["mmoe"]["tiny"]["parameters"] > document["methods"]["hard"]["tiny"]["parameters"]
    assert [(claim["better"], claim["worse"]) for claim in document["claims"]] == [("mmoe", "hard")]
    assert "sequences of behaviour" in SHARING.left_out(with_tokens(), "dtrn")
    assert SHARING.left_out(with_tokens(), "multitab-net") is None


def test_the_key_of_a_cell_knows_the_architecture():
    mark = tiny_problem().fingerprint()
    names = ["hard", "hard-wide", "mmoe", "ple"]
    keys = [cell_key(mark, name, 0, FULL, 1, SHARING) for name in names]
    assert len(set(keys)) == 4
    assert keys[2] == cell_key(mark, "mmoe", 0, FULL, 1, SHARING)


def test_claims_speak_of_what_there_is():
    assert len({(claim.better, claim.worse) for claim in SHARING_CLAIMS}) == len(SHARING_CLAIMS)
    for claim in SHARING_CLAIMS:
        assert {claim.better, claim.worse} <= set(methods())
        assert set(claim.problems) <= set(PROBLEMS)
        assert claim.figures is None or claim.figures[0] > claim.figures[1], claim


def test_who_takes_part():
    assert repr(SHARING) == "COMPARISONS['sharing']"
    assert sharing_contenders(["mmoe", "hard"]) == ["single", "hard", "mmoe"]
    assert set(sharing_contenders()) == {"single", "hard-wide", *methods()}
    with pytest.raises(RequestError, match=r"no sharing architecture 'mmeo'.*Did you mean 'mmoe'"):
        sharing_contenders(["mmeo"])


def test_the_made_table_has_eight_tasks_and_another_with_another_seed():
    one, other = (problem_loaders(["multitab-bench"], seed=seed)["multitab-bench"]() for seed in (0, 1))
    assert (len(one.tasks), len(one.train) + len(one.test)) == (8, 6400)
    assert len(one.train) == pytest.approx(0.64 * 6400, rel=0.03)
    assert one.train.inputs["numbers"].shape[1] == 16
    assert one.fingerprint() != other.fingerprint()
    assert one.tokens().forward(one.test.take(torch.arange(3)).inputs).shape == (3, 16, 32)

"""Features that give a target away."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import r2_score, roc_auc_score

from motet.data import find_leaks, infer_schema, infer_tasks, read_table
from motet.data._one_feature import Hits, bin_feature, roc_aucs, squared_r

SHARED = Path(__file__).parents[3] / "shared" / "data"
N = 2000


def leaks(frame, targets):
    tasks = infer_tasks(frame, targets)
    rows = np.arange(frame.height)
    found = find_leaks(frame, infer_schema(frame, tasks, rows=rows), tasks, rows=rows)
    return {(leak.feature, leak.task): leak for leak in found}


@pytest.fixture
def frame():
    generator = np.random.default_rng(1)
    price = np.exp(2 * generator.normal(size=N))
    grade = generator.integers(0, 4, N)
    return pl.DataFrame(
        {
            "noise": generator.normal(size=N),
            "honest": price + 0.5 * price.std() * generator.normal(size=N),
            "town": [f"t{code}" for code in generator.integers(0, 30, N)],
            "price": price,
            "grade": [f"g{code}" for code in grade],
            "late": pl.Series(generator.random(N) < 0.1).cast(pl.Int8),
        }
    ).with_columns(pl.when(pl.col("noise") > 1).then(None).otherwise(pl.col("late")).alias("late"))


def test_honest_features_are_not_named(frame):
    assert leaks(frame, ["price", "grade", "late"]) == {}


def test_copies_relabellings_and_near_copies(frame):
    generator = np.random.default_rng(2)
    planted = frame.with_columns(
        twin=pl.col("price"),
        cents=pl.col("price") * 100 + 7,
        near=pl.col("price") + 0.02 * pl.col("price").std() * pl.Series(generator.normal(size=N)),
        log=pl.col("price").log(),
        grade_code=pl.col("grade").str.slice(1).cast(pl.Int64) * 17 % 23,
        grade_fine=pl.col("grade") + pl.Series([f"-{code}" for code in generator.integers(0, 5, N)]),
        late_text=pl.when(pl.col("late") == 1).then(pl.lit("yes")).when(pl.col("late") == 0).then(pl.lit("no")),
        late_gap=pl.when(pl.col("late") == 1).then(None).otherwise(pl.col("noise")),
    )
    found = leaks(planted, ["price", "grade", "late"])
    assert {pair: leak.metric for pair, leak in found.items()} == {
        ("twin", "price"): "copy",
        ("cents", "price"): "copy",
        ("near", "price"): "r2",
        ("log", "price"): "copy",
        ("grade_code", "grade"): "copy",
        ("grade_fine", "grade"): "roc_auc",
        ("late_text", "late"): "copy",
        ("late_gap", "late"): "roc_auc",
    }
    assert found["near", "price"].score < 1
    assert "'twin' repeats 'price', or its order, in all 2000 rows" in found["twin", "price"].reason
    assert "'late_gap' alone separates the classes of 'late'" in found["late_gap", "late"].reason


def test_copies_in_columns_that_no_model_reads():
    generator = np.random.default_rng(3)
    serial = generator.permutation(N) * 3
    essays = ["a long text of more than six words", "and another one of more than six words"]
    frame = pl.DataFrame(
        {
            "serial_id": serial,
            "target": serial,
            "kind": [row % 2 for row in range(N)],
            "essay": [essays[row % 2] for row in range(N)],
        }
    )
    found = leaks(frame, ["target:regression", "kind"])
    assert set(found) == {("serial_id", "target"), ("essay", "kind")}
    tasks = infer_tasks(frame, ["target:regression"])
    assert infer_schema(frame, tasks).columns[0].role == "identifier"


def test_lists_of_labels_and_several_columns():
    generator = np.random.default_rng(4)
    held = generator.random((N, 2)) < 0.3
    frame = pl.DataFrame(
        {
            "x": held[:, 0].astype(float) + 0.1 * generator.random(N),
            "tags": [[name for name, has in zip("ab", row, strict=True) if has] for row in held],
        }
    )
    assert leaks(frame, ["tags"])["x", "tags"].metric == "roc_auc"


def test_scores_agree_with_scikit_learn():
    generator = np.random.default_rng(5)
    codes = generator.integers(0, 12, N)
    target = codes * 0.3 + generator.normal(size=N)
    positive = target > 1.5
    half = np.arange(N) % 2 == 0
    binned = bin_feature(pl.Series([f"l{code:02d}" for code in codes]), half)
    means = np.array([target[half & (codes == code)].mean() for code in range(12)])
    assert squared_r(binned, target, half, ~half) == pytest.approx(r2_score(target[~half], means[codes[~half]]))
    prior = positive[half].mean()
    share = np.array(
        [(positive[half & (codes == code)].sum() + prior) / ((half & (codes == code)).sum() + 1) for code in range(12)]
    )
    (area,) = roc_aucs(binned, Hits(positive[:, None], 1), half, ~half)
    assert area == pytest.approx(roc_auc_score(positive[~half], share[codes[~half]]))


def test_few_labels_and_few_rows_are_no_evidence():
    frame = pl.DataFrame({"x": [0.1, 0.2, 0.3] * 5, "y": [1.5, 2.5, 3.5] * 5})
    assert leaks(frame, ["y"]) == {}


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
def test_flights_have_no_leak_until_one_is_planted():
    frame = read_table(SHARED / "flights_six_targets.parquet")
    tasks = infer_tasks(frame, ["dep_delay", "arr_delay", "air_time", "cancelled", "late15", "bucket"])
    rows = np.flatnonzero((frame["split"] == "train").to_numpy())
    schema = infer_schema(frame, tasks, split_column="split", rows=rows)
    assert find_leaks(frame, schema, tasks, rows=rows) == []
    frame = frame.with_columns(gone=pl.col("cancelled"), minutes=pl.col("air_time"))
    schema = infer_schema(frame, tasks, split_column="split", rows=rows)
    found = {(leak.feature, leak.task): leak.metric for leak in find_leaks(frame, schema, tasks, rows=rows)}
    assert found[("gone", "cancelled")] == "copy"
    assert found[("minutes", "air_time")] in ("copy", "r2")


def test_many_levels_do_not_pass_by_memory():
    late = np.random.default_rng(7).random(355) < 0.3
    rows = [*range(355), *range(45)]  # just enough repeats not to be an identifier
    frame = pl.DataFrame({"shop": [f"s{row}" for row in rows], "late": late[rows]})
    assert infer_schema(frame, []).columns[0].role == "category"
    assert leaks(frame, ["late"]) == {}

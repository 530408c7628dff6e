"""`predict`, `evaluate` and `report` on tables and run folders that are not as they should be."""

import json

import polars as pl
import pytest
from cli_table import files

from motet.cli import main

USES = {
    "predict": lambda run, table, output: ["predict", run, table, "-o", output],
    "evaluate": lambda run, table, output: ["evaluate", run, table],
    "report": lambda run, table, output: ["report", run],
}
each_use = pytest.mark.parametrize("use", USES)
each_reading = pytest.mark.parametrize("use", ["predict", "evaluate"])


def says(called, code: int, *parts: str) -> None:
    """Checks the exit code, that the message has every part, and that it is one that motet wrote on purpose."""
    message = called.err.strip()
    for part in parts:
        assert part in message
    assert (called.code, called.out) == (code, "")
    assert message.startswith("motet: ")
    assert "\n" not in message
    assert "did not expect" not in message


@pytest.fixture
def output(tmp_path):
    """Predictions of an earlier day, which a failed call must not touch."""
    path = tmp_path / "predictions.csv"
    path.write_text("yesterday")
    yield path
    assert path.read_text() == "yesterday"


@each_use
def test_a_folder_that_is_no_run(motet, table_file, tmp_path, output, use):
    missing = tmp_path / "no_such_run"
    says(motet(*USES[use](missing, table_file, output)), 2, str(missing), "run directory", "motet fit")
    assert not missing.exists()
    says(motet(*USES[use](tmp_path, table_file, output)), 2, str(tmp_path), "run.json", "motet fit")


@each_use
def test_an_unfinished_run(motet, unfinished, table_file, output, use, capsys):
    before = files(unfinished)
    says(motet(*USES[use](unfinished, table_file, output)), 1, str(unfinished), "--resume")
    assert files(unfinished) == before


@each_use
def test_a_cut_off_run_json(motet, run, table_file, output, use):
    text = (run / "run.json").read_text()
    (run / "run.json").write_text(text[: len(text) // 2])
    says(motet(*USES[use](run, table_file, output)), 1, "run.json")


@each_use
@pytest.mark.parametrize("text", ["[]", '"x"', "null"])
def test_a_run_json_that_is_no_object(motet, run, table_file, output, use, text):
    (run / "run.json").write_text(text)
    says(motet(*USES[use](run, table_file, output)), 1, "run.json")


@each_use
def test_a_run_json_that_lacks_a_part(motet, run, table_file, output, use):
    document = json.loads((run / "run.json").read_text())
    del document["tasks"]
    (run / "run.json").write_text(json.dumps(document))
    says(motet(*USES[use](run, table_file, output)), 1, "run.json", "tasks")


@each_reading
@pytest.mark.parametrize("part", ["features", "networks", "serving"])
def test_a_run_json_that_lacks_what_serving_needs(motet, run, table_file, output, use, part):
    document = json.loads((run / "run.json").read_text())
    del document[part]
    (run / "run.json").write_text(json.dumps(document))
    says(motet(*USES[use](run, table_file, output)), 1, str(run), "damaged", part)


@each_reading
def test_a_run_of_a_newer_format(motet, run, table_file, output, use):
    document = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(document | {"format": 99}))
    says(motet(*USES[use](run, table_file, output)), 2, "format version 99", "Update motet")


@each_reading
@pytest.mark.parametrize("damage", ["missing", "cut", "empty", "text"])
def test_a_damaged_model(motet, run, table_file, output, use, damage):
    path = run / "model.safetensors"
    data = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "text": b"not tensors" * 100}[damage])
    says(motet(*USES[use](run, table_file, output)), 1, "model.safetensors", "Restore it from a copy, or fit again")


@each_reading
def test_a_model_with_spoiled_bytes(motet, run, table_file, output, use):
    path = run / "model.safetensors"
    data = bytearray(path.read_bytes())
    header = 8 + int.from_bytes(data[:8], "little")
    data[header:] = bytes(len(data) - header)
    path.write_bytes(bytes(data))
    says(motet(*USES[use](run, table_file, output)), 1, "damaged")


@each_reading
def test_a_model_of_another_run(motet, run, table_file, output, use):
    from safetensors.torch import load_file, save_file

    tensors = load_file(run / "model.safetensors")
    tensors.pop(next(iter(tensors)))
    save_file(tensors, run / "model.safetensors")
    says(motet(*USES[use](run, table_file, output)), 1, "damaged")


@each_use
def test_missing_metrics(motet, run, table_file, output, use):
    (run / "metrics.json").unlink()
    says(motet(*USES[use](run, table_file, output)), 1, "metrics.json")


@each_reading
def test_a_table_that_lacks_a_column(motet, finished, table, tmp_path, output, use):
    table.rename({"noise": "nois"}).write_parquet(tmp_path / "new.parquet")
    called = motet(*USES[use](finished, tmp_path / "new.parquet", output))
    says(called, 2, "lacks the column 'noise'", "Did you mean 'nois'?", "Add the column")
    table.drop("noise", "town").write_parquet(tmp_path / "new.parquet")
    says(motet(*USES[use](finished, tmp_path / "new.parquet", output)), 2, "(and 1 others)")


@each_reading
@pytest.mark.parametrize(
    ("column", "value", "held"),
    [("size", "large", "numbers"), ("town", 3.5, "text"), ("built", "yesterday", "dates"), ("age", "old", "numbers")],
)
def test_a_table_with_a_column_of_another_type(motet, finished, table, tmp_path, output, use, column, value, held):
    table.with_columns(pl.lit(value).alias(column)).write_parquet(tmp_path / "new.parquet")
    called = motet(*USES[use](finished, tmp_path / "new.parquet", output))
    says(called, 2, f"'{column}' held {held}", repr(value), "Convert the column")


@each_reading
def test_a_table_that_is_not_there_or_empty(motet, finished, table, tmp_path, output, use):
    says(motet(*USES[use](finished, tmp_path / "gone.parquet", output)), 2, "There is no file", "Check the path")
    table.clear().write_parquet(tmp_path / "empty.parquet")
    says(motet(*USES[use](finished, tmp_path / "empty.parquet", output)), 2, "no rows")


def test_an_evaluation_without_labels(motet, finished, table, tmp_path):
    table.drop("price", "sold", "grade", "visits").write_parquet(tmp_path / "new.parquet")
    called = motet("evaluate", finished, tmp_path / "new.parquet")
    says(called, 2, "no label column of price, sold, grade, visits", "Use predict")


def test_an_evaluation_with_labels_of_another_type(motet, finished, table, tmp_path):
    table.with_columns(price=pl.lit("dear")).write_parquet(tmp_path / "new.parquet")
    says(motet("evaluate", finished, tmp_path / "new.parquet", "--target", "price"), 2, "'price'", "not numbers")


def test_an_evaluation_with_classes_that_training_never_saw(motet, finished, table, tmp_path):
    table.with_columns(grade=pl.lit("z")).write_parquet(tmp_path / "new.parquet")
    called = motet("evaluate", finished, tmp_path / "new.parquet", "--target", "grade", "--json")
    assert called.code == 0
    assert json.loads(called.out)["tasks"]["grade"]["rows"] == 0


@each_reading
def test_a_target_that_the_run_does_not_have(motet, finished, table_file, output, use):
    called = motet(*USES[use](finished, table_file, output), "--target", "pric")
    says(called, 2, "no target 'pric'", "Did you mean 'price'?")


def test_a_kept_column_that_is_not_there(motet, finished, table_file, output):
    called = motet("predict", finished, table_file, "-o", output, "--keep", "twn")
    says(called, 2, "--keep 'twn'", "Did you mean 'town'?")


def test_an_output_that_cannot_be_written(motet, finished, table_file, tmp_path):
    called = motet("predict", finished, table_file, "-o", tmp_path / "out.xlsx")
    says(called, 2, "'.xlsx'", "motet writes .parquet")
    says(motet("predict", finished, table_file, "-o", tmp_path / "gone" / "out.csv"), 2, "no folder", "Make the folder")
    (tmp_path / "folder.csv").mkdir()
    says(motet("predict", finished, table_file, "-o", tmp_path / "folder.csv"), 2, "is a folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder.csv"]


def test_predict_onto_the_table_itself(motet, finished, table_file, tmp_path):
    own = tmp_path / table_file.name
    own.write_bytes(table_file.read_bytes())
    called = motet("predict", finished, own, "-o", own)
    assert called.code == 2
    assert "is the table itself" in called.err
    assert "Name another file" in called.err
    assert own.read_bytes() == table_file.read_bytes()


def test_predict_without_an_output(motet, finished, table_file):
    called = motet("predict", finished, table_file)
    says(called, 2, "--output", "motet predict --help")


def test_a_seed_that_is_none(motet, finished, table_file):
    says(motet("evaluate", finished, table_file, "--seed", "-1"), 2, "seed is -1")


def test_an_error_that_nobody_foresaw(motet, monkeypatch, finished):
    def fail(*_):
        message = "boom"
        raise ZeroDivisionError(message)

    monkeypatch.setattr("motet.report.write_report", fail)
    called = motet("report", finished)
    assert called.code == 1
    assert "ZeroDivisionError: boom" in called.err
    assert "MOTET_TRACEBACK=1" in called.err
    assert "Traceback" not in called.err
    monkeypatch.setenv("MOTET_TRACEBACK", "1")
    assert "Traceback" in motet("report", finished).err


def test_ctrl_c_in_a_command_that_only_reads(motet, monkeypatch, finished, table_file, output):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("motet.tabular.load", stop)
    called = motet("predict", finished, table_file, "-o", output)
    says(called, 1, "Stopped. Nothing was written.")


def test_too_little_memory(monkeypatch, finished, table_file, output, capsys):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr("motet.tabular.load", fail)
    assert main(["predict", str(finished), str(table_file), "-o", str(output)]) == 1
    assert "not enough memory" in capsys.readouterr().err

"""What is refused, and what the message says to do."""

import json
from pathlib import Path
from typing import Any

import pytest

from motet._errors import RequestError, RunError
from motet.report import write_report


def rewrite(path: Path, **changes: Any) -> None:
    document = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in document.items() if value is not ...}))


def test_a_folder_that_does_not_exist(tmp_path):
    with pytest.raises(RequestError, match=r"nowhere' does not exist; .*Give the folder that 'motet fit"):
        write_report(tmp_path / "nowhere")


def test_a_file_is_not_a_run(build):
    with pytest.raises(RequestError, match=r"run\.json' is a file; expected a run directory"):
        write_report(build() / "run.json")


def test_a_folder_without_run_json(tmp_path):
    with pytest.raises(RequestError, match=r"is not a run directory: it has no run\.json"):
        write_report(tmp_path)


def test_an_unfinished_run_names_resume_and_writes_nothing(build):
    run = build()
    rewrite(run / "run.json", status="unfinished")
    with pytest.raises(RunError, match=r"key 'status', says 'unfinished'.*motet fit \.\.\. --out .*run --resume"):
        write_report(run)
    assert not (run / "report.html").exists()
    assert not (run / "card.md").exists()


@pytest.mark.parametrize("file", ["run.json", "metrics.json"])
@pytest.mark.parametrize("found", [2, None, "1"])
def test_another_format(build, file, found):
    run = build()
    rewrite(run / file, format=found)
    with pytest.raises(
        RunError, match=rf"{file}', key 'format', is {found!r}; this motet reads format 1.*Use the motet"
    ):
        write_report(run)


@pytest.mark.parametrize("file", ["run.json", "metrics.json"])
@pytest.mark.parametrize(
    ("content", "said"),
    [(b'{"format": 1, "sta', "is damaged: not JSON"), (b"[]", "holds list; expected"), (b"\xff\xfe", "as UTF-8")],
)
def test_a_damaged_file(build, file, content, said):
    run = build()
    (run / file).write_bytes(content)
    with pytest.raises(RunError, match=rf"{file}' .*{said}.*again"):
        write_report(run)


def test_metrics_json_missing(build):
    run = build()
    (run / "metrics.json").unlink()
    with pytest.raises(RunError, match=r"metrics\.json' is missing, so the run is damaged"):
        write_report(run)


def test_a_key_missing_or_of_another_type(build):
    run = build()
    rewrite(run / "run.json", tasks=...)
    with pytest.raises(RunError, match=r"run\.json, key 'tasks', is missing; expected a list"):
        write_report(run)
    rewrite(run / "run.json", tasks=[])
    rewrite(run / "metrics.json", tasks=[1])
    with pytest.raises(RunError, match=r"metrics\.json, key 'tasks', is \[1\]; expected an object"):
        write_report(run)


@pytest.mark.parametrize("key", ["kind", "metric"])
def test_a_task_without_kind_or_metric(build, metrics, key):
    del metrics["tasks"]["cancelled"][key]
    with pytest.raises(RunError, match=rf"metrics\.json, key 'tasks\.cancelled\.{key}', is missing; expected a string"):
        write_report(build())


def test_a_torn_line_in_the_log_is_noted_not_refused(build):
    run = build()
    with (run / "log.jsonl").open("a") as log:
        log.write('{"event": "evalu')
    assert "log.jsonl: 1 line could not be read" in write_report(run).read_text(encoding="utf-8")


def test_a_report_that_cannot_be_written_says_so_and_leaves_no_rest(build):
    run = build()
    (run / "report.html").mkdir()
    with pytest.raises(RunError, match=r"report\.html' could not be written .*Check that the folder exists"):
        write_report(run)
    assert not list(run.glob(".*"))

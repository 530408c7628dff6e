"""What a person sees while a model trains."""

import io

from rich.console import Console

from motet.train import LiveTable, PlainLines, Silent

STAGE = {"event": "stage", "stage": "shared", "text": "Training one network for 2 targets"}
EVALUATION = {
    "event": "evaluate", "stage": "shared", "step": 10, "epoch": 1.0, "seconds": 2.0,
    "losses": {}, "scores": {"price[eur]": 3.5, "sold": None}, "better": ["price[eur]"],
}  # fmt: skip
CONFLICT = {"event": "conflict", "stage": "shared", "tasks": ["a", "b"], "cosines": [[1, 0], [0, 1]]}


def test_plain_lines_say_stages_and_scores_and_nothing_else() -> None:
    stream = io.StringIO()
    display = PlainLines(stream)
    for record in (STAGE, EVALUATION, CONFLICT):
        display(record)
    display.close()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].endswith("Training one network for 2 targets")
    assert lines[1].endswith("shared epoch 1.0  price[eur] 3.5000  sold -")
    assert "\x1b" not in stream.getvalue()


def test_many_tasks_stay_on_one_line() -> None:
    stream = io.StringIO()
    PlainLines(stream)(EVALUATION | {"scores": {f"t{number}": 0.5 for number in range(64)}})
    assert stream.getvalue().rstrip().endswith("and 56 more")


def test_the_live_table_shows_each_target_and_goes_away() -> None:
    stream = io.StringIO()
    with LiveTable(Console(file=stream, force_terminal=True, width=100)) as display:
        for record in (STAGE, EVALUATION, CONFLICT):
            display(record)
        display.live.refresh()
    shown = stream.getvalue()
    assert "Training one network for 2 targets" in shown
    assert "price[eur]" in shown
    assert "3.5000 *" in shown


def test_silent_takes_everything() -> None:
    display = Silent()
    assert display(STAGE) is None
    assert display.close() is None

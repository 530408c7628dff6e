"""The report's table of what was tried."""

from motet.report import write_report


def test_trials_stand_with_score_and_cost(build, metrics):
    network = {"candidate": "shared", "name": "mmoe", "part_of_epochs": 0.25, "metric": "mean skill"}
    metrics["trials"] = [
        {**network, "score": 0.1234, "seconds": 12.34, "kept": False},
        {
            "candidate": "own_lightgbm",
            "task": "dep_delay",
            "name": "narrow",
            "score": 34.5,
            "seconds": 150,
            "kept": True,
        },
    ]
    html = write_report(build()).read_text(encoding="utf-8")
    section = html.partition('id="trials"')[2].partition("</section>")[0]
    first, second = section.split("<tr>")[2:4]
    assert all(part in first for part in ("mmoe, 25 % of its epochs", "mean skill", "0.12", "12.3 s"))
    assert "kept" not in first
    assert all(part in second for part in ("own LightGBM", "dep_delay", "narrow", "34.50", "2.5 min", "kept"))


def test_no_section_where_nothing_was_tried(build):
    assert 'id="trials"' not in write_report(build()).read_text(encoding="utf-8")

"""The page holds what the run says, reaches nothing outside, and survives any name and any missing key."""

import json

import pytest
from flights_run import binary, events, regression
from hypothesis import given
from hypothesis import strategies as st
from report_page import Page

from motet.report import write_report
from motet.report._html import prose, tag


def page_of(run) -> Page:
    path = write_report(run)
    assert path.stat().st_size < 2_000_000
    source = path.read_text(encoding="utf-8")
    assert "url(" not in source
    assert "@import" not in source
    page = Page(source)
    assert all(address.startswith("#") for address in page.addresses)
    assert {address[1:] for address in page.addresses} <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids)
    assert not page.count("script")
    return page


def test_the_sections_come_in_order(build):
    sections = [value["id"] for name, value in page_of(build()).tags if name == "section"]
    assert sections == ["verdict", "targets", "each", "curves", "conflicts", "layers", "schema", "cost", "notes"]


@pytest.mark.parametrize(
    "words",
    [
        "4 targets. The shared model serves 2. Served by their own model: cancelled and bucket.",
        "No target is worse than its own model by more than the margin (0.5 % of the score).",
        "+1.42 % (+1.10 to +1.75)",
        "34.50 min34.01 min",
        "worse: own model kept",
        "Mean gain over the targets: +0.63 %",
        "LightGBM was −0.72 % (−0.93 to −0.51); the margin is 0.5 %. Verdict: worse. So the own LightGBM serves it.",
        "Intervals: 90 % intervals hold 90.2 % of the test rows. On average they are 81.2 min wide.",
        "Probabilities were off by 0.012 on average before calibration and by 0.004 after it.",
        "predicted 0.610, observed 0.671, 183 rows",
        "dep_delay and cancelled pull in opposite directions on average, cosine −0.21 (negative at 12 of 12",
        "dep_delay and arr_delay agree most, cosine 0.80.",
        "The largest gradient on average is that of bucket, 4.0 times that of dep_delay.",
        "2 columns of 8 are features (1 category, 1 number); 2 were left out.",
        "tailnumidentifierno4,043 distinct of 10,000",
        "together got the compute of the shared one: 98.0 s on the clock, 3.1 min of CPU time, 4,890,000 row passes",
        "4,890,000 row passes, against 100.0 s on the clock, 3.2 min of CPU time, 5,000,000 row passes.",
        "all rows215,53733,67833,67853,883",
        "with a label for cancelled210,234",
        "seed7",
        "torch2.13.0",
        "tailnum was left out: too many distinct values.",
    ],
)
def test_the_page_says(build, words):
    assert words in page_of(build()).text


def test_every_figure_is_there(build):
    page = page_of(build())
    labels = [found["aria-label"] for name, found in page.tags if name == "svg"]
    assert labels == [
        "Shared model against the best own model, choose rows",
        "What motet serves against the best own model, test rows",
        "Calibration of cancelled",
        "Calibration of bucket",
        *(f"Learning curves of {name}" for name in ["dep_delay", "arr_delay", "cancelled", "bucket"]),
        "Mean gradient cosines of pairs of tasks",
        "Cosines of the lowest pairs over training",
    ]
    assert page.count("rect", **{"class": "neg"}) == 1
    assert page.count("rect", **{"class": "pos"}) == 5


def test_less_compute_for_the_own_networks_is_said(build, metrics):
    metrics["compute"]["own_network"] = {"cpu_seconds": 95.0, "rows": 2_500_000}
    assert "got 0.50 times the compute of the shared one" in page_of(build()).text


def test_a_level_that_the_intervals_miss_is_said(build, metrics):
    metrics["tasks"]["dep_delay"]["interval"]["coverage"] = 0.81
    assert (
        "hold 81.0 % of the test rows. On average they are 81.2 min wide. That is short of the level"
        in page_of(build()).text
    )


def test_one_task_has_no_conflicts(build, metrics):
    metrics["tasks"] = {"only": regression()}
    page = page_of(build(events(["only"])))
    assert "1 target. The shared model serves it." in page.text
    assert "There is one target, so nothing can conflict." in page.text


def test_no_log_at_all(build):
    run = build()
    (run / "log.jsonl").unlink()
    text = page_of(run).text
    assert "The log holds no evaluations." in text
    assert "The log holds no cosines." in text


def test_sixty_four_tasks_stay_readable(build, metrics):
    names = [f"label_{index:02d}" for index in range(64)]
    metrics["tasks"] = {name: (binary if index % 2 else regression)() for index, name in enumerate(names)}
    metrics["tasks"]["label_00"]["gain_percent"] = -312.0
    page = page_of(build(events(names)))
    assert page.count("details", open="") == 0
    assert "The other 52" in page.text
    assert "◂ −312.0 %" in page.text
    assert sum(found.get("class") in {"pos", "neg"} for name, found in page.tags if name == "rect") == 64 * 63 // 2


HOSTILE = [
    "<script>alert(1)</script>",
    "a\"b'c&d",
    "back`tick",
    "größe ☃ 数",
    "</title></svg>",
    "$x_1$",
    "a:b",
    "\ud800",
]


def test_odd_names_everywhere_are_escaped(build, about, metrics):
    metrics["tasks"] = {name: binary(unit=HOSTILE[0], served_by=name) for name in HOSTILE}
    for task in metrics["tasks"].values():
        task["candidates"][HOSTILE[0]] = {"score": 0.5, "metrics": {HOSTILE[0]: 0.5}}
        task["guard"] |= {"own": HOSTILE[0], "verdict": HOSTILE[0]}
    about["leaks"] = [dict.fromkeys(["feature", "task", "metric", "reason"], HOSTILE[0])]
    about["schema"] = [{"name": HOSTILE[0], "role": HOSTILE[4], "used": True, "reason": HOSTILE[0]}]
    about["notes"] = HOSTILE
    about["data"]["source"] = about["split"]["how"] = HOSTILE[0]
    about["versions"] = {HOSTILE[0]: HOSTILE[0]}
    page = page_of(build(events(HOSTILE)))
    for name in HOSTILE[:-1]:
        assert name in page.text
    assert "alert" not in "".join(name for name, _ in page.tags)


@given(st.text())
def test_text_comes_back_from_an_element_as_it_went_in(words):
    words = words.replace("\r", "").replace("\0", "")  # the parser normalises these two
    page = Page(tag("p", words, title=words))
    assert "".join(page.pieces) == words
    assert page.tags == [("p", {"title": words})]


@given(st.text(alphabet="a`<&"))
def test_prose_never_opens_an_element_of_its_own(words):
    assert {name for name, _ in Page(prose(words)).tags} <= {"code"}


def leaves(document, path=()):
    """The paths to every value inside a document."""
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in items:
        yield (*path, key)
        yield from leaves(value, (*path, key))


def test_any_value_of_a_task_may_be_missing_or_null(build, metrics):
    metrics["tasks"] = {"dep_delay": regression(), "cancelled": binary()}
    run = build()
    needed = {"kind", "metric"}
    for name in metrics["tasks"]:
        for path in list(leaves(metrics["tasks"][name])):
            if path[-1] in needed:
                continue
            for drop in (True, False):
                document = json.loads(json.dumps(metrics))
                place = document["tasks"][name]
                for key in path[:-1]:
                    place = place[key]
                if drop and isinstance(path[-1], str):
                    del place[path[-1]]
                else:
                    place[path[-1]] = None
                (run / "metrics.json").write_text(json.dumps(document))
                page_of_text = write_report(run).read_text(encoding="utf-8")
                assert ">None<" not in page_of_text
                assert "nan" not in page_of_text


def test_every_other_part_may_be_missing(build, about, metrics):
    for key in set(about) - {"format", "status", "tasks"}:
        del about[key]
    for key in set(metrics) - {"format", "tasks"}:
        del metrics[key]
    assert "The run does not say what the own networks and the shared network each cost." in page_of(build([])).text


def test_nan_in_the_files_reads_as_missing(build, metrics):
    metrics["tasks"]["cancelled"] |= {"motet": float("nan"), "gain_percent": float("inf")}
    assert "cancelled has no score on the test rows" in page_of(build()).text


def test_the_same_run_gives_the_same_bytes(build):
    run = build()
    assert write_report(run).read_bytes() == write_report(run).read_bytes()
    assert sorted(path.name for path in run.iterdir()) == [
        "card.md", "log.jsonl", "metrics.json", "report.html", "run.json",
    ]  # fmt: skip

"""The section on layers: it reads what the log holds, says who fights where, and draws each measure in its place."""

import re

import pytest
from flights_run import NAMES, events, regression
from report_page import Page

from motet.report import write_report
from motet.report._layer_figures import mean_step, norm_map, nuclear_lines
from motet.report._layers import layer_sentences, layer_stories, share

LAYERS = ["project", "blocks.0.expand", "norm"]


def diagnosis(step: int, tasks: list[str], *, deep: float = -0.3, **changes) -> dict:
    """Three layers; the first two tasks oppose each other in the second, and the last layer has no matrix."""

    def entry(row: int, layer: str) -> dict:
        low = deep if row == 1 else 0.2
        found = {
            "layer": layer,
            "norms": [0.1 * (row + 1) * (k + 1) for k in range(len(tasks))],
            "cosines": [[low if (i, j) == (1, 0) else 0.3 for j in range(i)] for i in range(len(tasks))],
            "least": low,
            "pair": tasks[:2],
            "conflict": max(0.0, -low) / 10 if row == 1 else 0.001,
            "nuclear": [1.0 * (row + 1) * (k + 1) for k in range(len(tasks))],
        }
        return found if row < 2 else found | {"nuclear": None}

    layers = [entry(row, layer) for row, layer in enumerate(LAYERS)]
    return {"event": "diagnosis", "stage": "shared", "step": step, "tasks": tasks, "layers": layers} | changes


def log_of(tasks: list[str] = NAMES) -> list[dict]:
    depths = (-0.1, -0.1, -0.4, -0.4)
    return [diagnosis(100 * step, tasks, deep=depth) for step, depth in enumerate(depths, start=1)]


def page_of(run) -> Page:
    return Page(write_report(run).read_text(encoding="utf-8"))


def test_the_page_says_which_layer_carries_the_conflict(build):
    page = page_of(build(events(NAMES) + log_of()))
    assert (
        "blocks.0.expand carries the largest part of the conflict, 93 % of it. "
        "The lowest pair there is dep_delay and arr_delay, cosine −0.25 on average. "
        "Its least cosine deepened over training, from −0.10 to −0.40."
    ) in page.text
    assert "bucket: neighbours differ by 4 on average" in page.text
    assert page.count("svg", **{"aria-label": "Gradient norms by layer and target"}) == 1
    assert page.count("svg", **{"aria-label": "Nuclear norms from layer to layer"}) == 1
    assert sum("Least cosine of two targets" in (found.get("aria-label") or "") for _, found in page.tags) == 1
    assert "#layers" in page.addresses


def test_an_old_run_without_measures_by_layer_says_so(build):
    assert "The log holds no measures by layer." in page_of(build()).text


def test_one_target_has_no_layers_to_fight_in(build, metrics):
    metrics["tasks"] = {"only": regression()}
    page = page_of(build(events(["only"])))
    assert page.text.count("There is one target, so nothing can conflict.") == 2


def test_agreement_is_said_and_one_measurement_draws_no_line(build):
    page = page_of(build([diagnosis(100, NAMES, deep=0.4)]))
    assert "No layer carries a conflict to speak of" in page.text
    assert not any("Least cosine" in (found.get("aria-label") or "") for _, found in page.tags)


def test_cells_and_bars_are_where_and_as_deep_as_they_should_be():
    stories = layer_stories(log_of(), NAMES)
    drawn = norm_map(stories, NAMES, stories)
    cells = re.findall(r'<rect x="([\d.]+)" y="([\d.]+)"[^>]*class="pos" fill-opacity="([\d.]+)"><title>([^<]+)', drawn)
    assert len(cells) == 12
    depth = {note.rsplit(":", 1)[0]: float(opacity) for _, _, opacity, note in cells}
    assert depth["bucket in norm"] == max(depth.values()) == 0.7
    assert depth["dep_delay in project"] == min(depth.values())
    assert cells[0][3] == "dep_delay in project: 0.1"
    assert float(cells[4][1]) > float(cells[0][1])
    widths = [float(width) for width in re.findall(r'width="([\d.]+)" height="13.0" class="neg"', drawn)]
    assert widths == pytest.approx([70 * share(story, stories) for story in stories], abs=0.06)
    assert sum(share(story, stories) for story in stories) == pytest.approx(1.0)


def test_nuclear_norms_skip_layers_without_a_matrix():
    stories = layer_stories(log_of(), NAMES)
    drawn = nuclear_lines(stories, NAMES[:2])
    assert drawn.count("<circle") == 4
    assert "dep_delay, layer 2: 2" in drawn
    assert mean_step(stories, "arr_delay") == pytest.approx(2.0)
    assert mean_step(stories[1:], "arr_delay") is None


def test_a_repeated_step_counts_once_and_batches_may_lack_tasks():
    log = [
        diagnosis(100, ["a", "b"], deep=-0.9),
        diagnosis(100, ["b", "a"], deep=-0.2),
        diagnosis(200, ["a", "other"], deep=-0.4),
        diagnosis(300, ["a", "b"], stage="own_network:a"),
    ]
    stories = layer_stories(log, ["a", "b"])
    assert [story.name for story in stories] == LAYERS
    assert stories[1].points == [(100.0, -0.2), (200.0, -0.4)]
    assert stories[0].norms == {"b": [0.1], "a": pytest.approx([0.2, 0.1])}
    assert stories[1].pairs == {("b", "a"): [-0.2]}


@pytest.mark.parametrize(
    "changes",
    [
        {"layers": None},
        {"layers": [1, "x", {}]},
        {"tasks": None},
        {"tasks": 7},
        {"step": "late"},
        {"layers": [{"layer": None, "norms": "x", "cosines": [1, None], "least": float("nan"), "conflict": None}]},
        {"layers": [{"layer": "<script>", "norms": [1.0, None, 2.0], "cosines": [[], [None], [0.1, -0.2]]}]},
    ],
)
def test_damaged_events_do_no_harm(build, changes):
    page = page_of(build([diagnosis(100, NAMES) | changes]))
    assert "Layer by layer" in page.text
    assert page.count("script") == 0


def test_many_layers_and_targets_stay_readable(build, metrics):
    names = [f"label_{index:02d}" for index in range(64)]
    metrics["tasks"] = {name: regression() for name in names}
    log = log_of(names)
    for event in log:
        event["layers"] = [event["layers"][k % 3] | {"layer": f"blocks.{k}.linear"} for k in range(60)]
    page = page_of(build(log))
    assert "36 more layers with less conflict are not shown" in page.text
    assert "the 5 largest of 64 targets" in page.text
    [map_] = [found for name, found in page.tags if found.get("aria-label") == "Gradient norms by layer and target"]
    assert float(map_["width"]) < 1100


def test_easing_is_said_and_a_small_change_is_not():
    eased = [diagnosis(step, ["a", "b"], deep=deep) for step, deep in enumerate([-0.5, -0.5, -0.2, -0.2])]
    steady = [diagnosis(step, ["a", "b"], deep=deep) for step, deep in enumerate([-0.32, -0.32, -0.3, -0.3])]
    assert "eased over training, from −0.50 to −0.20." in layer_sentences(layer_stories(eased, ["a", "b"]))[-1]
    assert "The lowest pair there is" in layer_sentences(layer_stories(steady, ["a", "b"]))[-1]

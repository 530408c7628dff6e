"""The section on layers: where in the shared model the targets fight, and how large their gradients are there."""

from collections.abc import Sequence

from motet.report._figures import pair_lines
from motet.report._html import Html, join, paragraph, section, tag
from motet.report._layer_figures import mean_step, norm_map, nuclear_lines
from motet.report._layers import LayerStory, layer_sentences, layer_stories, mean
from motet.report._read import Run
from motet.report._results import Result
from motet.report._words import plain

_TITLE = "Layer by layer"
_MOST_LAYERS = 24
_MOST_LINES = 5
_READING = (
    "Rows are the layers of the shared model, from the inputs up. A pale row is a layer that a target hardly moves; a "
    "column much darker than the others is a target that moves the layers for all. The orange bars say where the "
    "targets pull against each other: the parts of their gradients that point apart, counted in that layer."
)
_NUCLEAR = (
    "The nuclear norm, the sum of the singular values of a layer's gradient, is large where a target asks for a large "
    "change in many directions. Where the measure was proposed, large jumps from layer to layer went with less stable "
    "training of language models."
)


def layers_section(run: Run, results: Sequence[Result]) -> Html:
    """The map of norms, the least cosines of the layers that fight most, and the nuclear norms."""
    names = [result.name for result in results]
    stories = [story for story in layer_stories(run.log, names) if story.norms]
    if not stories:
        why = (
            "There is one target, so nothing can conflict." if len(names) < 2 else "The log holds no measures by layer."
        )
        return section("layers", _TITLE, paragraph(why))
    shown = _shown(stories)
    measured = [name for name in names if any(name in story.norms for story in stories)]
    figures = [*_least_figure(shown), *_nuclear_figure(shown, measured)]
    left = len(stories) - len(shown)
    rest = f" {left} more layers with less conflict are not shown." if left else ""
    return section(
        "layers",
        _TITLE,
        paragraph(" ".join(layer_sentences(stories))),
        paragraph(_READING + rest, "soft"),
        tag("figure", norm_map(shown, measured, stories)),
        tag("div", *figures, class_="pair") if figures else "",
    )


def _shown(stories: Sequence[LayerStory]) -> list[LayerStory]:
    """All layers, or those with the most conflict, in the model's order."""
    kept = sorted(stories, key=lambda story: -story.mean_conflict)[:_MOST_LAYERS]
    return [story for story in stories if story in kept]


def _least_figure(stories: Sequence[LayerStory]) -> list[Html]:
    worst = sorted(stories, key=lambda story: -story.mean_conflict)[:_MOST_LINES]
    lines = [(story.name, story.points) for story in worst if len(story.points) > 1]
    if not lines:
        return []
    title = "Least cosine of two targets over training, in the layers with the most conflict"
    return [_figure(pair_lines(lines, title), title, [name for name, _ in lines])]


def _nuclear_figure(stories: Sequence[LayerStory], names: Sequence[str]) -> list[Html]:
    sizes = {name: mean([mean(story.nuclear[name]) for story in stories if name in story.nuclear]) for name in names}
    largest = sorted((name for name in names if sizes[name] > 0), key=lambda name: -sizes[name])[:_MOST_LINES]
    if not largest or sum(bool(story.nuclear) for story in stories) < 2:
        return []
    keys = []
    for name in largest:
        step = mean_step(stories, name)
        keys.append(name if step is None else f"{name}: neighbours differ by {plain(step)} on average")
    few = "" if len(largest) == len(names) else f", the {len(largest)} largest of {len(names)} targets"
    title = f"Nuclear norm from layer to layer{few}"
    return [_figure(nuclear_lines(stories, largest), title, keys, paragraph(_NUCLEAR, "soft"))]


def _figure(drawn: Html, title: str, keys: Sequence[str], *notes: Html) -> Html:
    lines = join(tag("div", tag("span", class_=f"key p{index}"), key) for index, key in enumerate(keys))
    return tag("figure", drawn, tag("figcaption", title, lines, *notes))

"""The model card, in the Hugging Face format: a YAML header, then Markdown."""

import shlex
from collections.abc import Sequence
from pathlib import PurePath

from motet.report._cost import compute_sentence
from motet.report._read import Run
from motet.report._results import Result, mapping, number
from motet.report._verdict import Verdict
from motet.report._words import count, gain, guard_words, model_name, pipeline_tag, plain, score


def model_card(run: Run, results: Sequence[Result], verdict: Verdict) -> str:
    """The text of card.md."""
    source = PurePath(str(run.part("data").get("source") or "unknown")).name  # a card is published: no local paths
    parts = [
        "\n".join(["---", *_header(run, results, source), "---"]),
        f"# {_line(run.name)}",
        " ".join([f"A motet model that predicts {_names(results)} from one row of a table.", *verdict.sentences]),
        *_warned(verdict),
        "## What it predicts\n\n" + "\n".join(_predicts(result) for result in results),
        "## Data\n\n" + _data(run, source),
        "## How it was measured\n\n" + _measured(run),
        "## Results\n\n" + "\n".join(_table(results)),
        "## Limits\n\n" + "\n".join(f"- {line}" for line in _limits(results)),
        "## How to use it\n\n" + _usage(run),
    ]
    return "\n\n".join(parts) + "\n"


def _header(run: Run, results: Sequence[Result], source: str) -> list[str]:
    kinds = [pipeline_tag(result.kind) for result in results]
    main = max(dict.fromkeys(kinds), key=kinds.count) if kinds else "tabular-classification"
    lines = ["license: unknown", "library_name: motet", f"pipeline_tag: {main}", "tags:"]
    lines += [f"- {word}" for word in dict.fromkeys(["motet", "tabular", "multi-task-learning", *kinds])]
    scored = [result for result in results if result.motet is not None]
    lines += ["model-index:", f"- name: {quoted(run.name)}", "  results:" if scored else "  results: []"]
    for result in scored:
        lines += [
            "  - task:",
            f"      type: {pipeline_tag(result.kind)}",
            f"      name: {quoted(result.name)}",
            "    dataset:",
            f"      type: {quoted(source)}",
            f"      name: {quoted(source)}",
            "      split: test",
            "    metrics:",
        ]
        for name, value in _metrics(result).items():
            lines += [f"    - type: {quoted(name)}", f"      name: {quoted(name)}", f"      value: {_float(value)}"]
    return lines


def _metrics(result: Result) -> dict[str, float]:
    served = next((c.metrics for c in result.candidates if c.name == result.served_by), dict[str, float | None]())
    values = {result.metric: result.motet} | {k: v for k, v in served.items() if k != result.metric}
    return {name: value for name, value in values.items() if value is not None}


def quoted(words: str) -> str:
    """A YAML string in double quotes; what YAML cannot hold as it is becomes its code, half surrogates are dropped."""
    return '"' + "".join(_yaml_character(ch) for ch in words if not "\ud800" <= ch <= "\udfff") + '"'


def _yaml_character(ch: str) -> str:
    if ch in '"\\':
        return "\\" + ch
    return ch if ch.isprintable() else f"\\U{ord(ch):08X}"


def _float(value: float) -> str:
    text = f"{value:.6g}"
    # YAML 1.1 reads 1e-05 as a string; with a point it is a number.
    return text.replace("e", ".0e") if "e" in text and "." not in text else text


def _line(words: str) -> str:
    """A name as inert inline Markdown: code, on one line, safe inside a table."""
    flat = " ".join(words.split()).replace("|", "\\|")
    fence = "``" if "`" in flat else "`"
    pad = " " if "`" in flat else ""
    return f"{fence}{pad}{flat}{pad}{fence}"


def _names(results: Sequence[Result]) -> str:
    names = [_line(result.name) for result in results]
    if len(names) > 8:
        return f"{len(names)} targets"
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + f" and {names[-1]}" if names else "nothing"


def _warned(verdict: Verdict) -> list[str]:
    lines = [f"> - {' '.join(line.split())}" for line in [*verdict.warnings, *verdict.leaks]]
    return ["\n".join(["> **Needs attention**", ">", *lines])] if lines else []


def _predicts(result: Result) -> str:
    unit = f", in {result.unit}" if result.unit else ""
    return f"- {_line(result.name)}: {result.kind}{unit}"


def _data(run: Run, source: str) -> str:
    data = run.part("data")
    features = [column for column in run.rows("schema") if column.get("used")]
    return (
        f"{_line(source)}, {count(data.get('rows'))} rows, {count(data.get('columns'))} columns, of which "
        f"{len(features)} are features. Fingerprint: {_line(str(data.get('fingerprint') or 'unknown'))}. "
        "The licence of the data and of the model is for the owner to state; the header says unknown."
    )


def _measured(run: Run) -> str:
    rows = mapping(run.metrics.get("rows"))
    sizes = ", ".join(f"{count(rows.get(part))} {part}" for part in ("train", "stop", "choose", "test"))
    return (
        f"Rows: {sizes} (split: {run.part('split').get('how') or 'unknown'}, seed {run.about.get('seed')}). Train rows "
        "fitted the models, stop rows ended training, choose rows calibrated and chose which model serves, and test "
        "rows, which nothing had seen, gave the scores here. A gain is the relative change of the score against the "
        "target's best own model, positive when better; its 95 % interval comes from a paired bootstrap over test "
        f"rows.{'' if run.has_tasks else f' {compute_sentence(run.metrics)}'}"
    )


def _table(results: Sequence[Result]) -> list[str]:
    lines = [
        "| target | metric | constant | own model | motet | gain (95 % interval) | served by | guard |",
        "|---|---|--:|--:|--:|--:|---|---|",
    ]
    for result in results:
        scores = [score(value, result) for value in (result.constant, result.single, result.motet)]
        cells = [_line(result.name), f"{_line(result.metric)} {'↑' if result.higher_is_better else '↓'}", *scores]
        cells += [gain(result.gain, result.interval), model_name(result.served_by), guard_words(result)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _limits(results: Sequence[Result]) -> list[str]:
    lines = [
        "The scores hold for rows like the test rows; nothing was measured on other data.",
        "The model predicts; it says nothing about what causes what.",
    ]
    for result in results:
        if result.predictable is False:
            lines.append(f"{_line(result.name)} is not predictable from these columns: a constant does as well.")
        level, covered = number(result.coverage.get("level")), number(result.coverage.get("coverage"))
        if level is not None and covered is not None:
            lines.append(
                f"{_line(result.name)}: {plain(100 * level)} % intervals hold {100 * covered:.1f} % of test rows."
            )
    return lines


def _usage(run: Run) -> str:
    load = "motet.tabular.TaskColumnModel.load" if run.has_tasks else "motet.load"
    return (
        f"```sh\nmotet predict {shlex.quote(run.name)} new_rows.parquet -o predictions.parquet\n```\n\n"
        f"```python\nimport {'motet.tabular' if run.has_tasks else 'motet'}, polars\n"
        f"model = {load}({run.name!r})\n"
        'frame = polars.read_parquet("new_rows.parquet")\n'
        "predictions = model.predict(frame)\n```"
    )

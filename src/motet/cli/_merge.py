"""`motet merge`."""

import dataclasses
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from motet._errors import RequestError, suggest
from motet.cli._output import Common, print_json, print_table, print_text

if TYPE_CHECKING:
    from motet.merge import Method


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What methods take; a method refuses what is not its own. Nothing given means the method's default."""

    scale: Annotated[float | None, Parameter(help="Times what the experts have learned.")] = None
    density: Annotated[float | None, Parameter(help="Share of each expert's changes that is kept.")] = None
    scope: Annotated[Literal["global", "tensor"] | None, Parameter(help="Where the largest are looked for.")] = None
    combine: Annotated[Literal["sum", "mean"] | None, Parameter(help="Of changes that agree in sign.")] = None
    drop: Annotated[float | None, Parameter(help="Share of changes that DARE drops.")] = None
    then: Annotated[str | None, Parameter(help="Method that merges what DARE leaves.")] = None
    weights: Annotated[tuple[float, ...] | None, Parameter(negative="", help="One for each expert.")] = None
    fraction: Annotated[float | None, Parameter(help="How far from the base to the expert.")] = None
    share: Annotated[float | None, Parameter(help="The first expert's part of two.")] = None
    power: Annotated[float | None, Parameter(help="Of the distances that become weights.")] = None
    common: Annotated[float | None, Parameter(name="--common", help="Share of common directions.")] = None
    statistics: Annotated[tuple[Path, ...] | None, Parameter(negative="", help="File for each expert.")] = None
    floor: Annotated[float | None, Parameter(help="Added to every Fisher information.")] = None
    off_diagonal: Annotated[float | None, Parameter(help="Times the inputs' covariances.")] = None
    subspace: Annotated[float | None, Parameter(help="One in how many directions stays as it is.")] = None
    steps: Annotated[int | None, Parameter(help="Of the inner optimiser.")] = None
    rate: Annotated[float | None, Parameter(help="Learning rate of the inner optimiser.")] = None


def merge(
    base: Path,
    /,
    *experts: Path,
    method: Annotated[list[str] | None, Parameter(negative="", help="See motet methods --room merge.")] = None,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"], help="A .safetensors file or a folder.")] = None,
    plan: Annotated[bool, Parameter(negative="", help="Only read, and say what a merge would meet.")] = False,
    evaluate: Annotated[str | None, Parameter(help="FILE.py:function that scores the model at a path.")] = None,
    keep: Annotated[list[str] | None, Parameter(negative="", help="Pattern of tensors the base keeps.")] = None,
    dtype: Annotated[str | None, Parameter(help="float32, bfloat16, float16 or float64.")] = None,
    shard_size: Annotated[str | None, Parameter(help="Such as 5GB: a folder of several files.")] = None,
    resume: Annotated[bool, Parameter(negative="", help="Go on with an unfinished merge.")] = False,
    parameters: Parameters = Parameters(),
    common: Common = Common(),  # noqa: B008
) -> None:
    """Merge several fine-tuned checkpoints of one base into one, tensor by tensor.

    With several --method and --evaluate, all are merged and scored, and the best one is kept.

    Parameters
    ----------
    base
        What the experts were tuned from: a safetensors file or a model folder.
    experts
        The same, or folders of LoRA adapters.
    """
    if plan:
        return _plan(base, experts, keep or [], common)
    if output is None:
        message = "No output was given; a .safetensors file or a new folder was expected. Add -o OUT, or --plan."
        raise RequestError(message)
    _interruptible()
    names = method or ["task_arithmetic"]
    chosen = [build(name, _given(parameters), common.seed) for name in names]
    _all_used(_given(parameters), chosen)
    from motet.merge import Output, load_score, merge_best, merge_files

    how = Output(dtype=dtype, shard_size=shard_size, resume=resume)
    if evaluate is None:
        if len(chosen) > 1:
            message = (
                f"{len(chosen)} methods were given; one was expected without a score. Add --evaluate, or keep one."
            )
            raise RequestError(message)
        record = merge_files(base, experts, output, method=chosen[0], keep=keep or (), output=how, progress=_progress())
        found: dict[str, Any] = {"output": str(output), "record": record}
    else:
        found = {"output": str(output)} | merge_best(
            base,
            experts,
            output,
            methods=chosen,
            score=load_score(evaluate),
            keep=keep or (),
            output=how,
            progress=_progress(),
            seed=common.seed,
        )
    _show(found, len(chosen), as_json=common.json)
    return None


def build(name: str, given: Mapping[str, Any], seed: int) -> "Method":
    """The method called `name` with those of the given parameters that are its own."""
    from motet.merge import from_name, methods

    known = methods()
    if name not in known:
        from_name(name)  # says which there are
    own = {field.name for field in dataclasses.fields(known[name])}
    chosen = {key: value for key, value in given.items() if key in own}
    if "seed" in own:
        chosen["seed"] = seed
    if "then" in own:
        rest = {key: value for key, value in given.items() if key not in own}
        chosen["then"] = build(given.get("then", "task_arithmetic"), rest, seed)
    return known[name](**chosen)


def _given(parameters: Parameters) -> dict[str, Any]:
    return {
        field.name: value
        for field in dataclasses.fields(parameters)
        if (value := getattr(parameters, field.name)) is not None
    }


def _all_used(given: Mapping[str, Any], chosen: "list[Method]") -> None:
    own = {
        key for method in chosen for each in (method, getattr(method, "then", None)) if each for key in _fields(each)
    }
    for key in given:
        if key not in own:
            names = " and ".join(method.name for method in chosen)
            option, known = key.replace("_", "-"), sorted(own - {"seed"})
            message = f"--{option} was given, which {names} does not take.{suggest(key, known)}"
            raise RequestError(message if known else f"{message} It takes none: leave --{option} out.")


def _fields(method: "Method") -> list[str]:
    return [field.name for field in dataclasses.fields(method)]


def _plan(base: Path, experts: tuple[Path, ...], keep: list[str], common: Common) -> None:
    from motet.merge import plan

    found = plan(base, experts, keep=keep)
    if common.json:
        print_json(found)
        return
    print_text(
        f"{found['numbers']:,} numbers in {found['tensors']['merged']} tensors are merged, the largest is "
        f"{found['largest_tensor']}; the base keeps {len(found['tensors']['kept_from_base'])}. "
        f"The result fills {found['output_bytes'] / 1e6:,.1f} MB. Of the entries that several experts changed, "
        f"{found['sign_conflicts']:.0%} are pulled both ways."
    )
    rows = [
        (expert["source"], _shown(expert["relative_change"]), f"{expert['unchanged']:.1%}", *map(_shown, cosines))
        for expert, cosines in zip(found["experts"], found["cosines"], strict=True)
    ]
    numbers = [f"cosine {number}" for number in range(1, len(rows) + 1)]
    print_table(["expert", "change / base", "unchanged", *numbers], rows)
    worst = sorted(found["layers"], key=lambda layer: -layer["sign_conflicts"])[:10]
    print_table(
        ["most contested tensors", "sign conflicts", "mean cosine"],
        [(layer["name"], f"{layer['sign_conflicts']:.0%}", _shown(layer["mean_cosine"])) for layer in worst],
    )
    print_table(
        ["method", "fits", "needs", "memory"],
        [
            (one["name"], "yes" if one["applies"] else "no", one["needs"], f"{one['memory_bytes'] / 1e6:,.0f} MB")
            for one in found["methods"]
        ],
    )


def _show(found: Mapping[str, Any], num_methods: int, *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    if "scores" in found:
        tasks = list(dict.fromkeys(task for one in found["scores"] for task in one["tasks"]))
        rows = [
            (one["model"], _shown(one["score"]), *(_shown(one["tasks"].get(task)) for task in tasks))
            for one in found["scores"]
        ]
        print_table(["model", "score", *tasks], rows)
        print_text(f"Best merge: {found['best']}")
        _show_guard(found["guard"], num_methods)
    kept = found["record"]["kept_from_base"]
    if kept:
        print_text(f"Note: {len(kept)} tensors are the base's as they were: {', '.join(kept[:5])}")
    print_text(f"Merged: {found['output']}")


def _show_guard(guard: Sequence[Mapping[str, Any]], num_methods: int) -> None:
    if not guard:
        return
    rows = [
        (
            one["task"], one["expert"], one["rows"], _shown(one["expert_score"]), _shown(one["merged_score"]),
            f"{one['difference']:+.4f}", "-" if one["ci95"] is None else "{:+.4f} to {:+.4f}".format(*one["ci95"]),
            one["verdict"],
        )
        for one in guard
    ]  # fmt: skip
    print_table(["task", "its expert", "rows", "expert", "merged", "difference", "95% interval", "verdict"], rows)
    losers = [one["task"] for one in guard if one["verdict"] == "worse"]
    print_text(f"Worse than their experts: {', '.join(losers) or 'none proven'}")
    if num_methods > 1:
        print_text("Note: the best merge was chosen on these rows, so its own scores are a little too good.")


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _progress() -> Any:
    last = time.monotonic()

    def tell(name: str, done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > 2:
            last = time.monotonic()
            print(f"{done} of {total} tensors: {name}", file=sys.stderr)

    return tell


def _interruptible() -> None:
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt

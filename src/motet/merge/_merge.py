"""Merging: one pass over the tensors, into memory or into files."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from motet import __version__
from motet._errors import RequestError, RunError
from motet.merge._catalogue import from_name
from motet.merge._checkpoint import Entry, Source
from motet.merge._dtypes import Array, encode, file_dtype, overflows
from motet.merge._layout import copy_beside, parse_size, plan_layout
from motet.merge._method import Method, Rule
from motet.merge._models import PIECE, Models, open_checkpoint, open_models
from motet.merge._sink import Memory, Sink, Staged, explained

Progress = Callable[[str, int, int], None]
RECORD = "motet_merge"


@dataclass(frozen=True, kw_only=True)
class Output:
    """How the merged model is written.

    Args:
        dtype: 'float32', 'bfloat16', 'float16' or 'float64' for all weights; each tensor's format in the base if None.
        shard_size: such as '5GB', most bytes of tensors in one file of a folder; one file if None.
        resume: go on with what a killed merge of the same request has left.
    """

    dtype: str | None = None
    shard_size: str | None = None
    resume: bool = False


def merge(
    base: Source,
    experts: Sequence[Source],
    *,
    method: Method | str = "task_arithmetic",
    keep: Sequence[str] = (),
    dtype: str | None = None,
    threads: int = 0,
) -> dict[str, Any]:
    """Merges checkpoints into a state dict.

    Args:
        base: what the experts were tuned from: a state dict, a safetensors file or a model folder.
        experts: the same, or folders of LoRA adapters on this base; nothing that is passed in changes.
        method: such as `TIES(density=0.1)`, or a method's name for its defaults.
        keep: patterns such as 'classifier.*' of tensors to take from the base; experts may lack them.
        dtype: of all weights; each tensor's dtype in the base if None.
        threads: tensors worked on at once; 0 for the machine's cores, four at most.

    Returns:
        Tensors by name: numpy arrays where the base is made of them, torch tensors otherwise (and in bfloat16, which
        numpy lacks).

    Raises:
        RequestError: the checkpoints do not fit each other or the method.

    Cost: two passes or so over the checkpoints, see the method; memory for the result and a few pieces.

    Example:
        >>> import numpy as np
        >>> from motet.merge import merge
        >>> merge({"w": np.zeros(2)}, [{"w": np.ones(2)}, {"w": np.array([1.0, 3.0])}], method="average")
        {'w': array([1., 2.])}
    """
    chosen = from_name(method) if isinstance(method, str) else method
    models = open_models(base, experts, keep=keep, threads=threads)
    entries = _entries(models, dtype)
    sink = Memory(entries)
    _run(models, chosen, entries, sink, None)
    arrays = {name: array.reshape(entries[name].shape) for name, array in sink.arrays.items()}
    as_numpy = isinstance(base, Mapping) and all(
        isinstance(tensor, np.ndarray | np.generic) for tensor in base.values()
    )
    as_numpy = as_numpy and dtype != "bfloat16"
    found = arrays if as_numpy else {name: _tensor(array, entries[name]) for name, array in arrays.items()}
    return {name: found[models.tied.get(name, name)] for name in models.base.entries}


def merge_files(
    base: Source,
    experts: Sequence[Source],
    out: Path | str,
    *,
    method: Method | str = "task_arithmetic",
    keep: Sequence[str] = (),
    output: Output = Output(),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Merges checkpoints into files, tensor by tensor, without holding a model in memory.

    The target appears once it is whole and on the disk; a merge that is killed leaves a hidden folder, with which the
    same request goes on if `output.resume` is set.

    Args:
        base: as `merge` takes it.
        experts: the same.
        out: a file that ends in .safetensors, or a folder; it must not exist. A folder also gets the configuration and
            tokeniser of a base folder.
        method: such as `TIES(density=0.1)`, or a method's name for its defaults.
        keep: patterns of tensors to take from the base; experts may lack them.
        output: dtype, shards, and whether to go on.
        progress: called with a tensor's name, how many are done, and of how many.

    Returns:
        The record that is in each file's metadata under 'motet_merge': checksums of all inputs, method and parameters,
        versions, and what was kept from the base.

    Raises:
        RequestError: the checkpoints do not fit each other or the method, or the target exists.
        RunError: the disk is full, or the target cannot be written.

    Cost: two passes or so over the checkpoints, one more for the checksums; memory for a few pieces of one tensor a
        thread, or for a few times the largest matrix times the experts where the method decomposes matrices.
    """
    out = Path(out)
    if out.exists() or out.is_symlink():
        message = f"'{out}' exists; a new file or folder was expected. Remove it, or choose another name."
        raise RequestError(message)
    chosen = from_name(method) if isinstance(method, str) else method
    models = open_models(base, experts, keep=keep)
    entries = _entries(models, output.dtype)
    record = _record(models, chosen, output)
    metadata = {"format": "pt", RECORD: json.dumps(record, ensure_ascii=False)}
    size = parse_size(output.shard_size) if output.shard_size is not None else None
    layout = plan_layout(out, entries, size, metadata)
    sink = Staged(out, layout, {"record": record, **asdict(output) | {"resume": True}}, resume=output.resume)
    try:
        _run(models, chosen, entries, sink, progress)
        if layout.is_folder and not isinstance(base, Mapping) and Path(base).is_dir():
            with explained(out):
                copy_beside(Path(base), sink.folder)
        sink.publish()
    except Exception:
        sink.discard()
        raise
    except BaseException:
        sink.keep()
        raise
    return record


def _run(models: Models, method: Method, entries: Mapping[str, Entry], sink: Sink, progress: Progress | None) -> None:
    method.check(len(models.experts))
    done: list[str] = []

    def one(name: str) -> None:
        if name not in sink.finished:
            for start, stored in _stretches(models, method, rule, name, entries[name]):
                sink.write(name, start, stored)
            sink.done(name)
        done.append(name)
        if progress is not None:
            progress(name, len(done), len(entries))

    rule: Rule | None = None
    if not set(models.merged) <= sink.finished:
        rule = method.rule(models)
    if method.whole:
        for name in entries:
            one(name)
    else:
        models.each(one, tuple(entries))


def _stretches(
    models: Models, method: Method, rule: Rule | None, name: str, entry: Entry
) -> Iterator[tuple[int, Array]]:
    if name not in models.merged or rule is None:
        for start in range(0, entry.size, PIECE):
            stored = models.base.stored(name, start, min(entry.size, start + PIECE))
            if models.base.entries[name].dtype != entry.dtype:
                kept = models.base.read(name, start, start + len(stored))
                stored = encode(kept, entry.dtype)
                if overflows(stored, entry.dtype) and np.isfinite(kept).all():
                    raise RunError(_too_large(name, entry.dtype))
            yield start, stored
        return
    trusted = method.shows_not_finite
    pieces = models.pieces(name, max(entry.size, 1)) if method.whole else models.pieces(name, trusted=trusted)
    for piece in pieces:
        with np.errstate(invalid="ignore"):  # of what is not finite more is said below than a warning would
            merged = rule(piece)
        if trusted and not np.isfinite(merged).all():
            models.check(name)
        stored = encode(merged, entry.dtype)
        if overflows(stored, entry.dtype):
            raise RunError(_too_large(name, entry.dtype))
        yield piece.start, stored


def _too_large(name: str, dtype: str) -> str:
    return (
        f"The merged '{name}' holds numbers too large for {dtype}. Ask for a wider format (--dtype float32), or merge "
        "with a smaller scale."
    )


def _entries(models: Models, dtype: str | None) -> dict[str, Entry]:
    asked = file_dtype(dtype) if dtype is not None else None
    return {
        name: Entry(asked, entry.shape) if asked and entry.is_float else entry
        for name, entry in models.base.entries.items()
        if name not in models.tied
    }


def _record(models: Models, method: Method, output: Output) -> dict[str, Any]:
    measured = [open_checkpoint(source, f"statistics {number}") for number, source in enumerate(method.measured(), 1)]
    read = (models.base, *models.experts, *measured)
    sums = models.map(lambda model: model.checksum(), read)
    inputs = [{"source": model.title, "checksum": found} for model, found in zip(read, sums, strict=True)]
    end = 1 + len(models.experts)
    return {
        "motet": __version__,
        "numpy": np.__version__,
        "method": {"name": method.name, "parameters": method.parameters()},
        "base": inputs[0],
        "experts": inputs[1:end],
        "statistics": inputs[end:],
        "dtype": output.dtype,
        "kept_from_base": list(models.kept),
    }


def _tensor(array: np.ndarray, entry: Entry) -> Any:
    import torch

    # Zero-dimensional arrays of numpy come out of reshape as they should; bfloat16 travels as its bits.
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if entry.dtype == "BF16" else tensor

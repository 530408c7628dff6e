"""LightGBM's trees column by column: what prediction reads of them, small on disk, and their text again."""

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

# What a tree's text holds, how many of it, and the type that it is kept in; all else in it is statistics of training.
LEAVES = {"leaf_value": np.float32}
SPLITS = {
    "split_feature": np.int64,
    "threshold": np.float64,
    "decision_type": np.int64,
    "left_child": np.int64,
    "right_child": np.int64,
}
SETS = {"cat_boundaries": np.int64, "cat_threshold": np.int64}
COUNTS = ("num_leaves", "num_cat")
_FIRST, _END = "\nTree=", "end of trees"


@dataclass(frozen=True)
class TreeColumns:
    """All trees of one LightGBM model as arrays, in the order of the trees; within a tree in LightGBM's own.

    The gains, counts and weights of training are left out, since prediction reads none of them, and leaves are float32.
    What is left is a valid LightGBM model and predicts the same to seven digits.

    Args:
        head: the lines before the first tree.
        columns: `num_leaves` and `num_cat` of each tree (N,); splits, leaves and sets of categories end to end.
    """

    head: str
    columns: Mapping[str, np.ndarray] = field(repr=False)

    @classmethod
    def from_text(cls, text: str) -> "TreeColumns":
        """Reads LightGBM's own text form."""
        head, *trees = text.partition(_END)[0].split(_FIRST)
        kept = [line for line in head.split("\n") if not line.startswith("tree_sizes=")]  # sizes of the longer text
        words: dict[str, list[str]] = {name: [] for name in (*COUNTS, *SPLITS, *LEAVES, *SETS)}
        for tree in trees:
            for line in tree.split("\n"):
                name, _, values = line.partition("=")
                if name in words:
                    words[name].extend(values.split())
        return cls("\n".join(kept).rstrip("\n"), {name: _array(name, found) for name, found in words.items()})

    def to_text(self, leaf_counts: Sequence[np.ndarray] | None = None) -> str:
        """LightGBM's own text form; the same for the same columns, whatever they were read from.

        Args:
            leaf_counts: how many rows each leaf has, by tree; only TreeSHAP reads them.
        """
        parts = [self.head + "\n"]
        for number, tree in enumerate(self.trees()):
            lines = [f"Tree={number}", f"num_leaves={len(tree['leaf_value'])}", f"num_cat={_num_sets(tree)}"]
            lines += [f"{name}={_words(values)}" for name, values in tree.items() if len(values) or name in SPLITS]
            lines += [] if leaf_counts is None else _count_lines(tree, leaf_counts[number])
            parts.append("\n".join([*lines, "is_linear=0", "shrinkage=1", "\n"]))
        return "\n".join([*parts, _END + "\n"])

    def trees(self) -> list[dict[str, np.ndarray]]:
        """Each tree's own part of the columns."""
        leaves, sets = self.columns["num_leaves"], self.columns["num_cat"]
        bounds = np.where(sets > 0, sets + 1, 0)
        cuts = {name: np.cumsum(leaves - 1) for name in SPLITS}
        cuts |= {name: np.cumsum(leaves) for name in LEAVES} | {"cat_boundaries": np.cumsum(bounds)}
        last = np.where(sets > 0, np.append(self.columns["cat_boundaries"], 0)[cuts["cat_boundaries"] - 1], 0)
        cuts["cat_threshold"] = np.cumsum(last)
        parts = {name: np.split(self.columns[name], cut[:-1]) for name, cut in cuts.items()}
        return [{name: part[number] for name, part in parts.items()} for number in range(len(leaves))]

    def to_bytes(self) -> bytes:
        """The columns, compressed: a quarter or so of what the compressed text of training takes."""
        listed: list[list[str | int]] = []
        data: list[bytes] = []
        for name, values in self.columns.items():
            for part, kept in _stored(name, values).items():
                listed.append([part, kept.dtype.str, len(kept)])
                data.append(kept.tobytes())
        start = json.dumps({"head": self.head, "columns": listed}).encode()
        return zlib.compress(len(start).to_bytes(8, "little") + start + b"".join(data), level=9)

    @classmethod
    def from_bytes(cls, packed: bytes) -> "TreeColumns":
        """Reads what `to_bytes` wrote."""
        data = zlib.decompress(packed)
        place = 8 + int.from_bytes(data[:8], "little")
        start = json.loads(data[8:place])
        found = {}
        for name, kind, count in start["columns"]:
            found[name] = np.frombuffer(data, kind, count, place)
            place += found[name].nbytes
        names = (*COUNTS, *SPLITS, *LEAVES, *SETS)
        return cls(start["head"], {name: _restored(name, found) for name in names})


def _array(name: str, words: Sequence[str]) -> np.ndarray:
    kind = (LEAVES | SPLITS | SETS).get(name, np.int64)
    return np.array(words, dtype=np.float64 if kind != np.int64 else np.int64).astype(kind)


def _count_lines(tree: Mapping[str, np.ndarray], leaves: np.ndarray) -> list[str]:
    """The rows of each leaf and, below each split, of all its leaves."""
    splits = np.zeros(len(leaves) - 1, dtype=np.int64)
    for place in reversed(range(len(splits))):  # a split comes before those below it
        for child in (int(tree["left_child"][place]), int(tree["right_child"][place])):
            splits[place] += leaves[~child] if child < 0 else splits[child]
    return [f"leaf_count={_words(leaves)}", f"internal_count={_words(splits)}"]


def _num_sets(tree: Mapping[str, np.ndarray]) -> int:
    return max(0, len(tree["cat_boundaries"]) - 1)


def _words(values: np.ndarray) -> str:
    # The shortest words that give back the number in its own precision; LightGBM reads them as float64.
    return " ".join(str(value) for value in values) if values.dtype.kind == "f" else " ".join(map(str, values.tolist()))


def _stored(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """A column as it is written: whole numbers as narrow as they are, and thresholds as places in a list."""
    if name == "threshold":  # few distinct ones, of eight bytes each: the edges of LightGBM's bins
        distinct, codes = np.unique(values, return_inverse=True)
        return {"threshold.values": distinct, "threshold.codes": _narrow(codes)}
    return {name: _narrow(values) if values.dtype == np.int64 else values}


def _restored(name: str, found: Mapping[str, np.ndarray]) -> np.ndarray:
    if name == "threshold":
        return found["threshold.values"][found["threshold.codes"]]
    return found[name].astype((LEAVES | SPLITS | SETS).get(name, np.int64))


def _narrow(values: np.ndarray) -> np.ndarray:
    low, high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
    for kind in (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return values.astype(kind)
    return values

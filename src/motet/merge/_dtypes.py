"""The number formats of safetensors files, as numpy stores them and as merging reads them."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from motet._errors import RequestError, suggest

Array: TypeAlias = NDArray[Any]

# What the file says -> how numpy holds it. numpy has no bfloat16: its bits are kept as whole numbers.
STORED = {
    "F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2"),
    "I64": np.dtype("<i8"), "I32": np.dtype("<i4"), "I16": np.dtype("<i2"), "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"), "U32": np.dtype("<u4"), "U16": np.dtype("<u2"), "U8": np.dtype("u1"), "BOOL": np.dtype("?"),
}  # fmt: skip
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
NAMES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}


def file_dtype(name: str) -> str:
    """The file's word for a number format such as 'bfloat16'.

    Raises:
        RequestError: there is no such format, or weights are not kept in it.
    """
    if name not in NAMES:
        message = f"Weights of dtype '{name}' were asked for; a floating format was expected.{suggest(name, NAMES)}"
        raise RequestError(message)
    return NAMES[name]


def decode(stored: Array, dtype: str) -> Array:
    """Stored numbers as float32, or as float64 where they are float64: without a copy where that is possible."""
    if dtype == "BF16":
        wide = stored.astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)
    return stored.astype(np.float32) if dtype == "F16" else stored


def encode(numbers: Array, dtype: str) -> Array:
    """Numbers rounded to the nearest in the format `dtype`, ties to even, as numpy stores them."""
    if dtype != "BF16":
        with np.errstate(over="ignore"):
            return numbers.astype(STORED[dtype], copy=False)
    bits = numbers.astype(np.float32, copy=False).view(np.uint32)
    rounded = (bits >> 16) & 1
    rounded += 0x7FFF
    rounded += bits
    rounded >>= 16
    return rounded.astype(np.uint16)


def overflows(stored: Array, dtype: str) -> bool:
    """Whether a finite number became infinite in the narrow format `dtype`."""
    if dtype == "BF16":
        return bool(((stored & 0x7F80) == 0x7F80).any())
    return bool(np.isinf(stored).any())

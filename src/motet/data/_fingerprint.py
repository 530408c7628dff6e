"""A hash of a table's names, types and values."""

import hashlib
from typing import Any

import numpy as np
import polars as pl


def fingerprint(frame: pl.DataFrame) -> str:
    """A hash (32 hex digits) of a table's column names, types and values, in order.

    BLAKE2b over each column's plain bytes (null places, lengths of texts, values), not polars' own row hash, so that
    it is the same in every process and with every version of polars.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, dtype in frame.schema.items():
        digest.update(f"{name}\0{dtype}\0{frame.height}\0".encode())
        _add(digest, frame.get_column(name))
    return digest.hexdigest()


def _add(digest: Any, column: pl.Series) -> None:
    dtype = column.dtype
    if column.null_count():
        digest.update(np.packbits(column.is_null().to_numpy()).tobytes())
    if isinstance(dtype, pl.List | pl.Array):
        as_list = column.cast(pl.List(dtype.inner))
        digest.update(as_list.list.len().fill_null(0).to_numpy().tobytes())
        _add(digest, as_list.drop_nulls().explode())
    elif isinstance(dtype, pl.Struct):
        for name in column.struct.fields:
            _add(digest, column.struct.field(name))
    elif dtype == pl.Binary:
        values = [value or b"" for value in column]
        digest.update(np.array([len(value) for value in values], dtype=np.int64).tobytes())
        digest.update(b"".join(values))
    elif dtype.is_numeric() and not dtype.is_decimal():
        digest.update(np.ascontiguousarray(column.fill_null(0).to_numpy()).tobytes())
    elif dtype == pl.Boolean:
        digest.update(np.packbits(column.fill_null(value=False).to_numpy()).tobytes())
    elif dtype.is_temporal():
        _add(digest, column.to_physical())
    elif dtype != pl.Null:
        texts = column.cast(pl.String).fill_null("")
        digest.update(texts.str.len_bytes().to_numpy().tobytes())
        digest.update("".join(texts.to_list()).encode())

"""The rules that decide what a column is."""

import re

import polars as pl

FEW_ROWS = 50  # with no more rows than these, all values may well differ by chance
NEARLY_ALL = 0.9
LONG_TEXT_WORDS = 6.0
SAMPLE_ROWS = 10_000
MOST_CODES = 1000
ID_NAME = re.compile(r"(^|_)(id|ids|uuid|guid|index|key|rowid|userid|row_number|rownum)$|^(id|uuid|guid)_")
CODE_NAME = re.compile(r"(^|_)(code|cd|zip|zipcode|postcode|postal|plz|fips|type|class|category|group|cluster)$")


def judge(values: pl.Series) -> tuple[str, str]:
    """The role of a column, from its training rows, and the reason.

    - No value, or one value without gaps: `constant`.
    - List, struct, binary: `ignored`.
    - Dates, times, durations: `date`, used as numbers.
    - Booleans: `category`.
    - Floats: `number`; infinities are missing values.
    - Integers: `number`, also with few distinct values, because their order says something; but `identifier` when all
      differ and they run on row by row or the column is called an id (more than 50 rows), and `category` when the
      name says that they are codes (…_code, type, zip, class, …, or an id that repeats) and at most 1000 differ.
    - Text: `number` when every value is one and more than 20 differ (no leading zeros); `text` when longer than 6
      words on average and more than 100 differ; `identifier` when more than 90% of more than 50 rows differ;
      else `category`.
    """
    dtype = values.dtype
    if dtype.is_nested() or dtype in (pl.Binary, pl.Object):
        return "ignored", f"{dtype} is not read; take single columns out of it"
    known = values.drop_nulls()
    if dtype.is_float():
        known = known.filter(known.is_finite())
    if len(known) == 0:
        return "constant", "every value is missing"
    distinct = known.n_unique()
    if distinct == 1 and len(known) == len(values):
        return "constant", f"every value is {known[0]!r}"
    if dtype.is_temporal():
        return "date", f"{_kind_of_date(dtype)}, expanded to numbers"
    if dtype == pl.Boolean:
        return "category", "true or false"
    if dtype.is_float() or dtype.is_decimal():
        return "number", _float_reason(values, distinct)
    if dtype.is_integer():
        return _judge_integers(known, distinct)
    return _judge_text(known.cast(pl.String), distinct)


def _float_reason(values: pl.Series, distinct: int) -> str:
    infinite = int(values.is_infinite().sum()) if values.dtype.is_float() else 0
    reason = f"{distinct} distinct numbers"
    return f"{reason}; {infinite} infinite ones count as missing" if infinite else reason


def _judge_integers(known: pl.Series, distinct: int) -> tuple[str, str]:
    name = plain_name(known.name)
    named_id = bool(ID_NAME.search(name))
    if len(known) > FEW_ROWS and distinct == len(known):
        ordered = bool((known.diff().drop_nulls() > 0).all()) or bool((known.diff().drop_nulls() < 0).all())
        filled = int(known.max()) - int(known.min()) + 1 == len(known)  # type: ignore[arg-type]
        if ordered or filled:
            return "identifier", "whole numbers that count the rows"
    if named_id and len(known) > FEW_ROWS and distinct > NEARLY_ALL * len(known):
        return "identifier", f"called an id, and {distinct} of {len(known)} values differ"
    if (named_id or CODE_NAME.search(name)) and distinct <= MOST_CODES:
        return "category", f"{distinct} distinct whole numbers, codes by the column's name"
    return "number", f"{distinct} distinct whole numbers"


def _judge_text(known: pl.Series, distinct: int) -> tuple[str, str]:
    sample = known if len(known) <= SAMPLE_ROWS else known.gather_every(-(-len(known) // SAMPLE_ROWS))
    share, other = _numeric(sample)
    if (
        share == 1.0
        and distinct > 20
        and not bool(sample.str.contains(r"^[+-]?0[0-9]").any())
        and _numeric(known)[0] == 1
    ):
        return "number", f"{distinct} distinct texts, all of them numbers"
    note = f"; {share:.0%} are numbers, '{other}' is not" if share > 0.5 and other is not None else ""
    words = float(sample.str.count_matches(r"\S+").mean() or 0)  # type: ignore[arg-type]
    if words > LONG_TEXT_WORDS and distinct > 100:
        return "text", f"{words:.0f} words a row on average; free text is not read yet"
    if len(known) > FEW_ROWS and distinct > NEARLY_ALL * len(known):
        return "identifier", f"{distinct} of {len(known)} texts differ{note}"
    return "category", f"{distinct} distinct texts{note}"


def _numeric(texts: pl.Series) -> tuple[float, str | None]:
    """The share of texts that are numbers, and the first one that is not."""
    failed = texts.str.strip_chars().cast(pl.Float64, strict=False).is_null()
    return 1.0 - float(failed.mean() or 0), (texts.filter(failed)[0] if failed.any() else None)  # type: ignore[arg-type]


def _kind_of_date(dtype: pl.DataType) -> str:
    return {"Date": "date", "Datetime": "date and time", "Time": "time of day"}.get(
        dtype.base_type().__name__, "duration"
    )


def plain_name(name: str) -> str:
    """`PassengerId` and `Passenger ID` to `passenger_id`: one spelling for the rules that look at names."""
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return re.sub(r"[^a-z0-9]+", "_", split.lower()).strip("_")

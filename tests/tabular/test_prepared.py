"""How many rows each part gets."""

import pytest

from motet.tabular._prepared import _fractions


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (1000, (0.64, 0.10, 0.10, 0.16)),
        (500_000, (0.64, 0.10, 0.10, 0.16)),
        (2_000_000, (0.90, 0.025, 0.025, 0.05)),
    ],
)
def test_large_tables_hold_out_no_more_than_measuring_needs(rows: int, expected: tuple[float, ...]) -> None:
    assert _fractions(rows) == pytest.approx(expected)
    assert sum(_fractions(rows)) == pytest.approx(1.0)

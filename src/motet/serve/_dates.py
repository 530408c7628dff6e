"""A date's parts in the arithmetic that a graph has: whole numbers, and no calendar."""

from collections.abc import Callable

import numpy as np

from motet.serve._graph import Graph

INT64, DOUBLE = 7, 11
DAY = 86_400_000_000  # microseconds
HOUR = 3_600_000_000
TO_MARCH = 719_468  # days from 1 March of the year 0, where leap days come last, to 1970
FOUR_CENTURIES = 146_097  # days


def date_part(graph: Graph, moments: str, part: str) -> str:
    """One of `days`, `month`, `day`, `weekday`, `yearday` and `hour` as float64 (rows,).

    Args:
        graph: gets the nodes.
        moments: (rows,) int64, microseconds since 1970.
        part: the part's name.

    Source: the days of a calendar that begins in March, Hinnant, chrono-compatible low-level date algorithms, 2013.
    """
    if part == "days":
        exact = graph.add("Cast", [moments], {"to": DOUBLE})
        return graph.add("Div", [exact, graph.constant(np.array(float(DAY)))])
    if part == "hour":
        clock = graph.add("Cast", [_mod(graph, moments, DAY)], {"to": DOUBLE})
        return graph.add("Div", [clock, graph.constant(np.array(float(HOUR)))])
    days = _floor(graph, moments, DAY)
    found = _mod(graph, _plus(graph, days, 3), 7) if part == "weekday" else PARTS[part](graph, days)
    return graph.add("Cast", [found], {"to": DOUBLE})


def _month(graph: Graph, days: str) -> str:
    return _to_january(graph, _march_month(graph, _march(graph, days)[1]))


def _day(graph: Graph, days: str) -> str:
    since = _march(graph, days)[1]
    before = _floor(graph, _plus(graph, _times(graph, _march_month(graph, since), 153), 2), 5)
    return _plus(graph, graph.add("Sub", [since, before]), 1)


def _yearday(graph: Graph, days: str) -> str:
    """From 1 March on 60 and the leap day more than the days since; before it, 306 days less."""
    year, since = _march(graph, days)
    by_4 = _is_zero(graph, _mod(graph, year, 4))
    by_100, by_400 = _is_zero(graph, _mod(graph, year, 100)), _is_zero(graph, _mod(graph, year, 400))
    leap = graph.add("And", [by_4, graph.add("Or", [graph.add("Not", [by_100]), by_400])])
    later = graph.add("Add", [_plus(graph, since, 60), graph.add("Cast", [leap], {"to": INT64})])
    in_new_year = graph.add("Less", [since, graph.constant(np.array(306))])
    return graph.add("Where", [in_new_year, later, _plus(graph, since, -305)])


PARTS: dict[str, Callable[[Graph, str], str]] = {"month": _month, "day": _day, "yearday": _yearday}


def _march(graph: Graph, days: str) -> tuple[str, str]:
    """The year that began in March, and the days since then, 0…365."""
    shifted = _plus(graph, days, TO_MARCH)
    within = _mod(graph, shifted, FOUR_CENTURIES)
    leap = [_floor(graph, within, 1_460), _floor(graph, within, 36_524), _floor(graph, within, 146_096)]
    plain = graph.add("Sub", [graph.add("Add", [graph.add("Sub", [within, leap[0]]), leap[1]]), leap[2]])
    year = _floor(graph, plain, 365)
    begun = graph.add("Sub", [_times(graph, year, 365), _floor(graph, year, 100)])
    since = graph.add("Sub", [within, graph.add("Add", [begun, _floor(graph, year, 4)])])
    return graph.add("Add", [year, _times(graph, _floor(graph, shifted, FOUR_CENTURIES), 400)]), since


def _march_month(graph: Graph, since: str) -> str:
    """0 for March … 11 for February: five months have 153 days, twice."""
    return _floor(graph, _plus(graph, _times(graph, since, 5), 2), 153)


def _to_january(graph: Graph, month: str) -> str:
    return _plus(graph, _mod(graph, _plus(graph, month, 2), 12), 1)


def _plus(graph: Graph, whole: str, number: int) -> str:
    return graph.add("Add", [whole, graph.constant(np.array(number))])


def _times(graph: Graph, whole: str, number: int) -> str:
    return graph.add("Mul", [whole, graph.constant(np.array(number))])


def _mod(graph: Graph, whole: str, number: int) -> str:
    """The rest, 0 or more also below zero, as Python's."""
    return graph.add("Mod", [whole, graph.constant(np.array(number))])


def _floor(graph: Graph, whole: str, number: int) -> str:
    """Whole division, downwards also below zero: ONNX's own goes towards zero."""
    exact = graph.add("Sub", [whole, _mod(graph, whole, number)])
    return graph.add("Div", [exact, graph.constant(np.array(number))])


def _is_zero(graph: Graph, whole: str) -> str:
    return graph.add("Equal", [whole, graph.constant(np.array(0))])

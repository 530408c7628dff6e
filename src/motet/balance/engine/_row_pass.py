"""A backward of our own over some of the rows: autograd always takes all of them."""

from collections.abc import Iterable, Mapping

from torch import Tensor

from motet.balance.engine._graph import Graph, Node, downward, is_leaf_side
from motet.balance.engine._rows import CoupledError, Rows
from motet.balance.engine._top_pass import Key
from motet.balance.engine.rules._rules import pass_back

Held = tuple[Tensor, Rows]


def pass_rows(graph: Graph, starts: Mapping[Key, Held], ends: Iterable[Key]) -> dict[Key, Held]:
    """Takes T gradients of chosen rows from where tasks meet down to the layers' outputs.

    Args:
        graph: of the losses.
        starts: gradients (T, r, ...) where tasks meet, with where the rows lie.
        ends: where gradients are wanted.

    Returns:
        the gradients at the ends that were reached.

    Raises:
        CoupledError: an operation on the way mixes rows, or is not known.
    """
    wanted, held = set(ends), dict(starts)
    found: dict[Key, Held] = {}
    for node in downward([node for node, _ in starts], lambda node: _is_needed(graph, node)):
        arrived = {
            output: held.pop((node, output)) for output in range(len(node._input_metadata)) if (node, output) in held
        }
        found |= {(node, output): value for output, value in arrived.items() if (node, output) in wanted}
        needed = tuple(place for place, (below, _) in enumerate(node.next_functions) if _is_needed(graph, below))
        if not arrived or not needed:
            continue
        for place, passed, lies in pass_back(node, arrived, needed):
            if place in needed:
                _add(held, node.next_functions[place], passed, lies)
    return found


def _add(held: dict[Key, Held], key: Key, values: Tensor, rows: Rows) -> None:
    if key not in held:
        held[key] = (values, rows)
        return
    before, lies = held[key]
    if (lies.axis, lies.outer, lies.inner) != (rows.axis, rows.outer, rows.inner):
        raise CoupledError(key[0].name())
    held[key] = (before + values, rows)


def _is_needed(graph: Graph, node: Node | None) -> bool:
    return node is not None and graph.leads.get(node, False) and not is_leaf_side(node)

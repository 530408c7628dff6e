"""The rules together."""

from collections.abc import Mapping

from torch import Tensor

from motet.balance.engine._graph import Node
from motet.balance.engine._rows import CoupledError, Rows
from motet.balance.engine.rules._norms import NORMS
from motet.balance.engine.rules._numbers import NUMBERS
from motet.balance.engine.rules._passing import Passed, Passing
from motet.balance.engine.rules._pools import POOLS
from motet.balance.engine.rules._products import PRODUCTS
from motet.balance.engine.rules._shapes import SHAPES, joined_parts

RULES = SHAPES | NUMBERS | PRODUCTS | NORMS | POOLS


def pass_back(node: Node, arrived: Mapping[int, tuple[Tensor, Rows]], needed: tuple[int, ...]) -> Passed:
    """The gradients at a node's inputs, from those at its outputs, by number.

    Raises:
        CoupledError: the operation mixes rows, or is not known.
    """
    if node.name() in {"SplitBackward0", "SplitWithSizesBackward0", "UnbindBackward0"}:
        return joined_parts(node, arrived)
    rule = RULES.get(node.name())
    if rule is None or set(arrived) != {0}:
        raise CoupledError(node.name())
    return rule(Passing(node, *arrived[0], needed))

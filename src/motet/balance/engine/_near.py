"""Layers near the features, whose gradients cost little for all rows: a sketch need not estimate these."""

from collections.abc import Sequence
from functools import reduce
from operator import or_

import torch
from torch import Tensor

from motet.balance.engine._graph import Node
from motet.balance.engine._passes import Passes, batched_grads
from motet.balance.engine._plans import Delta, Plan
from motet.balance.engine._top_pass import key_of

PASSING = 0.4  # of a plain step: what taking all tasks and rows down to these layers may cost
READING = 0.05  # of a plain step: what one of them may cost beyond that


def near_plans(passes: Passes) -> list[Plan]:
    """Layers that all rows reach for part of a plain step, and that cost little themselves.

    A plain step costs three products for each layer; passing T tasks through it, or reading it for them, costs T.
    """
    plans = passes.plans_by_rows
    costs = [_products(plan) for plan in plans]
    num_tasks, step = len(passes.losses), 3 * sum(costs)
    near: list[Plan] = []
    passed = 0
    for place, above in sorted(enumerate(_above(passes, plans)), key=lambda pair: pair[1].bit_count()):
        on_the_way = sum(cost for number, cost in enumerate(costs) if (passed | above) >> number & 1)
        if num_tasks * on_the_way <= PASSING * step and num_tasks * costs[place] <= READING * step:
            near.append(plans[place])
            passed |= above
    return near


def exact_gramian(passes: Passes, plans: Sequence[Plan]) -> Tensor:
    """Inner products (T, T) at some layers, from all rows, float64."""
    size = len(passes.losses)
    total = torch.zeros(size, size, dtype=torch.float64, device=passes.losses[0].device)
    edges = list({key_of(edge): edge for plan in plans for edge in plan.edges}.values())
    if edges:
        grads = batched_grads(passes.frontier, edges, [top.dense for top in passes.top_pass.tops])
        deltas = {key_of(edge): Delta(grad) for edge, grad in zip(edges, grads, strict=True)}
        for plan in plans:
            total += plan.build(deltas, size).gramian()
    return total


def _products(plan: Plan) -> int:
    """Multiplications of one pass through the layer."""
    total = 0
    for edge in plan.edges:
        shape = edge.node._input_metadata[edge.output_nr].shape
        numbers = torch.Size(shape).numel()
        if plan.reader is not None and plan.reader.kind in {"matrix", "kernel"}:
            total += plan.parameter.numel() * (numbers // shape[plan.reader.channels])
        else:
            total += numbers
    return total


def _above(passes: Passes, plans: Sequence[Plan]) -> list[int]:
    """For each layer, which layers lie between the features and it, as bits."""
    graph = passes.graph
    own: dict[Node, int] = {}
    for number, plan in enumerate(plans):
        for edge in plan.edges:
            own[edge.node] = own.get(edge.node, 0) | 1 << number
    starts = {edge.node for edge in passes.frontier}
    passed: dict[Node, int] = dict.fromkeys(starts, 0)
    for node in graph.reached_by:  # each after all that lead to it
        if node in passed:
            here = passed[node] | own.get(node, 0)
            for below, _ in node.next_functions:
                passed[below] = passed.get(below, 0) | here
    return [reduce(or_, (passed.get(edge.node, 0) for edge in plan.edges)) for plan in plans]

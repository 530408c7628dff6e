"""Each architecture against its equations, written out task by task and expert by expert with the same weights."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from motet import RequestError
from motet.models.blocks import Experts, Gate, Mix, TokenAttention, TokenBlock
from motet.models.sharing import (
    APEM,
    CGC,
    DTRN,
    PLE,
    STEM,
    AdaTT,
    AdaTTSp,
    Bridged,
    CascadedGroups,
    ChannelScaling,
    CrossStitch,
    DSelectK,
    HardSharing,
    HoME,
    M3Net,
    MMoE,
    NestedExperts,
    Sharing,
    SkillNet,
    TaskAttention,
    TaskExpert,
    TaskGated,
    TaskIndicator,
)

TASKS, ROWS, WIDTH = 3, 6, 8
Loop = Callable[[Sharing, Tensor], list[Tensor]]


def linear(layer: object, number: int, rows: Tensor) -> Tensor:
    """One layer of a stack."""
    product = rows @ layer.weight[number]  # pyrefly: ignore
    return product if layer.bias is None else product + layer.bias[number, 0]  # pyrefly: ignore


def mlp(experts: Experts, number: int, rows: Tensor, act: Callable[[Tensor], Tensor] = torch.relu) -> Tensor:
    """One expert without a norm."""
    for place, layer in enumerate(experts.layers):
        rows = linear(layer, number, rows)
        rows = act(rows) if place < experts.num_dressed else rows
    return rows


def scores(gate: Gate, output: int, rows: Tensor) -> Tensor:
    """One output's scores, of a gate that reads the input."""
    for place, layer in enumerate(gate.layers):
        rows = linear(layer, output, torch.relu(rows) if place else rows)
    return rows


def total(weights: Tensor, values: list[Tensor]) -> Tensor:
    """Σ_e w_e u_e with weights (B, E)."""
    return sum(weights[:, place, None] * value for place, value in enumerate(values))


def softmax_of(mix: Mix, output: int, rows: Tensor, values: list[Tensor], seen: list[int]) -> Tensor:
    """An output's mixture of the experts that it sees."""
    shares = scores(mix.route.gate, output, rows)[:, seen].softmax(dim=-1)
    return total(shares, [values[number] for number in seen])


def mmoe(net: MMoE, rows: Tensor) -> list[Tensor]:
    count = net.mix.experts.num_experts
    values = [mlp(net.mix.experts, number, rows) for number in range(count)]
    return [softmax_of(net.mix, task, rows, values, list(range(count))) for task in range(TASKS)]


def hard(net: HardSharing, rows: Tensor) -> list[Tensor]:
    return [rows] * TASKS


def cross_stitch(net: CrossStitch, rows: Tensor) -> list[Tensor]:
    streams = [rows] * TASKS
    for mix in net.levels.mixes:
        values = [mlp(mix.experts, task, streams[task]) for task in range(TASKS)]
        streams = [sum(mix.route.weight[t, j] * values[j] for j in range(TASKS)) for t in range(TASKS)]
    return streams


def extraction(mix: Mix, streams: list[Tensor], specific: int, shared: int, *, last: bool) -> list[Tensor]:
    """One level of PLE; streams and outputs are the tasks' and, but for the last level, the shared one."""
    own = [list(range(task * specific, (task + 1) * specific)) for task in range(TASKS)]
    common = list(range(TASKS * specific, TASKS * specific + shared))
    owners = [task for task in range(TASKS) for _ in range(specific)] + [TASKS] * shared
    values = [mlp(mix.experts, number, streams[owner]) for number, owner in enumerate(owners)]
    found = [softmax_of(mix, task, streams[task], values, own[task] + common) for task in range(TASKS)]
    if not last:
        found.append(softmax_of(mix, TASKS, streams[TASKS], values, list(range(len(owners)))))
    return found


def cgc(net: CGC, rows: Tensor) -> list[Tensor]:
    return extraction(net.mix, [rows] * (TASKS + 1), 2, 2, last=True)


def ple(net: PLE, rows: Tensor) -> list[Tensor]:
    streams = [rows] * (TASKS + 1)
    for number, mix in enumerate(net.levels.mixes):
        streams = extraction(mix, streams, 2, 2, last=number == len(net.levels.mixes) - 1)
    return streams


def adatt(net: AdaTT | AdaTTSp, rows: Tensor, shared: int) -> list[Tensor]:
    streams = [rows] * (TASKS + 1)
    owners = [task for task in range(TASKS) for _ in range(2)] + [TASKS] * shared
    for mix in net.levels.mixes:
        values = [mlp(mix.experts, number, streams[owner]) for number, owner in enumerate(owners)]
        found = []
        for output in range(mix.route.num_outputs):
            mixed = total(scores(mix.route.gate.gate, output, streams[output]).softmax(dim=-1), values)
            residual = mix.route.beside.weight[output]
            found.append(mixed + sum(residual[e] * values[e] for e, owner in enumerate(owners) if owner == output))
        streams = found
    return streams


def stem(net: STEM, rows: Tensor) -> list[Tensor]:
    views = [linear(net.views, number, rows) for number in range(TASKS + 1)]
    owners = [0, 1, 2, TASKS, TASKS]
    values = [mlp(net.mix.experts, number, views[owner]) for number, owner in enumerate(owners)]
    found = []
    for task in range(TASKS):
        seen = [
            value if owner in {task, TASKS} else value.detach() for value, owner in zip(values, owners, strict=True)
        ]
        shares = scores(net.mix.route.gate, task, views[task] + views[TASKS]).softmax(dim=-1)
        found.append(total(shares, seen))
    return found


def attention(net: TaskAttention, rows: Tensor) -> list[Tensor]:
    values, found = rows, [rows] * TASKS
    for number, (first, second) in enumerate(net.shared):
        read = torch.relu(values @ first.weight.T + first.bias)
        values = torch.relu(read @ second.weight.T + second.bias)
        for task in range(TASKS):
            joined = read
            if number:
                joined = torch.cat([read, torch.relu(linear(net.carry[number - 1], task, found[task]))], dim=-1)
            middle = torch.relu(linear(net.squeeze[number], task, joined))
            found[task] = torch.sigmoid(linear(net.excite[number], task, middle)) * values
    return found


def home(net: HoME, rows: Tensor) -> list[Tensor]:
    """Two groups, [0, 1] and [2]; 4 shared and 2 group experts below; 2, 2 and 1 above."""

    def gated(gate: object, stream: int, values: Tensor) -> Tensor:
        shares = scores(gate.mixture, stream, values).softmax(dim=-1)  # pyrefly: ignore
        rank = gate.up.weight.shape[1]  # pyrefly: ignore
        opened = [
            2
            * torch.sigmoid(
                values @ gate.down.weight[stream][:, n * rank : (n + 1) * rank] @ gate.up.weight[2 * stream + n]
            )
            for n in range(2)
        ]
        return values * total(shares, opened)

    def expert(mix: Mix, number: int, values: Tensor) -> Tensor:
        values = linear(mix.experts.layers[0], number, values)
        norm = mix.experts.norms[0]
        values = functional.batch_norm(values, None, None, norm.scale[number, 0], norm.shift[number, 0], training=True)
        return functional.silu(values)

    def output(mix: Mix, number: int, context: Tensor, values: list[Tensor], seen: list[int], own: list[int]) -> Tensor:
        main = scores(mix.route.gate.gate, number, context)[:, seen].softmax(dim=-1)
        self_scores = scores(mix.route.beside.gate, number, context)[:, own]
        beside = self_scores.sigmoid() if len(own) == 1 else self_scores.softmax(dim=-1)
        return total(main, [values[e] for e in seen]) + total(beside, [values[e] for e in own])

    fed = [gated(net.gate_below, stream, rows) for stream in range(3)]
    values = [expert(net.below, e, fed[stream]) for e, stream in enumerate([0, 0, 1, 1, 2, 2, 2, 2])]
    shared = [4, 5, 6, 7]
    meta = [
        output(net.below, 0, rows, values, [0, 1, *shared], [0, 1]),
        output(net.below, 1, rows, values, [2, 3, *shared], [2, 3]),
        output(net.below, 2, rows, values, list(range(8)), shared),
    ]
    group = [0, 0, 1]
    inputs = [*meta, *(meta[group[task]] for task in range(TASKS))]
    fed = [gated(net.gate_above, stream, inputs[stream]) for stream in range(3 + TASKS)]
    values = [expert(net.above, e, fed[stream]) for e, stream in enumerate([0, 0, 1, 1, 2, 2, 3, 4, 5])]
    found = []
    for task in range(TASKS):
        context = torch.cat([meta[group[task]], meta[2]], dim=-1)
        seen = [2 * group[task], 2 * group[task] + 1, 4, 5, 6 + task]
        found.append(output(net.above, task, context, values, seen, [6 + task]))
    return found


def skillnet(net: SkillNet, rows: Tensor) -> list[Tensor]:
    streams = [rows] * TASKS
    for norm, mix in zip(net.norms, net.levels, strict=True):
        for task, skills in enumerate([[0, 1], [1], [0, 1, 2, 3]]):
            read = functional.layer_norm(streams[task], (WIDTH,), norm.weight, norm.bias)
            parts = [mlp(mix.experts, skill, read, functional.gelu) for skill in skills]
            streams[task] = streams[task] + sum(parts) / len(parts)
    return streams


def channel_scaling(net: ChannelScaling, rows: Tensor) -> list[Tensor]:
    part = net.scale
    return [rows * linear(part.scale, t, functional.gelu(linear(part.project, t, rows))) for t in range(TASKS)]


def task_gated(net: TaskGated, rows: Tensor) -> list[Tensor]:
    streams = [rows] * TASKS
    for number, (dense, mix) in enumerate(zip(net.dense, net.sparse, strict=True)):
        for task in range(TASKS):
            values = streams[task] + dense(net.norms[2 * number](streams[task]))
            read = net.norms[2 * number + 1](values)
            shares = scores(mix.route.gate, task, read).softmax(dim=-1)
            kept = shares * (shares >= shares.topk(2, dim=-1).values[:, -1:])
            parts = [mlp(mix.experts, e, read, functional.gelu) for e in range(6)]
            streams[task] = values + total(kept, parts)
    return streams


def task_indicator(net: TaskIndicator, rows: Tensor) -> list[Tensor]:
    excite, (first, second) = net.excite, net.select.layers
    values = rows * torch.sigmoid(linear(excite.excite, 0, torch.relu(linear(excite.squeeze, 0, rows))))
    opened = [torch.relu(values @ first.weight[0] + net.select.table[task, 0]) for task in range(TASKS)]
    return [torch.sigmoid(linear(second, 0, hidden)) * values for hidden in opened]


def nested(net: NestedExperts, rows: Tensor) -> list[Tensor]:
    values = [mlp(net.mix.experts, number, rows) for number in range(6)]
    found = []
    for task in range(TASKS):
        groups = scores(net.mix.route.outer.gate, task, rows).softmax(dim=-1)
        inner = scores(net.mix.route.inner, task, rows)
        rows_out = []
        for row in range(len(rows)):
            best = int(groups[row].argmax())
            shares = inner[row, 2 * best : 2 * best + 2].softmax(dim=-1)
            rows_out.append(
                groups[row, best] * (shares[0] * values[2 * best][row] + shares[1] * values[2 * best + 1][row])
            )
        found.append(torch.stack(rows_out))
    return found


def bridged(net: Bridged, rows: Tensor) -> list[Tensor]:
    """Groups [0, 2] and [1], three levels."""
    streams = [rows, rows]
    for number, branch in enumerate(net.branches):
        streams = [mlp(branch, group, streams[group]) for group in range(2)]
        if number < 2:
            cross = net.bridges[number].cross
            streams = [streams[group] + linear(cross, group, streams[1 - group].detach()) for group in range(2)]
    return [streams[0], streams[1], streams[0]]


def cascaded(net: CascadedGroups, rows: Tensor) -> list[Tensor]:
    """Groups [0, 1] and [2]; the best 2 of 4 experts, then 2 of each group's own."""
    values, streams = [mlp(net.common.experts, number, rows) for number in range(4)], []
    for group in range(2):
        shares = scores(net.common.route.gate, group, rows).softmax(dim=-1)
        kept = shares * (shares >= shares.topk(2, dim=-1).values[:, -1:])
        streams.append(total(kept, values))
    found = []
    for task, group in enumerate([0, 0, 1]):
        own = [mlp(net.own.experts, number, streams[number // 2]) for number in range(4)]
        found.append(softmax_of(net.own, task, streams[group], own, [2 * group, 2 * group + 1]))
    return found


def task_expert(net: TaskExpert, rows: Tensor) -> list[Tensor]:
    memory = [net.start[task].expand(len(rows), -1) for task in range(TASKS)]
    for layer, experts, route, write in zip(net.shared, net.experts, net.routes, net.write, strict=True):
        rows = torch.relu(rows @ layer.weight.T + layer.bias)
        values = [mlp(experts, number, rows) for number in range(3)]
        for task in range(TASKS):
            shares = scores(route.gate, task, rows).softmax(dim=-1)
            read = total(shares, [*values, memory[task]])
            opened = torch.sigmoid(linear(write, task, torch.cat([memory[task], read], dim=1)))
            memory[task] = (1 - opened) * memory[task] + opened * read
    return memory


def attended(part: TokenAttention, queries: Tensor, tokens: Tensor, seen: list[list[int]]) -> Tensor:
    """Attention query by query and head by head, queries (B, Q, F) and tokens (B, S, F)."""
    key, value = (tokens @ part.read.weight.T + part.read.bias).chunk(2, dim=-1)
    asked = queries @ part.ask.weight.T + part.ask.bias
    size = asked.shape[-1] // part.num_heads
    columns = []
    for query, places in enumerate(seen):
        heads = []
        for head in range(part.num_heads):
            cut = slice(head * size, (head + 1) * size)
            likeness = torch.stack([(asked[:, query, cut] * key[:, s, cut]).sum(dim=1) for s in places], dim=1)
            heads.append(total((likeness / size**0.5).softmax(dim=1), [value[:, s, cut] for s in places]))
        columns.append(torch.cat(heads, dim=1))
    return torch.stack(columns, dim=1) @ part.join.weight.T + part.join.bias


def dtrn(net: DTRN, tokens: Tensor) -> list[Tensor]:
    """Tokens of kinds 0, 1, 0; the second asks."""
    kinds = [0, 1, 0]
    tokens, found = tokens if tokens.ndim == 3 else tokens.unsqueeze(1), []
    for task in range(TASKS):
        made = [net.hyper(torch.cat([net.task_codes[task], net.kind_codes[kind]])).view(-1, WIDTH) for kind in kinds]
        values = tokens
        for number, (attention, think) in enumerate(zip(net.attention, net.think, strict=True)):

            def normed(values: Tensor, first: int) -> Tensor:
                plain = functional.layer_norm(values, (WIDTH,))
                parts = [plain[:, s] * (1 + made[s][first]) + made[s][first + 1] for s in range(3)]  # noqa: B023
                return torch.stack(parts, dim=1)

            read = normed(values, 4 * number)
            values = values + attended(attention, read, read, [[0, 2], [1], [0, 2]])
            values = values + think(normed(values, 4 * number + 2))
        asks = tokens[:, 1:2]
        fields = [asks[:, 0], *(attended(net.ask, asks, values, [seen])[:, 0] for seen in ([0, 2], [1]))]
        means = torch.stack([field.mean(dim=1) for field in fields], dim=1)
        opened = linear(net.refine.excite, task, torch.relu(linear(net.refine.squeeze, task, means))).sigmoid()
        found.append(torch.cat([opened[:, place, None] * field for place, field in enumerate(fields)], dim=1))
    return found


def set_block(block: TokenBlock, queries: Tensor, tokens: Tensor) -> Tensor:
    everyone = [list(range(tokens.shape[1]))] * queries.shape[1]
    read = attended(block.attention, block.norm_read(queries), block.norm_read(tokens), everyone)
    values = queries + read
    return values + block.contract(functional.gelu(block.expand(block.norm_think(values))))


def apem(net: APEM, tokens: Tensor) -> list[Tensor]:
    """Two blocks over 3 points, then 2 groups."""
    count, values = len(tokens), tokens
    for number in range(2):
        found = set_block(net.gather[number], net.points[number].repeat(count, 1, 1), values)
        values = set_block(net.spread[number], values, found)
    groups = set_block(net.group[0], net.seeds.repeat(count, 1, 1), values)
    opened = linear(net.excite.excite, 0, torch.relu(linear(net.excite.squeeze, 0, groups.mean(dim=2)))).sigmoid()
    values = torch.cat([groups[:, number] * opened[:, number, None] for number in range(2)], dim=1)
    first, second = net.select.layers
    hidden = [torch.relu(values @ first.weight[0] + net.select.table[task, 0]) for task in range(TASKS)]
    return [torch.sigmoid(linear(second, 0, middle)) * values for middle in hidden]


def m3net(net: M3Net, tokens: Tensor) -> list[Tensor]:
    """Tokens of modalities 0, 1, 0."""
    parts = [(tokens[:, 0] + tokens[:, 2]) / 2, tokens[:, 1]]
    fused = torch.relu(sum(linear(net.fuse, number, part) for number, part in enumerate(parts)))
    alone = [torch.relu(linear(net.alone, number, part)) for number, part in enumerate(parts)]
    fused = sum(fused * torch.sigmoid(linear(net.attend, number, part)) for number, part in enumerate(alone))
    return channel_scaling(net, fused)


def skillnet_by_token(net: SkillNet, tokens: Tensor) -> list[Tensor]:
    """Tokens of the skills 0, 1, 0: task 0 reads all, 1 the second, 2 the others; no token has the skills 2 to 4."""
    found = []
    for places, general in (([0, 1, 2], [2]), ([1], []), ([0, 2], [2, 3, 4])):
        passed = []
        for place in places:
            values = tokens[:, place]
            for norm, mix in zip(net.norms, net.levels, strict=True):
                read = functional.layer_norm(values, (WIDTH,), norm.weight, norm.bias)
                parts = [mlp(mix.experts, skill, read, functional.gelu) for skill in [place % 2, *general]]
                values = values + sum(parts) / len(parts)
            passed.append(values)
        found.append(sum(passed) / len(passed))
    return found


def transformer(net: TaskGated, tokens: Tensor) -> list[Tensor]:
    """M3ViT's blocks: attention before each FFN, the dense one and the sparse one."""
    everyone = [list(range(tokens.shape[1]))] * tokens.shape[1]
    streams = [tokens] * TASKS
    for number, (dense, mix) in enumerate(zip(net.dense, net.sparse, strict=True)):
        for task in range(TASKS):
            values = streams[task]
            for place in (2 * number, 2 * number + 1):
                read = net.attend_norms[place](values)
                values = values + attended(net.attend[place], read, read, everyone)
                if place == 2 * number:
                    values = values + dense(net.norms[place](values))
            read = net.norms[2 * number + 1](values).flatten(0, 1)
            shares = scores(mix.route.gate, task, read).softmax(dim=-1)
            kept = shares * (shares >= shares.topk(2, dim=-1).values[:, -1:])
            parts = [mlp(mix.experts, e, read, functional.gelu) for e in range(6)]
            streams[task] = values + total(kept, parts).view(values.shape)
    return [values.mean(dim=1) for values in streams]


def dselect(net: DSelectK, rows: Tensor) -> list[Tensor]:
    weights = net.mix.route(rows).weights  # by its formula in the tests of blocks
    values = [mlp(net.mix.experts, number, rows) for number in range(4)]
    return [total(weights[task], values) for task in range(TASKS)]


CASES: dict[str, tuple[Callable[[], Sharing], Loop]] = {
    "hard": (lambda: HardSharing(TASKS, width=WIDTH), hard),
    "cross_stitch": (lambda: CrossStitch(TASKS, width=WIDTH, levels=(5, 4)), cross_stitch),
    "attention": (lambda: TaskAttention(TASKS, width=WIDTH, levels=(6, 4)), attention),
    "mmoe": (lambda: MMoE(TASKS, width=WIDTH, num_experts=5, dims=(6, 4), gate_hidden=(3,)), mmoe),
    "dselect_k": (lambda: DSelectK(TASKS, width=WIDTH, num_experts=4, dims=(4,)), dselect),
    "cgc": (lambda: CGC(TASKS, width=WIDTH, dims=(6, 4)), cgc),
    "ple": (lambda: PLE(TASKS, width=WIDTH, levels=(6, 5, 4)), ple),
    "adatt_sp": (lambda: AdaTTSp(TASKS, width=WIDTH, levels=(6, 4)), lambda net, rows: adatt(net, rows, 0)),
    "adatt": (lambda: AdaTT(TASKS, width=WIDTH, num_shared=2, levels=(6, 4)), lambda net, rows: adatt(net, rows, 2)),
    "stem": (lambda: STEM(TASKS, width=WIDTH, dims=(6, 4), gate_hidden=(3,), view=7), stem),
    "home": (lambda: HoME(TASKS, width=WIDTH, groups=[[0, 1], [2]], expert_width=5, rank=2), home),
    "skillnet": (lambda: SkillNet(TASKS, width=WIDTH, skills=[[0, 1], [1], [0, 1, 2, 3]]), skillnet),
    "channel_scaling": (lambda: ChannelScaling(TASKS, width=WIDTH), channel_scaling),
    "task_gated": (lambda: TaskGated(TASKS, width=WIDTH, num_experts=6, k=2, num_blocks=2), task_gated),
    "task_indicator": (lambda: TaskIndicator(TASKS, width=WIDTH, hidden=5), task_indicator),
    "bridged": (lambda: Bridged(TASKS, width=WIDTH, groups=[[0, 2], [1]], levels=(6, 5, 4)), bridged),
    "cascaded": (
        lambda: CascadedGroups(TASKS, width=WIDTH, groups=[[0, 1], [2]], num_common=4, dims=(6, 4)), cascaded,
    ),
    "task_expert": (lambda: TaskExpert(TASKS, width=WIDTH, levels=(6, 5), num_experts=3, memory=4), task_expert),
    "dtrn": (
        lambda: DTRN(TASKS, width=WIDTH, kinds=[0, 1, 0], target=1, num_blocks=2, num_heads=2, code=3), dtrn,
    ),
    "task_gated with attention": (
        lambda: TaskGated(TASKS, width=WIDTH, num_experts=6, k=2, num_blocks=2, num_heads=2), transformer,
    ),
    "apem": (
        lambda: APEM(
            TASKS, width=WIDTH, num_groups=2, num_points=3, num_blocks=2, num_heads=2, hidden=6, selector=5
        ), apem,
    ),
    "m3net": (lambda: M3Net(TASKS, width=WIDTH, kinds=[0, 1, 0]), m3net),
    "skillnet by token": (
        lambda: SkillNet(TASKS, width=WIDTH, skills=[[0, 1, 2], [1], [0, 2, 3, 4]], kinds=[0, 1, 0]), skillnet_by_token,
    ),
    "nested": (lambda: NestedExperts(TASKS, width=WIDTH, num_groups=3, group_size=2, dims=(4,)), nested),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_those_of_the_equations(name: str) -> None:
    build, loop = CASES[name]
    torch.manual_seed(0)
    net = build().double()
    assert type(net).name == name.split()[0]
    shape = (ROWS, 3, WIDTH) if net.tokens_meet else (ROWS, WIDTH)
    rows = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    found, expected = net(rows), torch.stack(loop(net, rows))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    push = torch.randn(*found.shape, dtype=torch.float64)
    wanted = [rows, *net.parameters()]
    grads = torch.autograd.grad((found * push).sum(), wanted, allow_unused=True)
    loops = torch.autograd.grad((expected * push).sum(), wanted, allow_unused=True)
    for ours, theirs, tensor in zip(grads, loops, wanted, strict=True):
        zero = torch.zeros_like(tensor)
        torch.testing.assert_close(zero if ours is None else ours, zero if theirs is None else theirs)
        assert ours is None or tensor is rows or bool(ours.any()), "a parameter that learns nothing"


def test_mmoe_with_one_expert_is_hard_sharing_with_that_expert() -> None:
    net = MMoE(TASKS, width=WIDTH, num_experts=1, dims=(4,))
    rows = torch.randn(ROWS, WIDTH)
    alone = net.mix.experts(rows)[0]
    torch.testing.assert_close(net(rows), HardSharing(TASKS, width=4)(alone))


def test_cgc_without_own_experts_is_mmoe() -> None:
    torch.manual_seed(0)
    net, other = (
        CGC(TASKS, width=WIDTH, num_specific=0, num_shared=4, dims=(4,)),
        MMoE(TASKS, width=WIDTH, num_experts=4, dims=(4,)),
    )
    other.load_state_dict(net.state_dict())
    rows = torch.randn(ROWS, WIDTH)
    torch.testing.assert_close(net(rows), other(rows))


def test_one_level_of_ple_is_cgc() -> None:
    net, other = PLE(TASKS, width=WIDTH, levels=(4,)), CGC(TASKS, width=WIDTH, dims=(4,))
    other.load_state_dict({name.replace("levels.mixes.0", "mix"): value for name, value in net.state_dict().items()})
    rows = torch.randn(ROWS, WIDTH)
    torch.testing.assert_close(net(rows), other(rows))


def test_ple_has_a_shared_gate_over_all_experts_but_on_the_last_level() -> None:
    first, last = PLE(TASKS, width=WIDTH, levels=(6, 4)).levels.mixes
    assert (first.route.num_outputs, last.route.num_outputs) == (TASKS + 1, TASKS)
    assert first.route.seen[TASKS] == list(range(TASKS * 2 + 2))
    assert last.route.seen[0] == [0, 1, 6, 7]


def test_cross_stitch_begins_near_its_own_columns() -> None:
    net = CrossStitch(TASKS, width=WIDTH, levels=(6, 4))
    for mix in net.levels.mixes:
        torch.testing.assert_close(mix.route.weight.diagonal(), torch.full((TASKS,), 0.9))
        torch.testing.assert_close(mix.route.weight.sum(dim=1), torch.ones(TASKS))
    apart = CrossStitch(TASKS, width=WIDTH, levels=(6,), own=1.0)
    rows = torch.randn(ROWS, WIDTH)
    torch.testing.assert_close(apart(rows), apart.levels.mixes[0].experts(rows))


def test_adatt_with_one_expert_each_adds_that_expert() -> None:
    net = AdaTTSp(TASKS, width=WIDTH, num_specific=1, levels=(4,))
    mix = net.levels.mixes[0]
    assert dict(net.named_parameters()).keys() == {
        "levels.mixes.0.experts.layers.0.weight", "levels.mixes.0.experts.layers.0.bias",
        "levels.mixes.0.route.gate.gate.layers.0.weight", "levels.mixes.0.route.gate.gate.layers.0.bias",
    }  # fmt: skip
    rows = torch.randn(ROWS, WIDTH)
    values = mix.experts(rows)
    gated = Mix(mix.experts, mix.route.gate)(rows)
    torch.testing.assert_close(net(rows), gated + values)


def test_stem_writes_only_its_own_and_the_shared_part() -> None:
    torch.manual_seed(0)
    net = STEM(TASKS, width=WIDTH, dims=(4,))
    rows = torch.randn(ROWS, WIDTH)
    for task in range(TASKS):
        net.zero_grad()
        net(rows)[task].square().sum().backward()
        written = (net.mix.experts.layers[0].weight.grad != 0).flatten(1).any(dim=1).tolist()
        assert written == [number in {task, 3, 4} for number in range(5)]
        viewed = (net.views.weight.grad != 0).flatten(1).any(dim=1).tolist()
        assert viewed == [number in {task, 3} for number in range(TASKS + 1)]


def test_dselect_learns_to_read_exactly_k() -> None:
    torch.manual_seed(0)
    net = DSelectK(2, width=WIDTH, num_experts=6, k=2, dims=(4,), reads="task", auxiliary={"selector_entropy": 0.1})
    rows, target = torch.randn(64, WIDTH), torch.randn(2, 64, 4)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(400):
        loss = (net(rows) - target).square().mean() + sum(net.auxiliary.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    weights = net.eval().mix.route(None).weights[:, 0]
    assert ((weights > 1e-6).sum(dim=1) <= 2).all()
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(2))


def test_home_keeps_its_experts_alive_where_relu_experts_die() -> None:
    """Features far from zero, as counts are: many ReLU units are never on, and no unit of HoME is off for all rows."""
    torch.manual_seed(0)
    rows = 5.0 + torch.randn(256, WIDTH)
    dead = MMoE(TASKS, width=WIDTH, num_experts=8, dims=(64,))
    with torch.no_grad():
        dead.mix.experts.layers[0].bias -= 6.0
    zeros = (dead.mix.experts(rows) == 0).float().mean(dim=1)
    assert (zeros > 0.9).float().mean() > 0.2
    net = HoME(TASKS, width=WIDTH, groups=[[0, 1], [2]], expert_width=64, rank=4)
    with torch.no_grad():
        net.below.experts.layers[0].bias -= 6.0
    found = []
    net.below.experts.register_forward_hook(lambda module, inputs, output: found.append(output))
    net(rows)
    assert float((found[0].abs() < 1e-6).float().mean(dim=1).max()) < 0.9


def test_no_gradient_crosses_a_bridge_that_stops_it() -> None:
    torch.manual_seed(0)
    rows = torch.randn(ROWS, WIDTH)
    for stop in (True, False):
        net = Bridged(TASKS, width=WIDTH, groups=[[0, 1], [2]], levels=(6, 4), stop=stop)
        net(rows, [2]).square().sum().backward()
        written = (net.branches[0].layers[0].weight.grad != 0).flatten(1).any(dim=1).tolist()
        assert written == [not stop, True]
    crossed = net.bridges[0](torch.stack([torch.ones(1, 6), torch.zeros(1, 6)]))
    assert (crossed[1] != net.bridges[0](torch.zeros(2, 1, 6))[1]).any()  # what is not stopped is read all the same


def test_one_group_has_no_bridge_and_no_parameter_of_one() -> None:
    net = Bridged(2, width=WIDTH, groups=[[0, 1]], levels=(6, 4))
    assert not any("bridges" in name for name, _ in net.named_parameters())
    rows = torch.randn(ROWS, WIDTH)
    torch.testing.assert_close(net(rows)[1], mlp(net.branches[1], 0, mlp(net.branches[0], 0, rows)))


def test_a_cascade_reads_its_own_group_alone_above_and_k_of_all_below() -> None:
    torch.manual_seed(0)
    net = CascadedGroups(TASKS, width=WIDTH, groups=[[0, 1], [2]], num_common=8, k=2, dims=(64, 4), auxiliary={})
    net(torch.randn(1, WIDTH), [2]).square().sum().backward()
    assert (net.own.experts.layers[0].weight.grad != 0).flatten(1).any(dim=1).tolist() == [False, False, True, True]
    assert int((net.common.experts.layers[0].weight.grad != 0).flatten(1).any(dim=1).sum()) == 2


def test_a_memory_that_is_never_written_stays_as_it_began() -> None:
    net = TaskExpert(TASKS, width=WIDTH, levels=(6, 5), num_experts=3, memory=4)
    for write in net.write:
        torch.nn.init.zeros_(write.weight)
        torch.nn.init.constant_(write.bias, -100.0)
    torch.testing.assert_close(net(torch.randn(ROWS, WIDTH)), net.start.expand(-1, ROWS, -1))


def test_a_task_of_dtrn_differs_by_its_code_alone() -> None:
    torch.manual_seed(0)
    net, tokens = DTRN(2, width=WIDTH, kinds=[0, 1, 1], target=0, num_heads=2), torch.randn(ROWS, 3, WIDTH)
    with torch.no_grad():
        for parameter in net.refine.parameters():
            parameter[1] = parameter[0]
    first, second = net(tokens)
    assert (first != second).any()
    with torch.no_grad():
        net.task_codes[1] = net.task_codes[0]
    first, second = net(tokens)
    torch.testing.assert_close(first, second)


def test_tokens_of_one_kind_may_stand_in_any_order() -> None:
    torch.manual_seed(0)
    net, tokens = DTRN(TASKS, width=WIDTH, kinds=[0, 1, 1, 1], target=0, num_heads=2), torch.randn(ROWS, 4, WIDTH)
    torch.testing.assert_close(net(tokens[:, [0, 3, 1, 2]]), net(tokens))
    assert (net(tokens[:, [1, 0, 2, 3]]) != net(tokens)).any()


def test_fields_of_apem_may_stand_in_any_order_and_number() -> None:
    torch.manual_seed(0)
    net, tokens = APEM(TASKS, width=WIDTH, num_heads=2), torch.randn(ROWS, 5, WIDTH)
    torch.testing.assert_close(net(tokens[:, [3, 0, 4, 1, 2]]), net(tokens), rtol=1e-4, atol=1e-6)
    assert net(tokens[:, :2]).shape == net(tokens).shape == (TASKS, ROWS, 4 * WIDTH)
    read = tokens.clone().requires_grad_()
    (grad,) = torch.autograd.grad(net(read).square().sum(), read)
    assert float(grad.abs().sum(dim=2).min()) > 1e-6  # every field of every row counts


def test_a_task_of_skillnet_reads_no_token_whose_skill_it_lacks() -> None:
    net = SkillNet(2, width=WIDTH, skills=[[0, 2], [1, 2]], kinds=[0, 1, 1])
    tokens = torch.randn(ROWS, 3, WIDTH, requires_grad=True)
    for task, own in ((0, [True, False, False]), (1, [False, True, True])):
        (grad,) = torch.autograd.grad(net(tokens, [task]).square().sum(), tokens)
        assert (grad.abs().sum(dim=(0, 2)) > 0).tolist() == own


def test_the_errors_of_modal_architectures_say_what_to_do() -> None:
    with pytest.raises(RequestError, match=r"2 tokens a row arrived; m3net was built with the kinds of 3.*leave"):
        M3Net(2, width=WIDTH, kinds=[0, 1, 1])(torch.randn(ROWS, 2, WIDTH))
    with pytest.raises(RequestError, match=r"numbered from 0 and none is left out"):
        M3Net(2, width=WIDTH, kinds=[0, 2])
    with pytest.raises(RequestError, match=r"1 tokens a row arrived; skillnet was built with the kinds of 2"):
        SkillNet(2, width=WIDTH, skills=[[0], [1]], kinds=[0, 1])(torch.randn(ROWS, WIDTH))
    for kinds in ([], [0, 3], [-1, 0]):
        with pytest.raises(RequestError, match=r"the tasks' skills are numbered 0 to 1.*Name one"):
            SkillNet(2, width=WIDTH, skills=[[0], [1]], kinds=kinds)
    with pytest.raises(RequestError, match=r"Task 1 declares no skill that a token has.*one of the skills \[0\]"):
        SkillNet(2, width=WIDTH, skills=[[0], [1]], kinds=[0, 0])
    with pytest.raises(RequestError, match=r"0 groups, 8 points and 1 blocks were asked for"):
        APEM(2, width=WIDTH, num_groups=0)
    with pytest.raises(RequestError, match=r"3 heads were asked for tokens of size 8.*num_heads"):
        APEM(2, width=WIDTH, num_heads=3)


def test_the_errors_of_token_architectures_say_what_to_do() -> None:
    with pytest.raises(RequestError, match=r"2 tokens a row arrived; dtrn was built with the kinds of 3.*leave"):
        DTRN(2, width=WIDTH, kinds=[0, 1, 1])(torch.randn(ROWS, 2, WIDTH))
    with pytest.raises(RequestError, match=r"token at place 3 was to ask; a row has 2 tokens"):
        DTRN(2, width=WIDTH, target=3)(torch.randn(ROWS, 2, WIDTH))
    for kinds in ([], [0, 2], [1, 1]):
        with pytest.raises(RequestError, match=r"numbered from 0 and none is left out"):
            DTRN(2, width=WIDTH, kinds=kinds)
    with pytest.raises(RequestError, match=r"0 blocks were asked for"):
        DTRN(2, width=WIDTH, num_blocks=0)
    with pytest.raises(RequestError, match=r"3 heads were asked for tokens of size 8.*num_heads"):
        TaskGated(2, width=WIDTH, num_heads=3)
    with pytest.raises(RequestError, match=r"top 9 experts.*Ask for 1 to 8"):
        CascadedGroups(2, width=WIDTH, k=9)
    with pytest.raises(RequestError, match=r"Levels of sizes \[8\] were given; a cascade has two"):
        CascadedGroups(2, width=WIDTH, dims=[8])

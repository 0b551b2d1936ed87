"""Forms of the literature that plans take up: ring matmul and attention, Ulysses, experts, fused loops.

Each has its values on unequal meshes, a model whose plan takes it and is dearer without its rules, and
the bytes that the instructions send, which are those of the textbook.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np
import pytest
from plan_cases import SMALL, Builder, check_worth

from tilewright.compiler import Compilation
from tilewright.dtypes import DType
from tilewright.extract.kernel import trip_counts
from tilewright.extract.plan import MoveKind, Plan
from tilewright.extract.planned import planned_kernel
from tilewright.graph import Graph, Op, TensorType
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.lowering.isa import Opcode
from tilewright.rules.annotations import annotate
from tilewright.rules.collectives.ruleset import Step, StepKind
from tilewright.rules.collectives.steps import after_step, run_step
from tilewright.rules.partition.spmd import (
    assemble,
    distribute,
    reference_value,
    run_tile,
    tiles_of,
)
from tilewright.rules.splitting import localise, strategies

F32_BYTES = 4
ALL_TO_ALL = ("collective.slice_of_all_gather",)
EXPERTS = ("partition.matmul_first_batch_axis",)


def sent_bytes(done: Compilation) -> int:
    """Return what one tile sends to others in an inference, by its instructions."""
    assert done.program is not None
    (group,) = done.program.groups
    total = 0
    for stream in group.run.values():
        repeats = [1]
        for i in stream:
            if i.opcode is Opcode.LOOP:
                repeats.append(repeats[-1] * i.count)
            elif i.opcode is Opcode.END:
                repeats.pop()
            elif i.opcode in (Opcode.SND, Opcode.MCS):
                assert i.dst is not None
                sizes = (n for a, n in enumerate(group.mesh.sizes) if i.axes >> a & 1)
                receivers = 1 if i.opcode is Opcode.SND else prod(sizes) - 1
                total += receivers * prod(i.domain) * i.dst.dtype.itemsize_bytes * repeats[-1]
    return total


def plan_of(done: Compilation) -> Plan:
    assert done.plan is not None
    return done.plan


def collectives(plan: Plan) -> list[MoveKind]:
    """Return the kinds of all moves between tiles, in order."""
    local = (MoveKind.LOAD, MoveKind.STORE, MoveKind.SLICE)
    moves = [m.kind for p in plan.ops for d in p.deliveries for m in d.moves]
    return [kind for kind in moves if kind not in local]


def split_rules(plan: Plan, kind: str) -> set[str]:
    return {rule for p in plan.ops if p.op.kind == kind for rule in p.split_rules if rule}


def sequence_attention(b: Builder) -> Graph:
    """Normalise tokens, attend over all of them in eight heads, normalise again."""
    tokens, heads, size = 32, 8, 32
    x = b.op("rmsnorm", b.input("x", tokens, heads * size), epsilon=1e-5)
    y = b.op("reshape", x, shape=(tokens, heads, size))
    q, k = b.op("transpose", y, perm=(1, 0, 2)), b.op("transpose", y, perm=(1, 2, 0))
    z = b.op("matmul", b.op("softmax", b.op("matmul", q, k)), q)
    z = b.op("reshape", b.op("transpose", z, perm=(1, 0, 2)), shape=(tokens, heads * size))
    return b.graph(b.op("rmsnorm", z, epsilon=1e-5))


@pytest.mark.slow
def test_ulysses(make_builder: Callable[..., Builder]) -> None:
    """From tokens to heads and back: each tile sends (p - 1) / p of its share of x and of the result."""
    done = check_worth(sequence_attention(make_builder(dtype=DType.F32)), ALL_TO_ALL, "mesh_1x8")
    plan = plan_of(done)
    assert split_rules(plan, "matmul") == {"partition.matmul_first_batch_axis"}
    assert collectives(plan) == [MoveKind.ALL_TO_ALL] * 2
    share = 32 * 256 * F32_BYTES // 8
    assert sent_bytes(done) == 2 * share * 7 // 8


def dispatched(b: Builder) -> Graph:
    """Send what tokens wrote for each expert there, and what experts make of it back (GShard)."""
    tokens, experts, width, hidden = 16, 8, 32, 64
    x = b.op("rmsnorm", b.input("x", tokens, experts * width), epsilon=1e-5)
    x = b.op("transpose", b.op("reshape", x, shape=(tokens, experts, width)), perm=(1, 0, 2))
    y = b.op("map", b.op("matmul", x, b.constant("v", experts, width, hidden)), fn="relu")
    y = b.op(
        "transpose", b.op("matmul", y, b.constant("w", experts, hidden, width)), perm=(1, 0, 2)
    )
    return b.graph(
        b.op("rmsnorm", b.op("reshape", y, shape=(tokens, experts * width)), epsilon=1e-5)
    )


@pytest.mark.parametrize(("rules", "tiles"), [(ALL_TO_ALL, 4), (EXPERTS, 8)], ids=["4", "8"])
def test_dispatch_to_experts(
    rules: tuple[str, ...], tiles: int, make_builder: Callable[..., Builder]
) -> None:
    """Dispatch and combine are all-to-alls of (p - 1) / p of a tile's tokens."""
    done = check_worth(dispatched(make_builder(dtype=DType.F32)), rules, f"mesh_1x{tiles}")
    plan = plan_of(done)
    assert split_rules(plan, "matmul") == set(EXPERTS)
    assert collectives(plan) == [MoveKind.ALL_TO_ALL] * 2
    share = 16 * 8 * 32 * F32_BYTES // tiles
    assert sent_bytes(done) == 2 * share * (tiles - 1) // tiles


def gated(b: Builder) -> Graph:
    """Weigh what all experts make of all tokens, as models with dense gates are exported."""
    tokens, experts, width, hidden = 16, 8, 32, 64
    x = b.input("x", 1, tokens, width)
    y = b.op("map", b.op("matmul", x, b.constant("v", experts, width, hidden)), fn="relu")
    y = b.op("matmul", y, b.constant("w", experts, hidden, width))
    y = b.op("map", y, b.input("gate", experts, tokens, 1), fn="mul")
    return b.graph(b.op("map", b.op("reduce", y, fn="sum", axes=(0,)), fn="tanh"))


def test_gated_experts_make_partial_sums(make_builder: Callable[..., Builder]) -> None:
    """Each tile weighs its own experts; the sums over all meet in one reduce-scatter."""
    done = check_worth(gated(make_builder(dtype=DType.F32)), EXPERTS, "mesh_1x4")
    plan = plan_of(done)
    assert split_rules(plan, "matmul") == set(EXPERTS)
    assert split_rules(plan, "reduce") == {"partition.reduced_axis"}
    assert collectives(plan) == [MoveKind.REDUCE_SCATTER]
    assert sent_bytes(done) == 16 * 32 * F32_BYTES * 3 // 4


def ring(b: Builder) -> Graph:
    """Apply x + relu(norm(x) v) w, the rows of the norm on one tile each."""
    x = b.input("x", 128, 256)
    hidden = b.op("matmul", b.op("rmsnorm", x, epsilon=1e-5), b.constant("v", 256, 512))
    y = b.op("matmul", b.op("map", hidden, fn="relu"), b.constant("w", 512, 256))
    return b.graph(b.op("map", y, x, fn="add"))


def test_ring_matmul(make_builder: Callable[..., Builder]) -> None:
    """Chunks of A pass every tile once: each sends its piece to p - 1 others, (p - 1) / p of A in all."""
    rules = ("partition.gathered_matmul_rows", "partition.gathered_matmul_terms")
    done = check_worth(ring(make_builder(dtype=DType.F32)), rules, "mesh_1x8")
    plan = plan_of(done)
    gathering = [p for p in plan.ops if "gathered" in p.macros]
    assert len(gathering) == 2
    assert collectives(plan) == []
    arriving = sum(plan.types[p.op.inputs[0]].size_bytes for p in gathering)
    assert sent_bytes(done) == arriving * 7 // 8


def long_attention(b: Builder, *, masked: bool) -> Graph:
    """Normalise tokens, attend over all of them in one head, normalise again."""
    tokens, size = 512, 64
    x = b.op("rmsnorm", b.input("x", tokens, size), epsilon=1e-5)
    x = b.op("reshape", x, shape=(1, tokens, size))
    scores = b.op("matmul", x, b.op("transpose", x, perm=(0, 2, 1)))
    if masked:
        scores = b.op("map", scores, b.input("mask", 1, 1, tokens), fn="add")
    y = b.op("reshape", b.op("matmul", b.op("softmax", scores), x), shape=(tokens, size))
    return b.graph(b.op("rmsnorm", y, epsilon=1e-5))


@pytest.mark.slow
@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
def test_ring_attention(masked: bool, make_builder: Callable[..., Builder]) -> None:
    """Entry 34: keys and values pass every tile once, in chunks; tokens stay where they are.

    Keys and values fill a scratchpad; a tile holds an eighth of them, and two chunks of each.
    """
    model = long_attention(make_builder(dtype=DType.F32), masked=masked)
    done = check_worth(model, ("partition.ring_attention",), "mesh_1x8")
    plan = plan_of(done)
    (attention,) = (p for p in plan.ops if p.op.kind == "attention")
    assert attention.split_rules[-1] == "partition.ring_attention"
    assert collectives(plan) == []
    arriving = sum(plan.types[name].size_bytes for name in attention.op.inputs[1:3])
    assert arriving == done.target.tile.sram.size_bytes
    kernel = planned_kernel(attention, plan.types, plan.mesh)
    assert attention.tiling is not None
    rounds = trip_counts(kernel, attention.tiling)[1]
    assert sent_bytes(done) == rounds * arriving * 7 // 8


MESHES = (
    LogicalMesh(("x",), (2,)),
    LogicalMesh(("x",), (3,)),
    LogicalMesh(("x", "y"), (2, 3)),
    LogicalMesh(("x", "y"), (3, 2)),
)


@pytest.mark.parametrize("mesh", MESHES, ids=lambda mesh: "x".join(map(str, mesh.sizes)))
@pytest.mark.parametrize(
    ("kind", "rule", "shapes", "tokens"),
    [
        ("attention", "partition.attention_heads", ((6, 6, 4), (6, 4, 6), (6, 6, 4)), (1, 2, 1)),
        ("matmul", EXPERTS[0], ((6, 6, 4), (6, 4, 4)), (1, None)),
    ],
)
def test_values_from_tokens_to_heads_and_back(
    mesh: LogicalMesh,
    kind: str,
    rule: str,
    shapes: tuple[tuple[int, ...], ...],
    tokens: tuple[int | None, ...],
) -> None:
    """Tiles hold tokens on the last axis, exchange them for heads (experts), compute, exchange again.

    `tokens` is the dimension of each operand that its tokens lie along; weights lie with their experts.
    """
    attrs: dict[str, float] = {"scale": 0.5} if kind == "attention" else {}
    op = Op(name="", kind=kind, inputs=(), outputs=("y",), attrs=attrs)
    types = tuple(TensorType(shape, DType.F64) for shape in shapes)
    result = TensorType((6, 6, 4), DType.F64)
    nest = annotate(op, types, result)
    assert nest is not None
    axis, nothing = mesh.rank - 1, (-1,) * (mesh.rank - 1)
    strategy = next(s for s in strategies(op, nest, mesh) if s.rules == ("",) * axis + (rule,))
    random = np.random.default_rng(4)
    arrays = [random.integers(-3, 4, shape).astype(np.float64) for shape in shapes]
    held = []
    for array, dim, wanted in zip(arrays, tokens, strategy.operands, strict=True):
        before = (*nothing, 0 if dim is None else dim)
        pieces = distribute(mesh, before, array, seed=0)
        if dim is not None:
            step = Step(kind=StepKind.ALL_TO_ALL, axis=axis, dim=dim, to_dim=0)
            pieces = run_step(mesh, pieces, step, is_max=False)
            before = after_step(before, step)
        assert before == wanted
        held.append(pieces)
    local = localise(nest, mesh, strategy.split_dims)
    made = {tile: run_tile(op, local, [p[tile] for p in held]) for tile in tiles_of(mesh)}
    back = Step(kind=StepKind.ALL_TO_ALL, axis=axis, dim=0, to_dim=1)
    made = run_step(mesh, made, back, is_max=False)
    found = assemble(mesh, (*nothing, 1), made, result.shape)
    np.testing.assert_allclose(found, reference_value(op, arrays, result), rtol=1e-12, atol=1e-12)


def summed_products(b: Builder) -> Graph:
    x, y = (
        b.op("matmul", b.input(f"x{n}", 4, 1024), b.constant(f"w{n}", 1024, 67)) for n in range(2)
    )
    return b.graph(b.op("map", b.op("map", x, y, fn="add"), fn="tanh"))


def test_two_reductions_are_one(make_builder: Callable[..., Builder]) -> None:
    """Entry 37: AR(x) + AR(y) = AR(x + y), since partial sums are added before they are reduced."""
    rules = ("partition.partial_sums_through_linear",)
    done = check_worth(summed_products(make_builder(dtype=DType.F32)), rules, "mesh_1x4")
    plan = plan_of(done)
    products = [p for p in plan.ops if p.op.kind == "matmul"]
    assert len(products) == 2
    assert all(p.split_rules[-1] == "partition.matmul_contracting_axis" for p in products)
    assert collectives(plan) == [MoveKind.REDUCE_SCATTER]


def attention_of_many_tokens(b: Builder) -> Graph:
    q, k, v = b.input("q", 1, 256, 16), b.input("k", 1, 16, 256), b.input("v", 1, 256, 16)
    return b.graph(b.op("matmul", b.op("softmax", b.op("matmul", q, k)), v))


def activated_product(b: Builder) -> Graph:
    product = b.op("matmul", b.input("x", 256, 64), b.constant("w", 64, 128))
    return b.graph(b.op("map", product, fn="relu"))


@pytest.mark.parametrize(
    ("model", "rules", "target", "between_bytes"),
    [
        (
            attention_of_many_tokens,
            ("fusion.attention_of_products",),
            "mesh_1x1?sram_kib=64",
            256 * 256 * F32_BYTES,
        ),
        (activated_product, ("fusion.map_after_matmul",), SMALL, 256 * 128 * F32_BYTES),
    ],
    ids=["attention", "epilogue"],
)
def test_fused_operators_share_their_tiles(
    model: Callable[[Builder], Graph],
    rules: tuple[str, ...],
    target: str,
    between_bytes: int,
    make_builder: Callable[..., Builder],
) -> None:
    """Entry 41: one kernel runs all steps on a box of its loops, so what lies between is never whole."""
    done = check_worth(model(make_builder(dtype=DType.F32)), rules, target)
    plan = plan_of(done)
    (planned,) = plan.ops
    assert planned.tiling is not None
    assert max(trip_counts(planned_kernel(planned, plan.types, plan.mesh), planned.tiling)) > 1
    assert plan.peak_sram_bytes < between_bytes

"""Registration check of collective rules: what does the work of two steps leaves every tile the same."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from tilewright.errors import RuleError
from tilewright.hwmodel.mesh import (
    PARTIAL_SUM,
    REPLICATED,
    LogicalMesh,
    Sharding,
    format_sharding,
    is_legal,
    local_shape,
)
from tilewright.reference import AnyArray as Array
from tilewright.rules.collectives.ruleset import CollectiveRule, Step
from tilewright.rules.collectives.steps import (
    Coordinates,
    after_step,
    elementary_steps,
    local_after,
    moved_elements,
    run_step,
    steps,
)
from tilewright.rules.partition.spmd import distribute

_MESHES = (
    LogicalMesh(("x",), (2,)),
    LogicalMesh(("x",), (3,)),
    LogicalMesh(("x", "y"), (2, 3)),
    LogicalMesh(("x", "y"), (2, 2)),
)
_SHAPES = ((12,), (6, 12), (12, 12), (6, 1, 12))
Pieces = dict[Coordinates, Array]


def check_collective_rule(rule: CollectiveRule) -> int:
    """Check a rule on chains of two steps over unequal meshes; return on how many it applies.

    Raises:
        RuleError: Tiles hold something else afterwards (the smallest case is described), more
            is sent than by the two steps, the chain gets no shorter, the rule raises, or it never
            applies.
    """
    applied = 0
    for mesh, shape in product(_MESHES, _SHAPES):
        array = np.arange(float(np.prod(shape))).reshape(shape)
        for sharding in _shardings(mesh, shape):
            local = local_shape(mesh, sharding, shape)
            for first, second in _chains(mesh, sharding, local):
                fused = _applied(rule, first, second)
                if fused is not None:
                    applied += 1
                    held = distribute(mesh, sharding, array, seed=1)
                    _check(rule, mesh, sharding, held, (first, second), fused)
    if not applied:
        raise RuleError(f"{rule.where} applies to no chain of two steps")
    return applied


def _shardings(mesh: LogicalMesh, shape: tuple[int, ...]) -> Iterator[Sharding]:
    for sharding in product((REPLICATED, PARTIAL_SUM, *range(len(shape))), repeat=mesh.rank):
        if is_legal(mesh, sharding, shape):
            yield sharding


def _chains(
    mesh: LogicalMesh, sharding: Sharding, local: tuple[int, ...]
) -> Iterator[tuple[Step, Step]]:
    for axis, other in product(range(mesh.rank), repeat=2):
        for first in steps(mesh, sharding, local, axis, ()):
            after, piece = after_step(sharding, first), local_after(mesh, local, first)
            for second in elementary_steps(mesh, after, piece, other):
                yield first, second


def _applied(rule: CollectiveRule, first: Step, second: Step) -> tuple[Step, ...] | None:
    try:
        fused: tuple[Step, ...] | None = rule.function(first, second)
    except Exception as error:  # whatever a user's rule raises
        raise RuleError(rule.raised(error)) from error
    return fused


def _check(
    rule: CollectiveRule,
    mesh: LogicalMesh,
    sharding: Sharding,
    held: Pieces,
    pair: tuple[Step, Step],
    fused: tuple[Step, ...],
) -> None:
    case = (
        f"{rule.where} ({rule.equation}) on mesh {list(mesh.sizes)}, from "
        f"{format_sharding(mesh, sharding)}: {_text(pair)} -> {_text(fused)}"
    )
    expected, sent = _run(mesh, held, pair)
    try:
        found, sent_fused = _run(mesh, held, fused)
    except (ValueError, IndexError) as error:
        raise RuleError(f"{case}: cannot run: {error}") from None
    for tile in sorted(held):
        if not np.array_equal(found[tile], expected[tile]):
            raise RuleError(
                f"{case}: tile {tile} holds {found[tile].tolist()}, after both steps it holds "
                f"{expected[tile].tolist()}"
            )
    if len(fused) >= len(pair):
        raise RuleError(f"{case}: the chain gets no shorter; leave such rules out")
    if sent_fused > sent:
        raise RuleError(f"{case}: sends {sent_fused:g} elements a tile, both steps send {sent:g}")


def _run(mesh: LogicalMesh, held: Pieces, chain: tuple[Step, ...]) -> tuple[Pieces, float]:
    sent = 0.0
    for step in chain:
        local = next(iter(held.values())).shape
        sent += moved_elements(mesh, local, step)
        held = run_step(mesh, held, step, is_max=False)
    return held, sent


def _text(chain: tuple[Step, ...]) -> str:
    def one(step: Step) -> str:
        dims = [str(d) for d in (step.dim, step.to_dim) if d >= 0]
        return f"{step.kind}({', '.join((f'axis {step.axis}', *(f'dim {d}' for d in dims)))})"

    return ", ".join(map(one, chain)) or "nothing"

"""Registration check of partition rules: every use of a rule, tile by tile, against the reference.

A rule is run alone on random small operators over meshes of unequal axes. Whatever it allows must give
every tile just the operands that its share of the loops touches, and the tiles' results must
assemble to the global value. Values are small whole numbers, so that sums in any order are equal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from tilewright.errors import CompileError, RuleError
from tilewright.graph import TensorType
from tilewright.hwmodel.mesh import LogicalMesh, format_sharding, local_shape
from tilewright.reference import AnyArray as Array
from tilewright.rules.partition.ruleset import PartitionRule
from tilewright.rules.partition.samples import Sample, samples
from tilewright.rules.partition.spmd import (
    Coordinates,
    CopiesDifferError,
    Pieces,
    assemble,
    distribute,
    is_interpretable,
    reference_value,
    run_tile,
    tiles_of,
)
from tilewright.rules.splitting import Strategy, localise, strategies

MESHES = (
    LogicalMesh(("x",), (2,)),
    LogicalMesh(("x",), (3,)),
    LogicalMesh(("x", "y"), (2, 3)),
    LogicalMesh(("x", "y"), (2, 2)),
    LogicalMesh(("x", "y", "z"), (1, 2, 2)),
)
SAMPLES = 40
"""Operators of each kind."""
MOST_USES = 400
"""Uses of a rule that are run; more say nothing new."""
_ROUNDING = 1e-12
"""For kinds that divide or take roots; the others must be equal."""

MacroRun = Callable[[Sample, LogicalMesh, Strategy, tuple[Pieces, ...]], Pieces]
"""What a macro means: from the pieces of the operands to the pieces of the result."""

MACROS: dict[str, MacroRun] = {}
"""Meaning of each macro in collectives and local work, written in numpy; filled by `macro_meaning`."""


def macro_meaning(name: str) -> Callable[[MacroRun], MacroRun]:
    """Register the meaning of a macro for the interpreter."""

    def register(function: MacroRun) -> MacroRun:
        MACROS[name] = function
        return function

    return register


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionReport:
    """What a check saw; a rule that is wrong raises instead."""

    rule: str
    uses: int
    kinds: tuple[str, ...]
    """Kinds of operators that it splits."""


class _WrongUseError(Exception):
    """Says in one sentence what is wrong with a use of a rule."""


def check_partition_rule(rule: PartitionRule, *, seed: int = 0) -> PartitionReport:
    """Check everything that a rule allows on random operators over meshes of unequal axes.

    Raises:
        RuleError: A use of the rule is wrong (the smallest one found is described), the rule raises, or
            it allows nothing.
    """
    uses = 0
    kinds: dict[str, None] = {}
    for sample in _sorted_samples(seed):
        for mesh in MESHES:
            for strategy in _uses(rule, sample, mesh):
                kinds.setdefault(sample.op.kind)
                uses += 1
                if uses <= MOST_USES:
                    _check(rule, sample, mesh, strategy)
    if not uses:
        raise RuleError(
            f"{rule.where} allows nothing on {SAMPLES} random operators of each "
            "kind; its conditions can hardly be met"
        )
    return PartitionReport(rule=rule.name, uses=uses, kinds=tuple(kinds))


@lru_cache(maxsize=4)
def _sorted_samples(seed: int) -> tuple[Sample, ...]:
    """Return samples, small ones first, so that the first failure is a small one."""
    found = list(samples(SAMPLES, seed))
    return tuple(sorted(found, key=lambda s: sum(t.elements for t in (*s.types, s.result))))


def _uses(rule: PartitionRule, sample: Sample, mesh: LogicalMesh) -> list[Strategy]:
    try:
        found = strategies(sample.op, sample.nest, mesh, (rule,), ())
    except CompileError:
        raise
    except Exception as error:  # whatever a user's rule raises
        raise RuleError(rule.raised(error, on=_described(sample))) from error
    return [strategy for strategy in found if rule.name in strategy.rules]


def check_strategy(sample: Sample, mesh: LogicalMesh, strategy: Strategy, seed: int = 2) -> None:
    """Check one strategy.

    Raises:
        RuleError: A tile would hold something else than it touches, or values differ.
    """
    try:
        _run(sample, mesh, strategy, seed)
    except _WrongUseError as wrong:
        raise RuleError(f"{_described(sample)}: {wrong}") from None


def _check(rule: PartitionRule, sample: Sample, mesh: LogicalMesh, strategy: Strategy) -> None:
    try:
        _run(sample, mesh, strategy, seed=2)
    except _WrongUseError as wrong:
        raise RuleError(
            f"{rule.where} ({rule.equation}) is wrong\n"
            f"  operator  {_described(sample)}\n"
            f"  mesh      {_mesh_text(mesh)}\n"
            f"  operands  {', '.join(format_sharding(mesh, s) for s in strategy.operands)}\n"
            f"  result    {format_sharding(mesh, strategy.result)}\n"
            f"  {wrong}"
        ) from None


def _run(sample: Sample, mesh: LogicalMesh, strategy: Strategy, seed: int) -> None:
    arrays = _arrays(sample, seed)
    held = tuple(
        distribute(mesh, sharding, array, seed=number)
        for number, (sharding, array) in enumerate(zip(strategy.operands, arrays, strict=True))
    )
    macros = sorted({macro for macro in strategy.macros if macro})
    if macros:
        if len(macros) > 1 or macros[0] not in MACROS:
            raise _WrongUseError(
                f"macros {macros} have no meaning; register one with macro_meaning"
            )
        pieces = _run_macro(macros[0], sample, mesh, strategy, held)
    else:
        pieces = _local_results(sample, mesh, strategy, held)
    wanted = local_shape(mesh, strategy.result, sample.result.shape)
    for tile in tiles_of(mesh):
        if pieces[tile].shape != wanted:
            raise _WrongUseError(
                f"tile {tile} makes {list(pieces[tile].shape)}, its piece of the result is {list(wanted)}"
            )
    try:
        found = assemble(mesh, strategy.result, pieces, sample.result.shape)
    except CopiesDifferError as error:
        raise _WrongUseError(str(error)) from None
    _compare(sample, found, reference_value(sample.op, arrays, sample.result), arrays)


def _run_macro(
    macro: str, sample: Sample, mesh: LogicalMesh, strategy: Strategy, held: tuple[Pieces, ...]
) -> Pieces:
    """Run what a macro means; pieces that it cannot use are the fault of the rule that asks for them."""
    try:
        return MACROS[macro](sample, mesh, strategy, held)
    except (AssertionError, IndexError, ValueError) as error:
        raise _WrongUseError(
            f"these pieces are none for '{macro}' ({type(error).__name__}: {error})"
        ) from error


def _local_results(
    sample: Sample, mesh: LogicalMesh, strategy: Strategy, held: tuple[Pieces, ...]
) -> Mapping[Coordinates, Array]:
    """Run every tile on what it holds, without any exchange."""
    local = localise(sample.nest, mesh, strategy.split_dims)
    pieces = {}
    for tile in tiles_of(mesh):
        operands = [part[tile] for part in held]
        for number, (array, touched) in enumerate(zip(operands, local.operands, strict=True)):
            if array.shape != tuple(dim.size for dim in touched):
                raise _WrongUseError(
                    f"tile {tile} holds {list(array.shape)} of operand {number}, its share of the "
                    f"loops is over {[dim.size for dim in touched]}"
                )
        pieces[tile] = run_tile(sample.op, local, operands)
    return pieces


def _arrays(sample: Sample, seed: int) -> list[Array]:
    random = np.random.default_rng(seed)
    arrays: list[Array] = [
        random.integers(-3, 4, t.shape).astype(t.dtype.numpy) for t in sample.types
    ]
    if sample.op.kind == "gather":
        rows = sample.types[0].shape[sample.op.integer("axis")]
        arrays[1] = random.integers(0, rows, sample.types[1].shape)
    return arrays


def _compare(sample: Sample, found: Array, expected: Array, arrays: list[Array]) -> None:
    is_exact = is_interpretable(sample.op, sample.nest)
    if is_exact and np.array_equal(found, expected):
        return
    if not is_exact and np.allclose(found, expected, rtol=_ROUNDING, atol=_ROUNDING):
        return
    place = tuple(int(i) for i in np.argwhere(found != expected)[0])
    values = "; ".join(f"operand {n} = {array.tolist()}" for n, array in enumerate(arrays))
    raise _WrongUseError(
        f"at {list(place)} the tiles make {found[place]:g}, the operator {expected[place]:g}\n"
        f"  values    {values}"
    )


def _mesh_text(mesh: LogicalMesh) -> str:
    return " x ".join(f"{n} {size}" for n, size in zip(mesh.names, mesh.sizes, strict=True))


def _described(sample: Sample) -> str:
    attrs = ", ".join(f"{key}={value}" for key, value in sorted(sample.op.attrs.items()))
    types = ", ".join(_shape_text(t) for t in sample.types)
    return (
        f"{sample.op.kind}({types}{'; ' if attrs else ''}{attrs}) -> {_shape_text(sample.result)}"
    )


def _shape_text(value: TensorType) -> str:
    return str(list(value.shape))

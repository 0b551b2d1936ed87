"""Products whose operand is gathered in chunks, each sent while the one before is multiplied.

Attention that gathers its keys and values has a file of its own, `ring_attention.py`.

All tiles of the axis send at once, a chunk of its own piece each: no tile needs to know a step's sender,
and the number of chunks is a matter of tiling, whatever the size of the axis. Two buffers of p chunks take
the place of the whole operand.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from tilewright.graph import Op, dequantises
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.reference import AnyArray
from tilewright.rules.gathered import GATHERED, cut_dim, find_gather
from tilewright.rules.loopnest import LoopNest
from tilewright.rules.partition.checking import macro_meaning
from tilewright.rules.partition.ring_attention import attend_in_chunks
from tilewright.rules.partition.ruleset import AxisUse, partition
from tilewright.rules.partition.samples import Sample
from tilewright.rules.partition.spmd import Pieces, run_tile, tiles_of
from tilewright.rules.splitting import Strategy, localise

_SOURCE = (
    "overlap: Wang et al. (ASPLOS 2023); blocks: van de Geijn & Watts, SUMMA (1997); "
    "ring attention: arXiv 2310.01889"
)


@partition.macro(source=_SOURCE)
def gathered_matmul_rows(op: Op, nest: LoopNest, size: int) -> Iterable[AxisUse]:
    """A[m/p, k] B[k, n/p] = C[m, n/p]: rows of A arrive in chunks, each makes its rows of C."""
    return _uses(gathered_matmul_rows.__name__, op, nest, size, split="n", operand=0, loop="m")


@partition.macro(source=_SOURCE)
def gathered_matmul_terms(op: Op, nest: LoopNest, size: int) -> Iterable[AxisUse]:
    """A[m, k/p] B[k, n/p] = C[m, n/p]: columns of A arrive in chunks, each adds its terms to C."""
    return _uses(gathered_matmul_terms.__name__, op, nest, size, split="n", operand=0, loop="k")


@partition.macro(source=_SOURCE)
def gathered_matmul_columns(op: Op, nest: LoopNest, size: int) -> Iterable[AxisUse]:
    """A[m/p, k] B[k, n/p] = C[m/p, n]: columns of B (keys) arrive in chunks, each makes its own of C."""
    return _uses(gathered_matmul_columns.__name__, op, nest, size, split="m", operand=1, loop="n")


@partition.macro(source=_SOURCE)
def gathered_matmul_values(op: Op, nest: LoopNest, size: int) -> Iterable[AxisUse]:
    """A[m/p, k] B[k/p, n] = C[m/p, n]: rows of B (values) arrive in chunks, each adds its terms to C."""
    return _uses(gathered_matmul_values.__name__, op, nest, size, split="m", operand=1, loop="k")


def _uses(
    name: str, op: Op, nest: LoopNest, size: int, *, split: str, operand: int, loop: str
) -> Iterable[AxisUse]:
    """Yield the use of an axis that splits one loop and gathers an operand along another."""
    if op.kind != "matmul" or (operand == 1 and dequantises(op.attrs)):
        return  # weights are there already
    names = [dim.name for dim in nest.dims]
    own, along = names.index(split), names.index(loop)
    if size < 2 or nest.dims[own].extent % size or nest.dims[along].extent % size:
        return
    states = [_state(nest, number, own) for number in range(len(nest.operands))]
    states[operand] = _state(nest, operand, along)
    result = cut_dim(nest.result, own)
    assert result is not None, "the loop that is split runs over the result"
    yield AxisUse(
        rule=f"{partition.name}.{name}",
        split_dim=own,
        operands=tuple(states),
        result=result,
        macro=GATHERED,
    )


def _state(nest: LoopNest, operand: int, loop: int) -> int:
    """Return the dimension of an operand that a loop runs along, -1 (replicated) if none."""
    dim = cut_dim(nest.operands[operand], loop)
    return -1 if dim is None else dim


@macro_meaning(GATHERED)
def multiply_in_chunks(
    sample: Sample, mesh: LogicalMesh, strategy: Strategy, held: tuple[Pieces, ...]
) -> Pieces:
    """Return what the tiles make: the operator on operands of which some have arrived from all pieces.

    Step s brings chunk s of every piece of the axis, in the order of the coordinates, to the indices
    that it has in the whole. Pieces are cut into two chunks here, the second the shorter one.
    """
    gather = find_gather(sample.nest, mesh, strategy.split_dims, strategy.operands, strategy.macros)
    assert gather is not None, "the strategy gathers"
    local = localise(sample.nest, mesh, strategy.split_dims)
    results = {}
    for tile in tiles_of(mesh):
        line = [(*tile[: gather.axis], c, *tile[gather.axis + 1 :]) for c in range(gather.size)]
        if sample.op.kind == "attention":
            results[tile] = attend_in_chunks(sample.op, tile, line, held)
            continue
        operands = [part[tile] for part in held]
        for operand, dim in gather.dims:
            operands[operand] = arrived([held[operand][peer] for peer in line], dim)
        results[tile] = run_tile(sample.op, local, operands)
    return results


def arrived(pieces: Sequence[AnyArray], dim: int) -> AnyArray:
    """Return an operand after two steps: chunks of all pieces, at their indices in the whole.

    Args:
        pieces: What the tiles of the axis hold, in the order of their coordinates.
        dim: The dimension that is split.
    """
    length = pieces[0].shape[dim]
    whole = np.full_like(np.concatenate(pieces, dim), np.nan)
    along = np.moveaxis(whole, dim, 0)
    half = -(-length // 2)
    for first, last in ((0, half), (half, length)):
        for number, piece in enumerate(pieces):
            chunk = np.moveaxis(piece, dim, 0)[first:last]
            along[number * length + first : number * length + last] = chunk
    return whole

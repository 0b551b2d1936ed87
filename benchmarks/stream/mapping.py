"""Our plans as Stream 2.1.1's mappings, and Stream's mappings as demands on our plans.

A mapping says for each layer which cores run it and how its loops are split over them, and for each fused
group of layers how loops are cut into the tiles of one iteration, innermost loop first. Loops are numbered by
layer: D0, D1 and D2 are rows, columns and the contracting loop of a product. Stream decides the rest: where
tensors lie, when and over which links they move.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise, product
from typing import Any

from benchmarks.stream.models import Layer
from tilewright.extract.plan import Memory, Plan, PlannedOp
from tilewright.extract.planned import planned_nest
from tilewright.rules.scattered import ROWS, SCATTERED

Document = dict[str, Any]
LOOPS = ("m", "n", "k")
"""Our names of the loops D0, D1 and D2 of a product."""


class Grain(StrEnum):
    """How a plan's boxes become the tiles of Stream's iterations."""

    BOX = "box"  # as they are
    PASS = "pass"  # cut along the contracting loop into passes of the matrix unit
    PANEL = "panel"  # passes whose boxes are merged along the rows


GRAINS = tuple(Grain)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loop:
    """A loop of a layer: its extent on one tile, and the tile of one iteration."""

    position: int
    local: int
    tile: int


def candidates(plan: Plan, layers: Sequence[Layer], least_k: int) -> tuple[Document, ...]:
    """Return the mappings that say what a plan does, each as far as Stream has words for it.

    A plan's kernels load boxes and feed them to the matrix unit a pass at a time, one kernel after another.
    Stream knows one grain of iteration for transfers, passes and all layers of a group. So a plan has several
    mappings, the first of them with its boxes as they are: `GRAINS`, each with tensors that stay in
    scratchpads fused with their readers, or not.

    Args:
        plan: The plan.
        layers: The nodes of Stream's model.
        least_k: Rows of the matrix unit: a pass.
    """
    found: list[Document] = []
    cuts = _cuts(plan, layers)
    every = tuple(True for _ in cuts)
    for cut, grain in product(dict.fromkeys((cuts, every)), GRAINS):
        document = _document(plan, layers, cut, grain, least_k)
        if document not in found:
            found.append(document)
    return tuple(found)


def likely_candidates(plan: Plan, layers: Sequence[Layer], least_k: int) -> tuple[Document, ...]:
    """Return two of the candidates: in passes, with what stays in scratchpads fused, and the coarsest one."""
    fused = _document(plan, layers, _cuts(plan, layers), Grain.PASS, least_k)
    coarsest = candidates(plan, layers, least_k)[-1]
    return (fused,) if fused == coarsest else (fused, coarsest)


def _ops(plan: Plan, layers: Sequence[Layer]) -> tuple[PlannedOp, ...]:
    """Return the op that computes each layer: its own, or the next one that it was fused into."""
    assert all(planned.op.kind != "chain" for planned in plan.ops), (
        "a chain has the loops of two layers, whose numbers differ"
    )
    makers = {planned.op.output: planned for planned in plan.ops}
    found: list[PlannedOp] = []
    for layer in reversed(layers):
        found.append(makers[layer.tensor] if layer.tensor in makers else found[-1])
    return tuple(reversed(found))


def _cuts(plan: Plan, layers: Sequence[Layer]) -> tuple[bool, ...]:
    """Return for each layer but the last whether what it makes goes through DRAM."""
    ops = _ops(plan, layers)
    return tuple(one is not two and one.result.memory is Memory.DRAM for one, two in pairwise(ops))


def _document(
    plan: Plan, layers: Sequence[Layer], cuts: Sequence[bool], grain: Grain, least_k: int
) -> Document:
    ops = _ops(plan, layers)
    groups: list[list[int]] = [[0]]
    for number in range(1, len(layers)):
        # a layer that rides in another's kernel stays with it, whatever is cut
        apart = cuts[number - 1] and ops[number] is not ops[number - 1]
        if apart:
            groups.append([])
        groups[-1].append(number)
    return {
        "layers": [
            {"name": layer.name, **_placed(plan, op)} for layer, op in zip(layers, ops, strict=True)
        ],
        "fused_groups": [
            {
                "name": f"group{number}",
                "layers": [layers[i].name for i in group],
                "intra_core_tiling": _tiles(
                    plan, [(layers[i], ops[i]) for i in group], grain, least_k
                ),
            }
            for number, group in enumerate(groups)
        ],
    }


def _placed(plan: Plan, op: PlannedOp) -> Document:
    """Return cores and splits: tiles with coordinate 0 on the axes that split nothing."""
    mesh = plan.mesh
    splits = [
        (_position(plan, op, dim), size)
        for dim, size in zip(op.split_dims, mesh.sizes, strict=True)
        if dim >= 0 and size > 1
    ]
    cores = [0]
    for dim, size, stride in zip(op.split_dims, mesh.sizes, _strides(mesh.sizes), strict=True):
        if dim >= 0:
            cores = [core + stride * step for core in cores for step in range(size)]
    factors: dict[int, int] = {}
    for position, size in splits:
        factors[position] = factors.get(position, 1) * size
    tiling = [{"dim": f"D{position}", "split": size} for position, size in factors.items()]
    return {"core_allocation": [cores], "inter_core_tiling": [tiling] if tiling else []}


def _strides(sizes: tuple[int, ...]) -> tuple[int, ...]:
    strides = [1]
    for size in reversed(sizes[1:]):
        strides.insert(0, strides[0] * size)
    return tuple(strides[: len(sizes)])


def _position(plan: Plan, op: PlannedOp, dim: int) -> int:
    """Return Stream's number of a loop; those of element-wise ops are numbered alike."""
    name = planned_nest(op, plan.types).dims[dim].name
    return LOOPS.index(name) if name in LOOPS else dim


def _loops(plan: Plan, op: PlannedOp) -> tuple[_Loop, ...]:
    """Return the loops of an op, innermost first."""
    assert op.tiling is not None, "no workload here has host regions"
    dims = planned_nest(op, plan.types).dims
    found = []
    for dim in reversed(op.tiling.order):
        if dim >= len(dims):
            continue  # chunks that arrive from other tiles; Stream's transfers are its own
        factor = 1
        for split, size in zip(op.split_dims, plan.mesh.sizes, strict=True):
            factor *= size if split == dim else 1
        local, size = dims[dim].extent // factor, op.tiling.sizes[dim]
        if dims[dim].name == ROWS and SCATTERED in op.macros:
            size *= op.tiling.sizes[-1]  # a box has rows of all pieces
        found.append(
            _Loop(position=_position(plan, op, dim), local=local, tile=divisor(local, size))
        )
    return tuple(found)


def divisor(extent: int, most: int) -> int:
    """Return the largest divisor of an extent that is at most so large; Stream takes no other tiles.

    >>> divisor(256, 43)
    32
    """
    return next(size for size in range(min(extent, most), 0, -1) if extent % size == 0)


def _grained(loop: _Loop, grain: Grain, least_k: int) -> int:
    """Return the tile of one iteration along a loop."""
    if loop.position == LOOPS.index("k") and grain is not Grain.BOX:
        return divisor(loop.local, min(loop.tile, least_k))
    is_merged = loop.position == LOOPS.index("m") and grain is Grain.PANEL
    return loop.local if is_merged else loop.tile


def _tiles(
    plan: Plan, members: Sequence[tuple[Layer, PlannedOp]], grain: Grain, least_k: int
) -> list[Document]:
    """Return the tiles of one iteration of a group: those of its products, each shared loop once.

    A product that reads what the one before made contracts over that one's columns and keeps its rows; so
    only its columns are a loop of its own.
    """
    found: list[Document] = []
    seen: list[PlannedOp] = []
    for layer, op in members:
        if op in seen or op.op.kind != "matmul":
            continue
        own = {1} if seen else {0, 1, 2}
        seen.append(op)
        for loop in _loops(plan, op):
            tile = _grained(loop, grain, least_k)
            if loop.position in own and tile < loop.local:
                found.append({"dim": f"{layer.name}.D{loop.position}", "tile": tile})
    if not found:
        layer, op = members[0]
        whole = {loop.position: loop.local for loop in _loops(plan, op)}
        found.append({"dim": f"{layer.name}.D0", "tile": whole[0]})
    return found


# ---------------------------------------------------------------- the other way


@dataclass(frozen=True, slots=True, kw_only=True)
class Demands:
    """What of a mapping our planner can be asked for, and what it has no words for."""

    splits: tuple[str, ...]
    memories: tuple[str, ...]
    tiles: tuple[str, ...]
    shared_tiles: tuple[str, ...]
    """Tiles of a loop that several products run in at once, which ours do one after the other."""
    lost: tuple[str, ...]

    def without_tiles(self) -> Iterator[tuple[str, ...]]:
        """Yield the demands on splits and memories, then on splits alone.

        First with whole parts of the sums of contracting splits, then with sums that are scattered box by
        box: Stream says nothing about how they are added up.
        """
        scattered = tuple(re.sub(r":k(?=[,@])", f":k+{SCATTERED}", split) for split in self.splits)
        yield from dict.fromkeys(
            demands
            for splits in (self.splits, scattered)
            for demands in ((*splits, *self.memories), splits)
        )


def demands_of(
    documents: Sequence[Document], layers: Sequence[Layer], mesh: Mapping[str, int]
) -> Demands:
    """Return the demands that make our planner follow a mapping.

    Args:
        documents: The mappings that Stream wrote, one for each fused group.
        layers: The nodes of Stream's model; only products are split and tiled.
        mesh: Sizes of our mesh axes, outermost first.
    """
    tensors = _results(layers)
    splits: list[str] = []
    memories: list[str] = []
    tiles: list[str] = []
    shared: list[str] = []
    lost: list[str] = []
    for number, document in enumerate(documents):
        placed = [layer for layer in document["layers"] if layer["name"].startswith("Gemm")]
        for layer in placed:
            factors = {
                int(part["dim"][1:]): part["split"]
                for group in layer["inter_core_tiling"]
                for part in group
            }
            text = _split_text(factors, mesh)
            name = layer["name"]
            if text is None:
                lost.append(
                    f"{name}: split {factors} over {len(layer['core_allocation'][0])} cores"
                )
            elif text:
                splits.append(f"split={text}@{tensors[name]}")
        names = [layer["name"] for layer in document["layers"]]
        inner = dict.fromkeys(
            tensors[name] for name in names if tensors[name] != tensors[names[-1]]
        )
        memories += [f"memory=sram@{tensor}" for tensor in inner]
        if number + 1 < len(documents):
            memories.append(f"memory=dram@{tensors[names[-1]]}")
        tiling = _tiles_by_layer(document, [layer["name"] for layer in placed])
        for name, own in tiling.items():
            text = ",".join(f"{LOOPS[position]}={tile}" for position, tile in sorted(own.items()))
            if text:
                (shared if len(placed) > 1 else tiles).append(f"tile={text}@{tensors[name]}")
        if len(placed) > 1:
            lost.append(
                "products of one group share the loop of tiles; ours run one after the other"
            )
    return Demands(
        splits=tuple(splits),
        memories=tuple(memories),
        tiles=tuple(tiles),
        shared_tiles=tuple(shared),
        lost=tuple(lost),
    )


def _tiles_by_layer(document: Document, products: Sequence[str]) -> dict[str, dict[int, int]]:
    """Return the tiles of each product's loops in a group, by position.

    A product that reads what the one before made has that one's rows, and contracts over its columns; what
    they share is named once.
    """
    found: dict[str, dict[int, int]] = {name: {} for name in products}
    for group in document["fused_groups"]:
        for entry in group["intra_core_tiling"]:
            name, dim = entry["dim"].split(".")
            if name in found:
                found[name][int(dim[1:])] = entry["tile"]
    rows, columns, terms = range(len(LOOPS))
    for before, after in pairwise(products):
        for there, here in ((rows, rows), (columns, terms)):
            if there in found[before]:
                found[after].setdefault(here, found[before][there])
    return found


def _results(layers: Sequence[Layer]) -> dict[str, str]:
    """Return the tensor of each layer's result, or of the element-wise layer that rides on a product."""
    found: dict[str, str] = {}
    for layer, after in zip(layers, (*layers[1:], None), strict=True):
        rides = after is not None and not after.name.startswith("Gemm")
        found[layer.name] = after.tensor if after is not None and rides else layer.tensor
    return found


def _split_text(factors: Mapping[int, int], mesh: Mapping[str, int]) -> str | None:
    """Return which axis splits which loop so that the factors come out; None if no way does."""
    wanted = {position: factor for position, factor in factors.items() if factor > 1}
    for choice in product((None, *wanted), repeat=len(mesh)):
        made: dict[int, int] = {}
        for position, size in zip(choice, mesh.values(), strict=True):
            if position is not None:
                made[position] = made.get(position, 1) * size
        if made == wanted:
            return ",".join(
                f"{axis}:{LOOPS[position]}"
                for axis, position in zip(mesh, choice, strict=True)
                if position is not None
            )
    return None

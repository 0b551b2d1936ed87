"""The options of one tensor class: every way to compute it, with its price.

An option is an e-node, an implementation of it on the mesh, a memory level for each operand and
the result, and a
tiling. Options with the same interface (what they need and what they deliver) compete; the
cheapest stays, with one
that needs less scratchpad if there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import product
from math import inf, prod
from types import MappingProxyType

from tilewright.dtypes import DType
from tilewright.extract.alike import moved_alike, priced_alike, way_alike
from tilewright.extract.gathered import gathered_kernel, most_in_chunks
from tilewright.extract.kernel import (
    Family,
    Kernel,
    box_loads,
)
from tilewright.extract.kernel_price import (
    MovedPieces,
    place_of,
)
from tilewright.extract.move_buffers import aligned_bytes
from tilewright.extract.option import Option
from tilewright.extract.overlap import (
    NEVER,
    THIRD,
    LateOperand,
    fused_cover_cycles,
    is_fused_product,
    rounded_cycles,
)
from tilewright.extract.plan import Memory, Placement, Tiling
from tilewright.extract.pricing import Memories, Outline, PricedTilings, Pricing
from tilewright.extract.scattered import scattered_kernel
from tilewright.extract.tiling_search import worthwhile_tilings
from tilewright.graph import TensorType, dequantises
from tilewright.hwmodel.cost import KernelCost
from tilewright.hwmodel.mesh import (
    LogicalMesh,
    Sharding,
    is_partial,
    local_shape,
    replicated,
)
from tilewright.rules.alternatives import KEEP, Alternatives, Implementation, LogicalNode
from tilewright.rules.gathered import GATHERED, Gather, find_gather
from tilewright.rules.halo import HALO, halo_dims
from tilewright.rules.memory.ruleset import Holding
from tilewright.rules.scattered import find_scatter
from tilewright.rules.splitting import localise
from tilewright.rules.vocabulary import VOCABULARY, vocabulary_axes

LARGEST_SHARD = 0.75
"""Larger shards than this share of the scratchpad are no stations of a chain of moves."""


def class_options(
    alternatives: Alternatives,
    number: int,
    pricing: Pricing,
    late: Mapping[int, LateOperand] = MappingProxyType({}),
    accepts: Callable[[Option], bool] | None = None,
) -> tuple[Option, ...]:
    """Return the options of class `number` that are worth considering, in a fixed order.

    Args:
        alternatives: The block.
        number: The class.
        pricing: What options are priced with.
        late: Operands of maps that products cover, by node; see `overlap.late_operands`.
        accepts: Which options may be considered; all by default.
    """
    found: dict[tuple[object, ...], list[Option]] = {}
    nodes = [
        node
        for node in alternatives.nodes
        if number in (node.results or (node.result,)) and node.kind != KEEP
    ]
    by_node = implementations_by_node(alternatives, frozenset(n.number for n in nodes))
    for node in nodes:
        # constants differ in their bytes only
        needed = tuple(a for a in node.args if not alternatives.classes[a].is_constant)
        for option in _node_options(
            alternatives, node, number, by_node.get(node.number, ()), pricing
        ):
            if accepts is not None and not accepts(option):
                continue
            for one in _with_late(option, late.get(node.number, NEVER)):
                # a scale, the last operand, is constant
                operands = option.operands[: len(node.args) - dequantises(node.attrs)]
                interface = (needed, operands, option.result, one.late.asks_alone)
                _keep(found.setdefault(interface, []), one)
    return tuple(option for group in found.values() for option in group)


def kept_options(
    node: LogicalNode, makers: tuple[Option, ...], pricing: Pricing
) -> tuple[Option, ...]:
    """Return the options of a node that keeps a value, given those of the value: one for each place."""
    places = dict.fromkeys(maker.result for maker in makers if maker.result is not None)
    others = pricing.others(KernelCost())
    return tuple(
        Option(node=node, operands=(place,), resident=(False,), result=place, others=others)
        for place in places
    )


def _with_late(option: Option, late: LateOperand) -> tuple[Option, ...]:
    """Return an option with a late operand, and without if that asks something of the product."""
    if late == NEVER:
        return (option,)
    covered = replace(option, late=late)
    return (covered, option) if late.asks_alone else (covered,)


def implementations_by_node(
    alternatives: Alternatives, nodes: frozenset[int] | None = None
) -> dict[int, tuple[Implementation, ...]]:
    """Group a block's implementations, or those of some nodes, by their node."""
    groups: dict[int, list[Implementation]] = {}
    for implementation in alternatives.implementations:
        if nodes is None or implementation.node in nodes:
            groups.setdefault(implementation.node, []).append(implementation)
    return {node: tuple(group) for node, group in groups.items()}


def kernel_of(
    alternatives: Alternatives,
    node: LogicalNode,
    implementation: Implementation,
    operand_memory: tuple[Memory, ...],
    result_memory: Memory,
    mesh: LogicalMesh,
) -> Kernel:
    """Return the kernel that one tile runs for an implementation."""
    kernel = _kernel_in_sram(alternatives, node, implementation, mesh)
    return replace(kernel, operand_memory=operand_memory, result_memory=result_memory)


def _kernel_in_sram(
    alternatives: Alternatives,
    node: LogicalNode,
    implementation: Implementation,
    mesh: LogicalMesh,
) -> Kernel:
    """Return the kernel for operands and a result in SRAM; others differ only in the memories."""
    assert node.nest is not None
    types = [alternatives.classes[a].type for a in node.args]
    local = localise(node.nest, mesh, implementation.split_dims, implementation.macros)
    result = alternatives.classes[node.result].type
    kernel = Kernel(
        kind=node.kind,
        attrs=node.attrs,
        nest=local,
        operand_types=tuple(
            TensorType(tuple(dim.size for dim in operand), t.dtype)
            for operand, t in zip(local.operands, types, strict=True)
        ),
        result_type=_local(mesh, implementation.result, result),
        operand_memory=(Memory.SRAM,) * len(types),
        result_memory=Memory.SRAM,
        mesh=mesh,
        operand_shardings=implementation.operands,
        result_sharding=implementation.result,
        halo=halo_dims(node.nest, mesh, implementation.split_dims, implementation.macros),
        vocabulary=vocabulary_axes(implementation.macros),
    )
    kernel = gathered_kernel(kernel, _gather(node, implementation, mesh))
    return scattered_kernel(kernel, find_scatter(node.nest, mesh, implementation.macros))


def _gather(node: LogicalNode, implementation: Implementation, mesh: LogicalMesh) -> Gather | None:
    assert node.nest is not None, "host regions have no kernel"
    used = implementation
    return find_gather(node.nest, mesh, used.split_dims, used.operands, used.macros)


def _local(mesh: LogicalMesh, sharding: Sharding, tensor: TensorType) -> TensorType:
    return TensorType(local_shape(mesh, sharding, tensor.shape), tensor.dtype)


def _node_options(
    alternatives: Alternatives,
    node: LogicalNode,
    number: int,
    implementations: tuple[Implementation, ...],
    pricing: Pricing,
) -> list[Option]:
    if node.kind == "host":
        return [_host_option(alternatives, node, number, pricing)]
    # gathering in chunks is held against the same split of what is whole
    ways = sorted(implementations, key=lambda i: GATHERED in i.macros)
    key = priced_alike(alternatives, node, ways)
    known = pricing.alike.get(key)
    if known is None:
        known = pricing.alike[key] = tuple(_options_by_way(alternatives, node, ways, pricing))
        return [option for _, option in known]
    return [replace(option, node=node, implementation=ways[way]) for way, option in known]


def _options_by_way(
    alternatives: Alternatives, node: LogicalNode, ways: list[Implementation], pricing: Pricing
) -> Iterator[tuple[int, Option]]:
    """Yield the options of a node, each with the number of the implementation that it follows."""
    plain: dict[tuple[object, ...], float] = {}
    outlines = pricing.outlines.setdefault(moved_alike(alternatives, node), {})
    for way, implementation in enumerate(ways):
        alike = way_alike(implementation)
        if alike not in outlines:
            outlines[alike] = _outline(alternatives, node, implementation, pricing)
        outline = outlines[alike]
        if outline is None:
            continue
        is_gathered = GATHERED in implementation.macros
        most = dict.fromkeys(outline.places, inf)
        for memories in outline.places if is_gathered else ():
            whole = plain.get((implementation.split_dims, memories))
            allowed = _most_in_chunks(alternatives, node, implementation, pricing, whole)
            if allowed is None:
                del most[memories]
            else:
                most[memories] = allowed
        if not most:
            continue
        kernel = outline.kernel
        if kernel.attrs is not node.attrs:
            kernel = replace(kernel, attrs=node.attrs)
        for memories, tilings in worthwhile_tilings(kernel, most, outline, pricing).items():
            if is_gathered:
                limit = most[memories]
                tilings = tuple(
                    (tiling, cost, size)
                    for tiling, cost, size in tilings
                    if pricing.cycles(cost) < limit and not _is_whole_ring(kernel, tiling)
                )
            elif tilings:
                key = implementation.split_dims, memories
                plain[key] = min(pricing.cycles(cost) for _, cost, _ in tilings)
            for option in _priced_options(
                alternatives, node, implementation, kernel, memories, tilings, pricing
            ):
                yield way, option


def _outline(
    alternatives: Alternatives, node: LogicalNode, implementation: Implementation, pricing: Pricing
) -> Outline | None:
    levels = _memory_levels(alternatives, node, implementation, pricing)
    if not levels:
        return None
    kernel = _kernel_in_sram(alternatives, node, implementation, pricing.mesh)
    return Outline(
        kernel,
        {memories: place_of(kernel, *memories) for memories in levels},
        pricing.moved.setdefault(kernel.moved_key, MovedPieces()),
    )


def _is_whole_ring(kernel: Kernel, tiling: Tiling) -> bool:
    """Whether attention has all keys of all heads in one chunk: an exchange in front of it does that."""
    assert kernel.gather is not None, "the kernel gathers an operand"
    is_ring = kernel.family is Family.ATTENTION
    return is_ring and all(box_loads(kernel, tiling, n) == 1 for n in kernel.gather.operands)


def _most_in_chunks(
    alternatives: Alternatives,
    node: LogicalNode,
    implementation: Implementation,
    pricing: Pricing,
    whole: float | None,
) -> float | None:
    """Return what a product may cost with operands in chunks, see `most_in_chunks`."""
    if whole is None:
        return inf  # an operand does not fit whole
    if not pricing.objective.rewards_overlap:
        return None
    gather = _gather(node, implementation, pricing.mesh)
    assert gather is not None, "the implementation gathers an operand"
    piece_bytes = sum(
        _local(
            pricing.mesh, implementation.operands[n], alternatives.classes[node.args[n]].type
        ).size_bytes
        for n in gather.operands
    )
    return most_in_chunks(pricing.target, pricing.mesh, gather, piece_bytes, whole)


def _host_option(
    alternatives: Alternatives, node: LogicalNode, number: int, pricing: Pricing
) -> Option:
    """Return the only option of a host region: everything through DRAM, paid once by its first result."""
    dram = Placement(Memory.DRAM, replicated(pricing.mesh))
    constants = [alternatives.classes[a].is_constant for a in node.args]
    if number != node.result:
        return Option(
            node=node,
            result=dram,
            operands=(None,) * len(node.args),
            resident=(False,) * len(constants),
            others=pricing.others(KernelCost()),
        )
    moved = sum(
        alternatives.classes[c].type.size_bytes
        for c in (*node.args, *(node.results or (node.result,)))
    )
    host = pricing.target.host
    cost = KernelCost(startup_cycles=host.latency_cycles + moved / host.bytes_per_cycle)
    return Option(
        node=node,
        operands=tuple(None if c else dram for c in constants),
        resident=(False,) * len(constants),
        result=dram,
        cost=cost,
        units=pricing.objective.kernel_units(cost, pricing.target),
        others=pricing.others(cost),
    )


def _memory_levels(
    alternatives: Alternatives, node: LogicalNode, implementation: Implementation, pricing: Pricing
) -> list[tuple[tuple[Memory, ...], Memory]]:
    """Return the memory levels to consider for the operands and the result of an implementation."""
    result = alternatives.classes[node.result].type
    if node.kind == "reshape":
        (operand,) = implementation.operands
        levels = _levels(result, implementation.result, pricing)
        if is_partial(operand):
            levels = [level for level in levels if level is Memory.SRAM]
        return [((level,), level) for level in levels]
    gather = _gather(node, implementation, pricing.mesh)
    if gather is not None:
        axes = zip(pricing.mesh.sizes, implementation.split_dims, strict=True)
        is_idle = any(size > 1 and split < 0 for size, split in axes)
        if is_idle or any(alternatives.classes[node.args[n]].is_constant for n in gather.operands):
            return []  # an axis computes everything twice, or an operand is whole for nothing
    choices = []
    for sharding, argument in zip(implementation.operands, node.args, strict=True):
        tensor = alternatives.classes[argument]
        if tensor.is_constant and is_partial(sharding):
            return []
        choices.append(
            _levels(
                tensor.type,
                sharding,
                pricing,
                is_constant=tensor.is_constant,
                is_movable=tensor.is_constant,
            )
        )
    for number in gather.operands if gather is not None else ():
        choices[number] = [m for m in choices[number] if m is Memory.SRAM]
    if HALO in implementation.macros:
        choices[0] = [level for level in choices[0] if level is Memory.SRAM]
    if VOCABULARY in implementation.macros:
        # a table in DRAM is read row by row anyway, and truth values have no sum
        can_sum = result.dtype is not DType.BOOL
        choices = [[Memory.SRAM] if can_sum and Memory.SRAM in c else [] for c in choices]
    _tie_small_constants(alternatives, node, implementation, choices, pricing)
    results = _levels(result, implementation.result, pricing)
    # a scale that is not small stays where its weights stay
    is_tied = dequantises(node.attrs) and len(choices[-1]) > 1
    return [
        (tuple(memories), level)
        for *memories, level in product(*choices, results)
        if not is_tied or memories[-1] is memories[1]
    ]


def _levels(
    tensor: TensorType,
    sharding: Sharding,
    pricing: Pricing,
    *,
    is_constant: bool = False,
    is_movable: bool = True,
) -> list[Memory]:
    """Return the levels that some memory rule allows for a shard, in the order of the rules."""
    held = Holding(
        is_constant=is_constant,
        is_partial=is_partial(sharding),
        is_movable=is_movable,
        shard_bytes=prod(local_shape(pricing.mesh, sharding, tensor.shape))
        * tensor.dtype.itemsize_bytes,
        scratchpad_bytes=pricing.limit_bytes,
    )
    allowed = (Memory(rule.level.value) for rule in pricing.memory if rule.function(held))
    return list(dict.fromkeys(allowed))


def _tie_small_constants(
    alternatives: Alternatives,
    node: LogicalNode,
    implementation: Implementation,
    choices: list[list[Memory]],
    pricing: Pricing,
) -> None:
    """Keep small constants (biases) resident where a large one is the question, to halve the options."""
    sizes = [
        alternatives.classes[a].type.size_bytes if alternatives.classes[a].is_constant else 0
        for a in node.args
    ]
    for position, size in enumerate(sizes):
        if (
            0 < size <= pricing.limit_bytes / 64
            and size < max(sizes)
            and Memory.SRAM in choices[position]
        ):
            choices[position] = [Memory.SRAM]


def _priced_options(
    alternatives: Alternatives,
    node: LogicalNode,
    implementation: Implementation,
    kernel: Kernel,
    memories: Memories,
    tilings: PricedTilings,
    pricing: Pricing,
) -> list[Option]:
    operand_memory, result_memory = memories
    constant = [alternatives.classes[a].is_constant for a in node.args]
    resident = tuple(
        is_constant and memory is Memory.SRAM
        for is_constant, memory in zip(constant, operand_memory, strict=True)
    )
    alignment = pricing.target.tile.sram.alignment_bytes
    resident_bytes = sum(
        aligned_bytes(tensor.size_bytes, alignment)
        for tensor, kept in zip(kernel.operand_types, resident, strict=True)
        if kept
    )
    operands = tuple(
        None if is_constant else _placement(memory, sharding, pricing.mesh)
        for is_constant, memory, sharding in zip(
            constant, operand_memory, implementation.operands, strict=True
        )
    )
    # a product that gathers while it runs needs the network itself
    is_alone = not any(implementation.macros)
    is_late = pricing.counts_late and is_alone and is_fused_product(alternatives, node)

    def late(tiling: Tiling, cost: KernelCost) -> LateOperand:
        cover = rounded_cycles(fused_cover_cycles(kernel, tiling, cost)) if is_late else 0.0
        return LateOperand(THIRD, cover) if cover else NEVER

    return [
        Option(
            node=node,
            implementation=implementation,
            late=late(tiling, cost),
            operands=operands,
            resident=resident,
            result=_placement(result_memory, implementation.result, pricing.mesh),
            tiling=tiling,
            cost=cost,
            units=pricing.objective.kernel_units(cost, pricing.target),
            others=pricing.others(cost),
            working_bytes=working,
            resident_bytes=resident_bytes,
        )
        for tiling, cost, working in tilings
    ]


def _placement(memory: Memory, sharding: Sharding, mesh: LogicalMesh) -> Placement:
    """In DRAM there is one global copy, whatever part of it a tile touches."""
    return Placement(memory, replicated(mesh) if memory is Memory.DRAM else sharding)


def _keep(group: list[Option], option: Option) -> None:
    """Add an option to those of the same interface unless one is as good in every respect."""

    def dominates(a: Option, b: Option) -> bool:
        return (
            a.units <= b.units
            and all(x <= y for x, y in zip(a.others, b.others, strict=True))
            and a.working_bytes <= b.working_bytes
            and a.resident_bytes <= b.resident_bytes
            and (
                b.late == NEVER
                or (
                    a.late.position == b.late.position
                    and a.late.cover_cycles >= b.late.cover_cycles
                )
            )
        )

    if any(dominates(other, option) for other in group):
        return
    group[:] = [other for other in group if not dominates(option, other)] + [option]

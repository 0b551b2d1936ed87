"""The options of one tensor class: every way to compute it, with its price.

An option is an e-node, an implementation of it on the mesh, a memory level for each operand and
the result, and a
tiling. Options with the same interface (what they need and what they deliver) compete; the
cheapest stays, with one
that needs less scratchpad if there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from math import inf, prod
from types import MappingProxyType

from tilewright.dtypes import DType
from tilewright.extract.alike import moved_alike, priced_alike, way_alike
from tilewright.extract.avoid import NOTHING, Avoid
from tilewright.extract.deadline import NO_DEADLINE, Deadline
from tilewright.extract.gathered import gathered_kernel, most_in_chunks
from tilewright.extract.kernel import (
    Family,
    Kernel,
    box_loads,
    footprint_bytes,
    is_result_staged,
    is_staged,
    whole_tiling,
)
from tilewright.extract.kernel_price import (
    Likely,
    MovedPieces,
    Pieces,
    Place,
    Pricer,
    UnitPieces,
    place_of,
    price_all,
)
from tilewright.extract.move_buffers import aligned_bytes
from tilewright.extract.objective import Objective
from tilewright.extract.overlap import (
    NEVER,
    THIRD,
    LateOperand,
    fused_cover_cycles,
    is_fused_product,
    rounded_cycles,
)
from tilewright.extract.plan import Memory, Placement, Tiling
from tilewright.extract.reshard import Crossing, ReshardTable
from tilewright.extract.tiling_choice import (
    Candidates,
    Ranking,
    held_on_the_way,
    tiling_key,
    whole_candidate,
)
from tilewright.graph import TensorType, dequantises
from tilewright.hwmodel.cost import KernelCost
from tilewright.hwmodel.mesh import (
    LogicalMesh,
    Sharding,
    is_partial,
    local_shape,
    replicated,
)
from tilewright.hwmodel.target import Target
from tilewright.rules.alternatives import KEEP, Alternatives, Implementation, LogicalNode
from tilewright.rules.collectives.family import collective_rules
from tilewright.rules.collectives.ruleset import CollectiveRule
from tilewright.rules.gathered import GATHERED, Gather, find_gather
from tilewright.rules.halo import HALO, halo_dims
from tilewright.rules.memory.family import memory_rules
from tilewright.rules.memory.ruleset import Holding, MemoryRule
from tilewright.rules.splitting import localise
from tilewright.rules.tiling.family import tiling_rules
from tilewright.rules.tiling.ruleset import TilingRule
from tilewright.rules.vocabulary import VOCABULARY, vocabulary_axes


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One way to compute a class; `node` None means that the class is not computed at all.

    `operands[i]` is the placement that operand i must have, None for constants; `resident[i]` tells that
    operand i is a constant kept in SRAM, in `constant_shardings[i]`.
    """

    node: LogicalNode | None
    implementation: Implementation | None = None
    operands: tuple[Placement | None, ...] = ()
    resident: tuple[bool, ...] = ()
    result: Placement | None = None
    tiling: Tiling | None = None
    cost: KernelCost = field(default_factory=KernelCost)
    units: float = 0.0
    others: tuple[float, ...] = ()
    """What the kernel costs under the further objectives of its pricing."""
    late: LateOperand = NEVER
    """The operand whose delivery a product covers."""
    working_bytes: int = 0
    resident_bytes: int = 0

    @property
    def is_kept(self) -> bool:
        """Whether nothing runs: the value is another one, which stays where it was made."""
        return self.node is not None and self.node.kind == KEEP

    @property
    def is_view(self) -> bool:
        """Whether the result may be the same bytes as its source."""
        return self.is_kept or (self.node is not None and self.node.kind == "reshape")

    @property
    def uses_network(self) -> bool:
        """Whether tiles exchange data while the kernel runs."""
        return self.implementation is not None and any(self.implementation.macros)


ABSENT = Option(node=None)

PricedTilings = tuple[tuple[Tiling, KernelCost, int], ...]
"""Tilings with what a kernel costs and the scratchpad that it takes with them, [bytes]."""

Memories = tuple[tuple[Memory, ...], Memory]
"""Where the operands and the result of a kernel lie."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PricedShape:
    """What is known of kernels that differ only in where their tensors lie."""

    tilings: dict[Place, PricedTilings] = field(default_factory=dict)
    """The tilings worth keeping."""
    units: dict[Tiling, UnitPieces] = field(default_factory=dict)
    """The part of the matrix and the vector unit."""
    moved: MovedPieces
    """What is moved, shared with kernels that compute something else on the way."""


@dataclass(frozen=True, slots=True)
class Outline:
    """A way to run a node, whatever it computes on the way."""

    kernel: Kernel
    """That of the first such node, with all tensors in SRAM."""
    places: Mapping[Memories, Place]
    """Where its tensors may lie."""
    moved: MovedPieces


LARGEST_SHARD = 0.75
"""Larger shards than this share of the scratchpad are no stations of a chain of moves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pricing:
    """What options are priced with: the machine, the objective, and the tilings to choose from.

    `tilings` maps a local nest's extents and tileable dims to candidates, `tiling` are the rules that make
    them, `memory` those of where tensors may lie, `collective` those of fused steps of resharding.
    """

    target: Target
    mesh: LogicalMesh
    objective: Objective
    limit_bytes: int
    deadline: Deadline = NO_DEADLINE
    """After which no more options are priced."""
    tilings: Mapping[tuple[object, ...], Candidates]
    tiling: tuple[TilingRule, ...] = field(default_factory=tiling_rules)
    always_cuts: bool = False
    """Whether kernels without buffers of their own, which gain nothing by it, are cut like others."""
    memory: tuple[MemoryRule, ...] = field(default_factory=memory_rules)
    collective: tuple[CollectiveRule, ...] = field(default_factory=collective_rules)
    priced: dict[tuple[object, ...], PricedShape] = field(default_factory=dict, init=False)
    """Memo of the tilings worth keeping, by `Kernel.shape_key`; another pricing has another one."""
    moved: dict[tuple[object, ...], MovedPieces] = field(default_factory=dict, init=False)
    """Memo of what is moved, by `Kernel.moved_key`."""
    pieces: Pieces = field(init=False)
    """Memo of the pieces of work that kernels consist of."""
    outlines: dict[Hashable, dict[Hashable, Outline | None]] = field(
        default_factory=dict, init=False
    )
    """Memo of ways, by what is alike of their nodes and of them; None if tensors may lie nowhere."""
    alike: dict[Hashable, tuple[tuple[int, Option], ...]] = field(default_factory=dict, init=False)
    """Memo of the options of nodes, each with the number of its implementation, by `priced_alike`."""
    reshards: dict[tuple[TensorType, frozenset[Sharding], Crossing, bool], ReshardTable] = field(
        default_factory=dict
    )
    """Memo of the chains of moves of each tensor type, by the partial shardings that are made of it."""

    beside: tuple[Objective, ...] = ()
    """Further objectives: an option stays unless another one is as good under each of them, too."""
    spares_scratchpad: bool = False
    """Whether tilings of little scratchpad are of use even where there is plenty."""
    hides: bool = True
    """Whether products may cover deliveries."""
    avoid: Avoid = NOTHING
    """Moves and results that are left out; the alternatives go without what is avoided already."""

    def __post_init__(self) -> None:
        """Know no pieces of work yet."""
        object.__setattr__(self, "pieces", Pieces(self.target))

    def priced_shape(self, kernel: Kernel, moved: MovedPieces) -> PricedShape:
        """Return what is known of a kernel wherever its tensors lie."""
        key = kernel.shape_key
        found = self.priced.get(key)
        if found is None:
            found = self.priced[key] = PricedShape(moved=moved)
        return found

    @property
    def counts_late(self) -> bool:
        """Whether deliveries that a product covers cost less."""
        return self.hides and self.counts_time

    @property
    def counts_time(self) -> bool:
        """Whether cycles cost something, so that what runs beside something else is free."""
        return self.objective.counts_time

    def others(self, cost: KernelCost) -> tuple[float, ...]:
        """Return what a kernel costs under the further objectives."""
        return tuple([objective.kernel_units(cost, self.target) for objective in self.beside])

    def cycles(self, cost: KernelCost) -> float:
        """Return the cycles of a kernel that the objective means."""
        timed = self.objective if self.objective.is_time else Objective.LATENCY
        return timed.kernel_units(cost, self.target)


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
    return gathered_kernel(kernel, _gather(node, implementation, mesh))


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
        for memories, tilings in _worthwhile_tilings(kernel, most, outline, pricing).items():
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


def needs_tiling(kernel: Kernel) -> bool:
    """Whether a kernel has buffers of its own, so that tile sizes matter."""
    if kernel.family is Family.ALIAS:
        return False
    staged = any(is_staged(kernel, i) for i in range(len(kernel.operand_types)))
    return (
        staged or is_result_staged(kernel) or footprint_bytes(kernel, whole_tiling(kernel), 1) > 0
    )


def _worthwhile_tilings(
    kernel: Kernel, levels: Iterable[Memories], outline: Outline, pricing: Pricing
) -> Mapping[Memories, PricedTilings]:
    """Return the cheapest tiling and, if it takes much scratchpad, the cheapest of those that take little.

    Args:
        kernel: The kernel, wherever its tensors lie.
        levels: Where they may lie.
        outline: Its way.
        pricing: What options are priced with.
    """
    priced = pricing.priced_shape(kernel, outline.moved)
    places = {memories: outline.places[memories] for memories in levels}
    unknown = {
        place: replace(kernel, operand_memory=memories[0], result_memory=memories[1])
        for memories, place in places.items()
        if place not in priced.tilings
    }
    if unknown:
        found = _search_tilings(unknown, priced, pricing)
        priced.tilings.update(zip(unknown, found, strict=True))
    return {memories: priced.tilings[place] for memories, place in places.items()}


def _held_bytes(kernel: Kernel, pricing: Pricing) -> int:
    """Return the scratchpad that operands and result take while the kernel runs."""
    alignment = pricing.target.tile.sram.alignment_bytes
    tensors = [
        tensor
        for tensor, memory in zip(kernel.operand_types, kernel.operand_memory, strict=True)
        if memory is Memory.SRAM
    ]
    if kernel.result_memory is Memory.SRAM and kernel.family is not Family.ALIAS:
        tensors.append(kernel.result_type)
    return sum(aligned_bytes(tensor.size_bytes, alignment) for tensor in tensors)


def _search_tilings(
    kernels: Mapping[Place, Kernel], priced: PricedShape, pricing: Pricing
) -> list[PricedTilings]:
    """Return the tilings worth keeping of kernels that differ only in where their tensors lie."""
    first = next(iter(kernels.values()))
    candidates, held = pricing.tilings.get(tiling_key(first)), held_on_the_way(first)
    known, likely = priced.moved.likely, list[Likely]()
    asked = list[tuple[Pricer, Tiling]]()
    for place, kernel in kernels.items():
        key = place, held
        if key not in known:
            known[key] = _likely_tilings(kernel, candidates, pricing)
        likely.append(known[key])
        if known[key]:
            pricer = Pricer(kernel, pricing.pieces, priced.units, priced.moved)
            asked += [(pricer, tiling) for tiling in _distinct(known[key])]
    costs = iter(price_all(asked))
    return [
        _not_dominated(shares, {tiling: next(costs) for tiling in _distinct(shares)}, pricing)
        for shares in likely
    ]


def _distinct(shares: Likely) -> dict[Tiling, None]:
    return dict.fromkeys([tiling for share in shares for tiling, _ in share])


def _likely_tilings(kernel: Kernel, candidates: Candidates | None, pricing: Pricing) -> Likely:
    """Return what may be the cheapest tilings within shares of the scratchpad."""
    budget_bytes = pricing.limit_bytes - _held_bytes(kernel, pricing)
    if budget_bytes < 0:
        return ()
    if candidates is None or not (pricing.always_cuts or needs_tiling(kernel)):
        candidates = whole_candidate(kernel)
    ranking = Ranking(kernel, candidates, pricing.target)
    shares = _MANY_SHARES if pricing.spares_scratchpad else _BUDGET_SHARES
    budgets = (int(min(pricing.limit_bytes * share, budget_bytes)) for share in shares)
    return tuple(tuple(ranking.within(budget)) for budget in budgets)


def _not_dominated(
    shares: Likely, costs: Mapping[Tiling, KernelCost], pricing: Pricing
) -> PricedTilings:
    """Return the tilings that none of their share beats, and that take less scratchpad than those before."""
    kept: dict[Tiling, tuple[KernelCost, int]] = {}
    units = {
        tiling: (pricing.objective.kernel_units(cost, pricing.target), *pricing.others(cost))
        for tiling, cost in costs.items()
    }
    least: float = inf
    for share in shares:
        found = [(tiling, size, units[tiling]) for tiling, size in share if size < least]
        for number, (tiling, size, own) in enumerate(found):
            for n, (_, _, other) in enumerate(found):
                is_rival = n < number or other != own
                if is_rival and all([x <= y for x, y in zip(other, own, strict=True)]):
                    break
            else:
                kept.setdefault(tiling, (costs[tiling], size))
                least = min(least, size)
    return tuple([(tiling, cost, size) for tiling, (cost, size) in kept.items()])


_BUDGET_SHARES = (1.0, 0.25)
"""Shares of the scratchpad within which the cheapest tiling is looked for."""

_MANY_SHARES = tuple(0.5**n for n in range(16))
"""The same where less scratchpad is better."""


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

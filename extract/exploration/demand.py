"""What a user may demand of a plan: that it follows or avoids a rule, a sharding, a split, a tile, a memory.

A demand is written `ASPECT=VALUE@TENSOR`: `sharding=y:S0,x:R@fc1`, `split=y:m,x:n@fc1`, `tile=m=16,n=64@fc1`,
`memory=dram@fc1`, `weights=streamed@fc1`, `rule=fusion.bias@fc1`; a rule may go without a tensor.

Demands on the stages of a pipeline: `stage=2@fc1` (the second stage computes it), `cut@fc1` (a stage ends
behind the op that makes it), `part=2x4@fc1` (the stage that computes it has such a part of the machine: units
of each axis), and `stages=3` (so many in all).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from tilewright.errors import DemandError
from tilewright.extract.option import Option
from tilewright.extract.plan import Memory, Tiling
from tilewright.hwmodel.mesh import LogicalMesh, Sharding, format_sharding
from tilewright.rules.alternatives import Implementation, LogicalNode


class Aspect(StrEnum):
    """What of a way to compute a tensor a demand is about."""

    RULE = "rule"
    SHARDING = "sharding"
    SPLIT = "split"
    TILE = "tile"
    MEMORY = "memory"
    WEIGHTS = "weights"
    STAGE = "stage"
    STAGES = "stages"
    CUT = "cut"
    PART = "part"


STAGE_ASPECTS = frozenset({Aspect.STAGE, Aspect.STAGES, Aspect.CUT, Aspect.PART})
"""Those of pipelines."""

WEIGHTS = ("resident", "streamed")

_ONE_ELEMENT = "1"
"""A tile all of whose loops have size 1."""

_FORM = "write ASPECT=VALUE@TENSOR, for example sharding=y:S0,x:R@fc1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """A property that the way to compute a tensor must have, or must not have.

    Without a tensor (rules only), a forced rule must have made some op of the plan or its split, and a
    forbidden one none. In repeated blocks a demand is on every repeat, which share their choice; stages
    choose for themselves. A cut has no value, a number of stages no tensor.
    """

    aspect: Aspect
    value: str
    tensor: str | None = None
    is_forced: bool = True

    def __post_init__(self) -> None:
        """Refuse a demand without a value, or without a tensor where it needs one."""
        if not self.value and self.aspect is not Aspect.CUT:
            raise DemandError(f"demand '{self}': found no value; {_FORM}")
        if self.value and self.aspect is Aspect.CUT:
            raise DemandError(f"demand '{self}': found a value, which no cut has; write cut@fc1")
        if self.tensor is not None and self.aspect is Aspect.STAGES:
            raise DemandError(
                f"demand '{self}': found a tensor, stages are counted in all; write stages={self.value}, or "
                f"stage={self.value}@{self.tensor} for the stage that computes it"
            )
        may_go_without = self.tensor is None and self.aspect in (Aspect.RULE, Aspect.STAGES)
        if not self.tensor and not may_go_without:
            raise DemandError(
                f"demand '{self}': found no tensor, which only rules may go without; {_FORM}"
            )

    def __str__(self) -> str:
        """Return the demand as it is written, with its verb."""
        at = "" if self.tensor is None else f"@{self.tensor}"
        value = f"={self.value}" if self.value or self.aspect is not Aspect.CUT else ""
        return f"{'force' if self.is_forced else 'forbid'} {self.aspect}{value}{at}"

    @property
    def subject(self) -> str:
        """The tensor that it is on; not for demands that go without."""
        assert self.tensor is not None, f"demand '{self}' is on no tensor"
        return self.tensor

    @property
    def adds_ways(self) -> bool:
        """Whether plans under it may do what none does without it, so that bounds of those do not hold."""
        return self.aspect is Aspect.TILE

    @property
    def is_on_stages(self) -> bool:
        """Whether it is on the stages of a pipeline."""
        return self.aspect in STAGE_ASPECTS


def parse_demand(text: str, *, is_forced: bool = True) -> Demand:
    """Return the demand that a text writes.

    >>> str(parse_demand("tile=m=16,n=64@fc1"))
    'force tile=m=16,n=64@fc1'
    >>> str(parse_demand("cut@fc1", is_forced=False))
    'forbid cut@fc1'

    Raises:
        DemandError: It is no demand; says how to write one.
    """
    if text.startswith(f"{Aspect.CUT}@"):
        tensor = text.removeprefix(f"{Aspect.CUT}@")
        return Demand(aspect=Aspect.CUT, value="", tensor=tensor, is_forced=is_forced)
    name, equals, rest = text.partition("=")
    if not equals or name not in set(Aspect):
        known = ", ".join(Aspect)
        raise DemandError(f"demand '{text}': expected one of {known} before '='; {_FORM}")
    value, at, tensor = rest.partition("@")
    return Demand(
        aspect=Aspect(name), value=value, tensor=tensor if at else None, is_forced=is_forced
    )


def split_text(node: LogicalNode, implementation: Implementation, mesh: LogicalMesh) -> str:
    """Return which loop each mesh axis splits, with macros, as `y:m x:n+gathered`; "-" for none."""
    if node.nest is None:
        return "-"
    macros = implementation.macros or ("",) * mesh.rank
    words = []
    for axis, split, macro in zip(mesh.names, implementation.split_dims, macros, strict=True):
        loop = node.nest.dims[split].name if split >= 0 else ""
        if loop or macro:
            words.append(f"{axis}:{loop}{'+' if loop and macro else ''}{macro}")
    return " ".join(words) or "-"


def sharding_text(mesh: LogicalMesh, sharding: Sharding) -> str:
    """Return a sharding as demands write it, which is as plans print it."""
    return format_sharding(mesh, sharding)


def tile_text(node: LogicalNode, tiling: Tiling | None) -> str:
    """Return the tile sizes of a node's loops, as `m=16 n=64`; "-" without any."""
    if node.nest is None or tiling is None:
        return "-"
    # kernels with macros have loops of their own behind those of the nest
    pairs = zip(node.nest.dims, tiling.sizes, strict=False)
    return " ".join(f"{dim.name}={size}" for dim, size in pairs if size > 1) or _ONE_ELEMENT


def weights_of(option: Option) -> frozenset[str]:
    """Return where an option has its constant operands: resident, streamed or both."""
    found = set()
    for placement, is_resident in zip(option.operands, option.resident, strict=True):
        if placement is None:
            found.add("resident" if is_resident else "streamed")
    return frozenset(found)


def allows_way(
    demand: Demand, node: LogicalNode, implementation: Implementation | None, mesh: LogicalMesh
) -> bool:
    """Whether ways to run a node with this implementation (None: a host region) may satisfy a demand.

    Sizes of tiles, memories and weights are seen in options only; a node without the loops of a forced tile
    has none. The mesh may lack axes that a demand names: no way splits anything over these.
    """
    match demand.aspect:
        case Aspect.RULE:
            rules = (node.origin, node.again, *(implementation.rules if implementation else ()))
            holds = any(is_of(rule, demand.value) for rule in rules)
        case Aspect.SHARDING:
            own = implementation.result if implementation else (-1,) * mesh.rank
            holds = _axes(demand, sharding_text(mesh, own), "R") == _axes(demand)
        case Aspect.SPLIT:
            text = split_text(node, implementation, mesh) if implementation else "-"
            holds = _axes(demand, text, "") == _axes(demand)
        case Aspect.TILE if demand.is_forced:
            loops = [dim.name for dim in node.nest.dims] if node.nest is not None else []
            return bool(loops) and demanded_tile(demand, loops).keys() <= set(loops)
        case _:
            return True
    return holds == demand.is_forced


def allows_option(demand: Demand, option: Option) -> bool:
    """Whether an option satisfies a demand on memory, weights or tile; True for other demands."""
    assert option.node is not None
    match demand.aspect:
        case Aspect.MEMORY:
            holds = option.result is not None and option.result.memory == demand.value
        case Aspect.WEIGHTS:
            own = weights_of(option)
            holds = bool(own) and demand.value in own
            if demand.is_forced:
                holds = own == {demand.value}
        case Aspect.TILE:
            holds = _has_tile(demand, option)
        case _:
            return True
    return holds == demand.is_forced


def satisfies(demand: Demand, option: Option, mesh: LogicalMesh) -> bool:
    """Whether an option does what a demand asks; not to compute the tensor only avoids things."""
    if option.node is None:
        return not demand.is_forced
    allowed = allows_way(demand, option.node, option.implementation, mesh)
    return allowed and allows_option(demand, option)


def tile_sizes(demand: Demand) -> Mapping[str, int]:
    """Return the sizes that a demand on a tile names, by loop; none for `1`, a tile of one element.

    Raises:
        DemandError: It is not written as `m=16,n=64`.
    """
    sizes: dict[str, int] = {}
    if demand.value == _ONE_ELEMENT:
        return sizes
    for word in demand.value.replace(",", " ").split():
        loop, _, size = word.partition("=")
        if not loop or not size.isascii() or not size.isdecimal() or not 0 < int(size[:12]) < 2**31:
            raise DemandError(
                f"demand '{demand}': found '{word}', expected loops with their sizes as m=16,n=64"
            )
        sizes[loop] = int(size)
    return sizes


def demanded_tile(demand: Demand, loops: Iterable[str]) -> Mapping[str, int]:
    """Return the sizes that a demand asks of a kernel with these loops; all 1 for a tile of one element."""
    if demand.value == _ONE_ELEMENT:
        return dict.fromkeys(loops, 1)
    return tile_sizes(demand)


def check_value(demand: Demand, mesh: LogicalMesh) -> None:
    """Refuse a value that no way on this mesh can have.

    Raises:
        DemandError: Says what was found and what is expected.
    """
    match demand.aspect:
        case Aspect.SHARDING | Aspect.SPLIT:
            _axes(demand, mesh=mesh)
        case Aspect.TILE:
            tile_sizes(demand)
        case Aspect.MEMORY if demand.value not in set(Memory):
            raise _unknown_value(demand, Memory)
        case Aspect.WEIGHTS if demand.value not in WEIGHTS:
            raise _unknown_value(demand, WEIGHTS)
        case _:
            pass


def _unknown_value(demand: Demand, known: Iterable[str]) -> DemandError:
    return DemandError(f"demand '{demand}': found '{demand.value}', expected {' or '.join(known)}")


def is_of(rule: str, name: str) -> bool:
    """Whether a rule is the one named, or of the rule set named."""
    return rule == name or rule.startswith(f"{name}.")


def _axes(
    demand: Demand,
    text: str | None = None,
    idle: str | None = None,
    mesh: LogicalMesh | None = None,
) -> dict[str, str]:
    """Return the state of each axis that is not idle, from `y:S0 x:R` or `y:S0,x:R`."""
    idle = ("R" if demand.aspect is Aspect.SHARDING else "") if idle is None else idle
    found = {}
    for word in (demand.value if text is None else text).replace(",", " ").split():
        axis, _, state = word.partition(":")
        if mesh is not None and word not in ("-", "R") and (axis not in mesh.names or not state):
            wanted = "y:S0" if demand.aspect is Aspect.SHARDING else "y:m"
            raise DemandError(
                f"demand '{demand}': found '{word}', expected states of the mesh axes "
                f"{', '.join(mesh.names)}, each written as {wanted}"
            )
        if state and state != idle:
            found[axis] = state
    return found


def _has_tile(demand: Demand, option: Option) -> bool:
    assert option.node is not None
    if option.tiling is None or option.node.nest is None:
        return False
    pairs = zip(option.node.nest.dims, option.tiling.sizes, strict=False)
    own = {dim.name: size for dim, size in pairs}
    return all(own.get(loop) == size for loop, size in demanded_tile(demand, own).items())

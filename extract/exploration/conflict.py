"""Why no plan satisfies demands: which contradict each other, or what they need more than there is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

from tilewright.errors import CompileError, DemandError, InfeasibleDemandError, InfeasibleError
from tilewright.extract.account import possible
from tilewright.extract.exploration.demand import (
    Aspect,
    Demand,
    sharding_text,
    split_text,
    tile_text,
    weights_of,
)
from tilewright.extract.exploration.restrict import (
    Placed,
    Restriction,
    can_be_met,
    restrictions,
)
from tilewright.extract.exploration.tables import NoOptionError, OptionMemo, demanded_options
from tilewright.extract.exploration.tiles import tile_error
from tilewright.extract.option import Option
from tilewright.extract.origins import Variable
from tilewright.extract.plan import Plan
from tilewright.extract.pricing import Pricing
from tilewright.extract.setting import Setting
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.rules.alternatives import Alternatives

_FACTORS = (1.25, 1.5, 2.0, 3.0, 4.0, 8.0, 32.0)
"""Multiples of the scratchpad that are tried, to find out what demands need."""

_HALVINGS = 4
"""Refinements of that: what they need is the least scratchpad tried with which a plan is found."""

_SHOWN = 8


def explain_conflict(
    alternatives: tuple[Alternatives, ...], placed: Sequence[Placed]
) -> CompileError:
    """Return the error that names a smallest set of demands which no way satisfies."""
    core = core_of(placed, partial(can_be_met, alternatives))
    if len(core) == 1:
        (demand, variable) = core[0]
        return _impossible(alternatives, demand, variable)
    return DemandError(contradiction((demand for demand, _ in core), _in_repeats(core)))


def _in_repeats(core: Sequence[Placed]) -> str:
    """Return why demands on two tensors may be on one choice; nothing if none are."""
    tensors: dict[Variable, set[str | None]] = {}
    for demand, variable in core:
        if variable is not None:
            tensors.setdefault(variable, set()).add(demand.tensor)
    is_shared = any(len(named) > 1 for named in tensors.values())
    return "the tensors are repeats of one, which are all computed alike" if is_shared else ""


def contradiction(core: Iterable[Demand], why: str = "") -> str:
    """Return the text that names demands of which none can be left out, perhaps with the reason."""
    named = [f"'{demand}'" for demand in core]
    reason = f" ({why})" if why else ""
    together = "both" if len(named) == 2 else f"all {len(named)}"
    return (
        f"demands {' and '.join(named)} contradict each other: no plan satisfies {together}"
        f"{reason}; drop one"
    )


def core_of[T](demands: Sequence[T], holds: Callable[[Sequence[T]], bool]) -> list[T]:
    """Return demands that fail together and none of which can be left out, the first dropped first."""
    core = list(demands)
    for one in demands:
        rest = [other for other in core if other is not one]
        if not holds(rest):
            core = rest
    return core


def _impossible(
    alternatives: tuple[Alternatives, ...], demand: Demand, variable: Variable | None
) -> CompileError:
    """Return the error of a demand that fails on its own, with what there is to choose from."""
    if variable is None:
        what = (
            "makes no way of this model" if demand.is_forced else "makes every way of some tensor"
        )
        return DemandError(
            f"demand '{demand}': the rule {what}; 'tilewright rules stats' shows what rules did"
        )
    block, number = variable
    return _unmet(alternatives[block], number, demand) or DemandError(
        nothing_offered(demand, offered(alternatives[block], number, demand.aspect))
    )


def _unmet(found: Alternatives, number: int, demand: Demand) -> CompileError | None:
    """Return which limit of the loops of every way a demand breaks, if it is on a tile and breaks one."""
    is_on_tile = demand.aspect is Aspect.TILE and demand.is_forced
    return tile_error(found, number, demand) if is_on_tile else None


def offered(found: Alternatives, number: int, aspect: Aspect) -> list[str]:
    """Return the values of an aspect that ways to compute a class have."""
    values: dict[str, None] = {}
    nodes = {n.number: n for n in found.nodes if number in (n.results or (n.result,))}
    if aspect is Aspect.RULE:
        values |= dict.fromkeys(n.origin for n in nodes.values() if n.origin)
    for way in found.implementations:
        if way.node not in nodes:
            continue
        match aspect:
            case Aspect.RULE:
                values |= dict.fromkeys(rule for rule in way.rules if rule)
            case Aspect.SHARDING:
                values[sharding_text(found.mesh, way.result).replace(" ", ",")] = None
            case Aspect.SPLIT:
                text = split_text(nodes[way.node], way, found.mesh)
                values[text.replace(" ", ",")] = None
            case _:
                pass
    return sorted(values)


def explain_shortage(
    base: Setting,
    alternatives: tuple[Alternatives, ...],
    placed: Sequence[Placed],
    try_plan: Callable[[OptionMemo, Restriction], Plan],
) -> CompileError:
    """Return the error of demands that no plan satisfies within the scratchpad.

    Args:
        base: The setting without demands.
        alternatives: What saturation found, unpruned.
        placed: The demands.
        try_plan: Plans a restriction with the options of a memo.
    """
    limit = base.pricing.limit_bytes
    roomy = _with_limit(base, limit * _FACTORS[-1])
    impossible = _without_options(roomy, alternatives, placed)
    if impossible is not None:
        return impossible
    found = restrictions(alternatives, placed)
    named = "demands " + ", ".join(f"'{demand}'" for demand, _ in placed)

    if not any(_is_possible(_memo(roomy), restriction) for restriction in found):
        what = named if len(placed) > 1 else f"demand '{placed[0][0]}'"
        return InfeasibleError(
            f"{what}: some operand cannot come to it, or some reader cannot take it, whatever the "
            "scratchpad; choose among the ways that 'tilewright explore alternatives' lists"
        )

    def fits(limit_bytes: int) -> bool:
        memo = _memo(_with_limit(base, limit_bytes))
        return bool(_plans(memo, found, try_plan))

    low, unit = limit, base.pricing.target.tile.sram.alignment_bytes
    for factor in _FACTORS:
        high = int(limit * factor)
        if fits(high):
            break
        low = high
    else:
        return InfeasibleError(
            f"{named}: no plan found, not even with {low:,} bytes of scratchpad in a tile; drop one"
        )
    for _ in range(_HALVINGS):
        middle = (low + high) // 2 // unit * unit
        if low < middle < high:
            low, high = (low, middle) if fits(middle) else (middle, high)
    here = _memo(base)
    changes = [f"sram={high:,} bytes a tile"]
    for one in placed if len(placed) > 1 else ():
        rest = restrictions(alternatives, [other for other in placed if other is not one])
        if _plans(here, rest, try_plan):
            changes.append(f"no '{one[0]}'")
    return InfeasibleDemandError(
        named,
        demand=high,
        limit=limit,
        unit="bytes of scratchpad in a tile",
        changes=tuple(changes),
    )


def _memo(base: Setting) -> OptionMemo:
    return OptionMemo(base.graph, base.rolled, base.pricing, base.tables.scale)


def _is_possible(memo: OptionMemo, restriction: Restriction) -> bool:
    """Whether every value can be made in some way that its operands come to and its readers take."""
    try:
        return possible(memo.setting(restriction).tables.problem) is not None
    except (NoOptionError, InfeasibleError):
        return False


def _with_limit(base: Setting, limit_bytes: float) -> Setting:
    pricing = replace(base.pricing, limit_bytes=int(limit_bytes), reshards={})
    return replace(base, pricing=pricing)


def _plans(
    memo: OptionMemo,
    found: Sequence[Restriction],
    try_plan: Callable[[OptionMemo, Restriction], Plan],
) -> list[Plan]:
    """Return the plans of those restrictions that have one."""
    plans = []
    for restriction in found:
        try:
            plans.append(try_plan(memo, restriction))
        except (NoOptionError, InfeasibleError):
            continue
    return plans


def _without_options(
    roomy: Setting, alternatives: tuple[Alternatives, ...], placed: Sequence[Placed]
) -> CompileError | None:
    """Return the error of demands on a tensor that no way has however large the scratchpad is."""
    forbidden = [one for one in placed if one[1] is None and not one[0].is_forced]
    for variable in dict.fromkeys(variable for _, variable in placed if variable is not None):
        block, number = variable
        own = [one for one in placed if one[1] == variable]
        holds = partial(_has_options, roomy.pricing, alternatives, variable, forbidden)
        if holds(own):
            continue
        core = core_of(own, holds)
        if len(core) > 1:
            return _contradicted(alternatives, core, variable)
        ((demand, _),) = core
        unmet = _unmet(alternatives[block], number, demand)
        if unmet is not None:
            return unmet
        mesh = roomy.pricing.mesh
        every = demanded_options(alternatives[block], number, True, roomy.pricing, {}, ())
        values = sorted({_option_value(mesh, demand.aspect, option) for option in every} - {""})
        return DemandError(nothing_offered(demand, values))
    return None


def _contradicted(
    alternatives: tuple[Alternatives, ...], core: Sequence[Placed], variable: Variable
) -> DemandError:
    """Return the error of demands on a tensor that exclude each other, with the limit that a tile breaks."""
    block, number = variable
    why = None
    for one in core:
        if one[0].aspect is Aspect.TILE:
            others = restrictions(alternatives, [other for other in core if other is not one])
            why = why or _unmet(others[0].alternatives[block], number, one[0])
    return DemandError(contradiction((demand for demand, _ in core), str(why or _in_repeats(core))))


def _has_options(
    pricing: Pricing,
    alternatives: tuple[Alternatives, ...],
    variable: Variable,
    forbidden: Sequence[Placed],
    placed: Sequence[Placed],
) -> bool:
    """Whether an option of a variable satisfies demands on it and those that forbid something everywhere."""
    block, number = variable
    (found, *_) = restrictions(alternatives, [*forbidden, *placed])
    demands = tuple(demand for demand, _ in placed)
    return bool(demanded_options(found.alternatives[block], number, True, pricing, {}, demands))


def nothing_offered(demand: Demand, values: Sequence[str]) -> str:
    """Return the text of a demand that no way to compute its tensor satisfies, with what there is instead."""
    shown = shortened(values)
    verb = "satisfies it" if demand.is_forced else "does without"
    return (
        f"demand '{demand}': no way to compute '{demand.tensor}' {verb}; "
        f"expected one of: {shown or 'nothing'}"
    )


def shortened(values: Sequence[str]) -> str:
    """Return the first of some values."""
    return ", ".join(values[:_SHOWN]) + (", …" if len(values) > _SHOWN else "")


def _option_value(mesh: LogicalMesh, aspect: Aspect, option: Option) -> str:
    assert option.node is not None
    match aspect:
        case Aspect.TILE:
            return tile_text(option.node, option.tiling).replace(" ", ",")
        case Aspect.MEMORY:
            return option.result.memory if option.result else ""
        case Aspect.WEIGHTS:
            own = weights_of(option)
            return next(iter(own)) if len(own) == 1 else ""
        case _:
            return ""

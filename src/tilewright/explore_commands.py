"""What the commands of `tilewright explore` print: tables for people, or JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from tilewright import api
from tilewright.exploring import Session, WhatIf
from tilewright.extract.exploration.demand import Aspect, check_value, parse_demand
from tilewright.extract.exploration.explain import Explanation
from tilewright.extract.exploration.explorer import Answer
from tilewright.extract.exploration.resources import Change
from tilewright.extract.exploration.ways import Way
from tilewright.extract.plan import Plan
from tilewright.hwmodel.change import changed_target
from tilewright.hwmodel.load import load_target
from tilewright.hwmodel.network import logical_mesh
from tilewright.hwmodel.target import Target
from tilewright.report import cost_text
from tilewright.rule_commands import PlanRequest, print_refusals
from tilewright.stage_commands import (
    cut_data,
    division_data,
    print_cut,
    print_division,
    print_two_divisions,
    two_divisions_data,
)
from tilewright.terminal import Row, print_facts, print_table, print_text, progress, shorten

_CUT = f"{Aspect.CUT}@"
_SHOWN_WAYS, _SHOWN_CHANGES = 16, 12


@dataclass(frozen=True, slots=True, kw_only=True)
class ExploreRequest:
    """A model to plan, what to force and forbid, and how to print."""

    plan: PlanRequest
    shapes_only: bool = False
    forced: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()
    as_json: bool = False


def _opened(request: ExploreRequest, console: Console, *, divides: bool = False) -> Session:
    """Plan the model, perhaps in stages; with JSON nothing but the answer is printed."""
    quiet = Console(quiet=True) if request.as_json else console
    with progress(quiet, time.monotonic()) as tell:
        admission = request.plan.sources.admit(tell)
        session = api.explore(
            request.plan.model,
            request.plan.target,
            dims=request.plan.dims,
            weights=not request.shapes_only,
            objective=request.plan.objective,
            without_rules=request.plan.without_rules,
            pads=request.plan.pads,
            rules=admission.rules,
            progress=tell,
        )
        if divides:
            session.divided  # noqa: B018  # the first question takes long
    print_refusals(admission.refused, quiet)
    return session


def report_alternatives(request: ExploreRequest, tensor: str, top: int, console: Console) -> None:
    """Print the ways to compute a tensor, the best first."""
    session = _opened(request, console)
    ways = session.alternatives(tensor, top)
    if request.as_json:
        _print_json(console, {"tensor": tensor, "ways": [_way_data(session, w) for w in ways]})
        return
    header = ("way", "split", "result", "weights", "tile", "kernel", "at least", "plan", "delta")
    rows = [_way_row(session, way) for way in ways[:_SHOWN_WAYS]]
    print_table(console, f"ways to compute {tensor}", header, rows, left=5)
    if len(ways) > _SHOWN_WAYS:
        print_text(console, f"and {len(ways) - _SHOWN_WAYS} more, see --json")
    _print_legend(console, session, ways[:_SHOWN_WAYS])


def _way_row(session: Session, way: Way) -> Row:
    base = session.base.plan
    cost, delta = "-", "-"
    if way.answer is not None:
        cost = f"{way.answer.plan.cost:,.0f}"
        delta = "chosen" if way.is_chosen else _signed(way.answer.plan.cost - base.cost, base)
    return (
        way.form,
        way.split,
        f"{way.memory} {way.sharding}",
        way.weights,
        way.tile,
        f"{way.kernel_units:,.0f}",
        f"{way.least:,.0f}",
        cost,
        delta,
    )


def _print_legend(console: Console, session: Session, shown: Sequence[Way]) -> None:
    made = dict.fromkeys((way.form, way.rule) for way in shown if way.rule)
    if made:
        print_facts(console, "rules that make ways", list(made))
    facts = [
        ("plan", _cost_line(session.target, session.base.plan)),
        ("kernel", "what the kernel costs on its own, in one repeat"),
        ("at least", "no plan costs less with this way in every repeat"),
    ]
    print_facts(console, "the plan without demands", facts)


def report_explanation(request: ExploreRequest, tensor: str, console: Console) -> None:
    """Print the chosen way to compute a tensor against the next best, term by term; or why a cut is there."""
    if tensor.startswith(_CUT):
        _report_cut(request, tensor.removeprefix(_CUT), console)
        return
    session = _opened(request, console)
    found = session.explain(tensor)
    if request.as_json:
        _print_json(console, _explanation_data(session, found))
        return
    repeats = f", {found.repeats} repeats" if found.repeats > 1 else ""
    facts = [("chosen", _way_line(found.chosen))]
    facts.append(("next best", _way_line(found.other) if found.other else "nothing else fits"))
    facts += [("binding", text) for text in found.binding]
    print_facts(console, f"{tensor}{repeats}", facts)
    if found.terms:
        rows = [
            (t.name, f"{t.chosen:,.0f}", f"{t.other:,.0f}", f"{t.other - t.chosen:+,.0f}")
            for t in found.terms
        ]
        totals = sum(t.chosen for t in found.terms), sum(t.other for t in found.terms)
        total = ("total", *(f"{t:,.0f}" for t in totals), f"{totals[1] - totals[0]:+,.0f}")
        header = ("term, all repeats", "chosen", "next best", "delta")
        title = f"cost term by term ({_unit(session.base.plan)})"
        print_table(console, title, header, [*rows, total], left=1)


def _report_cut(request: ExploreRequest, tensor: str, console: Console) -> None:
    session = _opened(request, console, divides=True)
    if request.as_json:
        _print_json(console, cut_data(session, tensor))
    else:
        print_cut(session, tensor, console)


def _way_line(way: Way) -> str:
    by = f" by {way.rule}" if way.rule else ""
    weights = f", weights {way.weights}" if way.weights != "-" else ""
    return (
        f"{way.form}{by}, split {way.split}, result {way.memory} {way.sharding}, tile {way.tile}"
        f"{weights}"
    )


def report_answer(request: ExploreRequest, console: Console) -> None:
    """Print the plan under demands, and how it differs from the one without."""
    if _is_on_stages(request):
        _report_division(request, console)
        return
    session = _opened(request, console)
    begin = time.process_time()
    answer = session.force(*request.forced, forbidding=request.forbidden)
    seconds = time.process_time() - begin
    changes = session.diff(session.base.plan, answer.plan)
    if request.as_json:
        data = _answer_data(session, answer, changes) | {"seconds": seconds}
        _print_json(console, data)
        return
    facts = [("demand", str(demand)) for demand in answer.demands]
    facts += [
        ("plan", _cost_line(session.target, answer.plan)),
        ("without demands", _cost_line(session.target, session.base.plan)),
        ("delta", f"{_signed(answer.delta, session.base.plan)} {_unit(answer.plan)}"),
        ("answered in", f"{seconds:.2f} s"),
    ]
    print_facts(console, "plan under demands", facts)
    _print_changes(console, changes, "what changes against the plan without demands")


def _is_on_stages(request: ExploreRequest, against: tuple[str, ...] = ()) -> bool:
    """Whether some demand is on stages; all are read, and their values looked at, before any planning."""
    mesh = logical_mesh(load_target(request.plan.target))
    texts = (*request.forced, *request.forbidden, *against)
    demands = [
        parse_demand(text, is_forced=text not in request.forbidden) for text in dict.fromkeys(texts)
    ]
    for demand in demands:
        check_value(demand, mesh)
    return any(demand.is_on_stages for demand in demands)


def _report_division(request: ExploreRequest, console: Console) -> None:
    session = _opened(request, console, divides=True)
    if request.as_json:
        _print_json(console, division_data(session, request.forced, request.forbidden))
    else:
        print_division(session, request.forced, request.forbidden, console)


def _report_two_divisions(
    request: ExploreRequest, against: tuple[str, ...], console: Console
) -> None:
    session = _opened(request, console, divides=True)
    first = session.divide(*against) if against else session.divided
    second = session.divide(*request.forced, forbidding=request.forbidden)
    if request.as_json:
        _print_json(console, two_divisions_data(first, second))
    else:
        print_two_divisions(first, second, session.target, console)


def report_diff(request: ExploreRequest, against: tuple[str, ...], console: Console) -> None:
    """Print how the plan under demands differs from another one."""
    if _is_on_stages(request, against):
        _report_two_divisions(request, against, console)
        return
    session = _opened(request, console)
    first = session.force(*against)
    second = session.force(*request.forced, forbidding=request.forbidden)
    changes = session.diff(first.plan, second.plan)
    if request.as_json:
        _print_json(console, _answer_data(session, second, changes))
        return
    facts = [
        ("first", f"{_cost_line(session.target, first.plan)} {_named(first)}"),
        ("second", f"{_cost_line(session.target, second.plan)} {_named(second)}"),
    ]
    print_facts(console, "two plans", facts)
    _print_changes(console, changes, "what changes from the first to the second")


def _named(answer: Answer) -> str:
    return f"under {', '.join(map(str, answer.demands))}" if answer.demands else "without demands"


def _print_changes(console: Console, changes: Sequence[Change], title: str) -> None:
    if not changes:
        print_text(console, "the plans are the same")
        return
    rows: list[Row] = []
    for change in changes[:_SHOWN_CHANGES]:
        times = f" x{change.count}" if change.count > 1 else ""
        text = f"{change.before or 'not computed'}  ▸  {change.after or 'not computed'}"
        rows.append((f"{shorten(change.op, 28)}{times}", text, f"{change.delta:+,.0f}"))
    rest = changes[_SHOWN_CHANGES:]
    if rest:
        rows.append((f"{len(rest)} more changes", "", f"{sum(c.delta for c in rest):+,.0f}"))
    rows.append(("total", "", f"{sum(c.delta for c in changes):+,.0f}"))
    print_table(console, title, ("op", "change", "delta"), rows, left=2)


def report_what_if(request: ExploreRequest, changes: Sequence[str], console: Console) -> None:
    """Print what each change of the target does to cost and resources."""
    target = load_target(request.plan.target)
    for change in changes:
        changed_target(target, change)  # refuses what is no change before any planning
    session = _opened(request, console)
    quiet = Console(quiet=True) if request.as_json else console
    with progress(quiet, time.monotonic()):
        found = [session.what_if(change) for change in changes]
    if request.as_json:
        _print_json(console, {"changes": [_what_if_data(one) for one in found]})
        return
    for one in found:
        facts = [
            ("plan", _cost_line(one.target, one.plan)),
            ("as it is", _cost_line(session.target, session.base.plan)),
            ("delta", _delta_text(session, one)),
        ]
        print_facts(console, f"{session.target.name} with {one.change}", facts)
        rows = [
            (a.name, f"{a.amount:,.0f}", f"{b.amount:,.0f}", f"{b.amount - a.amount:+,.0f}", a.unit)
            for a, b in zip(one.before, one.after, strict=True)
        ]
        header = ("resource", "as it is", one.change, "delta", "unit")
        print_table(console, "resources of the whole plan", header, rows, left=1)


def _unit(plan: Plan) -> str:
    return plan.objective.unit


def _signed(delta: float, base: Plan) -> str:
    share = f" ({delta / base.cost:+.1%})" if base.cost else ""
    return f"{delta:+,.0f}{share}"


def _delta_text(session: Session, one: WhatIf) -> str:
    """Write what a change costs; cycles of two clocks are compared as times, too."""
    base = session.base.plan
    text = f"{_signed(one.delta, base)} {_unit(one.plan)}"
    if not one.plan.objective.is_time or one.target.clock_ghz == session.target.clock_ghz:
        return text
    before, after = session.target.seconds(base.cost), one.target.seconds(one.plan.cost)
    share = f" ({after / before - 1:+.1%})" if before else ""
    return f"{text}, {(after - before) * 1e6:+,.1f} us{share}"


def _cost_line(target: Target, plan: Plan) -> str:
    text = cost_text(plan, target, plan.cost)
    bound = cost_text(plan, target, plan.bound).partition(" (")[0]
    return f"{text}, bound {bound}, gap {plan.gap:.2%}"


def _print_json(console: Console, data: Mapping[str, Any]) -> None:
    print_text(console, json.dumps(data, indent=2))


def _plan_data(plan: Plan) -> dict[str, Any]:
    return {"cost": plan.cost, "bound": plan.bound, "gap": plan.gap, "unit": _unit(plan)}


def _way_data(session: Session, way: Way) -> dict[str, Any]:
    names = ("form", "rule", "split", "sharding", "memory", "weights", "tile", "is_chosen")
    data = {name: getattr(way, name) for name in names}
    data |= {"kernel_units": way.kernel_units, "least": way.least}
    data["plan"] = None if way.answer is None else _plan_data(way.answer.plan)
    if way.answer is not None:
        data["delta"] = way.answer.plan.cost - session.base.plan.cost
    return data


def _explanation_data(session: Session, found: Explanation) -> dict[str, Any]:
    return {
        "tensor": found.tensor,
        "repeats": found.repeats,
        "chosen": _way_data(session, found.chosen),
        "next_best": _way_data(session, found.other) if found.other else None,
        "terms": [{"name": t.name, "chosen": t.chosen, "other": t.other} for t in found.terms],
        "binding": list(found.binding),
    }


def _answer_data(session: Session, answer: Answer, changes: Iterable[Change]) -> dict[str, Any]:
    return {
        "demands": [str(demand) for demand in answer.demands],
        "plan": _plan_data(answer.plan),
        "base": _plan_data(session.base.plan),
        "delta": answer.delta,
        "changes": [
            {
                "op": c.op,
                "count": c.count,
                "before": c.before,
                "after": c.after,
                "delta": c.delta,
            }
            for c in changes
        ],
    }


def _what_if_data(one: WhatIf) -> dict[str, Any]:
    pairs = zip(one.before, one.after, strict=True)
    return {
        "change": one.change,
        "plan": _plan_data(one.plan),
        "delta": one.delta,
        "resources": [
            {"name": a.name, "unit": a.unit, "before": a.amount, "after": b.amount}
            for a, b in pairs
        ],
    }

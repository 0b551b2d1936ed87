"""What the commands on rules do: list, check, stats, explain."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from tilewright import api
from tilewright.compiler import Compilation, Stage
from tilewright.errors import RuleError
from tilewright.listings import op_kind, splits_text
from tilewright.rule_explanation import Explanation, explain_tensor
from tilewright.rule_stats import losses, rule_rows
from tilewright.rules.admission import Admission, Refusal, check_any, load
from tilewright.rules.checks.proof import Counterexample, NotCovered, Proof, prove_rule, solver
from tilewright.rules.facts import fact_tables
from tilewright.rules.limits import slow_rules
from tilewright.rules.options import AnyRule, SaturationOptions, named
from tilewright.rules.registry import Rule
from tilewright.rules.user_rules import UserRules
from tilewright.terminal import Tell, print_facts, print_table, print_text, progress


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSources:
    """Where rules come from besides this package: files, and installed packages always."""

    files: tuple[Path, ...] = ()
    skip_refused: bool = False

    def load(self) -> UserRules:
        """Return the rules, unchecked."""
        return load(self.files, installed=True).rules

    def admit(self, tell: Tell) -> Admission:
        """Return the rules that may run."""
        return api.load_rules(
            *self.files, installed=True, skip_refused=self.skip_refused, progress=tell
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """A model to plan for a target."""

    model: Path
    target: str
    dims: Mapping[str, int] = field(default_factory=dict)
    objective: str = "latency"
    without_rules: tuple[str, ...] = ()
    pads: bool = True
    sources: RuleSources = field(default_factory=RuleSources)


def print_refusals(refused: tuple[Refusal, ...], console: Console) -> None:
    """Say which rules or whole files of them were refused, each with its reason."""
    if refused:
        names = ", ".join(r.rule for r in refused)
        print_text(console, f"refused {len(refused)} of the rules given, going on without: {names}")
    for refusal in refused:
        print_text(console, refusal.reason)


def report_rules(sources: RuleSources, console: Console) -> None:
    """Print every rule with its family, class of numerics and equation; then what conditions there are."""
    rules = _all_rules(sources.load())
    families: dict[str, list[AnyRule]] = {}
    for rule in rules:
        families.setdefault(rule.ruleset, []).append(rule)
    for family, members in families.items():
        rows = [(rule.name.partition(".")[2], _numerics(rule), rule.equation) for rule in members]
        print_table(console, family, ("rule", "numerics", "equation"), rows, left=3)
    shipped = (table for table in fact_tables() if table.module.startswith("tilewright."))
    facts = sorted((table.name, table.module, table.meaning) for table in shipped)
    print_table(console, "conditions", ("fact", "module", "meaning"), facts, left=3)
    print_text(console, f"{len(rules)} rules; their sources and conditions are in their files")


def _all_rules(extra: UserRules) -> tuple[AnyRule, ...]:
    return (*SaturationOptions().everything, *extra.rules)


def _numerics(rule: AnyRule) -> str:
    return rule.numerics.value if isinstance(rule, Rule) else "exact"


def check_and_report(
    names: tuple[str, ...], sources: RuleSources, console: Console, *, prove: bool = False
) -> bool:
    """Check rules and print a verdict for each; return whether all passed.

    Args:
        names: Names of rules or rule sets; none: those of `sources`, or all where there are none.
        sources: Rules beside those of this package.
        console: Where to print.
        prove: Also prove rules of algebra and fusion for small sizes, with z3.

    Raises:
        RuleError: A name is unknown, a file cannot be loaded, or z3 is not installed.
    """
    if prove:
        solver()
    extra = sources.load()
    chosen = named(_all_rules(extra), names) if names else extra.rules or _all_rules(extra)
    rows, reasons, proofs = [], [], Counter[str]()
    with progress(console, time.monotonic()) as tell:
        for rule in chosen:
            tell(f"checking {rule.name}")
            start = time.process_time()
            verdict, reason = _verdict(rule)
            if prove and not reason:
                proof, reason = _proof(rule)
                proofs[proof.partition(",")[0]] += 1
            else:
                proof = "-"
            reasons += [reason] if reason else []
            words = (rule.name, verdict, proof) if prove else (rule.name, verdict)
            rows.append((*words, f"{time.process_time() - start:.2f}"))
    words = ("rule", "verdict", "proof") if prove else ("rule", "verdict")
    print_table(console, "checked rules", (*words, "CPU s"), rows, left=len(words))
    if prove:
        counts = ", ".join(f"{word} {count}" for word, count in proofs.most_common())
        print_text(console, f"proofs for all real entries on tensors of sizes 1 to 4: {counts}")
    for reason in reasons:
        console.print()
        print_text(console, reason)
    return not reasons


def _verdict(rule: AnyRule) -> tuple[str, str]:
    """Check a rule; return the verdict, and the reason of a refusal."""
    try:
        check_any(rule)
    except RuleError as error:
        return "REFUSED", str(error)
    return "accepted", ""


def _proof(rule: AnyRule) -> tuple[str, str]:
    """Prove a rule that passed; return the outcome, and the counterexample if there is one."""
    if not isinstance(rule, Rule):
        return "not covered, no rewrite of tensors", ""
    match prove_rule(rule):
        case Proof(choices=choices):
            return f"proved, {choices} choices of shapes", ""
        case NotCovered(reason=reason):
            return f"not covered, {reason}", ""
        case Counterexample(text=text):
            return "REFUTED", text


def _planned(request: PlanRequest, tell: Tell) -> tuple[Compilation, tuple[Refusal, ...]]:
    admission = request.sources.admit(tell)
    done = api.compile(
        request.model,
        request.target,
        dims=request.dims,
        objective=request.objective,
        without_rules=request.without_rules,
        pads=request.pads,
        rules=admission.rules,
        stop_after=Stage.EXTRACT,
        progress=tell,
    )
    return done, admission.refused


def stats_and_report(
    request: PlanRequest, with_losses: bool, console: Console, only: tuple[str, ...] = ()
) -> None:
    """Print what each rule did for a model: matches, e-nodes, seconds, uses in the plan and its worth.

    Args:
        request: The model and its target.
        with_losses: Plan again without each rule that the plan rests on.
        console: Where to print.
        only: Names of rules or families to look at; all if there are none.

    Raises:
        RuleError: A name is unknown.
    """
    asked = named(_all_rules(request.sources.load()), only) if only else ()
    names = {rule.name for rule in asked}
    with progress(console, time.monotonic()) as tell:
        done, refused = _planned(request, tell)
        rows = tuple(row for row in rule_rows(done) if not only or row.rule in names)
        used = tuple(row.rule for row in rows if row.uses)
        lost = losses(done, used, tell) if with_losses else {}
    print_refusals(refused, console)
    assert done.plan is not None
    columns = ("rule", "matches", "e-nodes", "seconds", "in plan", *(("worth",) if lost else ()))
    cells = [
        (
            row.rule,
            *(
                (f"{row.matches:,}", f"{row.e_nodes:,}", f"{row.seconds:.3f}")
                if row.matches
                else ("-", "-", "-")
            ),
            f"{row.uses:,}" if row.uses else "-",
            *((_worth(lost[row.rule]) if row.rule in lost else "-",) if lost else ()),
        )
        for row in rows
    ]
    title = f"rules on {request.model.stem} for {done.target.name}"
    print_table(console, title, columns, cells, left=1)
    total = sum(stats.seconds for found in done.alternatives for stats in found.ruleset_stats)
    worth = "by how much the plan's cost grows without the rule (planned again)"
    print_facts(
        console,
        "together",
        [
            ("plan", f"{done.plan.cost:,.0f}, bound {done.plan.bound:,.0f}"),
            ("in plan", "ops of the plan that rest on the rule"),
            (
                "-",
                "matches of tiling, memory and collective rules are not counted: planning asks them",
            ),
            *((("worth", worth),) if lost else ()),
            ("saturation", f"{total:.2f} s"),
            *(("slow", str(slow)) for slow in slow_rules(done.alternatives)),
            *(("note", n) for n in sorted({n for f in done.alternatives for n in f.notes})),
        ],
    )


def _worth(loss: float) -> str:
    return "no plan" if loss == float("inf") else f"{loss:+.2%}"


def explain_and_report(request: PlanRequest, tensor: str, console: Console) -> None:
    """Print how the plan computes a tensor and which rules lead there."""
    with progress(console, time.monotonic()) as tell:
        done, refused = _planned(request, tell)
        tell("following the rules")
        explanations = explain_tensor(done, tensor)
    print_refusals(refused, console)
    for explanation in explanations:
        console.print()
        print_text(console, _explanation_text(explanation, done))


def _explanation_text(found: Explanation, done: Compilation) -> str:
    lines = [f"{found.tensor}", f"  = {found.original}    [the model]"]
    if found.planned is None:
        lines.append("  not computed on its own; what reads it takes it in:")
        lines += [f"    {name}" for name in found.inside] or ["    nothing reads it"]
        return "\n".join(lines)
    if found.steps is None:
        lines.append(f"  = {found.chosen}    [no chain of rules found]")
    for step in found.steps or ():
        lines += [f"  = {step.after}    [{step.rule}]", f"      {step.equation}"]
    lines += [f"  where {line}" for line in found.where]
    planned, plan = found.planned, done.plan
    assert plan is not None
    lines.append(f"  runs as {op_kind(planned)}, split {splits_text(plan, planned)}")
    names = sorted({rule for rule in planned.split_rules if rule})
    lines += [f"    by {name}" for name in names]
    for delivery in planned.deliveries:
        moves = ", ".join(move.kind.value for move in delivery.moves)
        if moves:
            lines.append(f"    {found.operands[delivery.tensor]} comes by {moves}")
    lines.append(f"    costs {planned.cost_units:,.0f} of {plan.cost:,.0f} in all")
    return "\n".join(lines)

"""Judge a foreign rule: compare both sides, search a guard, try it afresh."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np

from tilewright.rules.importing.axes import RankConflictError
from tilewright.rules.importing.counterexample import (
    Counterexample,
    smallest_counterexample,
    worst,
)
from tilewright.rules.importing.foreign import ForeignRule, calls, equations, variables
from tilewright.rules.importing.guards import Guard, holds, smallest_guard
from tilewright.rules.importing.mapping import uncovered
from tilewright.rules.importing.offering import Offer, offer
from tilewright.rules.importing.pattern import Pattern, compile_rule
from tilewright.rules.importing.report import Assumed, ImportedRule, Verdict
from tilewright.rules.importing.sampling import Domain, Sampler
from tilewright.rules.importing.trial import Outcome, Trial, run_trial

_AUTHORS_INSTANCES = 300
_BROADCAST_INSTANCES = 300
_LEAST_INSTANCES = 5
_LEAST_FRESH = 8
_MOST_SEARCHES = 6


@dataclass(slots=True)
class _Work:
    """A pattern with its samplers and its source of randomness."""

    pattern: Pattern
    samplers: dict[Domain, Sampler]
    random: np.random.Generator

    def trials(self, domain: Domain, count: int) -> tuple[Trial, ...]:
        draws = self.pattern.draws
        return tuple(
            run_trial(self.pattern, instance, self.random, draws=draws)
            for instance in self.samplers[domain].instances(self.random, count)
        )


def judge(rule: ForeignRule, *, seed: int) -> ImportedRule:
    """Return what becomes of a rule.

    Args:
        rule: The rule.
        seed: Seed of the random instances; together with the rule's text it decides all choices.
    """
    missing = _not_covered(rule)
    if missing:
        return _entry(rule, Verdict.NOT_COVERED, note=missing)
    if rule.left == rule.right:
        return _entry(rule, Verdict.VACUOUS, note="both sides are the same term")
    pattern = compile_rule(rule)
    try:
        samplers = {domain: Sampler(pattern, domain) for domain in Domain}
    except RankConflictError as error:
        return _entry(rule, Verdict.VACUOUS, note=str(error))
    random = np.random.default_rng([seed, crc32(rule.text.encode())])
    return _judged(rule, _Work(pattern, samplers, random))


def _judged(rule: ForeignRule, work: _Work) -> ImportedRule:
    pattern = work.pattern
    as_meant = work.trials(Domain.AUTHORS, _AUTHORS_INSTANCES)
    trials = (*as_meant, *work.trials(Domain.BROADCAST, _BROADCAST_INSTANCES))
    if len(trials) < _LEAST_INSTANCES:
        note = f"the left side has a meaning on {len(trials)} random shapes; they show nothing"
        return _entry(rule, Verdict.VACUOUS, note=note)
    guard: Guard | None = ()
    counterexample = None
    if not all(trial.agrees for trial in trials):
        counterexample = _counterexample(work, as_meant, trials)
        guard, trials = _searched(work, trials)
    assumed = _assumed(as_meant)
    if guard is None:
        return _entry(
            rule,
            Verdict.REFUSED,
            assumed=assumed,
            counterexample=counterexample,
            instances=len(trials),
        )
    made = offer(rule, pattern, guard, work.samplers[Domain.LANGUAGE], work.random)
    return _entry(
        rule,
        Verdict.GUARDED if guard else Verdict.ACCEPTED,
        assumed=assumed,
        conditions=tuple(condition.text(pattern) for condition in guard),
        counterexample=counterexample,
        instances=len(trials),
        made=made,
    )


def _entry(
    rule: ForeignRule,
    verdict: Verdict,
    *,
    assumed: Assumed = Assumed.UNKNOWN,
    conditions: tuple[str, ...] = (),
    note: str = "",
    counterexample: Counterexample | None = None,
    instances: int = 0,
    made: Offer | None = None,
) -> ImportedRule:
    sizes = [len({c for term in side for c in calls(term)}) for side in (rule.left, rule.right)]
    return ImportedRule(
        name=rule.name,
        place=rule.place,
        text=rule.text,
        equations=equations(rule),
        verdict=verdict,
        assumed=assumed,
        conditions=conditions,
        note=note or (made.reason if made else ""),
        counterexample=counterexample,
        instances=instances,
        rule=made.rule if made else None,
        is_expansive=sizes[1] >= sizes[0],
    )


def _not_covered(rule: ForeignRule) -> str:
    """Return what of a rule the language cannot say."""
    if rule.unreadable:
        return rule.unreadable
    for term in (*rule.left, *rule.right):
        for call in calls(term):
            if missing := uncovered(call):
                return missing
    bound = {name for term in rule.left for name in variables(term)}
    free = [name for term in rule.right for name in variables(term) if name not in bound]
    return f"variable {free[0]} is not bound by the left side" if free else ""


def _assumed(trials: Sequence[Trial]) -> Assumed:
    found = {trial.outcome for trial in trials}
    if not found:
        return Assumed.UNKNOWN
    if found & {Outcome.VALUE, Outcome.SHAPE}:
        return Assumed.WRONG
    return Assumed.UNTYPED if Outcome.UNTYPED in found else Assumed.RIGHT


def _counterexample(
    work: _Work, as_meant: tuple[Trial, ...], trials: tuple[Trial, ...]
) -> Counterexample:
    """Return a disagreement of the worst kind, if possible one that the authors' meaning allows."""
    domain = Domain.BROADCAST
    if worst(as_meant) is worst(trials):
        domain, trials = Domain.AUTHORS, as_meant
    return smallest_counterexample(work.pattern, work.samplers[domain], trials, work.random)


def _searched(work: _Work, trials: tuple[Trial, ...]) -> tuple[Guard | None, tuple[Trial, ...]]:
    """Return a guard that also holds on fresh instances, and all instances that were seen."""
    for _ in range(_MOST_SEARCHES):
        guard = smallest_guard(work.pattern, trials)
        if guard is None:
            return None, trials
        fresh = (
            *work.trials(Domain.AUTHORS, _AUTHORS_INSTANCES),
            *work.trials(Domain.BROADCAST, _BROADCAST_INSTANCES),
        )
        trials += fresh
        inside = [trial for trial in fresh if holds(work.pattern, guard, trial.values)]
        if len(inside) >= _LEAST_FRESH and all(trial.agrees for trial in inside):
            return guard, trials
    return None, trials

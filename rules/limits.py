"""Limits of saturation: what outgrew one, named so that a person can act on it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tilewright.rules.alternatives import Alternatives
from tilewright.rules.snapshot import INSERTED, ENode, Snapshot

_LEAST_OPS = 64
"""Blocks with fewer operators may grow as much as one with so many."""

_MATCHES_PER_NODE = 4
"""Most matches make e-nodes that are there already; so many for each that is allowed are read."""

_NAMED_RULES = 3

NOTICEABLE_SECONDS = 0.5
"""Shorter saturations have no slow rules worth a word."""

_SLOW_SHARE = 0.5


class OvergrownError(Exception):
    """Rules made the e-graph larger than allowed; the engine goes on without one of them."""

    def __init__(self, what: str, limit: int, made: Mapping[str, int]) -> None:
        super().__init__(f"{what}, the limit is {limit}")
        self.made = made
        """How much each rule made, of what was counted."""

    def culprit(self, own: Collection[str]) -> str:
        """Return the rule to leave out: what made most, rules from outside first.

        A rule from outside may only feed those of this package (`own`), which are known to end.
        """
        outside = {rule: count for rule, count in self.made.items() if rule not in own}
        return _most(outside or self.made)[0][0]


def e_node_limit(inserted: int, nodes_per_op: int) -> int:
    """Return how many e-nodes of logical values a block of `inserted` e-nodes may have."""
    return nodes_per_op * max(inserted, _LEAST_OPS)


def check_matches(matches: Mapping[str, int], added: int, limit: int) -> None:
    """Check the size of the e-graph by what rules matched, before it is read.

    Args:
        matches: Matches of each rule so far.
        added: Those of the last run.
        limit: Allowed e-nodes.

    Raises:
        OvergrownError: There are too many new ones.
    """
    allowed = _MATCHES_PER_NODE * limit
    if added > allowed:
        raise OvergrownError(f"a ruleset had {added} new matches at once", allowed, matches)


def check_e_nodes(snapshot: Snapshot, limit: int, rule_names: Sequence[str]) -> None:
    """Check the size of the e-graph.

    Raises:
        OvergrownError: It is too large.
    """
    if snapshot.e_nodes > limit:
        raise OvergrownError(
            f"the block grew to {snapshot.e_nodes} e-nodes",
            limit,
            _made(snapshot.enodes, rule_names),
        )


def _made(enodes: Iterable[ENode], rule_names: Sequence[str]) -> Counter[str]:
    """Return how many e-nodes each rule made."""
    return Counter(rule_names[n.origin - 1] for n in enodes if n.origin != INSERTED)


def _most(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return rules with their counts, the largest first."""
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))


def described_class(
    e_class: int,
    enodes: Sequence[ENode],
    names: Mapping[str, int],
    rule_names: Sequence[str],
) -> str:
    """Return what an e-class is, how large, and which rules filled it.

    Args:
        e_class: The class.
        enodes: Its e-nodes.
        names: E-class of each tensor of the inserted graph.
        rule_names: Names of the rules by origin.
    """
    name = next((name for name, found in names.items() if found == e_class), None)
    what = f"a value that only rules made ({enodes[0].constructor.kind})"
    if name is not None:
        what = f"tensor '{name}'"
    made = _most(_made(enodes, rule_names))
    shown = ", ".join(f"{rule} ({count})" for rule, count in made[:_NAMED_RULES])
    rest = f" and {len(made) - _NAMED_RULES} more rules" if len(made) > _NAMED_RULES else ""
    filled = f", made by {shown}{rest}" if made else ""
    return f"{what} has {len(enodes)} e-nodes{filled}"


def largest_class(
    snapshot: Snapshot, limit: int, names: Mapping[str, int], rule_names: Sequence[str]
) -> str | None:
    """Describe the largest e-class if it has more e-nodes than the limit."""
    members: defaultdict[int, list[ENode]] = defaultdict(list)
    for node in snapshot.enodes:
        members[node.result].append(node)
    size = max(map(len, members.values()), default=0)
    if size <= limit:
        return None
    # of several equally large ones, that of the first tensor
    order = {e_class: i for i, e_class in enumerate(dict.fromkeys(names.values()))}
    largest = [e_class for e_class, nodes in members.items() if len(nodes) == size]
    e_class = min(largest, key=lambda c: (order.get(c, len(order)), c))
    return described_class(e_class, members[e_class], names, rule_names)


def still_at_work(before: Snapshot, after: Snapshot, rule_names: Sequence[str]) -> str:
    """Say which rules made e-nodes in the last round that was allowed."""
    made = _most(_made(after.enodes, rule_names) - _made(before.enodes, rule_names))
    shown = ", ".join(f"{rule} ({count})" for rule, count in made[:_NAMED_RULES])
    return f"the last of them added e-nodes of {shown}" if shown else "the last only merged classes"


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowRule:
    """A rule that took most of the time; measured, so not the same on every run."""

    rule: str
    seconds: float
    total_seconds: float
    """Of all rulesets and blocks together."""

    def __str__(self) -> str:
        share = self.seconds / self.total_seconds
        return (
            f"rule '{self.rule}' took {share:.0%} of the {self.total_seconds:.1f} s that "
            f"saturation took; see what it gains with --without-rule {self.rule}"
        )


def slow_rules(
    found: Iterable[Alternatives], least_seconds: float = NOTICEABLE_SECONDS
) -> tuple[SlowRule, ...]:
    """Return the rules that took over half of the time of all saturations together.

    Args:
        found: What the saturations of a model's blocks returned.
        least_seconds: Saturations that took less have no slow rules.
    """
    blocks = tuple(found)
    total = sum(stats.seconds for block in blocks for stats in block.ruleset_stats)
    spent: defaultdict[str, float] = defaultdict(float)
    for block in blocks:
        for stats in block.rule_stats:
            spent[stats.rule] += stats.seconds
    return tuple(
        SlowRule(rule=rule, seconds=seconds, total_seconds=total)
        for rule, seconds in sorted(spent.items())
        if total >= least_seconds and seconds > _SLOW_SHARE * total
    )

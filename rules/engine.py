"""Saturation of one block: load, analyses, algebra and fusion, partition, read-out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from itertools import groupby
from time import perf_counter
from types import MappingProxyType
from typing import Any

from egglog import Fact, get_callable_fn
from egglog import ruleset as make_ruleset

from tilewright.errors import RuleError
from tilewright.graph import Graph, TensorType
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.rules.again import with_values_again
from tilewright.rules.alternatives import (
    Alternatives,
    Implementation,
    RulesetStats,
    RuleStats,
)
from tilewright.rules.encoding import analysis_ruleset, load_ruleset
from tilewright.rules.facts import FactTable, fact_tables
from tilewright.rules.insertion import rows_of
from tilewright.rules.kept import kept_text
from tilewright.rules.limits import (
    OvergrownError,
    check_e_nodes,
    check_matches,
    e_node_limit,
    largest_class,
    still_at_work,
)
from tilewright.rules.options import ChosenRules, SaturationOptions, builtin_rules
from tilewright.rules.partition.derived import partition_ruleset
from tilewright.rules.partition.family import partition_rules
from tilewright.rules.partition.ruleset import PartitionRule
from tilewright.rules.partition.tables import StrategyTables
from tilewright.rules.pipeline.legality import Legality
from tilewright.rules.readout import ReadOut, read_implementations
from tilewright.rules.registry import Rule, instantiate, pattern_of
from tilewright.rules.session import (
    Program,
    ProgramText,
    RunStats,
    Session,
    relation_key,
    write_program,
)
from tilewright.rules.signatures import Typing
from tilewright.rules.snapshot import Snapshot, analysed, take_snapshot

_MUCH = 1 / 32
"""Of a scratchpad: what a tile has of a value, if all tiles split it, from which on room is worth work."""

_FIRST = {"algebra": 0, "fusion": 1}
"""Place of the rulesets that run first in each round; others follow by name."""


@dataclass(slots=True)
class _Totals:
    """What one ruleset did, summed over its runs."""

    iterations: int = 0
    e_nodes: int = 0
    e_classes: int = 0
    seconds: float = 0.0
    matches: Counter[str] = field(default_factory=Counter)
    rule_seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))


class _Saturation:
    """State of one saturation."""

    def __init__(
        self,
        graph: Graph,
        rules: tuple[Rule, ...],
        options: SaturationOptions,
        *,
        is_partitioned: bool,
    ) -> None:
        self.graph = graph
        engine = _engine(rules, is_partitioned=is_partitioned)
        self.tables = engine.tables
        self.session = Session(engine.program)
        self.typing = Typing(options.multiples, options.least_sliced_bytes)
        self.rules = rules
        self.rule_names = tuple(rule.name for rule in rules)
        self.rulesets = tuple(name for name, _ in _by_ruleset(rules))
        self.totals: dict[str, _Totals] = {}
        self.notes: list[str] = []
        inserted = rows_of(graph, self.typing)
        self.numbers = inserted.numbers
        self.session.insert(inserted.tables)
        self.run("load")
        self.snapshot = take_snapshot(self.session)
        self.count("load", self.snapshot.e_nodes, self.snapshot.e_classes)
        self.limit = e_node_limit(self.snapshot.e_nodes, options.nodes_per_op)
        self.analyse("load")

    @property
    def tensors(self) -> dict[str, int]:
        """E-class of each tensor of the graph."""
        return {name: self.snapshot.named[number] for name, number in self.numbers.items()}

    def run(self, name: str) -> RunStats:
        """Run a ruleset and add up what it did."""
        start = perf_counter()
        stats = self.session.run(name)
        total = self.totals.setdefault(name, _Totals())
        total.iterations += 1
        total.seconds += perf_counter() - start
        total.matches.update(stats.matches)
        for rule, seconds in stats.seconds.items():
            total.rule_seconds[rule] += seconds
        return stats

    def count(self, name: str, e_nodes: int, e_classes: int) -> None:
        """Note the size of the e-graph after a ruleset."""
        total = self.totals[name]
        total.e_nodes, total.e_classes = e_nodes, e_classes

    def analyse(self, ran: str) -> None:
        """Type the new e-nodes; the engine and this class then know the type of each e-class.

        `snapshot` must be current.
        """
        self.typing.extend(self.snapshot, self.rule_names, ran)
        self.session.insert(self.typing.new_rows())
        self.run("analysis")
        self.snapshot = analysed(self.snapshot, self.session)
        self.typing.extend(self.snapshot, self.rule_names, "analysis")
        self.count("analysis", self.snapshot.e_nodes, self.snapshot.e_classes)

    def round(self) -> bool:
        """Run every ruleset of rules once; return whether something changed.

        Raises:
            OvergrownError: The e-graph has become too large.
        """
        is_changed = False
        for name in self.rulesets:
            self.session.insert(self.typing.new_facts(self.tables, self.snapshot))
            stats = self.run(name)
            check_matches(self.rewrites(), sum(stats.matches.values()), self.limit)
            if stats.is_changed:
                is_changed = True
                self.snapshot = take_snapshot(self.session)
                check_e_nodes(self.snapshot, self.limit, self.rule_names)
                self.analyse(name)
            self.count(name, self.snapshot.e_nodes, self.snapshot.e_classes)
        return is_changed

    def rewrite(self, rounds: int, nodes_per_class: int) -> None:
        """Run rounds until nothing changes or a limit is reached."""
        before = self.snapshot
        for number in range(rounds):
            before = self.snapshot
            if not self.round():
                return
            largest = largest_class(self.snapshot, nodes_per_class, self.tensors, self.rule_names)
            if largest is not None:
                self.notes.append(
                    f"rewriting stopped after round {number + 1} of {rounds}: {largest}; "
                    f"the limit is {nodes_per_class}"
                )
                return
        self.notes.append(
            f"rewriting stopped after {rounds} rounds, before it was saturated; "
            f"{still_at_work(before, self.snapshot, self.rule_names)}"
        )

    def rewrites(self) -> Counter[str]:
        """Return the matches of each rule so far."""
        return sum(
            (self.totals[name].matches for name in self.rulesets if name in self.totals),
            Counter(),
        )

    def ruleset_stats(self) -> tuple[RulesetStats, ...]:
        """Return the statistics of all rulesets in order of their first run."""
        return tuple(
            RulesetStats(
                ruleset=name,
                iterations=total.iterations,
                matches=total.matches.total(),
                e_nodes=total.e_nodes,
                e_classes=total.e_classes,
                seconds=total.seconds,
            )
            for name, total in self.totals.items()
        )

    def rule_stats(self) -> tuple[RuleStats, ...]:
        """Return the statistics of all rewrite rules that matched, by ruleset and name."""
        origins = Counter(node.origin for node in self.snapshot.enodes)
        made = {name: origins[number] for number, name in enumerate(self.rule_names, start=1)}
        return tuple(
            RuleStats(
                rule=rule,
                ruleset=name,
                matches=matches,
                e_nodes=made.get(rule, 0),
                seconds=total.rule_seconds[rule],
            )
            for name, total in self.totals.items()
            if name != "partition"
            for rule, matches in sorted(total.matches.items())
            if matches
        )


def _partition_stats(
    implementations: tuple[Implementation, ...], seconds: float
) -> tuple[RuleStats, ...]:
    """Return the statistics of partition rules; the ruleset's time is shared out by matches.

    The engine joins tables that all partition rules fill, so that it cannot tell their times apart.
    """
    uses = Counter(name for way in implementations for name in sorted({*way.rules} - {""}))
    return tuple(
        RuleStats(
            rule=name,
            ruleset="partition",
            matches=count,
            e_nodes=count,
            seconds=seconds * count / uses.total(),
        )
        for name, count in sorted(uses.items())
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Engine:
    """What saturations with one choice of rules have in common."""

    program: Program
    tables: tuple[FactTable, ...]
    """The fact tables that conditions of rules ask, in order of registration."""


@lru_cache(maxsize=32)  # a model has several blocks and is compiled with one choice of rules
def _engine(rules: tuple[Rule, ...], *, is_partitioned: bool) -> _Engine:
    """Return the program of rules and the tables that they ask.

    Raises:
        RuleError: A rule cannot be written, or two of the tables are relations of one name.
    """
    write = partial(_write, rules, is_partitioned=is_partitioned)
    if not set(rules) <= set(builtin_rules()):  # files of rules may read whatever they like
        text = write()
    else:
        names = " ".join(rule.name for rule in rules)
        text = kept_text(f"{names} {'on a mesh' if is_partitioned else 'logical'}", write)
    asked = dict(text.tables)
    tables = tuple(t for t in fact_tables() if relation_key(t.relation) in asked)
    return _Engine(program=Program(text), tables=tables)


def _write(rules: tuple[Rule, ...], *, is_partitioned: bool) -> ProgramText:
    """Return what the engine runs, in order; rules count from 1 as origins.

    Raises:
        RuleError: A rule cannot be written, or two tables that they ask are relations of one name.
    """
    _check_names(rules)
    rulesets = [
        (name, make_ruleset(*(instantiate(rule, n) for n, rule in numbered), name=name))
        for name, numbered in _by_ruleset(rules)
    ]
    last = [("partition", partition_ruleset())] if is_partitioned else []
    analysis = analysis_ruleset().saturate()
    return write_program([("load", load_ruleset()), ("analysis", analysis), *rulesets, *last])


def _check_names(rules: tuple[Rule, ...]) -> None:
    """Raise a RuleError if two fact tables that conditions ask are relations of one name."""
    conditions = [fact for made in rules for fact in pattern_of(made).conditions]
    relations: list[Any] = [get_callable_fn(f) for f in conditions if not isinstance(f, Fact)]
    asked = {relation.__egg_ref__ for relation in relations if relation is not None}
    found = tuple(t for t in fact_tables() if t.relation.__egg_ref__ in asked)
    names = Counter(str(table.relation) for table in found)
    twice = sorted(name for name, count in names.items() if count > 1)
    if twice:
        places = (t.rows.__code__ for t in found if str(t.relation) == twice[0])
        raise RuleError(
            f"the relation '{twice[0]}' is declared in "
            f"{' and '.join(f'{c.co_filename}:{c.co_firstlineno}' for c in places)}; rename one"
        )


def _by_ruleset(rules: tuple[Rule, ...]) -> list[tuple[str, list[tuple[int, Rule]]]]:
    """Return the rules of each ruleset with their numbers, which count from 1."""
    numbered = groupby(enumerate(rules, start=1), key=lambda pair: pair[1].ruleset)
    return [(name, list(group)) for name, group in numbered]


def _in_order(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """Return rules in an order that does not depend on files: by ruleset, the first ones first, by name."""
    return tuple(sorted(rules, key=lambda r: (_FIRST.get(r.ruleset, len(_FIRST)), r.name)))


def _partition_in_order(rules: tuple[PartitionRule, ...]) -> tuple[PartitionRule, ...]:
    """Return partition rules in an order that does not depend on files: this package's, others by name."""
    own = {rule.name: place for place, rule in enumerate(partition_rules())}
    return tuple(sorted(rules, key=lambda r: (own.get(r.name, len(own)), r.name)))


def _rewritten(
    graph: Graph, chosen: ChosenRules, options: SaturationOptions, *, is_partitioned: bool
) -> _Saturation:
    """Load a block and run algebra and fusion, without the rules that make it outgrow the limit."""
    twice = sorted(name for name, count in Counter(chosen.names).items() if count > 1)
    if twice:
        raise RuleError(f"two rules have the name '{twice[0]}'; rename one")
    notes: list[str] = []
    rules = _in_order(chosen.rewrites)
    while True:
        work = _Saturation(graph, rules, options, is_partitioned=is_partitioned)
        try:
            if rules:
                work.rewrite(options.rounds, options.nodes_per_class)
        except OvergrownError as overgrown:
            culprit = overgrown.culprit({rule.name for rule in builtin_rules()})
            notes.append(f"rule '{culprit}' is left out: {overgrown}")
            rules = tuple(rule for rule in rules if rule.name != culprit)
            continue
        work.notes[:0] = notes
        return work


@dataclass(frozen=True, slots=True, kw_only=True)
class LogicalEGraph:
    """The tensor part of a saturated block: what explanations of rewriting read.

    `classes` maps the tensors of the block to e-classes; an e-node's `origin` counts `rules` from 1.
    """

    snapshot: Snapshot
    classes: Mapping[str, int]
    rules: tuple[Rule, ...]
    types: tuple[TensorType, ...]
    """Type of each number in `snapshot.types`."""


def rewrite_block(
    block_graph: Graph, options: SaturationOptions, without_rules: tuple[str, ...] = ()
) -> LogicalEGraph:
    """Return a block's e-graph after algebra and fusion, as `saturate` has it before partition.

    Raises:
        RuleError: As `saturate`.
    """
    chosen = options.chosen(without_rules)
    work = _rewritten(block_graph, chosen, options, is_partitioned=False)
    work.session.close()
    named = work.snapshot.named
    return LogicalEGraph(
        snapshot=work.snapshot,
        classes=MappingProxyType({name: named[n] for name, n in work.numbers.items()}),
        rules=work.rules,
        types=tuple(work.typing.types),
    )


def saturate(
    block_graph: Graph,
    mesh: LogicalMesh,
    *,
    options: SaturationOptions | None = None,
    without_rules: tuple[str, ...] = (),
) -> Alternatives:
    """Return every way that the rules know to compute a block on a mesh.

    Args:
        block_graph: A valid graph; its constants are weights, of which only types matter.
        mesh: The mesh to shard over.
        options: Rules and limits.
        without_rules: Names of rules or rulesets to leave out.

    Raises:
        RuleError: A rule is wrong, or `without_rules` names an unknown one.
    """
    options = options or SaturationOptions()
    options = replace(options, multiples=options.multiples or mesh.sizes)
    chosen = options.chosen(without_rules)
    work = _rewritten(block_graph, chosen, options, is_partitioned=True)
    result = ReadOut(
        block_graph,
        work.numbers,
        work.snapshot,
        work.typing,
        work.rule_names,
        options.nodes_per_class,
    )
    partition = _partition_in_order(chosen.partition)
    least_bytes = options.least_scattered_bytes
    tables = StrategyTables(mesh, work.typing, work.snapshot, partition, least_bytes)
    work.session.insert(tables.rows())
    work.run("partition")
    implementations, found = read_implementations(work.session, tables, result)
    work.session.close()
    work.count(
        "partition",
        work.snapshot.e_nodes + found.e_nodes,
        work.snapshot.e_classes + found.e_classes,
    )
    alternatives = Alternatives(
        mesh=mesh,
        classes=result.classes,
        nodes=result.nodes,
        implementations=implementations,
        outputs=result.outputs,
        ruleset_stats=work.ruleset_stats(),
        rule_stats=(
            *work.rule_stats(),
            *_partition_stats(implementations, work.totals["partition"].seconds),
        ),
        inserted={op.name: op for op in block_graph.ops},
        notes=(*work.notes, *result.notes),
    )
    if options.scratchpad_bytes is None:
        return alternatives
    least_bytes = _MUCH * options.scratchpad_bytes * mesh.tiles
    return with_values_again(alternatives, Legality(rules=chosen.pipeline), least_bytes)

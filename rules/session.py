"""One e-graph with its bulk tables: insertion, analyses, statistics and reading.

All text of the engine's interface is here and in `encoding`; the rest of the package sees plain data.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from egglog import EGraph, bindings
from egglog.egraph_state import span
from egglog.runtime import resolve_callable

from tilewright.errors import RuleError

Row = Sequence[int | str]


class UnboundError(RuleError):
    """A rule uses a variable that its left side and conditions do not bind."""


@dataclass(frozen=True, slots=True)
class RunStats:
    """What one run of a ruleset did."""

    is_changed: bool
    matches: dict[str, int]
    seconds: dict[str, float]


class Program:
    """Rulesets that many e-graphs run, written in the engine's language once.

    To write them takes several times as long as to run them on a block.
    """

    def __init__(self, schedules: Iterable[tuple[str, Any]]) -> None:
        """Take rulesets or schedules by name; each may use what those before it declare.

        Raises:
            RuleError: A rule cannot be written.
        """
        self._state = EGraph(num_threads=1)._state
        self._commands = _Commands()
        self._state.egraph = self._commands  # type: ignore[assignment]  # it only needs to keep them
        self._tables: dict[int, tuple[Any, str]] = {}
        self.declared: list[tuple[str, tuple[Any, ...]]] = []
        """What an e-graph has to know before it runs or is given anything, by schedule or table."""
        self.runs: dict[str, Any] = {}
        """The command that runs each schedule."""
        for name, schedule in schedules:
            with _told_by_engine(name):
                self._state.add_declarations(schedule)
                self.runs[name] = self._state.run_schedule_to_egg(schedule.schedule)
                self._declare(name)

    def table_name(self, relation: Any) -> str:
        """Return the engine's name of a table, which is declared unless a rule reads it."""
        found = self._tables.get(id(relation))
        if found is None:
            reference, declarations = resolve_callable(relation)
            self._state.add_declarations(declarations)
            found = relation, self._state.callable_ref_to_egg(reference)[0]
            self._tables[id(relation)] = found  # the relation is kept, so that its id is
            self._declare(found[1])
        return found[1]

    def rule_name(self, number: str) -> str:
        """Return the name of a rule that the engine numbers."""
        rule: Any = self._state.rule_name_to_command_decl[number]
        return str(rule.name)

    def _declare(self, name: str) -> None:
        if self._commands.made:
            self.declared.append((name, tuple(self._commands.made)))
            self._commands.made.clear()


class _Commands:
    """Keeps commands instead of running them."""

    def __init__(self) -> None:
        self.made: list[Any] = []

    def run_program(self, *commands: Any, **_: Any) -> list[Any]:
        self.made.extend(commands)
        return []

    def no_decomp(self) -> bool:
        """Return the engine's default."""
        return False


class Session:
    """An e-graph that takes rows of tables and gives rows back."""

    def __init__(self, program: Program) -> None:
        """Start with nothing inserted.

        Raises:
            RuleError: The engine refuses a rule.
        """
        self._program = program
        self._egraph = bindings.EGraph(num_threads=1)
        self._known = 0
        self._texts: dict[int, str] = {}
        self._numbers: dict[int, int] = {}
        self._learn()

    def _learn(self) -> None:
        """Declare what the program has come to declare."""
        for name, commands in self._program.declared[self._known :]:
            with _told_by_engine(name):
                self._egraph.run_program(*commands)
        self._known = len(self._program.declared)

    def insert(self, tables: Iterable[tuple[Any, Iterable[Row]]]) -> None:
        """Insert rows into relations whose columns are i64 and String."""
        filled = [(relation, text) for relation, rows in tables if (text := _table_text(rows))]
        if not filled:
            return
        named = [(self._program.table_name(relation), text) for relation, text in filled]
        self._learn()
        with tempfile.TemporaryDirectory(prefix="tilewright-") as folder:
            path = Path(folder) / "table.tsv"
            for name, text in named:
                path.write_text(text, encoding="utf-8")
                self._egraph.run_program(bindings.Input(span(), name, str(path)))

    def run(self, name: str) -> RunStats:
        """Run a schedule of the program.

        Raises:
            RuleError: The engine refuses a rule or panics.
        """
        with _told_by_engine(name):
            output: Any = self._egraph.run_program(self._program.runs[name])[0]
        report = output.report
        seconds: defaultdict[str, float] = defaultdict(float)
        matches: defaultdict[str, int] = defaultdict(int)
        for rule, spent in report.search_and_apply_time_per_rule.items():
            seconds[self._program.rule_name(rule)] += spent.total_seconds()
        for rule, count in report.num_matches_per_rule.items():
            matches[self._program.rule_name(rule)] += count
        return RunStats(report.updated, matches, seconds)

    def read(self, names: Iterable[str]) -> dict[str, list[tuple[int | str, ...]]]:
        """Return the rows of tables: strings and numbers as such, e-classes by their id.

        Ids of different sorts may collide. The output column is last; tables without rows are left
        out.
        """
        low = self._egraph
        functions = low.freeze().functions
        tables = {}
        for name in names:
            if name not in functions:
                continue
            table = functions[name]
            sorts = (*table.input_sorts, table.output_sort)
            rows = table.rows
            if rows:
                columns = zip(*((*row.inputs, row.output) for row in rows), strict=True)
                decoded = [
                    self._column(low, sort, values)
                    for sort, values in zip(sorts, columns, strict=True)
                ]
                tables[name] = list(zip(*decoded, strict=True))
        return tables

    def _column(self, low: Any, sort: str, values: Sequence[Any]) -> Sequence[int | str]:
        """Return a column of a table; texts and numbers are asked for once each."""
        ids = [int(str(value)[6:-1]) for value in values]  # "Value(17)"
        known: dict[int, Any]
        if sort == "String":
            known, decode = self._texts, low.value_to_string
        elif sort == "i64":
            known, decode = self._numbers, low.value_to_i64
        else:
            return ids
        for number, value in dict(zip(ids, values, strict=True)).items():
            if number not in known:
                known[number] = decode(value)
        return [known[number] for number in ids]


def _table_text(rows: Iterable[Row]) -> str:
    return "".join("\t".join(map(str, row)) + "\n" for row in rows)


@contextmanager
def _told_by_engine(what: str) -> Iterator[None]:
    """Turn what the engine complains about into an error of the rules."""
    try:
        yield
    except BaseException as error:  # engine panics are no Exceptions
        if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
            raise
        kind = UnboundError if "nbound" in str(error) else RuleError
        raise kind(f"ruleset {what}: the engine says: {error}") from error

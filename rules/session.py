"""One e-graph with its bulk tables: insertion, analyses, statistics and reading.

All text of the engine's interface is here and in `encoding`; the rest of the package sees plain data.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import Any
from weakref import finalize

from egglog import EGraph, bindings
from egglog.declarations import FunctionRef
from egglog.egraph_state import span

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


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramText:
    """Rulesets in the engine's language."""

    declared: tuple[tuple[str, str], ...]
    """What an e-graph has to know, by the schedule that needs it first."""
    runs: tuple[tuple[str, str], ...]
    """The command that runs each schedule."""
    tables: tuple[tuple[str, str], ...]
    """The engine's name of each relation that rules read or fill (`relation_key`)."""


def relation_key(relation: Any) -> str:
    """Return the module and name of a relation."""
    identity: Any = relation.__egg_ref__.ident
    return f"{identity.module}.{identity.name}"


class Program:
    """Rulesets that many e-graphs run, read by the engine once.

    E-graphs that know the rules and nothing else are kept for the next session: to teach them to a new one
    takes several times as long as to run them on a small block.
    """

    def __init__(self, text: ProgramText) -> None:
        """Take rulesets as `write_program` writes them."""
        parser = bindings.EGraph(num_threads=1)
        self.declared = [(name, parser.parse_program(text)) for name, text in text.declared]
        self.runs = {name: parser.parse_program(command)[0] for name, command in text.runs}
        self.tables = dict(text.tables)
        self._idle: list[Any] = []

    def take_engine(self) -> Any:
        """Return an e-graph that knows the rules; whatever it learns from now on can be popped.

        Raises:
            RuleError: The engine refuses a rule.
        """
        engine = self._idle.pop() if self._idle else self._new_engine()
        engine.run_program(bindings.Push(1))
        return engine

    def return_engine(self, engine: Any) -> None:
        """Take back an e-graph from `take_engine` for the next session."""
        engine.run_program(bindings.Pop(span(), 1))
        self._idle.append(engine)

    def _new_engine(self) -> Any:
        """Return an e-graph that knows the rules and has planned how to join what each asks for.

        The engine plans a rule when it first runs. Without rows nothing else happens then, and the plans are
        copied with the e-graph, so that no session has to make them again.
        """
        engine = bindings.EGraph(num_threads=1)
        for name, commands in self.declared:
            with _told_by_engine(name):
                engine.run_program(*commands)
                engine.run_program(self.runs[name])
        return engine


def write_program(schedules: Iterable[tuple[str, Any]]) -> ProgramText:
    """Write rulesets or schedules, given by name, in the engine's language.

    It takes several times as long as to run them on a block.

    Args:
        schedules: Each may use what those before it declare.

    Raises:
        RuleError: A rule cannot be written.
    """
    state = EGraph(num_threads=1)._state
    commands = _Commands()
    state.egraph = commands  # type: ignore[assignment]  # it only needs to keep them
    declared, runs = [], []
    for name, schedule in schedules:
        with _told_by_engine(name):
            state.add_declarations(schedule)
            runs.append((name, str(state.run_schedule_to_egg(schedule.schedule))))
        declared.append((name, "\n".join(map(str, commands.made))))
        commands.made.clear()
    tables = tuple(
        (f"{reference.ident.module}.{reference.ident.name}", name)
        for reference, (name, _) in state.callable_ref_to_egg_fn.items()
        if isinstance(reference, FunctionRef)
    )
    return ProgramText(declared=tuple(declared), runs=tuple(runs), tables=tables)


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
        self._egraph = program.take_engine()
        self._table = _Table()
        self._texts: dict[int, str] = {}
        self._numbers: dict[int, int] = {}

    def close(self) -> None:
        """Give the e-graph back to the program; nothing may be asked of the session afterwards.

        A session that is not closed, because of an error, takes its e-graph with it.
        """
        self._table.close()
        self._program.return_engine(self._egraph)
        del self._egraph

    def insert(self, tables: Iterable[tuple[Any, Iterable[Row]]]) -> None:
        """Insert rows into relations whose columns are i64 and String, except those that no rule reads."""
        known = self._program.tables
        named = [
            (known[key], text)
            for relation, rows in tables
            if (key := relation_key(relation)) in known and (text := _table_text(rows))
        ]
        if not named:
            return
        for name, text in named:
            self._table.path.write_text(text, encoding="utf-8")
            self._egraph.run_program(bindings.Input(span(), name, str(self._table.path)))

    def run(self, name: str) -> RunStats:
        """Run a schedule of the program.

        Raises:
            RuleError: The engine refuses a rule or panics.
        """
        with _told_by_engine(name):
            output: Any = self._egraph.run_program(self._program.runs[name])[0]
        report = output.report
        times = report.search_and_apply_time_per_rule
        seconds = {rule: spent.total_seconds() for rule, spent in times.items()}
        return RunStats(report.updated, dict(report.num_matches_per_rule), seconds)

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


class _Table:
    """A file that the engine reads one table after another from; in memory where the system has such files.

    A disk takes milliseconds for each time that it is filled.
    """

    def __init__(self) -> None:
        self.close: finalize[..., Any]
        if hasattr(os, "memfd_create"):
            number = os.memfd_create("tilewright-table")
            self.path = Path(f"/proc/self/fd/{number}")
            self.close = finalize(self, os.close, number)
        else:
            folder = Path(tempfile.mkdtemp(prefix="tilewright-"))
            self.path = folder / "table.tsv"
            self.close = finalize(self, rmtree, folder, ignore_errors=True)


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

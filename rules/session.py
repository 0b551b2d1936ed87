"""One e-graph with its bulk tables: insertion, analyses, statistics and reading.

All text of the engine's interface is here and in `encoding`; the rest of the package sees plain data.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from egglog import EGraph

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


class Session:
    """An e-graph that takes rows of tables and gives rows back."""

    def __init__(self) -> None:
        self._egraph = EGraph(num_threads=1)
        self._texts: dict[int, str] = {}
        self._numbers: dict[int, int] = {}

    def insert(self, tables: Iterable[tuple[Any, Iterable[Row]]]) -> None:
        """Insert rows into relations whose columns are i64 and String."""
        filled = [(relation, text) for relation, rows in tables if (text := _table_text(rows))]
        if not filled:
            return
        with tempfile.TemporaryDirectory(prefix="tilewright-") as folder:
            path = Path(folder) / "table.tsv"
            for relation, text in filled:
                path.write_text(text, encoding="utf-8")
                self._egraph.input(relation, str(path))

    def run(self, schedule: Any, what: str) -> RunStats:
        """Run a ruleset or schedule.

        Raises:
            RuleError: The engine refuses a rule or panics.
        """
        try:
            report = self._egraph.run(schedule)
        except BaseException as error:  # engine panics are no Exceptions
            if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
                raise
            kind = UnboundError if "nbound" in str(error) else RuleError
            raise kind(f"ruleset {what}: the engine says: {error}") from error
        seconds = {
            _name(rule): spent.total_seconds()
            for rule, spent in report.search_and_apply_time_per_rule.items()
        }
        matches = {_name(rule): count for rule, count in report.num_matches_per_rule.items()}
        return RunStats(report.updated, matches, seconds)

    def read(self, names: Iterable[str]) -> dict[str, list[tuple[int | str, ...]]]:
        """Return the rows of tables: strings and numbers as such, e-classes by their id.

        Ids of different sorts may collide. The output column is last; tables without rows are left
        out.
        """
        low = self._egraph._egraph  # the only door to the bulk read-out of the engine
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


def _name(rule: Any) -> str:
    return str(rule.name)

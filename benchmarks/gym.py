"""Extraction from the e-graphs of the extraction gym, against references and a greedy extractor.

Each e-graph is extracted by a process of its own, `tilewright extract`, whose processor seconds, start
and reading included, are taken; what it wrote is walked and priced again by
`tilewright.extract.general.walk`.
"""

from __future__ import annotations

import csv
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from time import monotonic
from typing import Any

from benchmarks.tables import print_table
from tilewright.extract.general.greedy import greedy_choice
from tilewright.extract.general.gym_file import parse_egraph
from tilewright.extract.general.walk import walk

# Costs are sums of floats.
RELATIVE_ERROR = 1e-9
# How much later than the time limit a process may end, with its start of about a second.
LATE_FACTOR, LATE_SECONDS = 1.1, 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What is known of an instance: cost, whether it is proven, processor seconds it took."""

    cost: float
    is_proven: bool
    processor_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One instance: sizes, what was extracted, what it took, what is known."""

    name: str
    node_count: int
    class_count: int
    cost: float
    bound: float
    proof: str
    greedy_cost: float
    processor_seconds: float
    wall_seconds: float
    reference: Reference | None

    def missed(self, time_limit: float) -> list[str]:
        """Name the targets that were missed."""
        found = []
        slack = RELATIVE_ERROR * max(1.0, abs(self.cost))
        if self.cost > self.greedy_cost + slack:
            found.append(f"costs more than greedy-DAG, {self.greedy_cost:.10g}")
        if self.wall_seconds > LATE_FACTOR * time_limit + LATE_SECONDS:
            found.append(f"took {self.wall_seconds:.1f} s of {time_limit:g}")
        known = self.reference
        if known is None:
            return found
        if self.cost > known.cost + slack:
            found.append(f"costs more than the best known, {known.cost:.10g}")
        if known.is_proven and self.proof == "bound":
            found.append(f"the reference is proven, the bound here is {self.bound:.10g}")
        limit = known.processor_seconds
        if limit is not None and self.processor_seconds >= limit:
            found.append(f"{self.processor_seconds:.1f} CPU s, the reference took {limit:g}")
        return found

    def row(self) -> tuple[str, ...]:
        """Return the row of the table."""
        known = self.reference
        seconds = known.processor_seconds if known else None
        gap = (self.cost - self.bound) / max(abs(self.cost), 1e-12)
        return (
            self.name if len(self.name) <= 48 else f"{self.name[:18]}...{self.name[-27:]}",
            str(self.node_count),
            str(self.class_count),
            f"{self.cost:.7g}",
            f"{known.cost:.7g}" if known else "-",
            f"{self.greedy_cost:.7g}",
            f"{self.bound:.7g}",
            f"{gap:.1%}",
            self.proof,
            f"{self.processor_seconds:.2f}",
            f"{seconds:.1f}" if seconds is not None else "-",
        )


HEADER = (
    "instance",
    "e-nodes",
    "classes",
    "cost",
    "best known",
    "greedy-DAG",
    "bound",
    "gap",
    "proof",
    "CPU s",
    "ref. CPU s",
)


def main(folder: Path, names: Sequence[str], time_limit: float) -> int:
    """Extract from every e-graph of a folder, print a table; 1 when a target is missed."""
    paths = sorted(folder.glob("*/*.json"))
    paths = [path for path in paths if not names or any(name in path.name for name in names)]
    if not paths:
        print(f"gym: no e-graphs (*/*.json) of these names in '{folder}'", file=sys.stderr)
        return 2
    known = references(folder / "reference.csv")
    measured = []
    for path in paths:
        measured.append(measure(path, known, time_limit))
        print(f"{measured[-1].name}: {measured[-1].processor_seconds:.2f} s", file=sys.stderr)
    print_table("extraction gym", HEADER, [one.row() for one in measured])
    missed = [(one.name, text) for one in measured for text in one.missed(time_limit)]
    proven = sum(one.proof != "bound" for one in measured)
    print(f"\n{len(measured)} e-graphs, {proven} proven optimal, {len(missed)} targets missed")
    for name, text in missed:
        print(f"  {name}: {text}")
    return 1 if missed else 0


def references(path: Path) -> dict[str, Reference]:
    """Read the references by "set/file"; none if there is no such file."""
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as rows:
        return {
            f"{row['set']}/{row['file']}": Reference(
                cost=float(row["best"]),
                is_proven=row["status"].startswith("optimal"),
                processor_seconds=float(row["cpu_s"]) if row["cpu_s"] else None,
            )
            for row in csv.DictReader(rows)
        }


def measure(path: Path, known: dict[str, Reference], time_limit: float) -> Measured:
    """Extract from one e-graph in a process of its own and check what it wrote.

    Raises:
        WalkError: What it chose is no extraction.
        RuntimeError: It failed, or claims another cost than the walk finds.
    """
    name = f"{path.parent.name}/{path.name}"
    found, processor_seconds, wall_seconds = _run(path, time_limit)
    document = json.loads(path.read_bytes())
    cost = walk(document, found["choices"])
    if abs(cost - found["cost"]) > RELATIVE_ERROR * max(1.0, abs(cost)):
        raise RuntimeError(f"{name}: claims a cost of {found['cost']}, the walk finds {cost}")
    named = parse_egraph(document, name)
    greedy = named.named(greedy_choice(named.graph))
    return Measured(
        name=name,
        node_count=len(named.nodes),
        class_count=len(named.classes),
        cost=cost,
        bound=found["bound"],
        proof=found["proof"],
        greedy_cost=walk(document, greedy),
        processor_seconds=processor_seconds,
        wall_seconds=wall_seconds,
        reference=known.get(name),
    )


def _run(path: Path, time_limit: float) -> tuple[dict[str, Any], float, float]:
    """Run `tilewright extract`: what it wrote, its processor seconds (user and system), its time."""
    command = [sys.executable, "-m", "tilewright", "extract", str(path)]
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "extraction.json"
        begin = monotonic()
        process = Popen(
            [*command, "--output", str(output), "--time-limit", str(time_limit)],
            stdout=DEVNULL,
            stderr=PIPE,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )
        assert process.stderr is not None
        messages = process.stderr.read().decode(errors="replace")
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = monotonic() - begin
        process.stderr.close()
        if process.returncode:
            raise RuntimeError(f"{path}: exit code {process.returncode}: {messages.strip()}")
        found: dict[str, Any] = json.loads(output.read_bytes())
    return found, usage.ru_utime + usage.ru_stime, seconds

"""Google's contest on intra-operator parallelism: our assignments against the best known ones.

Costs and peaks are computed here, from the file alone and in whole numbers.
"""

from __future__ import annotations

import csv
import gzip
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.tables import print_table

ROOT = Path(__file__).parent.parent
MEAN_SCORE = 0.95
SMALL_NODES = 2000
"""Instances of at most this many nodes must be solved as well as anyone has."""
TIME_TOLERANCE = 1.1
MOST_BYTES = 6e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a run on an instance gave."""

    name: str
    nodes: int
    edges: int
    cost: int
    peak: int
    limit: int | None
    bound: float
    best: int | None
    wall_seconds: float
    cpu_seconds: float
    memory_bytes: float

    @property
    def is_feasible(self) -> bool:
        """Whether the limit is kept and nothing forbidden is chosen."""
        return self.cost < 10**18 and (self.limit is None or self.peak <= self.limit)

    @property
    def score(self) -> float | None:
        """Best known cost over ours; 0 if ours is not feasible, none if no cost is known."""
        if self.best is None:
            return None
        return self.best / self.cost if self.is_feasible else 0.0


def evaluate(problem: dict[str, Any], strategies: Sequence[int]) -> tuple[int, int]:
    """Return the cost and the largest use at any time."""
    nodes, edges = problem["nodes"], problem["edges"]
    if len(strategies) != len(nodes["costs"]):
        raise ValueError(f"{len(strategies)} strategies for {len(nodes['costs'])} nodes")
    cost = sum(own[s] for own, s in zip(nodes["costs"], strategies, strict=True))
    for (left, right), costs in zip(edges["nodes"], edges["costs"], strict=True):
        cost += costs[strategies[left] * len(nodes["costs"][right]) + strategies[right]]
    change: dict[int, int] = {}
    for (low, high), used, s in zip(nodes["intervals"], nodes["usages"], strategies, strict=True):
        if low < high:
            change[low] = change.get(low, 0) + used[s]
            change[high] = change.get(high, 0) - used[s]
    now = peak = 0
    for at in sorted(change):
        now += change[at]
        peak = max(peak, now)
    return cost, peak


def main(path: Path, names: Sequence[str], seconds: float) -> int:
    """Run on the instances of a folder (or one file), print a table; 1 if a target is missed."""
    files = _instances(path, names)
    if not files:
        print(f"{path}: no instance {' '.join(names)} (*.json, *.json.gz); name another folder")
        return 1
    folder = path if path.is_dir() else path.parent
    known = _best_known(folder / "best_known.csv")
    results, failures = [], []
    for file in files:
        try:
            results.append(_run(file, seconds, known.get(_name(file))))
        except subprocess.CalledProcessError as error:
            failures.append(
                f"{_name(file)}: {(error.stderr.strip().splitlines() or ['failed'])[-1]}"
            )
    _print(results)
    failures += _missed(results, seconds)
    for line in failures:
        print(f"missed: {line}")
    return 1 if failures else 0


def work(file: Path, seconds: float) -> None:
    """Solve one instance in this process and print what it took as JSON."""
    from tilewright.extract.large.assign import assign

    found = assign(file, seconds)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    report = {
        "strategies": found.strategies,
        "bound": found.bound,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "memory_bytes": usage.ru_maxrss * 1024,
    }
    print(json.dumps(report))


def _name(file: Path) -> str:
    return file.name.removesuffix(".gz").removesuffix(".json").rpartition("-")[2]


def _instances(path: Path, names: Sequence[str]) -> list[Path]:
    found = [path] if path.is_file() else sorted((*path.glob("*.json"), *path.glob("*.json.gz")))
    return [file for file in found if not names or _name(file) in names]


def _best_known(path: Path) -> dict[str, int]:
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        return {row["inst"]: int(row["best_known"]) for row in csv.DictReader(file)}


def _run(file: Path, seconds: float, best: int | None) -> Result:
    start = time.monotonic()
    command = [sys.executable, "-m", "benchmarks", "iopddl-work", str(file), str(seconds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    wall = time.monotonic() - start
    report = json.loads(done.stdout)
    data = file.read_bytes()
    problem = json.loads(gzip.decompress(data) if file.suffix == ".gz" else data)["problem"]
    cost, peak = evaluate(problem, report["strategies"])
    return Result(
        name=_name(file),
        nodes=len(problem["nodes"]["costs"]),
        edges=len(problem["edges"]["nodes"]),
        cost=cost,
        peak=peak,
        limit=problem.get("usage_limit"),
        bound=report["bound"],
        best=best,
        wall_seconds=wall,
        cpu_seconds=report["cpu_seconds"],
        memory_bytes=report["memory_bytes"],
    )


def _print(results: Sequence[Result]) -> None:
    header = (
        "instance",
        "nodes",
        "edges",
        "cost",
        "best known",
        "score",
        "bound",
        "gap",
        "feasible",
    )
    rows = [
        (
            r.name,
            f"{r.nodes:,}",
            f"{r.edges:,}",
            f"{r.cost:,}",
            "-" if r.best is None else f"{r.best:,}",
            "-" if r.score is None else f"{r.score:.4f}",
            f"{r.bound:,.0f}",
            f"{100 * (r.cost - r.bound) / max(1, r.cost):.2f} %",
            "yes" if r.is_feasible else "NO",
            f"{r.cpu_seconds:.0f}",
            f"{r.wall_seconds:.0f}",
            f"{r.memory_bytes / 1e6:,.0f}",
        )
        for r in results
    ]
    print_table("intra-operator parallelism", (*header, "CPU s", "wall s", "MB"), rows, left=1)


def _missed(results: Sequence[Result], seconds: float) -> list[str]:
    """Say which targets are missed."""
    lines = []
    for r in results:
        if not r.is_feasible:
            lines.append(f"{r.name} is not feasible: peak {r.peak:,} of {r.limit}")
        if r.nodes <= SMALL_NODES and r.score is not None and r.score < 1.0:
            lines.append(f"{r.name} is small and scores {r.score:.6f}, expected 1.0")
        if r.wall_seconds > TIME_TOLERANCE * seconds:
            lines.append(f"{r.name} took {r.wall_seconds:.0f} s, the limit is {seconds:.0f}")
        if r.memory_bytes > MOST_BYTES:
            lines.append(f"{r.name} took {r.memory_bytes / 1e6:,.0f} MB, expected 6,000")
    scores = [r.score for r in results if r.score is not None]
    if scores and (mean := sum(scores) / len(scores)) < MEAN_SCORE:
        lines.append(f"the mean score is {mean:.4f}, expected {MEAN_SCORE}")
    return lines

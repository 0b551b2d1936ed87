"""What `tilewright explore pareto` prints and writes: a table, a picture, plans and programs."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from tilewright import api
from tilewright.arrays import write_file
from tilewright.commands import check_folder, make_folder
from tilewright.errors import CompileError
from tilewright.explore_commands import ExploreRequest
from tilewright.extract.front import check_points
from tilewright.extract.front_planner import check_metrics
from tilewright.extract.objective import Metric, parse_metric
from tilewright.extract.reweigh import Point
from tilewright.front_picture import amount_text, front_picture
from tilewright.fronts import Front
from tilewright.listings import plan_text
from tilewright.lowering.program_file import program_bytes
from tilewright.program_commands import print_written
from tilewright.rule_commands import print_refusals
from tilewright.simulator.timing import simulate
from tilewright.terminal import Row, print_table, print_text, progress


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontRequest:
    """What to plan, between which metrics, and where to write plans and programs."""

    explore: ExploreRequest
    metrics: tuple[str, ...]
    points: int
    output: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lowered:
    """A point with its program and the cycles that the timing simulator counts."""

    point: Point
    program: bytes
    simulated_cycles: float


def report_front(request: FrontRequest, console: Console) -> None:
    """Print the front of a model; with a folder also write its picture and each plan, lowered and simulated.

    Nothing is written if an error occurs.
    """
    metrics = check_metrics(tuple(parse_metric(name, "objective") for name in request.metrics))
    check_points(request.points)
    explore = request.explore
    if request.output is not None:
        check_folder(request.output)
        if explore.shapes_only:
            raise CompileError(
                "--shapes-only loads no weights, of which programs are made; drop it, or -o"
            )
    quiet = Console(quiet=True) if explore.as_json else console
    with progress(quiet, time.monotonic()) as tell:
        admission = explore.plan.sources.admit(tell)
        found = api.front(
            explore.plan.model,
            explore.plan.target,
            metrics,
            points=request.points,
            dims=explore.plan.dims,
            weights=not explore.shapes_only,
            without_rules=explore.plan.without_rules,
            pads=explore.plan.pads,
            rules=admission.rules,
            progress=tell,
        )
        lowered: list[_Lowered] = []
        if request.output is not None:
            for number, point in enumerate(found.points, 1):
                tell(f"lowering and simulating point {number}")
                own, program = found.lower(point)
                cycles = simulate(program).cycles
                lowered.append(
                    _Lowered(point=own, program=program_bytes(program), simulated_cycles=cycles)
                )
    print_refusals(admission.refused, quiet)
    points = tuple(one.point for one in lowered) or found.points
    if explore.as_json:
        print_text(console, json.dumps(_data(found, points, lowered), indent=2))
    else:
        _print_front(found, points, lowered, console)
    if request.output is not None:
        _write(found, points, lowered, request.output, quiet)


def _print_front(
    found: Front, points: tuple[Point, ...], lowered: list[_Lowered], console: Console
) -> None:
    others = [m for m in (Metric.LATENCY, Metric.ENERGY, Metric.SRAM) if m not in found.metrics]
    shown = (*found.metrics, *others)
    header = ("point", "weights", "SRAM limit", *(f"{m}, {m.unit}" for m in shown), "gap")
    header = (*header, "to the next") if found.rooms else header
    rows: list[Row] = []
    for number, point in enumerate(points, 1):
        is_limited = point.limit_bytes < found.planner.capacity_bytes
        amounts = (f"{point.amounts[m]:,.0f}" for m in shown)
        weights = ",".join(f"{m}:{w:.3g}" for m, w in point.plan.objective.weights)
        if point.most is not None:
            weights += f", {point.most[0]} <= {point.most[1]:,.0f}"
        cells = [str(number), weights]
        cells.append(f"{point.limit_bytes:,}" if is_limited else "all")
        cells += [*amounts, f"{point.plan.gap:.2%}"]
        if found.rooms:
            cells.append("" if number > len(found.rooms) else _room_text(found.rooms[number - 1]))
        if lowered:
            cells.append(f"{lowered[number - 1].simulated_cycles:,.0f}")
        rows.append(tuple(cells))
    if lowered:
        header = (*header, "simulated")
    names = ", ".join(map(str, found.metrics))
    title = f"{found.graph.name} on {found.target.name}: no plan is better than another in {names}"
    print_table(console, title, header, rows, left=2)
    first, last = points[0], points[-1]
    trade = ", ".join(
        f"{m} {amount_text(m, first.amounts[m])} to {amount_text(m, last.amounts[m])}"
        for m in found.metrics
    )
    print_text(console, f"from the first to the last point: {trade}")
    if found.rooms:
        print_text(
            console,
            "to the next: by how much a plan between two points could be better than each of them, in "
            "one metric or the other",
        )


def _room_text(room: float) -> str:
    return "nothing" if room == 0 else f"{room:.2%}"


def _data(found: Front, points: tuple[Point, ...], lowered: list[_Lowered]) -> dict[str, Any]:
    return {
        "metrics": list(found.metrics),
        "points": [_point_data(n, point, lowered) for n, point in enumerate(points, 1)],
        "rooms": list(found.rooms),
    }


def _point_data(number: int, point: Point, lowered: list[_Lowered]) -> dict[str, Any]:
    plan = point.plan
    data: dict[str, Any] = {
        "point": number,
        "objective": str(plan.objective),
        "sram_limit_bytes": point.limit_bytes,
        "limit": None if point.most is None else {str(point.most[0]): point.most[1]},
        "amounts": {str(metric): amount for metric, amount in point.amounts.items()},
        "cost": plan.cost,
        "bound": plan.bound,
        "gap": plan.gap,
        "unit": plan.objective.unit,
        "proof": plan.proof.method,
    }
    if lowered:
        data["simulated_cycles"] = lowered[number - 1].simulated_cycles
    return data


def _write(
    found: Front,
    points: tuple[Point, ...],
    lowered: list[_Lowered],
    folder: Path,
    console: Console,
) -> None:
    """Write the picture, the table as JSON, and plan and program of each point."""
    title = f"{found.graph.name} on {found.target.name}"
    data = _data(found, points, lowered)
    files = {
        "front.svg": front_picture(title, found.metrics, points).encode(),
        "front.json": (json.dumps(data, indent=2) + "\n").encode(),
    }
    for number, one in enumerate(lowered, 1):
        files[f"point-{number}.plan.txt"] = plan_text(one.point.plan).encode()
        files[f"point-{number}.twp"] = one.program
    make_folder(folder)
    console.print()
    for name, content in files.items():
        write_file(folder / name, content)
        print_written(folder / name, len(content), console)

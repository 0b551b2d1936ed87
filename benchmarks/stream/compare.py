"""Both tools on the same workloads and machines: plans, what both cost models say of them, seconds."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any

import yaml
from onnx import TensorProto

from benchmarks.stream import worker
from benchmarks.stream.hardware import write_hardware
from benchmarks.stream.machines import mesh
from benchmarks.stream.mapping import Demands, candidates, demands_of, likely_candidates
from benchmarks.stream.models import Workload, gemm_chain, perceptron
from benchmarks.worker import user_seconds
from tilewright import api
from tilewright.compiler import Compilation, Stage
from tilewright.errors import CompileError, DemandError, InfeasibleError
from tilewright.exploring import Session
from tilewright.extract.plan import Plan
from tilewright.hwmodel.target import Target
from tilewright.simulator.timing import simulate

VERSION = "2.1.1"
WAYS = 6
"""Ways to split a product that a plan is made for."""
INT8, BF16 = TensorProto.INT8, TensorProto.BFLOAT16


class StreamError(Exception):
    """Stream is not there or does not answer; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Case:
    """A workload on a machine."""

    workload: Workload
    machine: Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Ours:
    """Our plan of a case: predicted, proven and simulated cycles, user CPU seconds of planning and of all."""

    done: Compilation
    session: Session
    predicted: float
    bound: float
    simulated: float
    plan_seconds: float
    compile_seconds: float
    ways: tuple[Plan, ...]
    """Plans that split a product otherwise, the likeliest first, as `tilewright explore` finds them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forced:
    """Stream's mapping as our compiler follows it; infinite cycles if it can follow no part of it."""

    demands: tuple[str, ...]
    """Those that were met."""
    lost: tuple[str, ...]
    predicted: float
    simulated: float

    @property
    def is_followed(self) -> bool:
        """Whether there is a plan."""
        return self.simulated < inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A case with what was found.

    `stream_cycles` are those of Stream's own mapping, `plan_cycles` Stream's prices of the mappings of our
    plan, `way_cycles` those of our other ways (None: it refuses one), `follows` Stream's mapping in our
    simulator.
    """

    case: Case
    ours: Ours
    stream_cycles: float
    stream_seconds: float
    plan_cycles: tuple[float | None, ...]
    way_cycles: tuple[float | None, ...]
    follows: Forced

    @property
    def refereed_plan(self) -> float:
        """The cheapest mapping of our plan; infinite if Stream refuses them all."""
        return min((cycles for cycles in self.plan_cycles if cycles is not None), default=inf)

    @property
    def refereed_best(self) -> float:
        """The cheapest mapping of our plan and of the other ways that our explorer names."""
        ways = (cycles for cycles in self.way_cycles if cycles is not None)
        return min((self.refereed_plan, *ways))


def cases() -> tuple[Case, ...]:
    """Return the comparison: single products, a perceptron, chains; one tile, meshes, wider DRAM."""
    single = mesh(1, 1, 1, 8)
    meshes = (mesh(2, 2, 2, 32), mesh(4, 4, 4, 16), mesh(4, 4, 4, 32))
    found = [Case(gemm_chain(1, dtype), m) for m in (single, *meshes) for dtype in (INT8, BF16)]
    found += [Case(perceptron(BF16), m) for m in meshes]
    found += [Case(gemm_chain(n, INT8), m) for m in (single, meshes[0]) for n in (2, 4)]
    return tuple(found)


def compare(chosen: Sequence[Case], python: Path, repeats: int) -> tuple[Row, ...]:
    """Plan with both tools and price all with both.

    Args:
        chosen: The cases.
        python: An interpreter that has stream-dse.
        repeats: Measurements of time, of which the median counts.

    Raises:
        StreamError: Stream is not there or fails.
    """
    check_stream(python)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plans, jobs = [], []
        for number, case in enumerate(chosen):
            print(f"planning {case.workload.name} on {case.machine.name}", flush=True)
            plans.append(planned(case, repeats))
            jobs.append(_job(folder / str(number), case, plans[-1], repeats))
        print("Stream plans and prices", flush=True)
        answers = _ask(python, folder, jobs)
        return tuple(
            _row(case, ours, job["own"], answer)
            for case, ours, job, answer in zip(chosen, plans, jobs, answers, strict=True)
        )


def check_stream(python: Path) -> None:
    """Refuse an interpreter that lacks the right version of Stream.

    Raises:
        StreamError: Says how to make one.
    """
    how = (
        "make one with Python 3.12 or newer: python -m venv DIR && "
        f"DIR/bin/pip install stream-dse=={VERSION} six, then pass --python DIR/bin/python"
    )
    ask = "from importlib.metadata import version; print(version('stream-dse'))"
    try:
        done = subprocess.run(
            [python, "-c", ask], capture_output=True, text=True, check=False, timeout=60
        )
    except OSError as error:
        raise StreamError(
            f"{python}: {error.strerror}, expected a Python with stream-dse; {how}"
        ) from None
    found = done.stdout.strip() if done.returncode == 0 else "no stream-dse"
    if found != VERSION:
        raise StreamError(f"{python}: found {found}, expected stream-dse {VERSION}; {how}")


def planned(case: Case, repeats: int) -> Ours:
    """Compile a case and simulate it; seconds are medians, the first compilation is not measured."""
    done = api.compile(case.workload.ours, case.machine)
    assert done.plan is not None
    assert done.program is not None
    plan_seconds, compile_seconds = [], []
    for _ in range(repeats):
        start = user_seconds()
        again = api.compile(case.workload.ours, case.machine)
        compile_seconds.append(user_seconds() - start)
        plan_seconds.append(sum(again.seconds.values()) - again.seconds[Stage.LOWER])
    session = Session(done)
    return Ours(
        done=done,
        session=session,
        predicted=done.plan.cost,
        bound=done.plan.bound,
        simulated=simulate(done.program).run.cycles,
        plan_seconds=statistics.median(plan_seconds),
        compile_seconds=statistics.median(compile_seconds),
        ways=other_ways(case, session),
    )


def other_ways(case: Case, session: Session) -> tuple[Plan, ...]:
    """Return the plans of the likeliest other ways to split the first product, then all products alike."""
    computed = [layer.tensor for layer in case.workload.layers if layer.tensor in session.tensors]
    first, found = computed[0], list[Plan]()
    for tensors in dict.fromkeys(((first,), _products(session, computed))):
        chosen = {way.split for way in session.alternatives(first, top=0) if way.is_chosen}
        taken = chosen if len(tensors) == 1 else set[str]()
        splits = [s for s in _splits(session, first) if s not in taken]
        for split in splits[:WAYS]:
            demands = [f"split={split.replace(' ', ',')}@{tensor}" for tensor in tensors]
            with suppress(DemandError, InfeasibleError):
                found.append(session.force(*demands).plan)
    return tuple(found)


def _products(session: Session, tensors: Sequence[str]) -> tuple[str, ...]:
    return tuple(tensor for tensor in tensors if _splits(session, tensor))


def _splits(session: Session, tensor: str) -> tuple[str, ...]:
    """Return the splits of the product that makes a tensor, the likeliest first.

    The tensor may also come from the last step of an epilogue alone, which has splits of its own.
    """
    ways = session.alternatives(tensor, top=0)
    return tuple(dict.fromkeys(way.split for way in ways if way.form.startswith("matmul")))


def _job(folder: Path, case: Case, ours: Ours, repeats: int) -> Mapping[str, Any]:
    """Write a case into a folder; return what to ask Stream: candidates of our plan, two of other ways."""
    plan = ours.done.plan
    assert plan is not None
    hardware = write_hardware(case.machine, folder)
    model = folder / "model.onnx"
    model.write_bytes(case.workload.theirs)
    rows = case.machine.tile.matrix.rows
    files = []
    own, layers = candidates(plan, case.workload.layers, rows), case.workload.layers
    others = [document for way in ours.ways for document in likely_candidates(way, layers, rows)]
    for number, document in enumerate((*own, *others)):
        files.append(folder / f"mapping{number}.yaml")
        files[-1].write_text(yaml.safe_dump(document, sort_keys=False))
    return {
        "hardware": str(hardware),
        "model": str(model),
        "mappings": [str(file) for file in files],
        "own": len(own),
        "repeats": repeats,
    }


def _ask(python: Path, folder: Path, jobs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    asked, written = folder / "jobs.json", folder / "answers.jsonl"
    asked.write_text(json.dumps(jobs))
    # -P: the folder of the script holds modules that must not be found
    command = [str(part) for part in (python, "-P", worker.__file__, asked, written)]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=one_thread, cwd=folder
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise StreamError(f"Stream: {lines[-1]}")
    return [json.loads(line) for line in written.read_text().splitlines()]


def _row(case: Case, ours: Ours, own: int, answer: Mapping[str, Any]) -> Row:
    documents = [yaml.safe_load(text) for text in answer["mappings"]]
    target = case.machine
    axes = {
        axis.name: size
        for axis, size in zip(target.logical_axes, ours.done.mesh.sizes, strict=True)
    }
    prices = tuple(one.get("cycles") for one in answer["priced"])
    print(f"following Stream's mapping of {case.workload.name} on {target.name}", flush=True)
    return Row(
        case=case,
        ours=ours,
        stream_cycles=sum(answer["cycles"]) + answer["dispatch"],
        stream_seconds=statistics.median(answer["seconds"]),
        plan_cycles=prices[:own],
        way_cycles=prices[own:],
        follows=follow(ours.session, demands_of(documents, case.workload.layers, axes)),
    )


def follow(session: Session, demands: Demands) -> Forced:
    """Plan under the demands of a mapping, or as many of them as can be met, and simulate that plan.

    Tiles of loops that several products share mean more than the same tiles of products one after the other:
    they count where they make the plan faster, that is in Stream's favour.
    """
    lost = demands.lost
    for wanted in demands.without_tiles():
        found = _forced(session, wanted, lost)
        if found.is_followed:
            own = _with_tiles(session, found, demands.tiles)
            every = _with_tiles(session, own, demands.shared_tiles)
            if every.simulated <= own.simulated:
                return every
            slower = f"tiles of shared loops: {every.simulated:,.0f} cycles with them"
            return replace(own, lost=(*own.lost, slower))
        lost = found.lost
    return Forced(demands=(), lost=lost, predicted=inf, simulated=inf)


def _with_tiles(session: Session, found: Forced, tiles: Sequence[str]) -> Forced:
    """Return what follows a mapping with each of these tiles, too, if there is a plan with it."""
    for tile in tiles:
        more = _forced(session, (*found.demands, tile), found.lost)
        found = more if more.is_followed else replace(found, lost=more.lost)
    return found


def _forced(session: Session, wanted: tuple[str, ...], lost: tuple[str, ...]) -> Forced:
    """Return the plan under demands; without one, the reason beside what is lost already."""
    try:
        answer = session.force(*wanted) if wanted else session.base
        program = session.lower(answer)
    except CompileError as error:
        why = (*lost, str(error).partition("; ")[0])
        return Forced(demands=(), lost=why, predicted=inf, simulated=inf)
    cycles = simulate(program).run.cycles
    return Forced(demands=wanted, lost=lost, predicted=answer.plan.cost, simulated=cycles)

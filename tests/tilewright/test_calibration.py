"""Calibration: constants are recovered, held out, written with what they rest on, and used when told."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest

from tilewright import api, calibrate_command, calibrating
from tilewright.bound_check import check_bound
from tilewright.calibrating import Source, calibrate
from tilewright.calibration import (
    Calibration,
    calibration_text,
    parse_calibration,
    read_calibration,
)
from tilewright.calibration_programs import built_in_programs, layers, states
from tilewright.errors import CalibrationError
from tilewright.exposure_fit import HeldOut, Measurement, fitted, held_out
from tilewright.extract.validate import validate_plan
from tilewright.hwmodel.exposure import Exposure
from tilewright.hwmodel.load import load_target
from tilewright.lowering.program_file import program_bytes
from tilewright.report import plan_facts


class Ran(Protocol):
    """What a command did."""

    code: int
    out: str
    err: str


Command = Callable[..., Ran]


def synthetic(
    truth: Exposure, programs: int = 4, plans: int = 5, noise: float = 0.0
) -> list[Measurement]:
    """Return measurements of a machine on which these shares of leads pass exposed."""
    draw = random.Random(7)
    found = []
    for number in range(programs):
        for _ in range(plans):
            fixed, of_inputs, of_outputs = (draw.uniform(100, 1000) for _ in range(3))
            cycles = fixed + truth.input * of_inputs + truth.output * of_outputs
            found.append(
                Measurement(
                    program=f"p{number}",
                    fixed_cycles=fixed,
                    input_cycles=of_inputs,
                    output_cycles=of_outputs,
                    simulated_cycles=cycles * (1 + draw.uniform(-noise, noise)),
                )
            )
    return found


@pytest.mark.parametrize("truth", [(0.3, 0.8), (0.0, 0.5), (1.0, 0.0), (1.0, 1.0)])
def test_known_shares_are_recovered(truth: tuple[float, float]) -> None:
    expected = Exposure(input=truth[0], output=truth[1])
    found = fitted(synthetic(expected))
    assert found.input == pytest.approx(expected.input, abs=2e-4)
    assert found.output == pytest.approx(expected.output, abs=2e-4)


def test_shares_are_the_least_squares_of_a_grid() -> None:
    """No pair of shares on a fine grid fits noisy measurements better than the one found."""
    measured = synthetic(Exposure(input=0.2, output=0.6), noise=0.3)

    def squares(exposure: Exposure) -> float:
        return sum((m.planned_cycles(exposure) / m.simulated_cycles - 1) ** 2 for m in measured)

    steps = np.linspace(0.0, 1.0, 51)
    grid = min(squares(Exposure(input=x, output=y)) for x in steps for y in steps)
    assert squares(fitted(measured)) <= grid + 1e-6


def test_shares_stay_between_nothing_and_everything() -> None:
    measured = [replace(m, simulated_cycles=3 * m.simulated_cycles) for m in synthetic(Exposure())]
    assert fitted(measured) == Exposure(input=1.0, output=1.0)


def test_what_is_not_measured_keeps_its_lead() -> None:
    truth = Exposure(input=0.4, output=0.0)
    measured = [
        replace(m, output_cycles=0.0, simulated_cycles=m.planned_cycles(truth))
        for m in synthetic(truth)
    ]
    found = fitted(measured)
    assert (found.input, found.output) == (pytest.approx(0.4, abs=2e-4), 1.0)


def test_every_program_weighs_the_same() -> None:
    """A program with ten times as many plans does not pull the shares to its own."""
    one, other = synthetic(Exposure(input=0.2), 1), synthetic(Exposure(input=0.6), 1)
    other = [replace(m, program="other") for m in other]
    even, uneven = fitted([*one, *other]), fitted([*one, *(10 * other)])
    assert uneven.input == pytest.approx(even.input, abs=2e-4)


def test_a_program_is_held_out_of_what_predicts_it() -> None:
    odd = [replace(m, program="odd") for m in synthetic(Exposure(), 1)]
    even = synthetic(Exposure(input=0.0, output=0.0))
    found = held_out([*even, *odd])["odd"]
    assert found.exposure == fitted(even)
    assert found.before.median_error == pytest.approx(0.0, abs=1e-12)
    assert found.after.median_error > 0.3


@cache
def found() -> Calibration:
    """Calibrate `toy` with two small programs."""
    return calibrate(load_target("toy"), sources(), plans=2, seed=3)


def sources() -> Sequence[Source]:
    graphs = {"one": states(2, 64), "two": states(3, 32)}
    return [Source(name=name, source="test", graph=graph) for name, graph in graphs.items()]


def test_a_calibration_says_what_it_rests_on() -> None:
    calibration = found()
    assert [program.name for program in calibration.programs] == ["one", "two"]
    assert all(len(program.plans) == 2 for program in calibration.programs)
    assert calibration.held_out.after.best_error < calibration.held_out.before.best_error
    plan, own = calibration.programs[0].plans[0], calibration.constants
    leads = (1 - own.input) * plan.input_leads + (1 - own.output) * plan.output_leads
    assert plan.calibrated == pytest.approx(plan.planned - leads, abs=0.01)
    assert plan.simulated <= plan.planned
    assert "toy" in calibration.line


def test_the_same_programs_and_seed_give_the_same_file() -> None:
    again = calibrate(load_target("toy"), sources(), plans=2, seed=3)
    assert calibration_text(again) == calibration_text(found())
    assert parse_calibration(calibration_text(found()), "text") == found()


def test_a_compile_uses_constants_only_if_told(tmp_path: Path) -> None:
    path = tmp_path / "toy.yaml"
    path.write_text(calibration_text(found()))
    graph = layers(8, 32, 2)
    plain = api.compile(graph, "toy")
    told = api.compile(graph, "toy", calibration=path)
    assert plain.plan is not None
    assert told.plan is not None
    assert told.options.calibration == found()
    assert told.plan.cost < plain.plan.cost
    assert told.plan.bound <= told.plan.cost
    validate_plan(told.plan, told.planning_target)
    check_bound(told)
    assert told.target == plain.target
    assert ("calibrated", found().line) in plan_facts(told, told.plan)
    assert not any(name == "calibrated" for name, _ in plan_facts(plain, plain.plan))
    assert plain.program is not None
    assert told.program is not None
    assert told.program.target == plain.target
    assert b"exposure" not in program_bytes(told.program)[:20000]


def test_constants_that_do_not_carry_over_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was fitted to the other programs has to do better than whole leads."""

    def nothing_learned(measured: Sequence[Measurement]) -> dict[str, HeldOut]:
        return {
            name: replace(test, exposure=Exposure()) for name, test in held_out(measured).items()
        }

    monkeypatch.setattr(calibrating, "held_out", nothing_learned)
    with pytest.raises(CalibrationError, match="do not carry over"):
        calibrate(load_target("toy"), sources(), plans=1)


def test_one_program_is_too_few() -> None:
    with pytest.raises(CalibrationError, match="expected 2 or more"):
        calibrate(load_target("toy"), sources()[:1], plans=1)


def changed(text: str, before: str, after: str) -> str:
    assert before in text
    return text.replace(before, after, 1)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: changed(t, "seed: 3", "seed: 4"), "its sha256 is not of"),
        (lambda t: t[: len(t) // 2], "expected a file as 'tilewright calibrate' wrote it"),
        (lambda t: "a: [", "no YAML"),
        (lambda t: "- 1", "no 'format: tilewright calibration 1'"),
        (lambda t: changed(t, "plans: 2", "plans: none"), "plans: input should be"),
    ],
)
def test_a_broken_file_is_refused(tmp_path: Path, edit: Callable[[str], str], message: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(edit(calibration_text(found())))
    with pytest.raises(CalibrationError, match=message) as error:
        read_calibration(path, load_target("toy"))
    assert str(path) in str(error.value)


def test_a_calibration_is_for_one_target_and_version(tmp_path: Path) -> None:
    path = tmp_path / "toy.yaml"
    path.write_text(calibration_text(found()))
    with pytest.raises(CalibrationError, match="one of target 'toy', expected 'mesh_4x4'"):
        read_calibration(path, load_target("mesh_4x4"))
    toy = load_target("toy")
    dram = toy.dram.model_copy(update={"latency_cycles": 1.0})
    with pytest.raises(CalibrationError, match="other figures of target 'toy'"):
        read_calibration(path, toy.model_copy(update={"dram": dram}))
    path.write_text(calibration_text(found().model_copy(update={"tilewright": "0.0.9"})))
    with pytest.raises(CalibrationError, match=r"tilewright 0\.0\.9, expected"):
        read_calibration(path, toy)
    with pytest.raises(CalibrationError, match="cannot be read"):
        read_calibration(tmp_path / "absent.yaml", toy)
    words = toy.model_copy(update={"description": "other words"})
    path.write_text(calibration_text(found()))
    assert read_calibration(path, words) == found()


def test_the_command_writes_what_a_compile_reads(
    tilewright: Command, cnn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate_command, "built_in_sources", sources)
    path = tmp_path / "toy.yaml"
    ran = tilewright("calibrate", "-t", "toy", "-o", path, "--plans", "2", "--seed", "3")
    assert (ran.code, ran.err) == (0, "")
    assert "no compile uses it without --calibration" in ran.out
    assert path.read_text() == calibration_text(found())
    arguments = ("compile", cnn, "-t", "toy", "--dim", "batch=2", "--stop-after", "extract")
    told = tilewright(*arguments, "--calibration", path)
    assert told.code == 0
    assert "calibrated" in told.out
    assert "calibrated" not in tilewright(*arguments).out


def test_the_command_refuses_before_it_measures(
    tilewright: Command, cnn: Path, tmp_path: Path
) -> None:
    path = tmp_path / "toy.yaml"
    ran = tilewright("calibrate", cnn, cnn, "-t", "toy", "-o", path, "--dim", "batch=2")
    assert ran.code == 1
    assert "2 programs of the name 'cnn.onnx'" in ran.err
    ran = tilewright("calibrate", cnn, "-t", "toy", "-o", path, "--dim", "batch=2")
    assert ran.code == 1
    assert "expected 2 or more" in ran.err
    assert not path.exists()
    path.write_text("not a calibration")
    ran = tilewright("compile", cnn, "-t", "toy", "--dim", "batch=2", "--calibration", path)
    assert ran.code == 1
    assert "Traceback" not in ran.err
    assert f"calibration {path}" in ran.err


def test_built_in_programs_are_the_same_every_time() -> None:
    first, second = built_in_programs(), built_in_programs()
    assert list(first) == list(second)
    assert all(first[name].ops == second[name].ops for name in first)

"""Calibration files: shares of leads that were fitted to simulated plans, and all that they rest on.

A file is YAML text. It says which target and version it is for, what was measured, how well it fits and how
well it predicts what it was not fitted to. A checksum tells a file that `tilewright calibrate` wrote from one
that was changed since: constants without the measurements behind them are not used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import Field, ValidationError

from tilewright import __version__
from tilewright.errors import CalibrationError
from tilewright.hwmodel.exposure import Exposure
from tilewright.hwmodel.load import StrictLoader
from tilewright.hwmodel.target import Frozen, NonNegativeFloat, PositiveFloat, Target

FORMAT: Final = "tilewright calibration 1"
MAX_FILE_BYTES = 10_000_000

UNITS: Mapping[str, str] = {
    "input": "share of the lead (DRAM latency, network latency, DMA start-up) of loads of the model's inputs",
    "output": "share of the same lead of stores of the model's outputs",
}
"""What each constant is a share of; transfers, and the leads of all other moves, count in full."""

_PROSE = {"description", "evidence", "published_peaks"}
_WIDTH = 110


class TargetRecord(Frozen):
    """The machine that was measured."""

    name: str
    sha256: str
    """Of its figures; words about them do not count."""


class PlanRecord(Frozen):
    """A plan; [cycles]."""

    simulated: PositiveFloat
    planned: NonNegativeFloat
    """What planning adds up, all leads included."""
    calibrated: NonNegativeFloat
    """What it adds up at the constants of this file."""
    input_leads: NonNegativeFloat
    output_leads: NonNegativeFloat


class AccuracyRecord(Frozen):
    """How close planned cycles are to simulated ones; errors are absolute and relative to the latter."""

    best_error: NonNegativeFloat
    """Of the plan that planning chooses."""
    median_error: NonNegativeFloat
    """Of all plans that were measured."""
    rank: float | None
    """Spearman's rank correlation of these."""


class HeldOutRecord(Frozen):
    """A program planned and predicted with constants that were fitted to the other programs."""

    constants: Exposure
    before: AccuracyRecord
    """Without a calibration."""
    after: AccuracyRecord
    simulated_ratio: PositiveFloat
    """Simulated cycles of the plan that is chosen with the constants, over those without."""


class ProgramRecord(Frozen):
    """A program that was compiled and simulated."""

    name: str
    source: str
    plans: tuple[PlanRecord, ...] = Field(min_length=1)
    held_out: HeldOutRecord


class Summary(Frozen):
    """Medians over programs of the errors, means of ranks and ratios, when each was held out."""

    before: AccuracyRecord
    after: AccuracyRecord
    simulated_ratio: PositiveFloat


class Calibration(Frozen):
    """Everything that a calibration file says."""

    format: Literal["tilewright calibration 1"] = FORMAT
    tilewright: str
    target: TargetRecord
    constants: Exposure
    units: Mapping[str, str]
    seed: Annotated[int, Field(ge=0)]
    """Of the random factors that other plans are best for."""
    plans: Annotated[int, Field(gt=0)]
    """Tried of each program."""
    schedule: str
    network: str
    held_out: Summary
    programs: tuple[ProgramRecord, ...] = Field(min_length=2)

    @property
    def line(self) -> str:
        """Where the constants come from, in a line."""
        shares, tests = self.constants, self.held_out
        count = sum(len(program.plans) for program in self.programs)
        without, within = tests.before.best_error, tests.after.best_error
        return (
            f"leads count {shares.input:.0%} for inputs, {shares.output:.0%} for outputs; fitted to {count} "
            f"simulated plans of {len(self.programs)} programs on {self.target.name} by tilewright "
            f"{self.tilewright}, seed {self.seed}. Programs held out: planning error {without:.1%} without, "
            f"{within:.1%} with (median); their plans take {tests.simulated_ratio - 1:+.1%} simulated cycles"
        )


def target_record(target: Target) -> TargetRecord:
    """Return a target's name and the digest of its figures."""
    figures = target.model_dump(mode="json", exclude=_PROSE)
    return TargetRecord(name=target.name, sha256=_digest(figures))


def calibration_text(calibration: Calibration) -> str:
    """Return the text of a calibration file."""
    data = calibration.model_dump(mode="json")
    data["sha256"] = _digest(data)
    return yaml.safe_dump(data, sort_keys=False, default_flow_style=None, width=_WIDTH)


def read_calibration(path: Path, target: Target) -> Calibration:
    """Read a calibration file for a target.

    Raises:
        CalibrationError: The file cannot be read, was changed, or is for another target or version.
    """
    found = parse_calibration(_text(path), str(path))
    check_calibration(found, target, str(path))
    return found


def check_calibration(calibration: Calibration, target: Target, where: str) -> None:
    """Raise CalibrationError if a calibration is for another target or version."""
    measured, expected = calibration.target, target_record(target)
    if calibration.tilewright != __version__:
        found = f"one of tilewright {calibration.tilewright}"
        wanted = f"{__version__}, whose cost model it would correct"
    elif measured.name != expected.name:
        found, wanted = f"one of target '{measured.name}'", f"'{expected.name}'"
    elif measured != expected:
        found = f"one of other figures of target '{expected.name}', digest {measured.sha256[:12]}"
        wanted = expected.sha256[:12]
    else:
        return
    raise CalibrationError(
        f"calibration {where}: found {found}, expected {wanted}; run 'tilewright calibrate --target "
        f"{target.name} -o FILE', or leave the calibration out"
    )


def parse_calibration(text: str, where: str) -> Calibration:
    """Return the calibration that a text holds.

    Raises:
        CalibrationError: It is none, or it was changed after it was written.
    """
    try:
        data: Any = yaml.load(text, Loader=StrictLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        first = str(error).splitlines()[0] if str(error) else "an error"
        raise _corrupt(where, f"text that is no YAML ({first})") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise _corrupt(where, f"no 'format: {FORMAT}'")
    checksum = data.pop("sha256", None)
    try:
        is_intact = checksum == _digest(data)
        calibration = Calibration.model_validate_json(json.dumps(data))
    except (ValidationError, TypeError, ValueError) as error:
        raise _corrupt(where, _first(error)) from None
    if not is_intact:
        raise _corrupt(where, "contents that its sha256 is not of")
    return calibration


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise _corrupt(str(path), f"more than {MAX_FILE_BYTES:_} bytes")
        return data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise CalibrationError(
            f"calibration {path}: cannot be read: {reason}; give a file of 'tilewright calibrate'"
        ) from None


def _corrupt(where: str, found: str) -> CalibrationError:
    return CalibrationError(
        f"calibration {where}: found {found}, expected a file as 'tilewright calibrate' wrote it; "
        "calibrate again"
    )


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        detail = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, detail['loc']))}: {detail['msg'].lower()}"
    return str(error).lower()


def _digest(data: object) -> str:
    """Return the SHA-256 of plain data, whatever the order of keys."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()

"""Wrong binaries end with a result or a clear error, in bounded time, in every reader and executor.

The verifier and the simulators check each other: what is proven must run, what is refuted must not.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from math import prod
from pathlib import Path

import pytest
from program_mutations import CHANGES, is_clear, random_program, sealed

from tilewright import api
from tilewright.errors import ProgramError
from tilewright.inputs import made_up
from tilewright.lowering.program import Program
from tilewright.lowering.program_file import program_bytes, read_program
from tilewright.simulator.functional import run_program
from tilewright.simulator.limits import Limits
from tilewright.simulator.timing import simulate
from tilewright.simulator.verifier.verdict import Property, Verdict, Verification
from tilewright.simulator.verifier.verify import require_valid, verify

LIMITS = Limits(
    instructions=10_000,
    operations=2**26,
    instruction_bytes=2**28,
    comparisons=2**30,
    host_seconds=5,
)
MAX_EVENTS = 200_000


@cache
def original(path: Path) -> Program:
    return read_program(path)


def case(path: Path, seed: int) -> bytes | None:
    """Return a wrong program file; None if the program cannot even be written."""
    rng = random.Random(seed)
    kind = rng.randrange(len(CHANGES) + 2)
    if kind < len(CHANGES):
        return CHANGES[kind](path.read_bytes(), rng)
    written: list[bytes] = []
    message_of(lambda: written.append(program_bytes(random_program(original(path), rng))))
    return written[0] if written else None


def message_of(action: Callable[[], object]) -> str:
    """Return the message of the ProgramError that an action raises, empty if it raises none."""
    try:
        action()
    except ProgramError as error:
        text = str(error)
    else:
        return ""
    assert is_clear(text)
    return text


def execute(program: Program, found: Verification) -> None:
    """Execute a program in both simulators; fail where they contradict the verifier."""
    progress, balance = found[Property.PROGRESS].verdict, found[Property.BALANCE].verdict
    timed = message_of(lambda: simulate(program, max_events=MAX_EVENTS))
    if timed:
        assert "deadlock" not in timed or progress is not Verdict.PROVEN
    else:
        assert progress is not Verdict.REFUTED or balance is Verdict.REFUTED
    if sum(prod(t.shape) for t in program.inputs) > 10**6:
        return
    inputs = made_up(api.input_ports(program))
    ran = message_of(lambda: run_program(program, inputs, check=False, limits=LIMITS))
    wrong = ("out of bounds", "deadlock", "at the end", "the limit is")
    assert not found.is_proven or not any(text in ran for text in wrong)


def check(path: Path, seed: int) -> bool:
    """Follow one wrong program through everything; return whether it could be read."""
    contents = case(path, seed)
    if contents is None:
        return False
    programs: list[Program] = []
    if message_of(lambda: programs.append(read_program(contents))):
        return False
    (program,) = programs
    found = verify(program, max_steps=20_000, max_instructions=LIMITS.instructions)
    assert [f.property for f in found.findings] == list(Property)
    assert all(f.detail for f in found.findings)
    # only order and initialisation are left to the full verification
    cheap = any(f.verdict is Verdict.REFUTED for f in found.findings[:5])
    assert bool(message_of(lambda: require_valid(program))) == cheap
    execute(program, found)
    return True


@pytest.mark.parametrize("first", range(0, 160, 40))
def test_wrong_programs_end_with_a_clear_error_or_a_result(program_file: Path, first: int) -> None:
    read = [check(program_file, seed) for seed in range(first, first + 40)]
    # cases that are refused at once would test nothing but the reader
    assert 5 <= sum(read) <= 35


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 7000, 500))
def test_many_wrong_programs(program_file: Path, first: int) -> None:
    assert sum(check(program_file, seed) for seed in range(first, first + 500)) > 50


@pytest.mark.slow
def test_wrong_programs_of_two_groups(cnn: Path, tmp_path: Path) -> None:
    done = api.compile(cnn, "toy", dims={"batch": 2}, stages=2)
    assert done.program is not None
    path = api.save(done.program, tmp_path / "two.twp")
    assert sum(check(path, seed) for seed in range(1500)) > 150


def test_a_target_in_the_header_is_checked(program_file: Path) -> None:
    """A machine of a billion tiles kept the simulator busy for minutes."""
    contents = program_file.read_bytes()
    size = int.from_bytes(contents[16:20], "little")
    header = contents[24 : 24 + size]
    assert header.count(b'"size":4') == 2
    for old, new, message in (
        (b'"size":4', b'"size":99999', "header: target 'toy' in the header: axes"),
        (b'"clock_ghz":1.0', b'"clock_ghz":1e300', "clock_ghz: found 1e"),
        (b'"clock_ghz":1.0', b'"clock_ghz":0.0', "clock_ghz"),
    ):
        changed = header.replace(old, new)
        length = len(changed).to_bytes(4, "little")
        rest = bytes(-(24 + len(changed)) % 64) + contents[24 + size :].lstrip(b"\0")
        with pytest.raises(ProgramError, match=message):
            read_program(sealed(contents[:16] + length + bytes(4) + changed + rest))


def test_a_program_for_another_target_is_refused(program_file: Path) -> None:
    """A stream for 16 tiles does not run on 8, nor one for large scratchpads on small ones."""
    program = original(program_file)
    target = program.target
    small = target.tile.sram.model_copy(update={"size_bytes": 1024})
    other = target.model_copy(
        update={"tile": target.tile.model_copy(update={"sram": small}), "name": "small"}
    )
    with pytest.raises(ProgramError, match="scratchpad bytes, expected at most 1024"):
        program_bytes(replace(program, target=other))
    axes = (target.axes[0], target.axes[1].model_copy(update={"size": 2}))
    narrow = target.model_copy(update={"axes": axes})
    with pytest.raises(ProgramError, match="group 0: tile ids, expected distinct tiles"):
        program_bytes(replace(program, target=narrow))

"""Counted loops: fold repeated instructions of a stream into LOOP/END and back, without loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from tilewright.errors import ProgramError
from tilewright.lowering.isa import MAX_LOOP_DEPTH, Access, Instruction, Opcode

MAX_BODY = 64
"""Longest loop body, in instructions, that `roll` looks for."""

MAX_UNROLLED = 4_000_000
"""Instructions of one stream that `unroll` is willing to produce."""

Stream = tuple[Instruction, ...]
IntArray = NDArray[np.int64]

_OPERANDS = 4


def _moved(access: Access, iteration: tuple[int, ...]) -> Access:
    """Return the access of one loop iteration, without steps."""
    if not access.steps:
        return access
    # levels that the access does not mention stand still
    offset = sum(i * step for i, step in zip(iteration, access.steps, strict=False))
    return Access(
        access.space, access.dtype, access.base + offset, access.coefficients, access.strides
    )


def _with_accesses(
    old: Instruction, dst: Access | None, sources: tuple[Access, ...]
) -> Instruction:
    # several times faster than dataclasses.replace, which matters for 100,000 instructions
    return Instruction(
        opcode=old.opcode,
        engine=old.engine,
        domain=old.domain,
        dst=dst,
        sources=sources,
        fn=old.fn,
        immediates=old.immediates,
        accumulate=old.accumulate,
        axes=old.axes,
        shift=old.shift,
        count=old.count,
        waits=old.waits,
        posts=old.posts,
        tag=old.tag,
    )


def _iterate(instruction: Instruction, iteration: tuple[int, ...]) -> Instruction:
    dst, sources = instruction.dst, instruction.sources
    if not (dst is not None and dst.steps) and not any(s.steps for s in sources):
        return instruction
    moved = None if dst is None else _moved(dst, iteration)
    return _with_accesses(instruction, moved, tuple(_moved(s, iteration) for s in sources))


def matching_ends(stream: Sequence[Instruction]) -> dict[int, int]:
    """Return the position of the END of each LOOP.

    Raises:
        ProgramError: LOOP and END do not match, or are nested too deeply.
    """
    ends: dict[int, int] = {}
    opened: list[int] = []
    for position, instruction in enumerate(stream):
        if instruction.opcode == Opcode.LOOP:
            opened.append(position)
            if len(opened) > MAX_LOOP_DEPTH:
                found = f"found loops nested {len(opened)} deep"
                raise ProgramError(
                    f"instruction {position}: {found}, expected at most {MAX_LOOP_DEPTH}"
                )
        elif instruction.opcode == Opcode.END:
            if not opened:
                raise ProgramError(f"instruction {position}: END without a LOOP")
            ends[opened.pop()] = position
    if opened:
        raise ProgramError(f"instruction {opened[-1]}: LOOP without an END")
    return ends


def unrolled_length(stream: Sequence[Instruction]) -> int:
    """Return the number of instructions that a stream executes, loops unrolled.

    Raises:
        ProgramError: Loops are malformed.
    """
    matching_ends(stream)
    times, total = [1], 0
    for instruction in stream:
        if instruction.opcode == Opcode.LOOP:
            times.append(times[-1] * instruction.count)
        elif instruction.opcode == Opcode.END:
            times.pop()
        else:
            total += times[-1]
    return total


def unroll(stream: Sequence[Instruction], max_instructions: int = MAX_UNROLLED) -> Stream:
    """Return the instructions in the order in which the engine executes them, without loops.

    Raises:
        ProgramError: Loops are malformed, or there are more than `max_instructions`.
    """
    ends = matching_ends(stream)
    if not ends:
        return tuple(stream)
    out: list[Instruction] = []
    is_work = (i.opcode not in (Opcode.LOOP, Opcode.END) for i in stream)
    work = [0, *accumulate(is_work)]

    def emit(start: int, stop: int, iteration: tuple[int, ...]) -> None:
        position = start
        while position < stop:
            instruction = stream[position]
            if instruction.opcode == Opcode.LOOP:
                end = ends[position]
                if instruction.count > max_instructions:
                    found = f"found {instruction.count} iterations"
                    raise ProgramError(
                        f"instruction {position}: {found}, expected at most {max_instructions}"
                    )
                # a body without work could repeat for ever without reaching the limit
                for i in range(instruction.count if work[end] > work[position] else 0):
                    emit(position + 1, end, (*iteration, i))
                position = end
            else:
                out.append(_iterate(instruction, iteration))
            position += 1
        if len(out) > max_instructions:
            raise ProgramError(f"the stream unrolls to more than {max_instructions} instructions")

    emit(0, len(stream), ())
    return tuple(out)


def _accesses(instruction: Instruction) -> tuple[Access, ...]:
    return (
        instruction.sources if instruction.dst is None else (instruction.dst, *instruction.sources)
    )


def _layout(access: Access) -> tuple[object, ...]:
    return (access.space, access.dtype, access.coefficients, access.strides, access.steps)


def _tables(stream: Sequence[Instruction]) -> tuple[IntArray, IntArray]:
    """Return, for each instruction, the number of its step-invariant key [n] and its bases [n, 4]."""
    numbers: dict[object, int] = {}
    keys = np.empty(len(stream), np.int64)
    bases = np.zeros((len(stream), _OPERANDS), np.int64)
    for row, i in enumerate(stream):
        accesses = _accesses(i)
        if len(accesses) > _OPERANDS:
            raise ProgramError(
                f"instruction {row}: {len(i.sources)} sources, the limit is {_OPERANDS - 1}"
            )
        # the sign of a zero and the bits of a NaN are part of an immediate
        immediates = tuple(float(x).hex() for x in i.immediates)
        head = (
            i.opcode,
            i.engine,
            i.domain,
            i.fn,
            immediates,
            i.accumulate,
            i.axes,
            i.shift,
            i.count,
        )
        layouts = tuple(_layout(a) for a in accesses)
        key = (*head, i.waits, i.posts, i.tag, i.dst is None, layouts)
        keys[row] = numbers.setdefault(key, len(numbers))
        for column, access in enumerate(accesses):
            bases[row, column] = access.base
    return keys, bases


def _true_runs(flags: NDArray[np.bool_]) -> IntArray:
    """Return, for each position, how many consecutive flags from there on are true."""
    n = len(flags)
    position = np.arange(n, dtype=np.int64)
    next_false = np.where(flags, n, position)
    return np.minimum.accumulate(next_false[::-1])[::-1] - position


def _repeats(keys: IntArray, bases: IntArray, body: int) -> IntArray:
    """Return, for each position, how often the body that starts there is repeated (1: not at all)."""
    n = len(keys)
    out = np.ones(n, np.int64)
    if n < 2 * body:
        return out
    same = keys[:-body] == keys[body:]
    if not same.any():
        return out
    delta = bases[body:] - bases[:-body]
    steady = np.zeros(n - body, np.bool_)
    if n > 2 * body:
        steady[:-body] = same[:-body] & same[body:] & (delta[:-body] == delta[body:]).all(axis=1)
    same_run, steady_run = _true_runs(same), _true_runs(steady)
    count = np.minimum(same_run // body + 1, steady_run // body + 2)
    out[: n - body] = np.where(same_run >= body, count, 1)
    return out


@dataclass(frozen=True, slots=True)
class _Choice:
    """How to choose among the repeated bodies that start at one position."""

    smallest: bool
    """The smallest body rather than the one with the best ratio of compression."""
    min_count: int
    """Fewest iterations; two iterations always have a constant step, which means little."""


def _best_bodies(
    stream: Sequence[Instruction], keys: IntArray, bases: IntArray, choice: _Choice
) -> tuple[IntArray, IntArray]:
    """Return, for each position, the length of the body to repeat from there and its iterations."""
    n = len(stream)
    opens = np.fromiter((i.opcode == Opcode.LOOP for i in stream), np.int64, n)
    closes = np.fromiter((i.opcode == Opcode.END for i in stream), np.int64, n)
    nesting = np.concatenate(([0], np.cumsum(opens - closes)))
    best_ratio = np.zeros(n)
    best_body = np.ones(n, np.int64)
    best_count = np.ones(n, np.int64)
    for body in range(1, min(MAX_BODY, n // 2) + 1):
        count = _repeats(keys, bases, body)
        # a body starts and ends outside all loops, so that LOOP and END stay balanced
        outside = (nesting[: n - body + 1] == 0) & (nesting[body:] == 0)
        count[: n - body + 1][~outside] = 1
        ratio = (body * (count - 1) - 2) / (body * count)
        better = (ratio > best_ratio) & (count >= choice.min_count)
        if choice.smallest:
            better &= best_count == 1
        best_ratio[better], best_body[better], best_count[better] = (
            ratio[better],
            body,
            count[better],
        )
    return best_body, best_count


def _stepped(instruction: Instruction, later: Instruction, *, inner: bool) -> Instruction:
    """Return the instruction with one more loop step: the distance to its next iteration."""

    def step(access: Access, next_access: Access) -> Access:
        distance = (next_access.base - access.base,)
        steps = (*access.steps, *distance) if inner else (*distance, *access.steps)
        return Access(
            access.space, access.dtype, access.base, access.coefficients, access.strides, steps
        )

    if not _accesses(instruction):
        return instruction
    dst = instruction.dst
    moved = None if dst is None or later.dst is None else step(dst, later.dst)
    sources = tuple(step(a, b) for a, b in zip(instruction.sources, later.sources, strict=True))
    return _with_accesses(instruction, moved, sources)


def _fold(stream: Stream, choice: _Choice, *, inner: bool = False) -> Stream:
    """Fold repeats into loops, around those that are there or (`inner`) within the body of one."""
    keys, bases = _tables(stream)
    body_at, count_at = _best_bodies(stream, keys, bases, choice)
    bodies, counts = body_at.tolist(), count_at.tolist()
    out: list[Instruction] = []
    position = 0
    while position < len(stream):
        body, count = bodies[position], counts[position]
        first = stream[position]
        if count == 1:
            out.append(first)
            position += 1
            continue
        out.append(Instruction(opcode=Opcode.LOOP, engine=first.engine, count=count))
        for offset in range(position, position + body):
            out.append(_stepped(stream[offset], stream[offset + body], inner=inner))
        out.append(Instruction(opcode=Opcode.END, engine=first.engine))
        position += body * count
    return tuple(out)


def _fold_bodies(stream: Stream) -> Stream:
    """Fold repeats within the bodies of loops that hold no loops yet."""
    out: list[Instruction] = []
    position = 0
    for start, end in sorted(matching_ends(stream).items()):
        out += stream[position : start + 1]
        out += _fold(stream[start + 1 : end], _Choice(smallest=False, min_count=2), inner=True)
        position = end
    out += stream[position:]
    return tuple(out)


def roll(stream: Sequence[Instruction]) -> Stream:
    """Fold runs of repeated bodies, whose accesses move by constant steps, into LOOP/END.

        LD a+0; MM a; LD a+64; MM a; LD a+128; MM a  ->  LOOP 3; LD a+0 (+64 per iteration); MM a; END

    `unroll` gives back the same stream. A stream that has loops already is returned unchanged.
    """
    plain = tuple(stream)
    if any(i.opcode in (Opcode.LOOP, Opcode.END) for i in plain):
        return plain
    # from the inside out, and from the outside in; neither is better for all nests
    inside = _fold(plain, _Choice(smallest=True, min_count=3))
    first = _fold(inside, _Choice(smallest=False, min_count=2))
    outside = _fold_bodies(_fold(plain, _Choice(smallest=False, min_count=3)))
    return min(first, outside, key=len)

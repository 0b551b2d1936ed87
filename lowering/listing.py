"""Instructions as text: the lines of the assembly language and short listings for reports."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tilewright.lowering.isa import Access, Engine, Instruction, Opcode
from tilewright.lowering.program import Streams


def _list(numbers: Iterable[int]) -> str:
    return ",".join(map(str, numbers))


def format_access(access: Access, axes: int) -> str:
    """Write an access: type@space+base{coefficients}(strides)<steps>.

    Coefficients that are 0 for all `axes` mesh axes are left out, and so are empty lists.

    >>> from tilewright.dtypes import DType
    >>> from tilewright.lowering.isa import Space
    >>> format_access(Access(Space.L1, DType.F32, 512, (0, 64), (16, 4)), 2)
    'f32@L1+0x200{0,64}(16,4)'
    """
    text = (
        f"{access.dtype}@{access.space.name}{'-' if access.base < 0 else '+'}{abs(access.base):#x}"
    )
    if access.coefficients != (0,) * axes:
        text += f"{{{_list(access.coefficients)}}}"
    if access.strides:
        text += f"({_list(access.strides)})"
    if access.steps:
        text += f"<{_list(access.steps)}>"
    return text


def _operands(i: Instruction, axes: int) -> Iterator[str]:
    if i.domain:
        yield f"[{_list(i.domain)}]"
    if i.dst is not None or i.sources or i.accumulate:
        yield "_" if i.dst is None else format_access(i.dst, axes)
        yield "+=" if i.accumulate else "="
        yield from (format_access(s, axes) for s in i.sources)


def format_instruction(i: Instruction, axes: int, tags: Sequence[str] = ()) -> str:
    """Write an instruction as one line of assembly.

    Args:
        i: The instruction.
        axes: Number of mesh axes of its group.
        tags: Names of plan steps, for the comment.
    """
    parts = [i.engine.name, i.opcode.name + (f".{i.fn}" if i.fn else ""), *_operands(i, axes)]
    first, second = i.immediates
    # repr tells 0.0 from -0.0
    if (repr(float(first)), repr(float(second))) != ("0.0", "0.0"):
        parts.append(f"imm {float(first)!r} {float(second)!r}")
    for name, value in (("axes", i.axes), ("shift", i.shift), ("count", i.count)):
        if value:
            parts.append(f"{name} {value}")
    parts += [f"wait s{w.semaphore}x{w.count}" for w in i.waits]
    parts += [f"post {'r' if p.remote else 's'}{p.semaphore}x{p.count}" for p in i.posts]
    if i.tag:
        parts.append(f"tag {i.tag}")
        if i.tag <= len(tags):
            # a name with a line break must not start a new line
            parts.append("; " + " ".join(tags[i.tag - 1].split()))
    return " ".join(parts)


def format_stream(
    stream: Sequence[Instruction], axes: int, tags: Sequence[str] = ()
) -> Iterator[str]:
    """Yield the lines of a stream; loop bodies are indented."""
    depth = 0
    for instruction in stream:
        if instruction.opcode == Opcode.END:
            depth = max(0, depth - 1)
        yield "  " * (depth + 1) + format_instruction(instruction, axes, tags)
        if instruction.opcode == Opcode.LOOP:
            depth += 1


def listing(streams: Streams, limit: int, tags: Sequence[str] = ()) -> str:
    """Return a listing of all engines for people, at most `limit` instructions of each."""
    lines: list[str] = []
    for engine in Engine:
        stream = streams.get(engine, ())
        if not stream:
            continue
        lines.append(f"{engine.name}: {len(stream)} instructions")
        operands = [a for i in stream for a in (*i.sources, *((i.dst,) if i.dst else ()))]
        axes = len(operands[0].coefficients) if operands else 0
        lines += format_stream(stream[:limit], axes, tags)
        if len(stream) > limit:
            lines.append(f"  … {len(stream) - limit} more")
    return "\n".join(lines)

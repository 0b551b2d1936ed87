"""The assembly language: whole programs as text, and back without loss.

    .tilewright 1
    .program {header as one line of JSON}
    .stream 0 run ME
      ME LOOP count 4
        ME MM [64,8,32] f32@L1+0x1000(32,4,0) += f32@L1+0x0(128,0,4)<256> f32@L1+0x800(0,4,32) post s7x1
      ME END
      ME HALT
    .model 0
    (base64)
    .constant 0
    (base64)

One instruction a line: engine, opcode[.function], [domain], dst = sources (+= accumulates), then named
fields. An access is type@space+base{coefficients}(strides)<loop steps>; coefficients left out are
all 0. `wait s3x1` takes 1 from semaphore 3; `post s7x1` adds 1 here, `post r7x1` on other tiles. A semicolon
starts a comment.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from tilewright.dtypes import DType
from tilewright.errors import ProgramError
from tilewright.graph import Array
from tilewright.lowering.isa import Access, Engine, Instruction, Opcode, Post, Space, Wait
from tilewright.lowering.listing import format_stream, listing
from tilewright.lowering.program import Program
from tilewright.lowering.program_file import constant_array, constant_bytes, make_program
from tilewright.lowering.program_header import (
    HeaderRecord,
    header_record,
    header_text,
    parse_header,
)

__all__ = ["assemble", "disassemble", "listing", "parse_instruction"]

_VERSION_LINE = ".tilewright 1"
_LINE_BYTES = 96
_ACCESS = re.compile(
    r"(?P<type>[a-z0-9]+)@(?P<space>L1|DRAM)(?P<sign>[+-])(?P<base>0x[0-9a-f]+)"
    r"(?:\{(?P<coefficients>[-0-9,]*)\})?(?:\((?P<strides>[-0-9,]+)\))?(?:<(?P<steps>[-0-9,]+)>)?"
)
_SEMAPHORE = re.compile(r"([sr])(\d+)x(\d+)")


def _base64_lines(data: bytes) -> Iterator[str]:
    for start in range(0, len(data), _LINE_BYTES):
        yield base64.b64encode(data[start : start + _LINE_BYTES]).decode()


def disassemble(program: Program, *, data: bool = True) -> str:
    """Write a program as text that `assemble` reads back.

    Args:
        program: The program.
        data: Whether to include host models and constants; without them the text is for reading only.
    """
    lines = [_VERSION_LINE, f".program {header_text(header_record(program))}"]
    for number, group in enumerate(program.groups):
        for phase, streams in (("load", group.load), ("run", group.run)):
            for engine in Engine:
                if engine in streams:
                    lines.append(f".stream {number} {phase} {engine.name}")
                    lines += format_stream(streams[engine], group.mesh.rank, program.tags)
    if data:
        for number, region in enumerate(program.host_regions):
            lines.append(f".model {number}")
            lines += _base64_lines(region.model.model_bytes)
        for number, (_, array) in enumerate(program.constants):
            lines.append(f".constant {number}")
            lines += _base64_lines(bytes(constant_bytes(array)))
    return "\n".join(lines) + "\n"


def _integers(text: str | None) -> tuple[int, ...]:
    return tuple(int(x) for x in text.split(",")) if text else ()


def _parse_access(text: str, axes: int) -> Access:
    match = _ACCESS.fullmatch(text)
    if match is None:
        raise ValueError(f"found '{text}', expected an access like f32@L1+0x40(4)")
    base = int(match["base"], 16) * (-1 if match["sign"] == "-" else 1)
    coefficients = (
        (0,) * axes if match["coefficients"] is None else _integers(match["coefficients"])
    )
    return Access(
        Space[match["space"]],
        DType(match["type"]),
        base,
        coefficients,
        _integers(match["strides"]),
        _integers(match["steps"]),
    )


@dataclass(slots=True)
class _Words:
    """The words of a line, to be taken one by one."""

    words: list[str]
    position: int = 0

    def peek(self) -> str:
        return self.words[self.position] if self.position < len(self.words) else ""

    def take(self) -> str:
        word = self.peek()
        if not word:
            raise ValueError("found the end of the line, expected more")
        self.position += 1
        return word

    def starts(self, prefix: str) -> bool:
        return self.peek().startswith(prefix)


@dataclass(slots=True)
class _Fields:
    immediates: tuple[float, float] = (0.0, 0.0)
    numbers: dict[str, int] = field(default_factory=dict)
    waits: list[Wait] = field(default_factory=list)
    posts: list[Post] = field(default_factory=list)


def _parse_fields(words: _Words) -> _Fields:
    fields = _Fields()
    while words.peek():
        name = words.take()
        if name == "imm":
            fields.immediates = (float(words.take()), float(words.take()))
        elif name in ("wait", "post"):
            word = words.take()
            match = _SEMAPHORE.fullmatch(word)
            if match is None or (name == "wait" and match[1] == "r"):
                raise ValueError(f"found '{word}', expected a semaphore like s3x1")
            if name == "wait":
                fields.waits.append(Wait(int(match[2]), int(match[3])))
            else:
                fields.posts.append(Post(int(match[2]), int(match[3]), remote=match[1] == "r"))
        elif name in ("axes", "shift", "count", "tag") and name not in fields.numbers:
            fields.numbers[name] = int(words.take())
        else:
            raise ValueError(
                f"found '{name}', expected imm, axes, shift, count, wait, post or tag, each number once"
            )
    return fields


def parse_instruction(line: str, axes: int) -> Instruction:
    """Read one line of assembly.

    Args:
        line: The line, without a comment.
        axes: Number of mesh axes of the group.

    Raises:
        ValueError: The line is malformed (KeyError for unknown names).
    """
    words = _Words(line.split())
    engine = Engine[words.take()]
    head, _, fn = words.take().partition(".")
    opcode = Opcode[head]
    domain: tuple[int, ...] = ()
    if words.starts("["):
        domain = _integers(words.take()[1:].removesuffix("]"))
    dst: Access | None = None
    sources: list[Access] = []
    accumulate = False
    if "@" in words.peek() or words.peek() == "_":
        place = words.take()
        dst = None if place == "_" else _parse_access(place, axes)
        sign = words.take()
        if sign not in ("=", "+="):
            raise ValueError(f"found '{sign}', expected = or +=")
        accumulate = sign == "+="
        while "@" in words.peek():
            sources.append(_parse_access(words.take(), axes))
    fields = _parse_fields(words)
    return Instruction(
        opcode=opcode,
        engine=engine,
        domain=domain,
        dst=dst,
        sources=tuple(sources),
        fn=fn,
        immediates=fields.immediates,
        accumulate=accumulate,
        waits=tuple(fields.waits),
        posts=tuple(fields.posts),
        axes=fields.numbers.get("axes", 0),
        shift=fields.numbers.get("shift", 0),
        count=fields.numbers.get("count", 0),
        tag=fields.numbers.get("tag", 0),
    )


@dataclass(slots=True)
class _Source:
    """The sections of an assembly text, each a list of (line number, line)."""

    header: HeaderRecord | None = None
    sections: dict[tuple[str, ...], list[tuple[int, str]]] = field(default_factory=dict)

    def take(self, *name: str) -> list[tuple[int, str]]:
        try:
            return self.sections.pop(name)
        except KeyError:
            raise ProgramError(f"section '.{' '.join(name)}' is missing") from None


def _split(text: str) -> _Source:
    source = _Source()
    current: list[tuple[int, str]] | None = None
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip()
        if number == 1:
            if line != _VERSION_LINE:
                raise ProgramError(f"line 1: found '{line[:40]}', expected '{_VERSION_LINE}'")
        elif line.startswith(".program "):
            if source.header is not None:
                raise ProgramError(f"line {number}: found a second .program, expected one")
            source.header = parse_header(line.removeprefix(".program "))
        elif line.startswith("."):
            name = tuple(line[1:].split())
            if name in source.sections:
                raise ProgramError(f"line {number}: found a second '{line}', expected one")
            current = source.sections[name] = []
        elif line and not line.startswith(";"):
            if current is None:
                raise ProgramError(
                    f"line {number}: found '{line[:40]}', expected a section like .stream 0 run ME"
                )
            current.append((number, line))
    return source


def _stream(lines: list[tuple[int, str]], axes: int) -> tuple[Instruction, ...]:
    stream = []
    for number, line in lines:
        try:
            stream.append(parse_instruction(line.partition(";")[0], axes))
        except KeyError as error:
            raise ProgramError(
                f"line {number}: found {error}, expected a known engine and opcode"
            ) from error
        except (ValueError, OverflowError) as error:
            raise ProgramError(f"line {number}: {error}") from error
    return tuple(stream)


def _data(lines: list[tuple[int, str]]) -> bytes:
    try:
        return b"".join(base64.b64decode(line, validate=True) for _, line in lines)
    except (binascii.Error, ValueError) as error:
        raise ProgramError(
            f"line {lines[0][0]}: found bad base64, expected lines of it: {error}"
        ) from error


def assemble(text: str) -> Program:
    """Read a program from text.

    Raises:
        ProgramError: The text or the program is malformed.
    """
    source = _split(text)
    header = source.header
    if header is None:
        raise ProgramError("section '.program' is missing")
    streams = []
    for number, group in enumerate(header.groups):
        for phase, engines in (("load", group.load), ("run", group.run)):
            for engine in engines:
                if not 0 <= engine < len(Engine):
                    raise ProgramError(
                        f"header: found engine {engine}, expected one below {len(Engine)}"
                    )
                lines = source.take("stream", str(number), phase, Engine(engine).name)
                streams.append(_stream(lines, len(group.sizes)))
    models = tuple(_data(source.take("model", str(k))) for k in range(len(header.host_regions)))
    constants: list[Array] = []
    for number, record in enumerate(header.constants):
        constants.append(constant_array(record, _data(source.take("constant", str(number)))))
    if source.sections:
        names = ", ".join("." + " ".join(name) for name in source.sections)
        raise ProgramError(f"found sections {names}, expected only those that the header announces")
    return make_program(header, tuple(streams), models, tuple(constants))

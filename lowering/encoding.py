"""The binary form of streams: 64-byte instruction words and shared tables of descriptors.

A word names its domain and its accesses by their position in tables that hold each distinct
entry once. An access consists of space, element type, base and the number of a layout; a layout holds
coefficients, strides and loop steps, which many accesses share. Everything is little-endian and
every value is checked to fit.

`records.py` defines the records, ISA.md shows them. Fields that the flags declare absent are zero.
"""

from __future__ import annotations

import struct
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

from tilewright.dtypes import DType
from tilewright.errors import ProgramError
from tilewright.lowering.isa import (
    FUNCTIONS,
    MAX_AXES,
    MAX_LOOP_DEPTH,
    MAX_RANK,
    Access,
    Engine,
    Instruction,
    Opcode,
    Post,
    Space,
    Wait,
)
from tilewright.lowering.records import ACCESS, DOMAIN, LAYOUT, WORD

_MAX_SOURCES = 3
_CODES = {fn: number + 1 for number, fn in enumerate(FUNCTIONS)}

Layout = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Encoded:
    """Encoded streams with their tables."""

    domains: bytes
    layouts: bytes
    accesses: bytes
    streams: tuple[bytes, ...]


class _Table[T: Hashable]:
    """Numbers distinct entries in order of their first use."""

    def __init__(self) -> None:
        self.numbers: dict[T, int] = {}

    def number(self, entry: T) -> int:
        return self.numbers.setdefault(entry, len(self.numbers))


def _padded(values: tuple[int, ...], length: int, what: str) -> tuple[int, ...]:
    if len(values) > length:
        raise ProgramError(f"{what}: found {len(values)} entries, expected at most {length}")
    return (*values, *(0,) * (length - len(values)))


def _pack(form: struct.Struct, what: str, *values: object) -> bytes:
    try:
        return form.pack(*values)
    except struct.error as error:
        raise ProgramError(
            f"{what}: a value does not fit its field: {error}; found {values}"
        ) from error


def _encode_domain(domain: tuple[int, ...]) -> bytes:
    return _pack(DOMAIN, "domain", len(domain), *_padded(domain, MAX_RANK, "domain"))


def _encode_layout(layout: Layout) -> bytes:
    coefficients, strides, steps = layout
    return _pack(
        LAYOUT,
        "access",
        len(coefficients),
        len(strides),
        len(steps),
        0,
        *_padded(coefficients, MAX_AXES, "coefficients"),
        *_padded(strides, MAX_RANK, "strides"),
        *_padded(steps, MAX_LOOP_DEPTH, "steps"),
    )


class Encoder:
    """Encodes streams into common tables."""

    def __init__(self) -> None:
        self._domains = _Table[tuple[int, ...]]()
        self._layouts = _Table[Layout]()
        self._accesses = _Table[tuple[Space, DType, int, int]]()
        self._streams: list[bytes] = []

    def add(self, stream: Iterable[Instruction]) -> None:
        """Encode one stream.

        Raises:
            ProgramError: A field does not fit.
        """
        words = []
        for position, instruction in enumerate(stream):
            try:
                words.append(self._word(instruction))
            except ProgramError as error:
                raise ProgramError(
                    f"instruction {position} {instruction.opcode.name}: {error}"
                ) from error
        self._streams.append(b"".join(words))

    def finish(self) -> Encoded:
        """Return the streams in the order in which they were added, and the tables."""
        accesses = (
            _pack(ACCESS, "access", space, dtype.code, 0, layout, base)
            for space, dtype, layout, base in self._accesses.numbers
        )
        return Encoded(
            b"".join(map(_encode_domain, self._domains.numbers)),
            b"".join(map(_encode_layout, self._layouts.numbers)),
            b"".join(accesses),
            tuple(self._streams),
        )

    def _access(self, access: Access) -> int:
        layout = self._layouts.number((access.coefficients, access.strides, access.steps))
        return self._accesses.number((access.space, access.dtype, layout, access.base))

    def _word(self, i: Instruction) -> bytes:
        if len(i.sources) > _MAX_SOURCES or len(i.waits) > 2 or len(i.posts) > 2:
            counts = f"{len(i.sources)} sources, {len(i.waits)} waits, {len(i.posts)} posts"
            raise ProgramError(f"found {counts}, expected at most 3, 2 and 2")
        if i.fn and i.fn not in _CODES:
            raise ProgramError(f"function '{i.fn}' has no code")
        flags = (
            i.accumulate
            | (i.dst is not None) << 1
            | len(i.sources) << 2
            | len(i.waits) << 4
            | len(i.posts) << 6
        )
        for number, post in enumerate(i.posts):
            flags |= post.remote << 8 + number
        sources = [self._access(s) for s in i.sources]
        entries = [*i.waits, *(None,) * (2 - len(i.waits)), *i.posts, *(None,) * (2 - len(i.posts))]
        semaphores = [x for e in entries for x in ((0, 0) if e is None else (e.semaphore, e.count))]
        return _pack(
            WORD,
            "word",
            i.opcode,
            i.engine,
            _CODES.get(i.fn, 0),
            i.axes,
            flags,
            i.shift,
            i.count,
            i.tag,
            self._domains.number(i.domain),
            0 if i.dst is None else self._access(i.dst),
            *sources,
            *(0,) * (_MAX_SOURCES - len(sources)),
            *i.immediates,
            *semaphores,
        )


def _fail(table: str, offset: int, found: object, expected: str) -> ProgramError:
    return ProgramError(f"{table} at byte {offset}: found {found}, expected {expected}")


def _rows(form: struct.Struct, data: bytes, table: str) -> Iterable[tuple[int, ...]]:
    if len(data) % form.size:
        raise _fail(table, len(data), f"{len(data)} bytes", f"a multiple of {form.size}")
    return form.iter_unpack(data)


def _trimmed(values: tuple[int, ...], length: int, table: str, offset: int) -> tuple[int, ...]:
    if length > len(values):
        raise _fail(table, offset, f"{length} entries", f"at most {len(values)}")
    if any(values[length:]):
        raise _fail(table, offset, values, f"zeros after {length} entries")
    return values[:length]


def _decode_domains(data: bytes) -> list[tuple[int, ...]]:
    found = []
    for number, (rank, *sizes) in enumerate(_rows(DOMAIN, data, "domains")):
        found.append(_trimmed(tuple(sizes), rank, "domains", number * DOMAIN.size))
    return found


def _decode_layouts(data: bytes) -> list[Layout]:
    found = []
    second, third = MAX_AXES, MAX_AXES + MAX_RANK
    for number, (axes, rank, depth, zero, *values) in enumerate(_rows(LAYOUT, data, "layouts")):
        offset = number * LAYOUT.size
        if zero:
            raise _fail("layouts", offset + 3, zero, "0")
        coefficients = _trimmed(tuple(values[:second]), axes, "layouts", offset)
        strides = _trimmed(tuple(values[second:third]), rank, "layouts", offset)
        found.append(
            (coefficients, strides, _trimmed(tuple(values[third:]), depth, "layouts", offset))
        )
    return found


def _decode_accesses(data: bytes, layouts: list[Layout]) -> list[Access]:
    found = []
    for number, (space, code, zero, layout, base) in enumerate(_rows(ACCESS, data, "accesses")):
        offset = number * ACCESS.size
        try:
            dtype = DType.from_code(code)
            place = Space(space)
        except (KeyError, ValueError):
            raise _fail("accesses", offset, f"space {space}, type {code}", "known codes") from None
        if zero:
            raise _fail("accesses", offset + 2, zero, "0")
        if layout >= len(layouts):
            raise _fail("accesses", offset + 4, layout, f"a layout below {len(layouts)}")
        coefficients, strides, steps = layouts[layout]
        found.append(Access(place, dtype, base, coefficients, strides, steps))
    return found


class _Decoder:
    """Decodes words of one set of tables."""

    def __init__(self, encoded: Encoded) -> None:
        self._domains = _decode_domains(encoded.domains)
        self._accesses = _decode_accesses(encoded.accesses, _decode_layouts(encoded.layouts))

    def stream(self, data: bytes, name: str) -> tuple[Instruction, ...]:
        """Decode one stream."""
        rows = _rows(WORD, data, name)
        return tuple(self._instruction(row, name, k * WORD.size) for k, row in enumerate(rows))

    def _access(self, number: int, name: str, offset: int) -> Access:
        if number >= len(self._accesses):
            raise _fail(name, offset, f"access {number}", f"below {len(self._accesses)}")
        return self._accesses[number]

    def _instruction(self, row: tuple[int, ...], name: str, offset: int) -> Instruction:
        (
            opcode,
            engine,
            fn,
            axes,
            flags,
            shift,
            count,
            tag,
            domain,
            dst,
            s0,
            s1,
            s2,
            imm0,
            imm1,
            *pairs,
        ) = row
        numbers = (s0, s1, s2)
        n_sources, n_waits, n_posts = flags >> 2 & 3, flags >> 4 & 3, flags >> 6 & 3
        if flags >> 10 or n_waits > 2 or n_posts > 2 or flags >> 8 + n_posts:
            raise _fail(name, offset + 4, f"flags {flags:#x}", "known flags")
        if any(numbers[n_sources:]) or (not flags & 2 and dst):
            raise _fail(
                name, offset + 20, f"operands {(dst, *numbers)}", "zeros for those that are absent"
            )
        if domain >= len(self._domains):
            raise _fail(name, offset + 16, f"domain {domain}", f"below {len(self._domains)}")
        if fn > len(FUNCTIONS):
            raise _fail(name, offset + 2, f"function {fn}", f"at most {len(FUNCTIONS)}")
        try:
            code, queue = Opcode(opcode), Engine(engine)
        except ValueError:
            raise _fail(name, offset, f"opcode {opcode}, engine {engine}", "known codes") from None
        entries = tuple(zip(pairs[::2], pairs[1::2], strict=True))
        if any(entry != (0, 0) for entry in (*entries[n_waits:2], *entries[2 + n_posts :])):
            raise _fail(
                name, offset + 52, f"semaphores {entries}", "zeros for those that are absent"
            )
        posts = (
            Post(*e, remote=bool(flags >> 8 + k & 1))
            for k, e in enumerate(entries[2 : 2 + n_posts])
        )
        return Instruction(
            opcode=code,
            engine=queue,
            domain=self._domains[domain],
            dst=self._access(dst, name, offset + 20) if flags & 2 else None,
            sources=tuple(self._access(s, name, offset + 24) for s in numbers[:n_sources]),
            fn=FUNCTIONS[fn - 1] if fn else "",
            immediates=(imm0, imm1),
            accumulate=bool(flags & 1),
            axes=axes,
            shift=shift,
            count=count,
            waits=tuple(Wait(*e) for e in entries[:n_waits]),
            posts=tuple(posts),
            tag=tag,
        )


def encode(streams: Iterable[Iterable[Instruction]]) -> Encoded:
    """Encode streams with common tables.

    Raises:
        ProgramError: A field does not fit.
    """
    encoder = Encoder()
    for stream in streams:
        encoder.add(stream)
    return encoder.finish()


def decode(encoded: Encoded) -> tuple[tuple[Instruction, ...], ...]:
    """Decode streams; the inverse of `encode`.

    Raises:
        ProgramError: The bytes are no encoded streams.
    """
    decoder = _Decoder(encoded)
    return tuple(decoder.stream(data, f"stream {k}") for k, data in enumerate(encoded.streams))

"""Program files: one self-contained binary with everything that the simulators need.

    magic "TILEWRT1", u32 version, u32 CRC-32 of all that follows, u32 header bytes, u32 zero,
    header (JSON, UTF-8), sections

Each section starts at a multiple of 64 bytes; the header lists their sizes in order: the tables of
domains, layouts and accesses, one section for each stream, host models, constants. Equal
programs give equal bytes. Streams are stored as they are; `tilewright.lowering.loops.roll`
compresses them.
"""

from __future__ import annotations

import os
import struct
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from tilewright.errors import ProgramError
from tilewright.graph import Array, HostModel
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.lowering.encoding import Encoded, decode, encode
from tilewright.lowering.isa import Engine, Instruction
from tilewright.lowering.program import Group, HostRegion, Program, Streams
from tilewright.lowering.program_header import (
    HeaderRecord,
    TensorRecord,
    header_record,
    header_text,
    parse_header,
    stream_count,
    tensor_of,
)
from tilewright.lowering.structure import check_structure, check_values

MAGIC = b"TILEWRT1"
VERSION = 1
ALIGNMENT_BYTES = 64

_HEAD = struct.Struct("<8sIIII")


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def constant_bytes(array: Array) -> bytes | memoryview:
    """Return the bytes of a constant, row-major."""
    # bool, bfloat16 and empty arrays have no buffer of their own format
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data if array.size else b""


def _pieces(program: Program) -> list[bytes | memoryview]:
    """Return the parts of the file after the fixed head."""
    encoded = encode(program.streams)
    models = (region.model.model_bytes for region in program.host_regions)
    data = (constant_bytes(array) for _, array in program.constants)
    sections: list[bytes | memoryview] = [
        encoded.domains,
        encoded.layouts,
        encoded.accesses,
        *encoded.streams,
        *models,
        *data,
    ]
    header = header_text(header_record(program, tuple(map(len, sections)))).encode()
    pieces: list[bytes | memoryview] = [header]
    position = _HEAD.size + len(header)
    for section in sections:
        pieces += [bytes(_aligned(position) - position), section]
        position = _aligned(position) + len(section)
    return pieces


def program_bytes(program: Program) -> bytes:
    """Return the contents of a program's file.

    Raises:
        ProgramError: The program is malformed or a value does not fit its field.
    """
    check_structure(program)
    check_values(program)
    pieces = _pieces(program)
    crc = 0
    for piece in pieces:
        crc = zlib.crc32(piece, crc)
    return b"".join((_HEAD.pack(MAGIC, VERSION, crc, len(pieces[0]), 0), *pieces))


def write_program(program: Program, path: str | os.PathLike[str]) -> None:
    """Write a program's file; an existing one is replaced at once or not at all.

    Raises:
        ProgramError: The program is malformed or a value does not fit its field.
    """
    data, target = program_bytes(program), Path(path)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=target.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        # mkstemp makes files that only their owner can read
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


@dataclass(slots=True)
class _Sections:
    """Hands out the sections of a file in order."""

    data: memoryview
    sizes: tuple[int, ...]
    position: int
    taken: int = 0

    def take(self) -> memoryview:
        if self.taken == len(self.sizes):
            raise ProgramError(f"header: found {len(self.sizes)} sections, expected more")
        start, size = _aligned(self.position), self.sizes[self.taken]
        if start + size > len(self.data):
            found = max(0, len(self.data) - start)
            raise ProgramError(
                f"section {self.taken} at byte {start}: found {found} bytes, expected {size}"
            )
        self.position, self.taken = start + size, self.taken + 1
        return self.data[start : self.position]


def _streams(
    header: HeaderRecord, streams: Iterator[tuple[Instruction, ...]]
) -> Iterator[tuple[Streams, Streams]]:
    for group in header.groups:
        yield (
            MappingProxyType({Engine(e): next(streams) for e in group.load}),
            MappingProxyType({Engine(e): next(streams) for e in group.run}),
        )


def make_program(
    header: HeaderRecord,
    streams: tuple[tuple[Instruction, ...], ...],
    models: tuple[bytes, ...],
    constants: tuple[Array, ...],
) -> Program:
    """Put a program together from its header and its large parts, and check its structure."""
    groups = []
    pairs = _streams(header, iter(streams))
    for record, (load, run) in zip(header.groups, pairs, strict=True):
        mesh = LogicalMesh(record.names, record.sizes)
        groups.append(Group(mesh=mesh, tiles=record.tiles, load=load, run=run))
    regions = []
    for region, model_bytes in zip(header.host_regions, models, strict=True):
        model = HostModel(
            model_bytes=model_bytes,
            input_names=region.input_names,
            input_shapes=region.input_shapes,
            output_names=region.output_names,
            op_types=region.op_types,
            reason=region.reason,
        )
        inputs, outputs = (
            tuple(map(tensor_of, region.inputs)),
            tuple(map(tensor_of, region.outputs)),
        )
        regions.append(HostRegion(model=model, inputs=inputs, outputs=outputs))
    program = Program(
        name=header.name,
        target=header.target,
        groups=tuple(groups),
        inputs=tuple(map(tensor_of, header.inputs)),
        outputs=tuple(map(tensor_of, header.outputs)),
        constants=tuple(zip(map(tensor_of, header.constants), constants, strict=True)),
        host_regions=tuple(regions),
        dram_bytes=header.dram_bytes,
        sram_bytes=header.sram_bytes,
        tags=header.tags,
        facts=MappingProxyType(dict(header.facts)),
    )
    check_structure(program)
    return program


def constant_array(record: TensorRecord, data: bytes | memoryview) -> Array:
    """Return the array of a constant; ProgramError if the data has another size."""
    expected = prod(record.shape) * record.dtype.itemsize_bytes
    if len(data) != expected:
        raise ProgramError(
            f"constant '{record.name}': found {len(data)} bytes, expected {expected}"
        )
    try:
        return np.frombuffer(data, np.uint8).view(record.dtype.numpy).reshape(record.shape)
    except ValueError as error:
        raise ProgramError(
            f"constant '{record.name}': found shape {record.shape}: {error}"
        ) from error


def _contents(source: str | os.PathLike[str] | bytes) -> bytes:
    if isinstance(source, bytes):
        return source
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise ProgramError(f"program file '{source}': {error.strerror or error}") from error


def read_program(source: str | os.PathLike[str] | bytes) -> Program:
    """Read a program from a file or from its contents.

    Raises:
        ProgramError: The file cannot be read, is damaged, or holds a malformed program.
    """
    contents = _contents(source)
    where = "program" if isinstance(source, bytes) else f"program file '{source}'"
    try:
        return _read(contents)
    except ProgramError as error:
        raise ProgramError(f"{where}: {error}") from error


def _read(contents: bytes) -> Program:
    if len(contents) < _HEAD.size:
        raise ProgramError(f"found {len(contents)} bytes, expected at least {_HEAD.size}")
    magic, version, crc, header_bytes, zero = _HEAD.unpack_from(contents)
    if magic != MAGIC:
        raise ProgramError(
            f"at byte 0: found {magic!r}, expected {MAGIC!r}; this is no program file"
        )
    if version != VERSION or zero:
        raise ProgramError(
            f"at byte 8: found version {version}, expected {VERSION}; compile the model again"
        )
    data = memoryview(contents)
    found = zlib.crc32(data[_HEAD.size :])
    if found != crc:
        raise ProgramError(
            f"at byte 12: found checksum {found:#010x}, expected {crc:#010x}; the file is damaged"
        )
    if _HEAD.size + header_bytes > len(contents):
        raise ProgramError(
            f"at byte 16: found a header of {header_bytes} bytes, expected at most the file's rest"
        )
    header = parse_header(bytes(data[_HEAD.size : _HEAD.size + header_bytes]))
    sections = _Sections(data, header.section_bytes, _HEAD.size + header_bytes)
    domains, layouts, accesses = (bytes(sections.take()) for _ in range(3))
    streams = tuple(bytes(sections.take()) for _ in range(stream_count(header)))
    models = tuple(bytes(sections.take()) for _ in header.host_regions)
    constants = tuple(constant_array(record, sections.take()) for record in header.constants)
    if sections.taken != len(sections.sizes) or sections.position != len(contents):
        raise ProgramError(
            f"at byte {sections.position}: found {len(contents)} bytes, expected the end"
        )
    return make_program(
        header, decode(Encoded(domains, layouts, accesses, streams)), models, constants
    )


def same_program(a: Program, b: Program) -> bool:
    """Whether two programs are equal, with constants compared bit by bit."""
    if any(getattr(a, name) != getattr(b, name) for name in _PLAIN) or len(a.constants) != len(
        b.constants
    ):
        return False
    for (tensor, array), (other, other_array) in zip(a.constants, b.constants, strict=True):
        if tensor != other or bytes(constant_bytes(array)) != bytes(constant_bytes(other_array)):
            return False
    if len(a.groups) != len(b.groups) or dict(a.facts) != dict(b.facts):
        return False
    return all(map(_same_group, a.groups, b.groups))


_PLAIN = ("name", "target", "inputs", "outputs", "host_regions", "dram_bytes", "sram_bytes", "tags")


def _same_group(a: Group, b: Group) -> bool:
    def plain(group: Group) -> tuple[Any, ...]:
        return group.mesh, group.tiles, dict(group.load), dict(group.run)

    return plain(a) == plain(b)

"""The JSON header of program files and assembly texts: all of a program but its bulky parts."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tilewright.dtypes import DType
from tilewright.errors import ProgramError, TargetError
from tilewright.hwmodel.check import check_target
from tilewright.hwmodel.target import Target
from tilewright.lowering.isa import Engine
from tilewright.lowering.program import DramTensor, Group, HostRegion, Program, Streams

Size = Annotated[int, Field(ge=0, lt=2**48)]
Shape = tuple[Size, ...]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class TensorRecord(_Record):
    """A `DramTensor`."""

    name: str
    dtype: DType
    shape: Shape
    address: Size


class GroupRecord(_Record):
    """A `Group` but for its streams."""

    names: tuple[str, ...]
    sizes: tuple[Annotated[int, Field(ge=1, lt=2**24)], ...]
    tiles: tuple[Size, ...]
    load: tuple[int, ...]
    """Engines that have a load stream."""
    run: tuple[int, ...]


class RegionRecord(_Record):
    """A `HostRegion` but for the bytes of its model."""

    input_names: tuple[str, ...]
    input_shapes: tuple[Shape, ...]
    output_names: tuple[str, ...]
    op_types: tuple[str, ...]
    reason: str
    inputs: tuple[TensorRecord, ...]
    outputs: tuple[TensorRecord, ...]


class HeaderRecord(_Record):
    """The JSON header."""

    format: Literal["tilewright program"] = "tilewright program"
    name: str
    target: Target
    groups: tuple[GroupRecord, ...]
    inputs: tuple[TensorRecord, ...]
    outputs: tuple[TensorRecord, ...]
    constants: tuple[TensorRecord, ...]
    host_regions: tuple[RegionRecord, ...]
    dram_bytes: Size
    sram_bytes: Size
    tags: tuple[str, ...]
    facts: dict[str, str]
    section_bytes: tuple[Size, ...]


def _tensor_record(tensor: DramTensor) -> TensorRecord:
    return TensorRecord(
        name=tensor.name, dtype=tensor.dtype, shape=tensor.shape, address=tensor.address
    )


def _tensor_records(tensors: tuple[DramTensor, ...]) -> tuple[TensorRecord, ...]:
    return tuple(map(_tensor_record, tensors))


def tensor_of(record: TensorRecord) -> DramTensor:
    """Return the tensor of a record."""
    return DramTensor(
        name=record.name, dtype=record.dtype, shape=record.shape, address=record.address
    )


def _present(streams: Streams) -> tuple[int, ...]:
    return tuple(int(e) for e in Engine if e in streams)


def _group_record(group: Group) -> GroupRecord:
    return GroupRecord(
        names=group.mesh.names,
        sizes=group.mesh.sizes,
        tiles=group.tiles,
        load=_present(group.load),
        run=_present(group.run),
    )


def _region_record(region: HostRegion) -> RegionRecord:
    model = region.model
    return RegionRecord(
        input_names=model.input_names,
        input_shapes=model.input_shapes,
        output_names=model.output_names,
        op_types=model.op_types,
        reason=model.reason,
        inputs=_tensor_records(region.inputs),
        outputs=_tensor_records(region.outputs),
    )


def header_record(program: Program, section_bytes: tuple[int, ...] = ()) -> HeaderRecord:
    """Return everything of a program but streams, constants' data and host models."""
    try:
        return HeaderRecord(
            name=program.name,
            target=program.target,
            groups=tuple(map(_group_record, program.groups)),
            inputs=_tensor_records(program.inputs),
            outputs=_tensor_records(program.outputs),
            constants=tuple(_tensor_record(t) for t, _ in program.constants),
            host_regions=tuple(map(_region_record, program.host_regions)),
            dram_bytes=program.dram_bytes,
            sram_bytes=program.sram_bytes,
            tags=program.tags,
            facts=dict(program.facts),
            section_bytes=section_bytes,
        )
    except ValidationError as error:
        raise ProgramError(f"program '{program.name}': {_first(error)}") from error


def _first(error: ValidationError) -> str:
    detail = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}"


def header_text(header: HeaderRecord) -> str:
    """Return the header as one line of JSON with sorted keys."""
    return json.dumps(header.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))


def parse_header(text: str | bytes) -> HeaderRecord:
    """Read a header.

    Raises:
        ProgramError: It is no header, or its target contradicts itself.
    """
    try:
        header = HeaderRecord.model_validate_json(text)
        check_target(header.target, f"'{header.target.name}' in the header")
    except ValidationError as error:
        raise ProgramError(f"header: {_first(error)}") from error
    except TargetError as error:
        raise ProgramError(f"header: {error}") from error
    return header


def stream_count(header: HeaderRecord) -> int:
    """Return the number of streams that a header announces; ProgramError if its engines are wrong."""
    total = 0
    for number, group in enumerate(header.groups):
        for engines in (group.load, group.run):
            if list(engines) != sorted(set(engines)) or not set(engines) <= set(map(int, Engine)):
                raise ProgramError(
                    f"group {number}: found engines {engines}, expected ascending numbers of engines"
                )
            total += len(engines)
    return total

"""Well-formedness of programs: what every executor may rely on, checked once after reading.

Checks the form of each instruction (operands, ranks, engines, masks), not its addresses or its
order relative to others; those are matters of the simulators' checks.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from tilewright.dtypes import BLOCK_SOURCES, BlockFormat, DType
from tilewright.errors import ProgramError
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.lowering.isa import (
    MAX_AXES,
    MAX_COUNT,
    MAX_RANK,
    OPERANDS,
    VECTOR_FUNCTIONS,
    Access,
    Engine,
    Instruction,
    Opcode,
)
from tilewright.lowering.loops import matching_ends
from tilewright.lowering.program import VALUES_ABSENT, DramTensor, Group, Program
from tilewright.lowering.vector_functions import ARITY, REDUCTIONS, result_type

MAX_ELEMENTS = 2**40
"""Iterations of one instruction on one tile; beyond it is surely a broken file."""

MAX_SEMAPHORES = 256
_MAX_TENSOR_RANK = 32

ENGINES: dict[Opcode, tuple[Engine, ...]] = {
    Opcode.LD: (Engine.DI, Engine.DO),
    Opcode.GTH: (Engine.DI,),
    Opcode.ST: (Engine.DO,),
    Opcode.SND: (Engine.DO,),
    Opcode.MCS: (Engine.DO,),
    Opcode.MM: (Engine.ME,),
    Opcode.VEC: (Engine.VE,),
    Opcode.RED: (Engine.VE,),
    Opcode.HOST: (Engine.CT,),
}
"""Engines that may execute an opcode; those not listed run on all."""

_COPIES = (Opcode.LD, Opcode.ST, Opcode.SND, Opcode.MCS)
_OPERATORS = frozenset(ENGINES) - {Opcode.HOST}


@dataclass(frozen=True, slots=True)
class _Machine:
    """What instructions are checked against."""

    mesh: LogicalMesh
    semaphores: int
    host_regions: int
    tags: int
    group: int
    groups: int
    load_engines: int


def _form(ok: bool, found: object, expected: str) -> None:
    if not ok:
        raise ProgramError(f"found {found}, expected {expected}")


def _check_access(access: Access, name: str, rank: int, machine: _Machine) -> None:
    _form(
        len(access.strides) == rank,
        f"{len(access.strides)} strides of {name}",
        f"{rank}, one per dimension",
    )
    axes = machine.mesh.rank
    _form(
        len(access.coefficients) == axes,
        f"{len(access.coefficients)} coefficients of {name}",
        f"{axes}",
    )


def _check_spaces(i: Instruction) -> None:
    assert i.dst is not None
    named = zip(
        ("dst", "src0", "src1", "src2"), (i.dst, *i.sources), OPERANDS[i.opcode], strict=False
    )
    for name, access, expected in named:
        if expected is not None:
            _form(access.space == expected, f"{name} in {access.space.name}", expected.name)


def _check_matrix(i: Instruction) -> None:
    assert i.dst is not None
    _form(len(i.sources) == 2, f"{len(i.sources)} sources", "2")
    rows = zip(i.dst.strides, i.sources[0].strides, i.sources[1].strides, strict=True)
    for dim, strides in enumerate(rows):
        _form(
            sum(s != 0 for s in strides) >= 2,
            f"dimension {dim} in fewer than two operands",
            "two or three",
        )
    floats = i.sources[0].dtype.is_float
    if i.fn:
        formats = tuple(BlockFormat)
        _form(i.fn in formats, f"fn '{i.fn}'", f"none or one of {', '.join(formats)}")
        types = [str(a.dtype) for a in (i.dst, *i.sources)]
        _form(
            i.dst.dtype == DType.F32 and all(s.dtype in BLOCK_SOURCES for s in i.sources),
            f"{i.fn} with types {', '.join(types)}",
            "f32 of f32, f16 or bf16",
        )
    _form(i.sources[1].dtype.is_float == floats, "a float and an integer source", "two of a kind")
    _form(i.dst.dtype.is_float == floats, f"dst {i.dst.dtype}", "the kind of the sources")
    _form(
        floats or i.dst.dtype in (DType.I32, DType.I64),
        f"dst {i.dst.dtype}",
        "i32 or i64 for integers",
    )


def _check_vector_types(i: Instruction) -> None:
    assert i.dst is not None
    if i.fn in ("fill", "cast"):
        return
    sources = tuple(s.dtype for s in i.sources)
    found = result_type(i.fn, sources)
    kinds = ", ".join(sources)
    _form(found is not None, f"{i.fn} of {kinds}", "types that it takes; use cast")
    assert found is not None
    fits = found == i.dst.dtype or (found.is_float and i.dst.dtype.is_float)
    _form(fits, f"{i.fn} of {kinds} into {i.dst.dtype}", f"{found}; use cast")


def _check_vector(i: Instruction) -> None:
    assert i.dst is not None
    if i.opcode == Opcode.RED:
        _form(i.fn in REDUCTIONS, f"fn '{i.fn}'", " or ".join(REDUCTIONS))
        _form(len(i.sources) == 1, f"{len(i.sources)} sources", "1")
        source, result = i.sources[0].dtype, i.dst.dtype
        fits = source == result or source.is_float == result.is_float
        _form(fits, f"{i.fn} of {source} into {result}", "a float of floats, else an integer")
        return
    _form(
        i.fn in VECTOR_FUNCTIONS and i.fn not in ("sum", "prod"),
        f"fn '{i.fn}'",
        "a vector function",
    )
    arity = ARITY.get(i.fn, 1)
    _form(len(i.sources) == arity, f"{len(i.sources)} sources of {i.fn}", str(arity))
    _form(
        0 not in i.dst.strides, f"dst strides {list(i.dst.strides)}", "none of 0; use RED to reduce"
    )
    _check_vector_types(i)


def _check_copy(i: Instruction) -> None:
    assert i.dst is not None
    sources = 2 if i.opcode == Opcode.GTH else 1
    _form(len(i.sources) == sources, f"{len(i.sources)} sources", str(sources))
    _form(
        i.dst.dtype == i.sources[0].dtype,
        f"{i.sources[0].dtype} copied to {i.dst.dtype}",
        "one element type",
    )
    _form(0 not in i.dst.strides, f"dst strides {list(i.dst.strides)}", "none of 0")
    if i.opcode == Opcode.LD and i.axes:
        moved = any(c for a, c in enumerate(i.sources[0].coefficients) if i.axes >> a & 1)
        _form(not moved, "a multicast read of different addresses", "coefficients of 0 on its axes")
    if i.opcode == Opcode.GTH:
        index = i.sources[1]
        _form(len(i.domain) >= 1, "a domain of rank 0", "dimension 0 over the indices")
        _form(index.dtype in (DType.I32, DType.I64), f"indices of {index.dtype}", "i32 or i64")
        _form(
            index.strides[0] != 0 and not any(index.strides[1:]),
            f"index strides {list(index.strides)}",
            "[s, 0, …]",
        )
        _form(1 <= i.count < 2**32, f"count {i.count}", "the number of table rows")
        _form(i.sources[0].strides[0] != 0, "table stride 0", "the distance of two rows")


def _check_sends(i: Instruction, machine: _Machine) -> None:
    if i.opcode == Opcode.SND:
        _form(i.axes.bit_count() == 1, f"axes {i.axes:#b}", "exactly one axis")
    if any(p.remote for p in i.posts):
        _form(
            i.opcode in (Opcode.PS, Opcode.SND, Opcode.MCS, Opcode.SIG),
            f"a remote post of {i.opcode.name}",
            "PS, SND, MCS or SIG",
        )
    if i.opcode == Opcode.SIG:
        _form(all(p.remote for p in i.posts), "a post of SIG to its own tile", "remote posts")
        others = 0 <= i.count < machine.groups and i.count != machine.group
        _form(others, f"group {i.count}", f"one of {machine.groups}, not {machine.group}")
    limit = (1 << machine.mesh.rank) - 1
    _form(0 <= i.axes <= limit, f"axes {i.axes:#b}", f"a subset of {limit:#b}")


def _check(i: Instruction, machine: _Machine) -> None:
    allowed = ENGINES.get(i.opcode, tuple(Engine))
    if i.opcode is Opcode.LD:
        allowed = allowed[: machine.load_engines]
    _form(i.engine in allowed, f"engine {i.engine.name}", " or ".join(e.name for e in allowed))
    _form(
        len(i.waits) <= 2 and len(i.posts) <= 2,
        f"{len(i.waits)} waits and {len(i.posts)} posts",
        "at most 2 each",
    )
    entries = [(e.semaphore, e.count) for e in i.waits] + [(e.semaphore, e.count) for e in i.posts]
    for semaphore, count in entries:
        _form(
            0 <= semaphore < machine.semaphores,
            f"semaphore {semaphore}",
            f"below {machine.semaphores}",
        )
        _form(0 <= count <= MAX_COUNT, f"semaphore count {count}", f"0..{MAX_COUNT}")
    _form(0 <= i.tag <= machine.tags, f"tag {i.tag}", f"at most {machine.tags}")
    _check_sends(i, machine)
    if i.opcode in (Opcode.LOOP, Opcode.END, Opcode.HALT):
        _form(not i.waits and not i.posts, "waits or posts", "none")
    if i.accumulate:
        _form(i.opcode in (Opcode.MM, Opcode.RED), f"accumulate of {i.opcode.name}", "MM or RED")
    if i.opcode not in _OPERATORS:
        _form(i.dst is None and not i.sources and not i.domain, "operands", "none")
        if i.opcode == Opcode.HOST:
            _form(
                0 <= i.count < machine.host_regions,
                f"host region {i.count}",
                f"below {machine.host_regions}",
            )
        return
    _check_operands(i, machine)


def _check_operands(i: Instruction, machine: _Machine) -> None:
    _form(i.dst is not None, "no dst", "one")
    assert i.dst is not None
    _form(len(i.domain) <= MAX_RANK, f"rank {len(i.domain)}", f"at most {MAX_RANK}")
    _form(all(2 <= n < 2**32 for n in i.domain), f"domain {list(i.domain)}", "sizes of at least 2")
    _form(prod(i.domain) <= MAX_ELEMENTS, f"{prod(i.domain)} iterations", f"at most {MAX_ELEMENTS}")
    _check_access(i.dst, "dst", len(i.domain), machine)
    for number, source in enumerate(i.sources):
        _check_access(source, f"src{number}", len(i.domain), machine)
    _check_spaces(i)
    if i.opcode == Opcode.MM:
        _check_matrix(i)
    elif i.opcode in (Opcode.VEC, Opcode.RED):
        _check_vector(i)
    else:
        _check_copy(i)


def _check_group(number: int, group: Group, program: Program) -> None:
    where = f"group {number}"
    mesh = group.mesh
    _form(
        mesh.rank <= MAX_AXES and len(mesh.names) == mesh.rank,
        f"{where}: mesh {mesh}",
        f"at most {MAX_AXES} axes",
    )
    _form(
        all(n >= 1 for n in mesh.sizes), f"{where}: axis sizes {list(mesh.sizes)}", "positive sizes"
    )
    _form(
        len(group.tiles) == mesh.tiles,
        f"{where}: {len(group.tiles)} tiles",
        f"{mesh.tiles}, as the mesh says",
    )
    in_range = all(0 <= t < program.target.tiles for t in group.tiles)
    _form(
        in_range and len(set(group.tiles)) == mesh.tiles,
        f"{where}: tile ids",
        "distinct tiles of the target",
    )
    semaphores = min(program.target.tile.control.semaphores, MAX_SEMAPHORES)
    machine = _Machine(
        mesh,
        semaphores,
        len(program.host_regions),
        len(program.tags),
        number,
        len(program.groups),
        program.target.tile.dma.load_engines,
    )
    for phase, streams in (("load", group.load), ("run", group.run)):
        for engine, stream in streams.items():
            here = f"{where} {phase} {engine.name}"
            try:
                matching_ends(stream)
            except ProgramError as error:
                raise ProgramError(f"{here}: {error}") from error
            for position, instruction in enumerate(stream):
                try:
                    _form(
                        instruction.engine == engine,
                        f"engine {instruction.engine.name}",
                        engine.name,
                    )
                    last = position == len(stream) - 1
                    _form(last or instruction.opcode != Opcode.HALT, "HALT", "HALT only at the end")
                    _check(instruction, machine)
                except ProgramError as error:
                    raise ProgramError(
                        f"{here}, instruction {position} {instruction.opcode.name}: {error}"
                    ) from error


def _check_tensor(tensor: DramTensor, dram_bytes: int) -> None:
    size_bytes = tensor.size_bytes
    _form(
        len(tensor.shape) <= _MAX_TENSOR_RANK,
        f"rank {len(tensor.shape)}",
        f"at most {_MAX_TENSOR_RANK}",
    )
    extent = prod(max(1, d) for d in tensor.shape)
    _form(
        extent <= MAX_ELEMENTS,
        f"tensor '{tensor.name}' {list(tensor.shape)}",
        f"at most {MAX_ELEMENTS} elements",
    )
    inside = tensor.address >= 0 and tensor.address + size_bytes <= dram_bytes
    _form(
        inside and all(d >= 0 for d in tensor.shape),
        f"tensor '{tensor.name}' {list(tensor.shape)} at {tensor.address:#x}",
        f"{size_bytes} bytes below {dram_bytes:#x}",
    )


def check_values(program: Program) -> None:
    """Raise ProgramError if the values of the program's constants were not loaded."""
    if program.facts.items() >= VALUES_ABSENT.items():
        raise ProgramError(
            f"program '{program.name}': the values of its constants were not loaded, so that it can only be "
            "timed; load the model with its weights"
        )


def check_structure(program: Program) -> None:
    """Raise ProgramError unless the program is well formed."""
    sram_bytes, dram = program.target.tile.sram.size_bytes, program.target.dram
    _form(
        0 <= program.sram_bytes <= sram_bytes,
        f"{program.sram_bytes} scratchpad bytes",
        f"at most {sram_bytes}",
    )
    _form(
        0 <= program.dram_bytes <= dram.size_bytes,
        f"{program.dram_bytes} dram bytes",
        f"at most {dram.size_bytes}",
    )
    tensors = [*program.inputs, *program.outputs, *(t for t, _ in program.constants)]
    for region in program.host_regions:
        tensors += (*region.inputs, *region.outputs)
    for tensor in tensors:
        _check_tensor(tensor, program.dram_bytes)
    for tensor, array in program.constants:
        found = f"{array.dtype}{list(array.shape)}"
        same = array.shape == tensor.shape and array.dtype == tensor.dtype.numpy
        _form(same, f"constant '{tensor.name}' {found}", f"{tensor.dtype}{list(tensor.shape)}")
    for number, group in enumerate(program.groups):
        _check_group(number, group, program)

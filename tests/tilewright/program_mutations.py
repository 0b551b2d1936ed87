"""Wrong programs for fuzzing: real binaries with a few changes, and streams of random instructions.

Everything comes from the random generator that is passed in, so that a seed names a case.
"""

from __future__ import annotations

import json
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from tilewright.dtypes import DType
from tilewright.lowering.isa import (
    VECTOR_FUNCTIONS,
    Access,
    Engine,
    Instruction,
    Opcode,
    Post,
    Space,
    Wait,
)
from tilewright.lowering.program import Program
from tilewright.lowering.records import ACCESS, DOMAIN, LAYOUT, WORD
from tilewright.lowering.structure import ENGINES
from tilewright.lowering.vector_functions import ARITY, REDUCTIONS

HEAD_BYTES = 24
_ALIGNMENT_BYTES = 64
_REMOTE = (Opcode.PS, Opcode.SND, Opcode.MCS)
_NUMBERS = (0, 1, -1, 2, 3, 7, 64, 255, 256, 65_535, 65_536, 2**31, 2**32 - 1, 2**40, 2**48 - 1)
_LEAVES = (*_NUMBERS, 0.0, -1.5, 1e-300, 1e300, True, None, "", "x", "f32", "core", [], {}, [1, 1])


def sealed(contents: bytes) -> bytes:
    """Return the contents of a program file with a correct checksum."""
    crc = zlib.crc32(contents[16:] if len(contents) < HEAD_BYTES else contents[HEAD_BYTES:])
    return contents[:12] + struct.pack("<I", crc) + contents[16:]


def _sections(contents: bytes) -> tuple[dict[str, Any], list[bytes]]:
    (length,) = struct.unpack_from("<I", contents, 16)
    header = json.loads(contents[HEAD_BYTES : HEAD_BYTES + length])
    position, sections = HEAD_BYTES + length, []
    for size in header["section_bytes"]:
        start = -(-position // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
        position = start + size
        sections.append(contents[start:position])
    return header, sections


def _joined(header: dict[str, Any], sections: list[bytes]) -> bytes:
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    out = bytearray(struct.pack("<8sIIII", b"TILEWRT1", 1, 0, len(text), 0) + text)
    for section in sections:
        out += bytes(-len(out) % _ALIGNMENT_BYTES) + section
    return sealed(bytes(out))


def changed_bytes(contents: bytes, rng: random.Random) -> bytes:
    """Change, cut or repeat a few bytes anywhere behind the head."""
    out = bytearray(contents)
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(HEAD_BYTES, len(out))
        match rng.randrange(6):
            case 0:
                del out[place : place + rng.randint(1, 64)]
            case 1:
                out[place:place] = out[place : place + rng.randint(1, 64)]
            case 2:
                del out[place:]
            case _:
                out[place] = rng.randrange(256)
        if len(out) <= HEAD_BYTES:
            break
    return sealed(bytes(out))


def _leaves(node: Any) -> Iterator[tuple[Any, Any]]:
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
        yield node, key
        if isinstance(value, dict | list):
            yield from _leaves(value)


def changed_header(contents: bytes, rng: random.Random) -> bytes:
    """Change one or two values anywhere in the header, the target's figures included."""
    header, sections = _sections(contents)
    for _ in range(rng.randint(1, 2)):
        places = [
            (node, key)
            for node, key in _leaves(header)
            # texts and evidence are many and matter little
            if rng.random() < 0.2 or not isinstance(node[key], str)
        ]
        node, key = rng.choice(places)
        if isinstance(node[key], int | float) and rng.random() < 0.3:
            node[key] = node[key] + rng.choice((-1, 1, node[key]))
        elif isinstance(node, list) and rng.random() < 0.3:
            node.insert(key, node[rng.randrange(len(node))])
        else:
            node[key] = rng.choice(_LEAVES)
    return _joined(header, sections)


def changed_fields(contents: bytes, rng: random.Random) -> bytes:
    """Change fields of words and of table entries; swap, drop and repeat words."""
    header, sections = _sections(contents)
    streams = sum(len(g["load"]) + len(g["run"]) for g in header["groups"])
    forms = (DOMAIN, LAYOUT, ACCESS, *(WORD,) * streams)
    usable = [k for k, form in enumerate(forms) if len(sections[k]) >= form.size]
    for _ in range(rng.randint(1, 3)):
        number = rng.choice([k for k in usable if k < 3 or rng.random() < 0.5] or usable)
        form = forms[number]
        rows = [list(row) for row in form.iter_unpack(sections[number])]
        row = rng.randrange(len(rows))
        match rng.randrange(10):
            case 0:
                rows.insert(rng.randrange(len(rows) + 1), rows[row])
            case 1 if len(rows) > 1:
                del rows[row]
            case 2:
                other = rng.randrange(len(rows))
                rows[row], rows[other] = rows[other], rows[row]
            case 3 | 4:
                column = rng.randrange(len(rows[row]))
                rows[row][column] = rows[rng.randrange(len(rows))][column]
            case _:
                column = rng.randrange(len(rows[row]))
                old = rows[row][column]
                near = old + rng.choice((-1, 1, -4, 4, 64, old, -2 * old))
                rows[row][column] = rng.choice((near, rng.choice(_NUMBERS)))
        try:
            sections[number] = b"".join(form.pack(*r) for r in rows)
        except (struct.error, OverflowError):
            continue
        header["section_bytes"][number] = len(sections[number])
    return _joined(header, sections)


CHANGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    changed_bytes,
    changed_header,
    changed_fields,
    changed_fields,
)


def _random_access(
    rng: random.Random, space: Space, dtype: DType, domain: tuple[int, ...], program: Program
) -> Access:
    size = dtype.itemsize_bytes
    strides, step = [], size
    for n in reversed(domain):
        strides.append(rng.choice((step, step, step, size, 0, 2 * step, -step)))
        step *= n
    limit = program.sram_bytes if space is Space.L1 else program.dram_bytes
    axes = program.groups[0].mesh.rank
    return Access(
        space,
        dtype,
        rng.randrange(0, max(1, min(limit, 4096)), 4),
        tuple(rng.choice((0, 0, size, step)) for _ in range(axes)),
        tuple(reversed(strides)),
        tuple(rng.choice((0, 0, step)) for _ in range(rng.randint(0, 2))),
    )


def _random_instruction(rng: random.Random, engine: Engine, program: Program) -> Instruction:
    unfit = {Opcode.HALT, Opcode.LOOP, Opcode.END, Opcode.HOST}
    unfit |= {Opcode.SIG} if len(program.groups) < 2 else set()
    opcodes = [o for o in Opcode if engine in ENGINES.get(o, tuple(Engine)) and o not in unfit]
    # engines mostly do what only they can
    opcode = rng.choice([o for o in opcodes if o in ENGINES and rng.random() < 0.8] or opcodes)
    dtype = rng.choice((DType.F32, DType.F32, DType.F16, DType.I8, DType.I32, DType.I64))
    domain = tuple(rng.choice((2, 3, 4, 16)) for _ in range(rng.randint(0, 3)))
    mask = (1 << program.groups[0].mesh.rank) - 1
    semaphores = [rng.randrange(4) for _ in range(4)]
    plain = Instruction(
        opcode=opcode,
        engine=engine,
        waits=tuple(Wait(s, 1) for s in semaphores[: rng.choice((0, 0, 0, 1))]),
        posts=tuple(
            Post(s, 1, opcode is Opcode.SIG or (opcode in _REMOTE and rng.random() < 0.3))
            for s in semaphores[2 : 2 + rng.choice((0, 1))]
        ),
        axes=1 << rng.randrange(max(1, mask.bit_length()))
        if opcode is Opcode.SND
        else rng.randint(0, mask),
        shift=rng.randint(-3, 3),
        count=rng.choice((0, 0, 1, 3, 10)),
    )
    if opcode not in ENGINES or opcode is Opcode.HOST:
        return plain
    fn, sources = "", 1
    if opcode is Opcode.VEC:
        fn = rng.choice(VECTOR_FUNCTIONS)
        sources = ARITY.get(fn, 1)
    elif opcode is Opcode.RED:
        fn = rng.choice(REDUCTIONS)
    elif opcode in (Opcode.MM, Opcode.GTH):
        sources = 2
    spaces = [Space.DRAM if opcode is Opcode.LD else Space.L1] * sources
    into = Space.DRAM if opcode is Opcode.ST else Space.L1
    kinds = [dtype] * sources
    if opcode is Opcode.GTH:
        kinds[1] = rng.choice((DType.I32, DType.I64))
        spaces[0] = rng.choice(list(Space))
    elif rng.random() < 0.1:
        kinds[-1:] = [rng.choice(list(DType))] * len(kinds[-1:])
    result = DType.I32 if opcode is Opcode.MM and not dtype.is_float else dtype
    accesses = [
        _random_access(rng, s, k, domain, program)
        for s, k in zip((into, *spaces), (result, *kinds), strict=True)
    ]
    if opcode is Opcode.MM:
        accesses = _as_product(rng, accesses, len(domain))
    elif opcode is not Opcode.RED:
        dense = tuple(s or result.itemsize_bytes for s in accesses[0].strides)
        accesses[0] = replace(accesses[0], strides=dense)
    if opcode is Opcode.GTH and domain:
        accesses[1] = replace(accesses[1], strides=(64, *accesses[1].strides[1:]))
        accesses[2] = replace(accesses[2], strides=(8, *(0,) * (len(domain) - 1)))
    if opcode is Opcode.LD:
        shared = tuple(
            0 if plain.axes >> a & 1 else c for a, c in enumerate(accesses[1].coefficients)
        )
        accesses[1] = replace(accesses[1], coefficients=shared)
    return replace(
        plain,
        domain=domain,
        dst=accesses[0],
        sources=tuple(accesses[1:]),
        fn=fn,
        accumulate=opcode in (Opcode.MM, Opcode.RED) and rng.random() < 0.3,
        immediates=(rng.choice((0.0, 1.0, -1.0, 1e300, float("nan"))), 1.0),
    )


def _as_product(rng: random.Random, accesses: list[Access], rank: int) -> list[Access]:
    """Give every dimension to two or three of dst, src0 and src1."""
    absent = [rng.choice((None, 0, 1, 2)) for _ in range(rank)]
    return [
        replace(
            access,
            strides=tuple(
                0 if absent[d] == number else stride or access.dtype.itemsize_bytes
                for d, stride in enumerate(access.strides)
            ),
        )
        for number, access in enumerate(accesses)
    ]


def random_program(program: Program, rng: random.Random) -> Program:
    """Return the program with random streams in the run phase of its first group."""
    run = {}
    for engine in Engine:
        stream: list[Instruction] = []
        for _ in range(rng.choice((0, 0, 1, 2, 4))):
            stream.append(_random_instruction(rng, engine, program))
        if stream and rng.random() < 0.5:
            count = rng.choice((0, 1, 2, 5, 1000, 2**20, 2**32 - 1))
            first = rng.randrange(len(stream))
            loop = Instruction(opcode=Opcode.LOOP, engine=engine, count=count)
            end = Instruction(opcode=Opcode.END, engine=engine)
            stream[first:] = [loop, *stream[first:], end]
        run[engine] = tuple(stream)
    first_group, *others = program.groups
    return replace(program, groups=(replace(first_group, run=run), *others))


def is_clear(text: str) -> bool:
    """Whether a message is one that a user can read: no traceback, no Python objects."""
    return bool(text) and "Traceback" not in text and "object at 0x" not in text

"""The records of the binary form: names and types of their fields, in order."""

from __future__ import annotations

import struct

from tilewright.lowering.isa import MAX_AXES, MAX_LOOP_DEPTH, MAX_RANK

Fields = tuple[tuple[str, str], ...]
"""Name and struct code of each field of a record, in order."""

WORD_FIELDS: Fields = (
    ("opcode", "B"),
    ("engine", "B"),
    ("function, 0 for none", "B"),
    ("axes, a bit for each", "B"),
    ("flags", "H"),
    ("shift", "h"),
    ("count", "I"),
    ("tag", "I"),
    ("domain (number in its table)", "I"),
    ("dst (number of an access)", "I"),
    ("src0 (number of an access)", "I"),
    ("src1", "I"),
    ("src2", "I"),
    ("immediate 0", "d"),
    ("immediate 1", "d"),
    ("semaphore of wait 0", "B"),
    ("count of wait 0", "H"),
    ("semaphore of wait 1", "B"),
    ("count of wait 1", "H"),
    ("semaphore of post 0", "B"),
    ("count of post 0", "H"),
    ("semaphore of post 1", "B"),
    ("count of post 1", "H"),
)
DOMAIN_FIELDS: Fields = (("rank", "I"), *((f"size {d}", "I") for d in range(MAX_RANK)))
LAYOUT_FIELDS: Fields = (
    ("coefficients in use", "B"),
    ("strides in use", "B"),
    ("steps in use", "B"),
    ("zero", "B"),
    *((f"coefficient {a}", "q") for a in range(MAX_AXES)),
    *((f"stride {d}", "q") for d in range(MAX_RANK)),
    *((f"step {level}", "q") for level in range(MAX_LOOP_DEPTH)),
)
ACCESS_FIELDS: Fields = (
    ("space", "B"),
    ("type", "B"),
    ("zero", "H"),
    ("layout (number in its table)", "I"),
    ("base", "q"),
)

FLAG_BITS: tuple[tuple[str, str], ...] = (
    ("0", "accumulate"),
    ("1", "has dst"),
    ("2-3", "number of sources"),
    ("4-5", "number of waits"),
    ("6-7", "number of posts"),
    ("8", "post 0 is remote"),
    ("9", "post 1 is remote"),
)


def _struct(fields: Fields) -> struct.Struct:
    return struct.Struct("<" + "".join(code for _, code in fields))


WORD, DOMAIN = _struct(WORD_FIELDS), _struct(DOMAIN_FIELDS)
LAYOUT, ACCESS = _struct(LAYOUT_FIELDS), _struct(ACCESS_FIELDS)

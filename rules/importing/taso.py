"""TASO's `graph_subst.pb`: a reader of just enough of the protobuf wire format.

    RuleCollection { repeated Rule rule = 1; }
    Rule           { repeated Operator srcOp = 1, dstOp = 2; repeated MapOutput mappedOutput = 3; }
    Operator       { int32 type = 1; repeated Tensor input = 2; repeated Parameter para = 3; }
    Tensor         { int32 opId = 1, tsId = 2; }          a negative opId names an input
    Parameter      { int32 key = 1, value = 2; }
    MapOutput      { int32 srcOpId = 1, dstOpId = 2, srcTsId = 3, dstTsId = 4; }

Source:
    Jia et al., "TASO", SOSP 2019; `src/core/rules.proto`, `src/core/substitution.cc` and
    `include/taso/ops.h` of jiazhihao/TASO.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from tilewright.errors import RuleError
from tilewright.rules.importing.foreign import (
    LARGEST_RULE,
    MOST_RULES,
    Call,
    ForeignRule,
    Term,
    Variable,
    calls,
    equations,
)

_WINDOW = ("kernel_h", "kernel_w", "stride_h", "stride_w", "pad")
_OPERATORS: Mapping[int, tuple[str, tuple[str, ...]]] = MappingProxyType(
    {
        # the loader of TASO ignores the kernel size of a convolution: weights have it
        3: ("conv2d", ("stride_h", "stride_w", "pad", "acti")),
        6: ("poolmax", _WINDOW),
        7: ("poolavg", _WINDOW),
        8: ("relu", ()),
        9: ("sigmoid", ()),
        10: ("tanh", ()),
        12: ("concat", ("axis", "ndim")),
        13: ("split", ("axis", "parts")),
        15: ("transpose", ("ndim", "perm", "shuffle")),
        16: ("ewadd", ()),
        17: ("ewmul", ()),
        18: ("matmul", ("acti",)),
        19: ("smul", ()),
        20: ("enlarge", ()),
        28: ("ewsub", ()),
        29: ("ewdiv", ()),
        33: ("ewmax", ()),
        34: ("ewmin", ()),
    }
)
"""Neutral name and parameters of an operator's number (`OpType`)."""

_NAMES: Mapping[int, str] = MappingProxyType(
    {
        **{4: "dropout", 5: "linear", 11: "batchnorm", 14: "reshape", 21: "merge_gconv"},
        **{22: "const_imm", 23: "const_iconv", 24: "const_one", 25: "const_pool"},
    }
)
"""Names of operators that have no neutral form."""

_PARAMETERS: Mapping[int, str] = MappingProxyType(
    {
        **{2: "parts", 4: "kernel_h", 5: "kernel_w", 6: "stride_h", 7: "stride_w", 8: "pad"},
        **{9: "acti", 10: "ndim", 11: "axis", 12: "perm", 13: "shuffle"},
    }
)
"""Names of parameters (`PMParameter`)."""

_MOST_OPERANDS = 6
_MOST_DIMS = 8

Fields = tuple[tuple[int, int | bytes], ...]


def _varint(data: bytes, at: int, where: str) -> tuple[int, int]:
    """Return a number and the position after it."""
    value = 0
    for index in range(10):
        if at + index >= len(data):
            raise RuleError(f"{where}: the file ends inside a number; it is cut off")
        byte = data[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise RuleError(f"{where}: a number has more than ten bytes; this is no rule file of TASO")


def _fields(data: bytes, where: str) -> Fields:
    """Return the fields of a message: numbers, and bytes of messages inside."""
    found: list[tuple[int, int | bytes]] = []
    at = 0
    while at < len(data):
        key, at = _varint(data, at, where)
        if key & 7 == 0:
            number, at = _varint(data, at, where)
            found.append((key >> 3, number))
        elif key & 7 == 2:
            size, at = _varint(data, at, where)
            if size > len(data) - at:
                raise RuleError(
                    f"{where}: a message of {size:,} bytes has {len(data) - at:,} left; "
                    "the file is cut off, or no rule file of TASO"
                )
            found.append((key >> 3, data[at : at + size]))
            at += size
        else:
            raise RuleError(
                f"{where}: wire type {key & 7}, expected 0 or 2; this is no rule file of TASO"
            )
    return tuple(found)


def _messages(fields: Fields, number: int, where: str) -> tuple[Fields, ...]:
    """Return the messages of a repeated field."""
    found = []
    for key, value in fields:
        if key == number:
            if isinstance(value, int):
                raise RuleError(f"{where}: field {number} is a number, expected a message")
            found.append(_fields(value, where))
    return tuple(found)


def _int32(fields: Fields, number: int, where: str) -> int:
    """Return a required signed number."""
    values = [value for key, value in fields if key == number]
    if not values or not isinstance(values[-1], int):
        raise RuleError(f"{where}: field {number} is missing, expected a number")
    value = values[-1] - (1 << 64) if values[-1] >> 63 else values[-1]
    if not -(1 << 31) <= value < 1 << 31:
        raise RuleError(f"{where}: field {number} is {value}, expected 32 bits")
    return value


class _UncoveredError(Exception):
    """An operator without a neutral form."""


def read_taso(name: str, data: bytes) -> tuple[ForeignRule, ...]:
    """Read the rules of a `graph_subst.pb`, numbered from 0 as in TASO.

    Args:
        name: Name of the file, for messages.
        data: Its content.

    Raises:
        RuleError: The bytes are no collection of rules, or refer to what is not there.
    """
    collection = _fields(data, name)
    if not collection or any(key != 1 or isinstance(value, int) for key, value in collection):
        raise RuleError(f"{name}: no collection of rules; expected a graph_subst.pb of TASO")
    if len(collection) > MOST_RULES:
        raise RuleError(f"{name}: {len(collection):,} rules, expected at most {MOST_RULES:,}")
    return tuple(_rule(name, n, value) for n, (_, value) in enumerate(collection))


def _rule(file: str, number: int, data: int | bytes) -> ForeignRule:
    assert isinstance(data, bytes), "the caller has looked"
    where = f"{file}: rule {number}"
    fields = _fields(data, where)
    outputs = _messages(fields, 3, where)
    if not outputs:
        raise RuleError(f"{where}: no output is mapped, expected at least one")
    sides = tuple(_messages(fields, side, where) for side in (1, 2))
    pairs = [
        [tuple(_int32(o, k, where) for k in keys) for o in outputs] for keys in ((1, 3), (2, 4))
    ]
    name = f"taso.rule_{number}"
    try:
        left, right = (
            tuple(_outputs(side, wanted, f"{where}, {label} side"))
            for side, wanted, label in zip(sides, pairs, ("left", "right"), strict=True)
        )
    except _UncoveredError as error:
        text = " => ".join(_operator_names(side, where) for side in sides)
        return ForeignRule(name=name, place=where, text=text, unreadable=str(error))
    rule = ForeignRule(name=name, place=where, text="", left=left, right=right)
    return ForeignRule(
        name=name, place=where, text=" and ".join(equations(rule)), left=left, right=right
    )


def _operator_names(side: tuple[Fields, ...], where: str) -> str:
    return ", ".join(_operator_name(_int32(op, 1, where)) for op in side)


def _operator_name(number: int) -> str:
    if number in _OPERATORS:
        return _OPERATORS[number][0]
    return _NAMES.get(number, f"number {number}")


def _outputs(side: tuple[Fields, ...], wanted: list[tuple[int, ...]], where: str) -> list[Term]:
    """Return the terms of the mapped outputs of one side."""
    if len(side) > LARGEST_RULE:
        raise RuleError(f"{where}: {len(side)} operators, expected at most {LARGEST_RULE}")
    made: list[Call] = []
    for index, op in enumerate(side):
        here = f"{where}, operator {index}"
        operands = tuple(_operand(i, made, here) for i in _messages(op, 2, here))
        # terms are trees: an operator that is used twice counts twice, and so do its operands
        size = 1 + sum(1 for operand in operands for _ in calls(operand))
        if size > LARGEST_RULE:
            raise RuleError(f"{here}: a term of {size} operators, expected {LARGEST_RULE} at most")
        made.append(_operator(op, operands, here))
    return [_result(made, index, output, where) for index, output in wanted]


def _result(made: list[Call], index: int, output: int, where: str) -> Call:
    if not 0 <= index < len(made):
        raise RuleError(
            f"{where}: operator {index} is used, expected one of the {len(made)} before"
        )
    call = made[index]
    count = call.number("parts") if call.operator == "split" else 1
    if not 0 <= output < count:
        raise RuleError(f"{where}: result {output} of a {call.operator}, which has {count}")
    return Call(
        operator=call.operator, parameters=call.parameters, operands=call.operands, output=output
    )


def _operand(tensor: Fields, made: list[Call], where: str) -> Term:
    index, output = _int32(tensor, 1, where), _int32(tensor, 2, where)
    if index < 0:
        return Variable(f"input_{-index}")
    return _result(made, index, output, where)


def _operator(op: Fields, operands: tuple[Term, ...], where: str) -> Call:
    number = _int32(op, 1, where)
    if number not in _OPERATORS:
        raise _UncoveredError(f"operator {_operator_name(number)}")
    name, wanted = _OPERATORS[number]
    given = {
        _PARAMETERS.get(_int32(p, 1, where), ""): _int32(p, 2, where)
        for p in _messages(op, 3, where)
    }
    for parameter in wanted:
        if parameter not in given:
            raise RuleError(f"{where}: {name} without its parameter {parameter}")
    _check_operands(name, len(operands), where)
    parameters: list[tuple[str, int | tuple[int, ...]]] = [(p, given[p]) for p in wanted]
    if name in ("poolmax", "poolavg"):
        parameters.append(("acti", given.get("acti", 0)))
    if name == "transpose":
        parameters = [("perm", _permutation(given["perm"], given["ndim"], where))]
        parameters.append(("shuffle", given["shuffle"]))
    if name == "split" and not 1 <= given["parts"] <= _MOST_OPERANDS:
        raise RuleError(f"{where}: a split into {given['parts']}, expected 1 to {_MOST_OPERANDS}")
    return Call(operator=name, parameters=tuple(parameters), operands=operands)


def _check_operands(name: str, count: int, where: str) -> None:
    single = name in ("relu", "sigmoid", "tanh", "split", "transpose", "poolmax", "poolavg")
    low, high = (1, _MOST_OPERANDS) if name == "concat" else (1, 1) if single else (2, 2)
    if not low <= count <= high:
        expected = str(low) if low == high else f"{low} to {high}"
        raise RuleError(f"{where}: {name} of {count} operands, expected {expected}")


def _permutation(index: int, ndim: int, where: str) -> tuple[int, ...]:
    """Return the permutation that TASO numbers by its digits to base `ndim`."""
    if not 1 <= ndim <= _MOST_DIMS or not 0 <= index < ndim**ndim:
        raise RuleError(f"{where}: permutation {index} of {ndim} dimensions does not exist")
    return tuple(index // ndim**place % ndim for place in reversed(range(ndim)))

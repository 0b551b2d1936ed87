"""How operators of the graph become terms of the e-graph and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from tilewright.errors import RuleError
from tilewright.graph import DEQUANTISE, PROLOGUE, AttrValue, Op, dequantises, third_operands
from tilewright.rules import terms

_PLAIN = frozenset({"fn", "epilogue", "between", "inner_dtype", "product_dtype"})
"""Columns whose text is the attribute itself; the others are JSON."""

REST = "rest"
"""Column that holds all attributes without a column of their own."""

OUTPUT = "output"
"""Column that holds the number of a host region's output; not an attribute."""


@dataclass(frozen=True, slots=True)
class Constructor:
    """A constructor of `Tensor`: operands, then text columns, then the element type.

    `operands` is the number of tensor operands; None when it takes one list instead.
    """

    name: str
    kind: str
    operands: int | None
    columns: tuple[str, ...]
    build: Any = field(compare=False)
    """The egglog function; the name stands for it where constructors are compared."""
    fixed: tuple[tuple[str, AttrValue], ...] = ()
    """Attributes that the constructor stands for; no column has them."""

    @property
    def dequantises(self) -> bool:
        """Whether its last operand is the scale of quantised weights, its second one."""
        return dequantises(dict(self.fixed))

    @property
    def arity(self) -> int:
        """Number of operand columns (a list is one)."""
        return 1 if self.operands is None else self.operands


def _table() -> tuple[Constructor, ...]:
    fused, inner = ("epilogue", "product_dtype"), ("between", "inner_dtype")
    quantised = ((PROLOGUE, DEQUANTISE),)
    return (
        Constructor("map1", "map", 1, ("fn",), terms.map1),
        Constructor("map2", "map", 2, ("fn",), terms.map2),
        Constructor("map3", "map", 3, ("fn",), terms.map3),
        Constructor("matmul", "matmul", 2, (REST,), terms.permuted_matmul),
        Constructor("matmul_unary", "matmul", 2, (REST, *fused), terms.matmul_unary),
        Constructor("matmul_binary", "matmul", 3, (REST, *fused), terms.matmul_binary),
        Constructor("matmul_quantised", "matmul", 3, (REST,), terms.matmul_quantised, quantised),
        Constructor(
            *("matmul_quantised_unary", "matmul", 3, (REST, *fused)),
            *(terms.matmul_quantised_unary, quantised),
        ),
        Constructor(
            *("matmul_quantised_binary", "matmul", 4, (REST, *fused)),
            *(terms.matmul_quantised_binary, quantised),
        ),
        Constructor("conv", "conv", 2, (REST,), terms.conv),
        Constructor("conv_unary", "conv", 2, (REST, *fused), terms.conv_unary),
        Constructor("conv_binary", "conv", 3, (REST, *fused), terms.conv_binary),
        Constructor("conv_quantised", "conv", 3, (REST,), terms.conv_quantised, quantised),
        Constructor(
            *("conv_quantised_unary", "conv", 3, (REST, *fused)),
            *(terms.conv_quantised_unary, quantised),
        ),
        Constructor(
            *("conv_quantised_binary", "conv", 4, (REST, *fused)),
            *(terms.conv_quantised_binary, quantised),
        ),
        Constructor("pool", "pool", 1, (REST,), terms.pool),
        Constructor("reduce", "reduce", 1, ("fn", "axes"), terms.reduce),
        Constructor("softmax", "softmax", 1, (), terms.softmax),
        Constructor("layernorm", "layernorm", 1, ("epsilon",), terms.layernorm),
        Constructor("rmsnorm", "rmsnorm", 1, ("epsilon",), terms.rmsnorm),
        Constructor("layernorm_of_sum", "layernorm", 2, ("epsilon",), terms.layernorm_of_sum),
        Constructor("rmsnorm_of_sum", "rmsnorm", 2, ("epsilon",), terms.rmsnorm_of_sum),
        Constructor("attention", "attention", 3, ("scale",), terms.attention),
        Constructor("attention_masked", "attention", 4, ("scale",), terms.attention_masked),
        Constructor("chain", "chain", 3, inner, terms.chain),
        Constructor("chain_unary", "chain", 3, (*inner, *fused), terms.chain_unary),
        Constructor("chain_binary", "chain", 4, (*inner, *fused), terms.chain_binary),
        Constructor("chain_with", "chain", 4, inner, terms.chain_with),
        Constructor("chain_with_unary", "chain", 4, (*inner, *fused), terms.chain_with_unary),
        Constructor("chain_with_binary", "chain", 5, (*inner, *fused), terms.chain_with_binary),
        Constructor("reshape", "reshape", 1, ("shape",), terms.reshape),
        Constructor("transpose", "transpose", 1, ("perm",), terms.transpose),
        Constructor("slice", "slice", 1, (REST,), terms.slice_),
        Constructor("pad", "pad", 1, (REST,), terms.pad),
        Constructor("expand", "expand", 1, ("shape",), terms.expand),
        Constructor("gather", "gather", 2, ("axis",), terms.gather),
        Constructor("concat2", "concat", 2, ("axis",), terms.concat2),
        Constructor("concat3", "concat", 3, ("axis",), terms.concat3),
        Constructor("concat", "concat", None, ("axis",), terms.concat),
        Constructor("opaque", "host", None, (REST, OUTPUT), terms.opaque),
    )


CONSTRUCTORS: Mapping[str, Constructor] = MappingProxyType({c.name: c for c in _table()})
"""Every constructor by name."""


def constructor_of(op: Op) -> Constructor:
    """Return the constructor of an operator.

    Raises:
        RuleError: No constructor takes that many operands.
    """
    fused, is_binary = "epilogue" in op.attrs, bool(third_operands(op.attrs, op.inputs))
    for constructor in CONSTRUCTORS.values():
        fits = constructor.operands in (None, len(op.inputs))
        fits = fits and dequantises(op.attrs) == constructor.dequantises
        fits = fits and (not fused or is_binary == constructor.name.endswith("_binary"))
        if constructor.kind == op.kind and fits and fused == ("epilogue" in constructor.columns):
            return constructor
    raise RuleError(
        f"{op.kind} '{op.name}' with {len(op.inputs)} inputs has no constructor; "
        "add one to rules/terms.py and rules/constructors.py"
    )


def _jsonable(value: AttrValue) -> AttrValue | list[int]:
    return list(value) if isinstance(value, tuple) else value


def _from_json(value: Any) -> AttrValue:
    return tuple(value) if isinstance(value, list) else value


def encode_value(value: AttrValue) -> str:
    """Return the text of an attribute in a JSON column; equal values have equal texts."""
    return json.dumps(_jsonable(value))


def encode(
    constructor: Constructor, attrs: Mapping[str, AttrValue], output: int = 0
) -> tuple[str, ...]:
    """Return the text columns of an operator, without the element type.

    Raises:
        RuleError: An attribute has a tab or line break, which table files cannot hold.
    """
    texts = []
    for column in constructor.columns:
        if column == REST:
            rest = {
                k: _jsonable(v)
                for k, v in sorted(attrs.items())
                if k not in constructor.columns and (k, v) not in constructor.fixed
            }
            texts.append(json.dumps(rest))
        elif column == OUTPUT:
            texts.append(str(output))
        elif column in _PLAIN:
            texts.append(str(attrs[column]))
        else:
            texts.append(encode_value(attrs[column]))
    if any(c in text for text in texts for c in "\t\n\r"):
        raise RuleError(f"{constructor.kind}: attributes {texts} contain a tab or line break")
    return tuple(texts)


def decode(constructor: Constructor, texts: Sequence[str]) -> Mapping[str, AttrValue]:
    """Return the attributes of an operator from its text columns."""
    attrs: dict[str, AttrValue] = dict(constructor.fixed)
    for column, text in zip(constructor.columns, texts, strict=True):
        if column == REST:
            attrs |= {key: _from_json(value) for key, value in json.loads(text).items()}
        elif column in _PLAIN:
            attrs[column] = text
        elif column != OUTPUT:
            attrs[column] = _from_json(json.loads(text))
    return MappingProxyType(attrs)


def decode_tuple(text: str) -> tuple[int, ...]:
    """Return a tuple of numbers from the text of a JSON column."""
    return tuple(json.loads(text))

"""Tables and rules that every constructor has: loading, typing, constness.

Operator `map2` has, for instance,

    row_map2(result, x, y, fn, dtype)       rows of the inserted graph, loaded once
    sig_map2(fn, dtype, tx, ty, s, t)       signature s: on operands of types tx, ty the result has type t

Signatures are the join between the e-graph and everything that Python derives from types:
result types here, strategies in `tilewright.rules.partition`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from egglog import (
    String,
    Unit,
    delete,
    eq,
    function,
    i64,
    i64Like,
    relation,
    rule,
    set_,
    union,
    var,
)
from egglog import ruleset as make_ruleset

from tilewright.rules.constructors import CONSTRUCTORS, Constructor
from tilewright.rules.registry import origin_of
from tilewright.rules.terms import (
    Items,
    Tensor,
    all_constant,
    constant_of_type,
    has_type,
    is_constant,
)

NIL_TYPES = 0
"""Number of the empty list of types."""


@function(egg_fn="has_types")
def has_types(items: Items, number: i64Like) -> Unit:  # type: ignore[empty-body]
    """Hold when the elements of the list have the types of type list `number`."""


@function(egg_fn="prepend_type")
def prepend_type(head: i64Like, tail: i64Like, result: i64Like) -> Unit:  # type: ignore[empty-body]
    """Hold when type list `result` is type `head`, then type list `tail`."""


@dataclass(frozen=True, slots=True)
class Tables:
    """The two tables of a constructor."""

    row: Any
    signature: Any


def _tables(constructor: Constructor) -> Tables:
    declare: Any = relation  # its overloads end at one column
    texts = (String,) * (len(constructor.columns) + 1)
    numbers = (i64,) * constructor.arity
    row, signature = f"row_{constructor.name}", f"sig_{constructor.name}"
    return Tables(
        declare(row, i64, *numbers, *texts, egg_fn=row),
        declare(signature, *texts, *numbers, i64, i64, egg_fn=signature),
    )


TABLES: Mapping[str, Tables] = MappingProxyType({n: _tables(c) for n, c in CONSTRUCTORS.items()})
"""Tables of each constructor by its name."""

row_leaf = relation("row_leaf", i64, egg_fn="row_leaf")
row_constant = relation("row_constant", i64, egg_fn="row_constant")
row_type: Any = relation("row_type", i64, i64, egg_fn="row_type")  # type: ignore[call-overload]
row_cons: Any = relation("row_cons", i64, i64, i64, egg_fn="row_cons")  # type: ignore[call-overload]

EMPTY_LIST = 0
"""Number of the empty list in `row_cons` rows."""


def pattern(constructor: Constructor) -> tuple[Any, list[Any], list[Any]]:
    """Return a term of fresh variables: the term, its operands, its texts."""
    if constructor.operands is None:
        operands: list[Any] = [var("items", Items)]
    else:
        operands = [var(f"x{i}", Tensor) for i in range(constructor.operands)]
    texts = [var(f"text{i}", String) for i in range(len(constructor.columns) + 1)]
    return constructor.build(*operands, *texts), operands, texts


def typed_operands(operands: list[Any]) -> tuple[list[Any], list[Any]]:
    """Return type variables of operands and the facts that bind them."""
    numbers = [var(f"t{i}", i64) for i in range(len(operands))]
    facts = [
        has_types(x, t) if isinstance(x, Items) else has_type(x, t)
        for x, t in zip(operands, numbers, strict=True)
    ]
    return numbers, facts


def _load(constructor: Constructor) -> Any:
    result = var("result", i64)
    numbers = [var(f"n{i}", i64) for i in range(constructor.arity)]
    sort = Items if constructor.operands is None else Tensor
    operands = [sort.node(n) for n in numbers]
    texts = [var(f"text{i}", String) for i in range(len(constructor.columns) + 1)]
    row = TABLES[constructor.name].row(result, *numbers, *texts)
    actions: list[Any] = [union(Tensor.node(result)).with_(constructor.build(*operands, *texts))]
    if constructor.operands is not None:
        actions.append(set_(origin_of(constructor, (*operands, *texts))).to(i64(0)))
    return rule(row, name=f"load.{constructor.name}").then(*actions, delete(row))


def _typing(constructor: Constructor) -> Any:
    term, operands, texts = pattern(constructor)
    numbers, facts = typed_operands(operands)
    root, signature, result = var("root", Tensor), var("signature", i64), var("result", i64)
    table = TABLES[constructor.name].signature(*texts, *numbers, signature, result)
    return rule(eq(root).to(term), *facts, table, name=f"typing.{constructor.name}").then(
        has_type(root, result)
    )


def _constness(constructor: Constructor) -> Any:
    term, operands, _ = pattern(constructor)
    root = var("root", Tensor)
    facts = [all_constant(x) if isinstance(x, Items) else is_constant(x) for x in operands]
    return rule(eq(root).to(term), *facts, name=f"constness.{constructor.name}").then(
        is_constant(root)
    )


def _load_rules() -> list[Any]:
    n, head, tail, t = (var(name, i64) for name in ("n", "head", "tail", "t"))
    leaf, constant, typed, cons = (
        row_leaf(n),
        row_constant(n),
        row_type(n, t),
        row_cons(n, head, tail),
    )
    items = Items.cons(Tensor.node(head), Items.node(tail))
    return [
        rule(leaf, name="load.leaf").then(
            union(Tensor.node(n)).with_(Tensor.leaf(n)), delete(leaf)
        ),
        rule(constant, name="load.constant").then(is_constant(Tensor.node(n)), delete(constant)),
        rule(typed, name="load.type").then(has_type(Tensor.node(n), t), delete(typed)),
        rule(cons, name="load.cons").then(union(Items.node(n)).with_(items), delete(cons)),
        rule(name="load.empty").then(union(Items.node(i64(EMPTY_LIST))).with_(Items.empty())),
        *(_load(constructor) for constructor in CONSTRUCTORS.values()),
    ]


def _constant_types() -> Any:
    tensor, number = var("tensor", Tensor), var("number", i64)
    return rule(
        is_constant(tensor), has_type(tensor, number), name="constness.constant_of_type"
    ).then(constant_of_type(tensor, number))


def _list_rules() -> list[Any]:
    items, tail, head = var("items", Items), var("tail", Items), var("head", Tensor)
    t, n, m = (var(name, i64) for name in ("t", "n", "m"))
    return [
        rule(eq(items).to(Items.empty()), name="typing.empty").then(
            has_types(items, i64(NIL_TYPES)), all_constant(items)
        ),
        rule(
            eq(items).to(Items.cons(head, tail)),
            *(has_type(head, t), has_types(tail, n), prepend_type(t, n, m)),
            name="typing.cons",
        ).then(has_types(items, m)),
        rule(
            eq(items).to(Items.cons(head, tail)),
            *(is_constant(head), all_constant(tail)),
            name="constness.cons",
        ).then(all_constant(items)),
    ]


def load_ruleset() -> Any:
    """Return what turns the rows of the inserted graph into terms."""
    return make_ruleset(*_load_rules(), name="load")


def analysis_ruleset() -> Any:
    """Return what derives types from signatures, and what is constant."""
    return make_ruleset(
        _constant_types(),
        *_list_rules(),
        *(_typing(c) for c in CONSTRUCTORS.values()),
        *(_constness(c) for c in CONSTRUCTORS.values() if c.kind != "host"),
        name="analysis",
    )

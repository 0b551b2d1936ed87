"""Accepted foreign rules as rules of the engine.

The engine matches more than the foreign rule says: any rank, any window, any float type. A rule is
offered only if it is right there too, if need be for one rank, and if its guard has fact tables.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from egglog import String, i64

from tilewright.rules.constructors import CONSTRUCTORS, REST, encode_value
from tilewright.rules.facts import is_float, same_shape, single_element
from tilewright.rules.importing.foreign import Call, ForeignRule, equations
from tilewright.rules.importing.guard_facts import element_type, has_rank, one_group
from tilewright.rules.importing.guards import HAS_FACT, Condition, Guard, Kind, holds
from tilewright.rules.importing.mapping import ACTIVATIONS, BINARY, UNARY
from tilewright.rules.importing.pattern import Pattern, window_key
from tilewright.rules.importing.sampling import Sampler
from tilewright.rules.importing.trial import Trial, run_trial
from tilewright.rules.registry import Numerics, Rewrite, Rule, define
from tilewright.rules.terms import Items, Tensor, has_type

_INSTANCES = 200
_LEAST_INSTANCES = 8
_TERMS = frozenset({*UNARY, *BINARY, "matmul", "conv2d", "concat", "transpose"})
"""Operators whose attributes do not depend on shapes."""

_OTHER_WINDOW = (
    "the convolution of its right side needs other groups or padding than that of its left side"
)

DTYPE = "dtype"


@dataclass(frozen=True, slots=True)
class Offer:
    """A rule, or why there is none."""

    rule: Rule | None
    reason: str = ""


def offer(
    foreign: ForeignRule,
    pattern: Pattern,
    guard: Guard,
    sampler: Sampler,
    random: np.random.Generator,
) -> Offer:
    """Return an accepted rule as a rule of the engine, or why it cannot be one.

    Args:
        foreign: The rule.
        pattern: Its pattern.
        guard: Conditions under which it is right.
        sampler: Draws instances of everything that the engine's pattern would match.
        random: Source of randomness.
    """
    reason = _inexpressible(pattern, guard)
    if reason:
        return Offer(None, f"not offered: {reason}")
    trials = [
        run_trial(pattern, instance, random, draws=pattern.draws)
        for instance in sampler.instances(random, _INSTANCES)
    ]
    for guarded in _with_rank(guard, sampler.natural_rank):
        if _is_right(pattern, guarded, trials):
            return Offer(_rule(foreign, pattern, guarded))
    if pattern.convolutions(left_only=False):
        return Offer(None, f"not offered: {_OTHER_WINDOW}")
    return Offer(None, "not offered: it is wrong for other ranks, batch dimensions included")


def _with_rank(guard: Guard, rank: int | None) -> tuple[Guard, ...]:
    return (guard,) if rank is None else (guard, (*guard, Condition(Kind.RANK, (0,), rank)))


def _is_right(pattern: Pattern, guard: Guard, trials: list[Trial]) -> bool:
    inside = [trial for trial in trials if holds(pattern, guard, trial.values)]
    return len(inside) >= _LEAST_INSTANCES and all(trial.agrees for trial in inside)


def _inexpressible(pattern: Pattern, guard: Guard) -> str:
    """Return what of a rule has no term or fact of the engine."""
    if len(pattern.left) > 1:
        return "it has several results"
    if pattern.left[0] < len(pattern.names):
        return "its left side is any tensor"
    for condition in guard:
        if condition.kind not in HAS_FACT:
            return f"no fact says that {condition.text(pattern)}"
    known = set()
    for number, node in enumerate(pattern.nodes):
        call = node.call
        if call is None:
            continue
        if call.operator not in _TERMS:
            return f"the attributes of {call.operator} depend on shapes"
        if call.operator == "concat" and number >= pattern.left_count:
            if _joint(len(node.operands)) not in CONSTRUCTORS:
                return f"no rule of the engine can make a concat of {len(node.operands)}"
        if call.operator == "conv2d":
            if number < pattern.left_count:
                known.add(window_key(call))
            elif window_key(call) not in known:
                return "no convolution of the left side has the right side's strides and padding"
    return ""


def _rule(foreign: ForeignRule, pattern: Pattern, guard: Guard) -> Rule:
    writer = _Writer(pattern, guard)
    return define(
        foreign.name,
        writer.function(equations(foreign)[0]),
        numerics=Numerics.REASSOCIATES,
        source=foreign.place,
    )


class _Writer:
    """Writes a pattern as a function of egglog variables."""

    def __init__(self, pattern: Pattern, guard: Guard) -> None:
        self._pattern, self._guard = pattern, guard
        self._tensors = [f"x_{name}" for name in pattern.names]
        keys = [
            window_key(call)
            for n in pattern.convolutions(left_only=True)
            if (call := pattern.nodes[n].call)
        ]
        self._rests = {key: f"window_{i}" for i, key in enumerate(dict.fromkeys(keys))}
        self._scalars = tuple(
            node.operands[1]
            for node in pattern.nodes[: pattern.left_count]
            if node.call and node.call.operator == "smul"
        )
        asked = {n for c in guard if c.kind is not Kind.ONE_GROUP for n in c.nodes}
        numbers = sorted({*range(len(pattern.names)), *self._scalars, *asked})
        self._types = {n: f"type_{n}" for n in numbers}

    def function(self, equation: str) -> Callable[..., Rewrite]:
        """Return the rule's function; its signature names the pattern's variables."""
        sorts: dict[str, Any] = {
            **dict.fromkeys(self._tensors, Tensor),
            **dict.fromkeys(self._rests.values(), String),
            DTYPE: String,
            **dict.fromkeys(self._types.values(), i64),
        }

        def rewrite(**variables: Any) -> Rewrite:
            return self._rewrite(variables)

        rewrite.__doc__ = f"{equation}."
        rewrite.__annotations__ = {**sorts, "return": Rewrite}
        parameters = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=sort)
            for name, sort in sorts.items()
        ]
        rewrite.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            parameters, return_annotation=Rewrite
        )
        return rewrite

    def _rewrite(self, variables: Mapping[str, Any]) -> Rewrite:
        terms: list[Any] = [variables[name] for name in self._tensors]
        for node in self._pattern.nodes[len(terms) :]:
            assert node.call is not None, "variables come first"
            operands = [terms[i] for i in node.operands]
            terms.append(self._term(node.call, operands, variables))
        types = {n: variables[name] for n, name in self._types.items()}
        dtype = variables[DTYPE]
        facts: list[Any] = [is_float(dtype)]
        facts += [has_type(terms[n], number) for n, number in types.items()]
        facts += [element_type(types[n], dtype) for n in range(len(self._tensors))]
        facts += [single_element(types[n]) for n in self._scalars]
        facts += [self._fact(condition, types, variables) for condition in self._guard]
        return Rewrite(
            terms[self._pattern.left[0]], to=terms[self._pattern.right[0]], when=tuple(facts)
        )

    def _term(self, call: Call, operands: list[Any], variables: Mapping[str, Any]) -> Any:
        dtype = variables[DTYPE]
        match call.operator:
            case operator if operator in UNARY:
                return _call("map1", operands, {"fn": operator}, dtype)
            case operator if operator in BINARY:
                return _call("map2", operands, {"fn": BINARY[operator]}, dtype)
            case "concat":
                texts = {"axis": encode_value(call.number("axis"))}
                if _joint(len(operands)) in CONSTRUCTORS:
                    return _call(_joint(len(operands)), operands, texts, dtype)
                items = Items.empty()
                for operand in reversed(operands):
                    items = Items.cons(operand, items)
                return _call("concat", [items], texts, dtype)
            case "transpose":
                perm = encode_value(call.numbers("perm"))
                return _call("transpose", operands, {"perm": perm}, dtype)
        texts = (
            {REST: variables[self._rests[window_key(call)]]} if call.operator == "conv2d" else {}
        )
        kind = "conv" if call.operator == "conv2d" else "matmul"
        epilogue = ACTIVATIONS[call.number("acti")]
        if not epilogue:
            return _call(kind, operands, texts, dtype)
        texts |= {"epilogue": epilogue, "product_dtype": dtype}
        return _call(f"{kind}_unary", operands, texts, dtype)

    def _fact(
        self, condition: Condition, types: Mapping[int, Any], variables: Mapping[str, Any]
    ) -> Any:
        first = condition.nodes[0]
        match condition.kind:
            case Kind.SAME_SHAPE:
                return same_shape(types[first], types[condition.nodes[1]])
            case Kind.RANK:
                return has_rank(types[first], i64(condition.axis))
            case _:  # only ONE_GROUP remains of those that have facts
                call = self._pattern.nodes[first].call
                assert call is not None, "a convolution is an operator"
                return one_group(variables[self._rests[window_key(call)]])


def _joint(count: int) -> str:
    """Return the constructor of a concat of so many operands; lists have another one."""
    return f"concat{count}"


_NO_ATTRIBUTES = MappingProxyType({REST: "{}"})


def _call(name: str, operands: list[Any], texts: Mapping[str, Any], dtype: Any) -> Any:
    """Return a term of a constructor; a product without attributes of its own has none."""
    constructor = CONSTRUCTORS[name]
    columns = [({**_NO_ATTRIBUTES, **texts})[column] for column in constructor.columns]
    return constructor.build(*operands, *columns, dtype)

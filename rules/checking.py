"""Automatic soundness checks of rules: a rule's left side is its own test case.

A pattern is instantiated with random small tensors (size-1 dimensions, primes, several element
types), saturated with the one rule, and every alternative is evaluated with the reference
semantics. Instances are batched, since an e-graph costs more than an evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import wraps
from types import MappingProxyType
from typing import Any

import numpy as np
from egglog import Fact, get_callable_args, get_callable_fn, get_literal_value, get_var_name

from tilewright.dtypes import DType
from tilewright.errors import RuleError, ShapeError
from tilewright.graph import Array, Graph, Op, Port, TensorType, parse_pipeline
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.rules.constructors import CONSTRUCTORS, Constructor, decode
from tilewright.rules.engine import saturate
from tilewright.rules.evaluation import disagreements
from tilewright.rules.inference import infer_type, pipeline_dtype
from tilewright.rules.instances import random_size, random_text, random_type
from tilewright.rules.options import SaturationOptions
from tilewright.rules.registry import Numerics, Rule, RuleWritingError, pattern_of
from tilewright.rules.session import UnboundError

_TOLERANCE = {Numerics.EXACT: 0.0, Numerics.REASSOCIATES: 1e-9, Numerics.APPROXIMATE: 1e-2}
_LEAST_MATCHES = 10
_MOST_INSTANCES = 600


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check saw; a rule that is wrong raises instead."""

    rule: str
    instances: int
    matches: int


class CounterexampleError(RuleError):
    """Both sides of a rule have different values."""


class _MisfitError(Exception):
    """A random choice that does not fit the pattern; another one is drawn."""


@dataclass(slots=True)
class _Builder:
    """A graph of many instances of a pattern."""

    random: np.random.Generator
    dtypes: tuple[DType, ...]
    types: dict[str, TensorType] = field(default_factory=dict)
    leaves: dict[str, Array] = field(default_factory=dict)
    constants: list[str] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)

    def add(self, left: Any, number: int) -> bool:
        """Add an instance of a pattern; return whether the random choices fitted."""
        attempt = _Attempt(self, number)
        try:
            output = attempt.build(left)
        except (_MisfitError, ShapeError):
            return False
        self.types |= attempt.types
        self.ops += attempt.ops
        self.outputs.append(output)
        for name in attempt.leaves:
            self.leaves[name] = random_array(self.random, self.types[name])
            if self.random.random() < attempt.constness:
                self.constants.append(name)
        return True

    def graph(self) -> Graph:
        """Return the graph of all instances."""

        def port(name: str) -> Port:
            return Port(
                name=name, tensor=name, shape=self.types[name].shape, dtype=self.types[name].dtype
            )

        constants = {name: self.leaves[name] for name in self.constants}
        graph = Graph(
            name="instances",
            inputs=tuple(port(name) for name in self.leaves if name not in constants),
            outputs=tuple(port(name) for name in self.outputs),
            types=self.types,
            constants=constants,
            ops=tuple(self.ops),
        )
        graph.validate()
        return graph


class _Attempt:
    """One instance of a pattern."""

    def __init__(self, builder: _Builder, number: int) -> None:
        self._random = builder.random
        self._number = number
        self._variables: dict[str, str] = {}
        self._dtype = builder.dtypes[self._random.integers(len(builder.dtypes))]
        self._rank = int(self._random.integers(2, 5))
        self._common = random_size(self._random)
        self.constness = float(self._random.choice([0.0, 0.6, 1.0]))
        self.types: dict[str, TensorType] = {}
        self.leaves: list[str] = []
        self.ops: list[Op] = []

    def build(self, term: Any) -> str:
        """Return the tensor of a term, adding the operators that make it."""
        variable = get_var_name(term)
        if variable is not None:
            if variable not in self._variables:
                name = f"{variable}.{self._number}"
                self.types[name] = random_type(self._random, self._rank, self._dtype, self._common)
                self.leaves.append(name)
                self._variables[variable] = name
            return self._variables[variable]
        constructor, args = _call(term)
        if constructor.kind == "conv":
            self._rank = 4
        operands = tuple(self.build(arg) for arg in args[: constructor.arity])
        types = [self.types[name] for name in operands]
        columns = args[constructor.arity : -1]
        texts = tuple(
            self._text(arg, constructor, column, types)
            for arg, column in zip(columns, constructor.columns, strict=True)
        )
        attrs = decode(constructor, texts)
        dtype = self._result_dtype(constructor, attrs, types)
        self._bind(args[-1], str(dtype))
        result = infer_type(constructor.kind, attrs, types, dtype)
        name = f"r{len(self.ops)}.{self._number}"
        self.types[name] = result
        self.ops.append(
            Op(name=name, kind=constructor.kind, inputs=operands, outputs=(name,), attrs=attrs)
        )
        return name

    def _text(
        self, term: Any, constructor: Constructor, column: str, types: list[TensorType]
    ) -> str:
        """Return the text of an attribute: given, bound before, or random."""
        literal = get_literal_value(term)
        if literal is not None:
            return str(literal)
        variable = get_var_name(term)
        assert variable is not None, "left sides have variables and literals for attributes"
        if variable not in self._variables:
            self._variables[variable] = random_text(self._random, constructor, column, types)
        return self._variables[variable]

    def _bind(self, term: Any, text: str) -> None:
        variable = get_var_name(term)
        known = (
            str(get_literal_value(term))
            if variable is None
            else self._variables.setdefault(variable, text)
        )
        if known != text:
            raise _MisfitError

    def _result_dtype(
        self, constructor: Constructor, attrs: Mapping[str, Any], types: list[TensorType]
    ) -> DType:
        if constructor.kind == "map":
            first = parse_pipeline(str(attrs["fn"]))[0][0]
            if types[-1].dtype is DType.BOOL and first not in ("identity", "cast", "where"):
                raise _MisfitError  # no arithmetic on truth values
            return pipeline_dtype(str(attrs["fn"]), types[-1].dtype)
        if "epilogue" in attrs:
            start = types[2].dtype if len(types) > 2 else DType(str(attrs["product_dtype"]))
            return pipeline_dtype(str(attrs["epilogue"]), start)
        return types[0].dtype


def _call(term: Any) -> tuple[Constructor, tuple[Any, ...]]:
    function, args = get_callable_fn(term), get_callable_args(term)
    assert args is not None, "left sides are made of constructors"
    for constructor in CONSTRUCTORS.values():
        if constructor.build == function:
            return constructor, args
    raise RuleError(f"left side has {function}, which is no constructor of rules/terms.py")


def random_array(random: np.random.Generator, kind: TensorType) -> Array:
    """Return small values away from zero, which denominators must not be."""
    if kind.dtype.is_float:
        values = random.normal(size=kind.shape)
        return (values + np.copysign(0.5, values)).astype(kind.dtype.numpy)
    low = 1 if kind.dtype in (DType.U8, DType.U16, DType.U32, DType.U64, DType.BOOL) else -3
    whole = random.integers(low, 4, kind.shape)
    whole[whole == 0] = 1
    return whole.astype(kind.dtype.numpy)


def _dtypes(made: Rule) -> tuple[DType, ...]:
    """Return the element types to draw: only f64 is fine enough for a rule that rounds differently."""
    if made.numerics is Numerics.EXACT:
        return (DType.F64, DType.F32, DType.F16, DType.I32, DType.I8)
    return (DType.F64,)


def instances_of(made: Rule, count: int, seed: int) -> tuple[Graph, Mapping[str, Array]]:
    """Return a graph of random instances of a rule's left side, and values of its leaves.

    Raises:
        RuleError: Random choices hardly ever fit the pattern.
    """
    random = np.random.default_rng(seed)
    builder = _Builder(random, _dtypes(made))
    left = pattern_of(made).left
    number = attempts = 0
    while number < count:
        attempts += 1
        if attempts > 400 * count:
            raise RuleError(f"rule '{made.name}': no random tensors fit its left side")
        number += builder.add(left, number)
    return builder.graph(), MappingProxyType(builder.leaves)


def check_rule(made: Rule, *, count: int = 100, seed: int = 0) -> CheckReport:
    """Check a rule on random instances of its left side.

    Args:
        made: The rule.
        count: Number of instances; four times as many when the rule hardly matches.
        seed: Seed of the random choices.

    Raises:
        RuleError: Both sides differ, a right side has no type, or the rule hardly ever matches, so that
            the check would say nothing.
    """
    graph, leaves = instances_of(made, count, seed)
    options = SaturationOptions(
        rules=(made,), numerics=frozenset(Numerics), rounds=1, nodes_per_class=1000
    )
    alternatives = saturate(graph, LogicalMesh((), ()), options=options)
    matches = sum(stats.matches for stats in alternatives.rule_stats if stats.rule == made.name)
    if matches < _LEAST_MATCHES:
        if count < _MOST_INSTANCES:
            return check_rule(made, count=min(4 * count, _MOST_INSTANCES), seed=seed)
        raise RuleError(
            f"rule '{made.name}' matched {matches} of {count} random instances, expected at least "
            f"{_LEAST_MATCHES}; the check says nothing"
        )
    wrong = disagreements(graph, alternatives, leaves, _TOLERANCE[made.numerics])
    if wrong:
        raise CounterexampleError(
            _counterexample(
                made,
                graph,
                alternatives.classes[wrong[0].class_number].names,
                wrong[0].what,
                wrong[0].largest_error,
            )
        )
    return CheckReport(made.name, count, matches)


def _counterexample(
    made: Rule, graph: Graph, names: tuple[str, ...], what: str, error: float
) -> str:
    """Describe the instance in which a rule is wrong."""
    number = next((name.rpartition(".")[2] for name in names), "?")
    lines = [
        f"{name} = {op.kind} {dict(op.attrs)} of "
        + ", ".join(f"{i}: {graph.types[i]}" for i in op.inputs)
        for op in graph.ops
        for name in op.outputs
        if name.endswith(f".{number}")
    ]
    return (
        f"rule '{made.name}' ({made.equation}) is wrong by {error:.3g}: {what} is not the value of "
        f"{', '.join(names)} in: {'; '.join(lines)}"
    )


def without_condition(made: Rule, index: int) -> Rule:
    """Return a rule without one of its conditions, to see whether that is needed."""

    @wraps(made.function)
    def function(**variables: Any) -> Any:
        rewrite = made.function(**variables)
        rest = (*rewrite.when[:index], *rewrite.when[index + 1 :])
        return replace(rewrite, when=rest)

    return replace(made, function=function)


class Purpose(StrEnum):
    """What a condition of a rule is needed for."""

    BINDS = "binds"  # the right side or another condition uses its variables
    VALUES = "values"  # without it both sides differ
    TYPES = "types"  # without it the right side has another type, or none
    NOTHING = "nothing"  # the instances do not need it; it may bound growth


def condition_purposes(
    made: Rule, *, count: int = 60, seed: int = 0
) -> tuple[tuple[str, Purpose], ...]:
    """Return what each condition of a rule is needed for, by leaving them out one by one.

    Args:
        made: A rule that passes `check_rule`.
        count: Number of instances for each condition.
        seed: Seed of the random choices.

    Returns:
        The name of each condition's relation ("eq" for equations and comparisons) and its purpose.
    """
    found = []
    for index, fact in enumerate(pattern_of(made).when):
        function = None if isinstance(fact, Fact) else get_callable_fn(fact)
        name = "eq" if function is None else str(function)
        found.append((name, _purpose(without_condition(made, index), count, seed)))
    return tuple(found)


def _purpose(made: Rule, count: int, seed: int) -> Purpose:
    try:
        check_rule(made, count=count, seed=seed)
    except (UnboundError, RuleWritingError):
        return Purpose.BINDS
    except CounterexampleError:
        return Purpose.VALUES
    except RuleError:
        return Purpose.TYPES
    return Purpose.NOTHING

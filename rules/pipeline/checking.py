"""Registration check of the rules of pipeline legality: what they claim, against the reference semantics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import numpy as np

from tilewright.dtypes import DType
from tilewright.errors import RuleError, ShapeError
from tilewright.graph import Array, Op, TensorType
from tilewright.rules.evaluation import evaluate
from tilewright.rules.inference import infer_type
from tilewright.rules.partition.samples import Sample, samples
from tilewright.rules.pipeline.legality import rebatched
from tilewright.rules.pipeline.ruleset import Batch, Cut, Form, PipelineRule, Value

_SAMPLES = 12
_SEED = 4
_BATCHES = (2, 3, 6)
_PIECES = (2, 3)
"""Numbers of micro-batches that results are put together from."""


def check_pipeline_rule(rule: PipelineRule) -> int:
    """Check a rule on random operators and models; return how often it allows something.

    Raises:
        RuleError: It raises, allows nothing, or what it allows changes values.
    """
    cases = {
        Form.CUT: _cut_cases,
        Form.BATCH: _batch_cases,
        Form.VALUE: _value_cases,
    }[rule.form]
    allowed = sum(1 for _ in cases(rule))
    if not allowed:
        raise RuleError(f"{rule.where} allows nothing")
    return allowed


def _asked(rule: PipelineRule, asked: Cut | Batch | Value) -> tuple[str, ...] | int | None:
    try:
        found: tuple[str, ...] | int | None = rule.function(asked)
    except Exception as error:  # whatever a user's rule raises
        raise RuleError(rule.raised(error)) from error
    return found


def _names(rule: PipelineRule, asked: Cut | Value) -> tuple[str, ...] | None:
    found = _asked(rule, asked)
    if found is not None and not isinstance(found, tuple):
        raise RuleError(f"{rule.where} returns {found!r}, expected a tuple of names or None")
    return found


# ---------------------------------------------------------------------- micro-batches


def _batch_cases(rule: PipelineRule) -> Iterator[None]:
    """Yield for each sample and choice of batch dimensions that the rule allows."""
    draw = np.random.default_rng(_SEED)
    for sample in samples(_SAMPLES, _SEED):
        for dims, size in _choices(sample):
            found = _asked(rule, Batch(op=sample.op, nest=sample.nest, dims=dims, size=size))
            if found is None:
                continue
            if not isinstance(found, int) or not 0 <= found < sample.result.rank:
                raise RuleError(
                    f"{rule.where} says that dimension {found} of {sample.result} is the batch; "
                    "name one of its dimensions"
                )
            for pieces in _PIECES:
                if size % pieces == 0:
                    _check_batch(rule, sample, dims, found, pieces, draw)
            yield


def _choices(sample: Sample) -> Iterator[tuple[tuple[int, ...], int]]:
    """Yield batch dimensions of the operands, equal sizes, at least one operand has one; and batch sizes."""
    ranks = [range(-1, t.rank) for t in sample.types]
    grid = np.stack(np.meshgrid(*[np.array(r) for r in ranks], indexing="ij"), -1)
    for row in grid.reshape(-1, len(ranks)).tolist():
        sizes = {t.shape[d] for t, d in zip(sample.types, row, strict=True) if d >= 0}
        if len(sizes) == 1 and sizes != {1}:
            (whole,) = sizes
            yield from ((tuple(row), size) for size in _BATCHES if whole % size == 0)


def _check_batch(
    rule: PipelineRule,
    sample: Sample,
    dims: tuple[int, ...],
    dim: int,
    pieces: int,
    draw: np.random.Generator,
) -> None:
    values = _values(sample, draw)
    op, types = _named(sample)
    whole = evaluate(op, values, types[op.output])
    parts = []
    for piece in range(pieces):
        cut = [
            v if d < 0 else np.split(v, pieces, axis=d)[piece]
            for v, d in zip(values, dims, strict=True)
        ]
        part = _smaller(op, cut, dim, pieces, sample.result)
        if part is None:
            raise RuleError(
                f"{rule.where}: {_text(sample)} cannot run on {pieces} pieces of dimensions {dims}"
            )
        smaller, given, smaller_types = part
        parts.append(evaluate(smaller, given, smaller_types[op.output]))
    again = np.concatenate(parts, axis=dim)
    if again.shape != whole.shape or not np.allclose(again, whole, rtol=1e-9, atol=1e-9):
        raise RuleError(
            f"{rule.where} is wrong: {_text(sample)} of {pieces} pieces of dimensions {dims}, put together "
            f"along dimension {dim}, is not its value on everything"
        )


def _smaller(
    op: Op, cut: list[Array], dim: int, pieces: int, whole: TensorType
) -> tuple[Op, list[Array], dict[str, TensorType]] | None:
    """Return an operator on a piece of its batch, None if it has no meaning there."""
    smaller = rebatched(op, dim, pieces)
    types = {
        name: TensorType(value.shape, DType.from_numpy(value.dtype))
        for name, value in zip(op.inputs, cut, strict=True)
    }
    try:
        types[op.output] = infer_type(
            op.kind, smaller.attrs, tuple(types[n] for n in op.inputs), whole.dtype
        )
    except ShapeError:
        return None
    return smaller, cut, types


# ---------------------------------------------------------------------- computing again


def _value_cases(rule: PipelineRule) -> Iterator[None]:
    """Yield for each operator that the rule allows to run again."""
    draw = np.random.default_rng(_SEED)
    for sample, is_optional in product(samples(_SAMPLES, _SEED), (False, True)):
        op, types = _named(sample)
        kept = _names(rule, Value(op=op, types=types, is_optional=is_optional))
        if kept is None:
            continue
        missing = [name for name in op.inputs if name not in kept]
        if missing:
            raise RuleError(
                f"{rule.where} is wrong: {_text(sample)} cannot be computed again from {kept}; "
                f"it also reads {missing}"
            )
        values = _values(sample, draw)
        first, second = (evaluate(op, values, types[op.output]) for _ in range(2))
        if not np.array_equal(first, second):
            raise RuleError(
                f"{rule.where} is wrong: {_text(sample)} is another value the second time"
            )
        yield
    _check_host(rule)


def _check_host(rule: PipelineRule) -> None:
    """Refuse rules that run host regions again: what the host does may be random or have effects."""
    op = Op(name="h", kind="host", inputs=("x",), outputs=("y",), attrs={"region": "r"})
    kind = TensorType((2, 3), DType.F32)
    values = (Value(op=op, types={"x": kind, "y": kind}, is_optional=o) for o in (False, True))
    if any(_names(rule, value) is not None for value in values):
        raise RuleError(
            f"{rule.where} is wrong: it computes a host region again, which may draw random numbers "
            "or have effects; leave out op.kind == 'host'"
        )


# ---------------------------------------------------------------------- cuts


def _cut_cases(rule: PipelineRule) -> Iterator[None]:
    """Yield for each cut of random models that the rule allows."""
    draw = np.random.default_rng(_SEED)
    for number in range(_SAMPLES):
        ops, types = _model(draw)
        given = {"x": draw.integers(-4, 5, types["x"].shape).astype(np.float64)}
        whole = _run(ops, given, types)
        for place in range(1, len(ops)):
            cut = cut_of(
                ops[:place],
                ops[place:],
                types,
                is_block_boundary=number % 2 == 0,
                is_branch_boundary=number % 3 == 0,
            )
            carried = _names(rule, cut)
            if carried is None:
                continue
            _check_cut(rule, ops, place, types, given, whole, carried)
            yield


def cut_of(
    before: tuple[Op, ...],
    behind: tuple[Op, ...],
    types: dict[str, TensorType],
    *,
    is_block_boundary: bool,
    is_branch_boundary: bool,
) -> Cut:
    """Return the cut between two lists of operators."""
    made = tuple(name for op in before for name in op.outputs)
    read = {name for op in behind for name in op.inputs}
    return Cut(
        made=made,
        read=tuple(name for name in made if name in read),
        types=types,
        is_block_boundary=is_block_boundary,
        is_branch_boundary=is_branch_boundary,
    )


def _check_cut(
    rule: PipelineRule,
    ops: tuple[Op, ...],
    place: int,
    types: dict[str, TensorType],
    given: dict[str, Array],
    whole: dict[str, Array],
    carried: tuple[str, ...],
) -> None:
    unmade = [name for name in carried if name not in {n for op in ops[:place] for n in op.outputs}]
    if unmade:
        raise RuleError(f"{rule.where} is wrong: {unmade} is not made before the cut")
    first = _run(ops[:place], given, types)
    arrived = given | {name: first[name] for name in carried}
    try:
        second = _run(ops[place:], arrived, types)
    except KeyError as error:
        raise RuleError(
            f"{rule.where} is wrong: behind the cut in front of '{ops[place].name}' value {error} is read, "
            f"but only {carried} cross"
        ) from None
    if not np.array_equal(second[ops[-1].output], whole[ops[-1].output]):
        raise RuleError(f"{rule.where} is wrong: the model has another value when it is cut")


def _model(draw: np.random.Generator) -> tuple[tuple[Op, ...], dict[str, TensorType]]:
    """Return a random model of element-wise operators that read each other, some far back."""
    kind = TensorType((2, 3), DType.F64)
    types = {"x": kind}
    names, ops = ["x"], []
    for number in range(6):
        fn = ("neg", "square", "add", "mul")[int(draw.integers(4))]
        far = names[int(draw.integers(len(names)))]
        inputs = (names[-1], far) if fn in ("add", "mul") else (names[-1],)
        name = f"v{number}"
        ops.append(Op(name=name, kind="map", inputs=inputs, outputs=(name,), attrs={"fn": fn}))
        types[name] = kind
        names.append(name)
    return tuple(ops), types


def _run(
    ops: tuple[Op, ...], given: dict[str, Array], types: dict[str, TensorType]
) -> dict[str, Array]:
    values = dict(given)
    for op in ops:
        operands = [values[name] for name in op.inputs]
        values[op.output] = evaluate(op, operands, types[op.output])
    return values


# ---------------------------------------------------------------------- samples


def _named(sample: Sample) -> tuple[Op, dict[str, TensorType]]:
    names = tuple(f"x{i}" for i in range(len(sample.types)))
    op = replace(sample.op, inputs=names)
    return op, dict(zip(names, sample.types, strict=True)) | {op.output: sample.result}


def _values(sample: Sample, draw: np.random.Generator) -> list[Array]:
    if sample.op.kind == "gather":
        axis = sample.op.integer("axis")
        table, indices = sample.types
        return [
            draw.integers(-4, 5, table.shape).astype(np.float64),
            draw.integers(0, table.shape[axis], indices.shape),
        ]
    return [draw.integers(-4, 5, t.shape).astype(np.float64) for t in sample.types]


def _text(sample: Sample) -> str:
    return f"{sample.op.kind} of {', '.join(map(str, sample.types))} with {dict(sample.op.attrs)}"

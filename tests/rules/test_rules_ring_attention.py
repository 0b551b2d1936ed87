"""Which attentions pass keys and values round, and that wrong forms of it are refused."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.dtypes import DType
from tilewright.errors import RuleError
from tilewright.graph import Op, TensorType
from tilewright.hwmodel.mesh import REPLICATED, LogicalMesh
from tilewright.reference import AnyArray
from tilewright.rules.annotations import annotate
from tilewright.rules.gathered import chunk_nest, find_gather
from tilewright.rules.loopnest import LoopNest
from tilewright.rules.partition.checking import check_partition_rule, check_strategy
from tilewright.rules.partition.family import partition_rules
from tilewright.rules.partition.ring_attention import attend_in_chunks, ring_attention
from tilewright.rules.partition.ruleset import AxisUse, PartitionRules
from tilewright.rules.partition.samples import Sample
from tilewright.rules.splitting import Strategy, localise, strategies

HEADS, FEATURES, VALUES = 2, 3, 5
RULE = "partition.ring_attention"
RULES = partition_rules()


def attention(queries: int, keys: int, mask: tuple[int, int] | None = None) -> Sample:
    """Return an attention of two heads, with a mask of some queries and keys for both."""
    shapes = [(HEADS, queries, FEATURES), (HEADS, FEATURES, keys), (HEADS, keys, VALUES)]
    shapes += [(1, *mask)] if mask is not None else []
    types = tuple(TensorType(shape, DType.F64) for shape in shapes)
    result = TensorType((HEADS, queries, VALUES), DType.F64)
    op = Op(name="a", kind="attention", inputs=(), outputs=("y",), attrs={"scale": 0.5})
    nest = annotate(op, types, result)
    assert nest is not None
    return Sample(op=op, types=types, result=result, nest=nest)


def mesh_of(*sizes: int) -> LogicalMesh:
    return LogicalMesh(tuple("xyz"[: len(sizes)]), sizes)


def rings(sample: Sample, *sizes: int) -> list[Strategy]:
    found = strategies(sample.op, sample.nest, mesh_of(*sizes))
    return [strategy for strategy in found if RULE in strategy.rules]


def test_queries_keys_and_values_lie_along_the_axis() -> None:
    (found,) = rings(attention(6, 12), 3)
    assert found.operands == ((1,), (2,), (1,))
    assert (found.result, found.macros) == ((1,), ("gathered",))


@pytest.mark.parametrize(
    ("mask", "state"),
    [((6, 12), 1), ((6, 1), 1), ((1, 12), REPLICATED), ((1, 1), REPLICATED)],
)
def test_a_mask_lies_with_its_queries(mask: tuple[int, int], state: int) -> None:
    sample = attention(6, 12, mask)
    (found,) = rings(sample, 3)
    assert found.operands[3] == (state,)
    gather = find_gather(sample.nest, mesh_of(3), found.split_dims, found.operands, found.macros)
    assert gather is not None
    assert gather.operands == (1, 2)
    local = localise(sample.nest, mesh_of(3), found.split_dims)
    local = chunk_nest(local, gather.loop, gather.size)
    rows, *columns = (dim.size for dim in local.operands[3][1:])
    assert rows == (2 if mask[0] == 6 else 1)
    assert columns == ([3, 4] if mask[1] == 12 else [1]), "pieces, and keys of a piece"


@pytest.mark.parametrize(
    ("sample", "tiles", "reason"),
    [
        (attention(6, 10), 3, "10 keys in 3 pieces"),
        (attention(5, 6), 3, "5 queries in 3 pieces"),
        (attention(6, 6), 1, "an axis of one tile has nobody to pass to"),
    ],
)
def test_refused(sample: Sample, tiles: int, reason: str) -> None:
    assert rings(sample, tiles) == [], reason


def test_other_axes_may_split_heads_or_queries_but_not_pass_keys_too() -> None:
    found = rings(attention(12, 12), 2, 3)
    b, m = 0, 1
    assert {s.split_dims for s in found} == {(m, b - 1), (b - 1, m), (b, m), (m, m)}
    assert all(s.macros.count("gathered") == 1 for s in found)


@pytest.mark.parametrize("sizes", [(2,), (3,), (2, 3), (3, 2), (1, 2, 2)])
@pytest.mark.parametrize("mask", [None, (12, 12), (1, 12), (12, 1)])
def test_values(mask: tuple[int, int] | None, sizes: tuple[int, ...]) -> None:
    sample = attention(12, 12, mask)
    found = rings(sample, *sizes)
    assert found
    for strategy in found:
        check_strategy(sample, mesh_of(*sizes), strategy)


@given(
    pieces=st.integers(1, 4),
    length=st.integers(1, 5),
    queries=st.integers(1, 3),
    large=st.sampled_from([0.0, 300.0, -300.0]),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_running_softmax_is_the_softmax(
    pieces: int, length: int, queries: int, large: float, seed: int
) -> None:
    """Whatever the order of magnitude of later scores, and for chunks that a mask hides altogether."""
    random = np.random.default_rng(seed)
    keys = pieces * length
    q, k = random.normal(size=(queries, 2)), random.normal(size=(2, keys))
    v, mask = random.normal(size=(keys, 3)), random.normal(size=(queries, keys))
    mask[:, keys // 2 :] += large
    mask[random.random(mask.shape) < 0.4] = -np.inf
    mask[:, random.integers(keys)] = large
    op = Op(name="", kind="attention", inputs=(), outputs=("y",), attrs={"scale": 0.5})
    line = [(number,) for number in range(pieces)]

    def cut(array: AnyArray, axis: int) -> dict[tuple[int, ...], AnyArray]:
        return dict(zip(line, np.split(array, pieces, axis), strict=True))

    held = ({(0,): q}, cut(k, 1), cut(v, 0), {(0,): mask})
    scores = 0.5 * q @ k + mask
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    expected = weights / weights.sum(-1, keepdims=True) @ v
    np.testing.assert_allclose(attend_in_chunks(op, (0,), line, held), expected, rtol=1e-12)


def uses_of(op: Op, nest: LoopNest, size: int) -> list[AxisUse]:
    return [replace(use, rule="bad.ring") for use in ring_attention(op, nest, size)]


@pytest.mark.parametrize(
    ("operand", "reason"),
    [
        ("keys alone", "the tiles make"),
        ("features", "splits operands without its loop along one other"),
        ("mask", "none for 'gathered'"),
        ("result", "its piece of the result is"),
    ],
)
def test_wrong_rings_are_refused(operand: str, reason: str) -> None:
    """Values stay whole or are cut in features, a mask is cut with the keys, the result is called whole."""
    bad = PartitionRules("bad")

    @bad.macro(source="test")
    def ring(op: Op, nest: LoopNest, size: int) -> Iterable[AxisUse]:
        """attention(Q, K, V, M) = attention of pieces, wrongly."""
        for use in uses_of(op, nest, size):
            last = len(nest.result) - 1
            q, k, v, *mask = use.operands
            if operand == "keys alone":
                yield replace(use, operands=(q, k, REPLICATED, *mask))
            elif operand == "features":
                yield replace(use, operands=(q, k, last, *mask))
            elif operand == "mask" and mask and nest.operands[3][-1].size % size == 0:
                yield replace(use, operands=(q, k, v, last))
            elif operand == "result":
                yield replace(use, result=REPLICATED)

    with pytest.raises(RuleError, match=reason) as caught:
        check_partition_rule(bad.rules[0])
    assert "rule 'bad.ring'" in str(caught.value)


def test_leaving_the_rule_out_forbids_it() -> None:
    sample = attention(12, 12)
    rules = [rule for rule in RULES if rule.name != RULE]
    found = strategies(sample.op, sample.nest, mesh_of(3), rules)
    assert found
    assert not any("gathered" in strategy.macros for strategy in found)

"""Which look-ups share out the rows of their table."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.dtypes import DType
from tilewright.graph import Op, TensorType
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.rules.annotations import annotate
from tilewright.rules.loopnest import LoopNest
from tilewright.rules.partition.checking import check_strategy
from tilewright.rules.partition.samples import Sample
from tilewright.rules.partition.vocabulary import local_indices
from tilewright.rules.splitting import Strategy, localise, strategies


def lookup(rows: int, axis: int = 0) -> tuple[Op, LoopNest]:
    """Return a look-up of six indices in a table of some rows and four columns."""
    op = Op(name="g", kind="gather", inputs=(), outputs=("y",), attrs={"axis": axis})
    table = TensorType((rows, 4) if axis == 0 else (4, rows), DType.F64)
    result = TensorType((6, 4) if axis == 0 else (4, 6), DType.F64)
    nest = annotate(op, (table, TensorType((6,), DType.I64)), result)
    assert nest is not None
    return op, nest


def shared(op: Op, nest: LoopNest, *sizes: int) -> list[Strategy]:
    mesh = LogicalMesh(tuple("xyz"[: len(sizes)]), sizes)
    return [s for s in strategies(op, nest, mesh) if "vocabulary" in s.macros]


@pytest.mark.parametrize("axis", [0, 1])
def test_rows_are_split_and_results_are_partial(axis: int) -> None:
    op, nest = lookup(12, axis)
    (found,) = shared(op, nest, 3)
    assert (found.operands, found.result, found.split_dims) == (((axis,), (-1,)), (-2,), (-1,))
    assert found.rules == ("partition.vocabulary_of_table",)
    local = localise(nest, LogicalMesh(("x",), (3,)), found.split_dims, found.macros)
    assert [d.size for d in local.operands[0]] == [4, 4]
    assert local.dims == nest.dims


@pytest.mark.parametrize(("rows", "tiles"), [(10, 3), (2, 4)])
def test_rows_must_divide(rows: int, tiles: int) -> None:
    assert shared(*lookup(rows), tiles) == []


def test_two_axes_may_share_out_one_table() -> None:
    op, nest = lookup(12)
    found = {s.macros: s for s in shared(op, nest, 2, 3)}
    both = found["vocabulary", "vocabulary"]
    assert (both.operands[0], both.result) == ((0, 0), (-2, -2))
    op, nest = lookup(6)
    assert ("vocabulary", "vocabulary") not in {s.macros for s in shared(op, nest, 2, 4)}


@pytest.mark.parametrize("sizes", [(2,), (3,), (2, 3), (3, 2), (2, 2)])
def test_sum_of_masked_look_ups_is_the_look_up(sizes: tuple[int, ...]) -> None:
    mesh = LogicalMesh(tuple("xyz"[: len(sizes)]), sizes)
    for axis in (0, 1):
        op, nest = lookup(12, axis)
        types = (
            TensorType(tuple(d.size for d in nest.operands[0]), DType.F64),
            TensorType((6,), DType.I64),
        )
        result = TensorType(tuple(d.size for d in nest.result), DType.F64)
        for strategy in shared(op, nest, *sizes):
            sample = Sample(op=op, types=types, result=result, nest=nest)
            check_strategy(sample, mesh, strategy)


@given(
    st.lists(st.integers(0, 11), min_size=1, max_size=8), st.sampled_from([(1, 12), (4, 3), (3, 4)])
)
def test_each_index_is_local_to_one_part(indices: list[int], cut: tuple[int, int]) -> None:
    parts, rows = cut
    found = [local_indices(np.array(indices), part * rows, rows) for part in range(parts)]
    assert np.sum([here for _, here in found], axis=0).tolist() == [1] * len(indices)
    for part, (own, here) in enumerate(found):
        assert ((own >= 0) & (own < rows)).all()
        np.testing.assert_array_equal((own + part * rows)[here], np.array(indices)[here])

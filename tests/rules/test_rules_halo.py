"""Which spatial splits exchange halos, and what they exchange."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.dtypes import DType
from tilewright.graph import Op, TensorType
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.rules.annotations import annotate
from tilewright.rules.halo import HaloDim, halo_dims
from tilewright.rules.inference import infer_type
from tilewright.rules.loopnest import LoopNest
from tilewright.rules.partition.family import partition_rules
from tilewright.rules.partition.halo import local_inputs
from tilewright.rules.splitting import Strategy, strategies

H, W = 3, 4
"""Loops of a convolution."""


def conv(
    size: int, kernel: int, stride: int, pads: tuple[int, int], width: int = 1
) -> tuple[Op, LoopNest]:
    """Return a convolution over rows, or over an image if it has a width."""
    top, bottom = pads
    side = (kernel, top, bottom) if width > 1 else (1, 0, 0)
    attrs = {
        "strides": (stride, 1),
        "pads": (top, side[1], bottom, side[2]),
        "dilations": (1, 1),
        "groups": 1,
    }
    types = (
        TensorType((1, 2, size, width), DType.F32),
        TensorType((2, 2, kernel, side[0]), DType.F32),
    )
    op = Op(name="c", kind="conv", inputs=(), outputs=("y",), attrs=attrs)
    nest = annotate(op, types, infer_type("conv", attrs, types, DType.F32))
    assert nest is not None
    return op, nest


def haloed(op: Op, nest: LoopNest, *sizes: int) -> list[Strategy]:
    mesh = LogicalMesh(tuple("xyz"[: len(sizes)]), sizes)
    return [s for s in strategies(op, nest, mesh) if "halo" in s.macros]


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pads", "margins"),
    [
        (12, 3, 1, (1, 1), (1, 1)),
        (12, 7, 2, (3, 3), (3, 2)),
        (12, 3, 2, (1, 1), (1, 0)),
        (12, 3, 2, (0, 1), (0, 1)),
        (12, 2, 1, (1, 0), (1, 0)),
    ],
)
def test_margins_are_what_windows_reach(
    size: int, kernel: int, stride: int, pads: tuple[int, int], margins: tuple[int, int]
) -> None:
    op, nest = conv(size, kernel, stride, pads)
    mesh = LogicalMesh(("x",), (3,))
    (found,) = haloed(op, nest, 3)
    assert (found.operands, found.result) == (((2,), (-1,)), (2,))
    assert found.rules == ("partition.conv_space_halo",)
    item = halo_dims(nest, mesh, found.split_dims, found.macros)[2]
    assert (item.low, item.high) == margins
    each = nest.dims[H].extent // 3
    for tile in range(3):
        rows = [
            stride * h + r - pads[0]
            for h in range(tile * each, (tile + 1) * each)
            for r in range(kernel)
        ]
        assert tile * item.size - item.low <= min(rows)
        assert max(rows) < (tile + 1) * item.size + item.high
    first, last = stride * each - pads[0], stride * (2 * each - 1) + kernel - 1 - pads[0]
    assert first == item.size - item.low or not item.low
    assert last == 2 * item.size + item.high - 1 or not item.high


@pytest.mark.parametrize(
    ("case", "tiles", "reason"),
    [
        ((12, 3, 1, (0, 0)), 2, "10 rows from 12: tiles need different rows"),
        ((9, 3, 1, (1, 1)), 2, "9 rows on 2 tiles"),
        ((4, 7, 1, (3, 3)), 4, "3 rows of a neighbour that has one"),
        ((12, 1, 1, (0, 0)), 2, "windows do not overlap: an ordinary split"),
    ],
)
def test_refused(case: tuple[int, int, int, tuple[int, int]], tiles: int, reason: str) -> None:
    assert haloed(*conv(*case), tiles) == [], reason


def test_two_axes_exchange_on_two_dimensions_but_not_on_one() -> None:
    op, nest = conv(12, 3, 1, (1, 1), width=12)
    found = {s.split_dims for s in haloed(op, nest, 2, 2)}
    assert {(H, W), (W, H), (H, -1), (-1, W)} < found
    assert not {(H, H), (W, W)} & found


def test_leaving_the_rule_out_forbids_the_split() -> None:
    op, nest = conv(12, 3, 1, (1, 1))
    rules = [r for r in partition_rules() if r.name != "partition.conv_space_halo"]
    mesh = LogicalMesh(("x",), (2,))
    assert not any("halo" in s.macros for s in strategies(op, nest, mesh, rules))
    assert all(s.split_dims != (H,) for s in strategies(op, nest, mesh, rules))


@given(
    mesh=st.sampled_from([(2, 3), (3, 1), (4, 2)]),
    sizes=st.tuples(st.integers(2, 4), st.integers(2, 4)),
    margins=st.tuples(*[st.integers(0, 2)] * 4),
)
@settings(max_examples=40, deadline=None)
def test_exchange_cuts_windows_out_of_the_padded_image(
    mesh: tuple[int, int], sizes: tuple[int, int], margins: tuple[int, int, int, int]
) -> None:
    rows, columns = (n * p for n, p in zip(sizes, mesh, strict=True))
    image = np.arange(float(rows * columns)).reshape(rows, columns)
    top, bottom, left, right = margins
    padded = np.pad(image, ((top, bottom), (left, right)), constant_values=-1.0)
    (h, w), (p, q) = sizes, mesh
    tiles = [(i, j) for i in range(p) for j in range(q)]
    pieces = {(i, j): image[i * h : (i + 1) * h, j * w : (j + 1) * w] for i, j in tiles}
    dims = (
        HaloDim(axis=0, size=h, low=top, high=bottom),
        HaloDim(axis=1, size=w, low=left, high=right),
    )
    found = local_inputs(dims, LogicalMesh(("x", "y"), mesh), pieces, -1.0)
    for i, j in tiles:
        wanted = padded[i * h : (i + 1) * h + top + bottom, j * w : (j + 1) * w + left + right]
        np.testing.assert_array_equal(found[i, j], wanted)

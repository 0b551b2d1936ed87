"""Windows, slices, pads and resizes with random parameters, against onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tilewright.graph import Graph

CompareNode = Callable[..., Graph]
quick = settings(max_examples=40, deadline=None)


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


@quick
@given(st.data())
def test_slice(compare_node: CompareNode, data: st.DataObject):
    shape = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    axes = data.draw(st.lists(st.integers(0, len(shape) - 1), unique=True, min_size=1))
    bound = st.integers(-8, 8)
    starts, ends = ([data.draw(bound) for _ in axes] for _ in range(2))
    steps = [data.draw(st.sampled_from([-3, -2, -1, 1, 2, 3])) for _ in axes]
    signed = [a - data.draw(st.sampled_from([0, len(shape)])) for a in axes]
    known = [np.array(v, np.int64) for v in (starts, ends, signed, steps)]
    compare_node("Slice", [normal(*shape)], known=known)


@quick
@given(st.data())
def test_pad(compare_node: CompareNode, data: st.DataObject):
    shape = data.draw(st.lists(st.integers(2, 5), min_size=1, max_size=3))
    mode = data.draw(st.sampled_from(["constant", "reflect", "edge"]))
    low = -1 if mode == "constant" else 0
    pads = [data.draw(st.integers(low, min(d for d in shape) - 1)) for _ in range(2 * len(shape))]
    assume(all(d + b + e > 0 for d, b, e in zip(shape, pads, pads[len(shape) :], strict=False)))
    known: list[np.ndarray] = [np.array(pads, np.int64)]
    if mode == "constant":
        known.append(np.float32(data.draw(st.sampled_from([0.0, -1.5, np.inf]))))
    compare_node("Pad", [normal(*shape)], known=known, mode=mode)


def window_attributes(
    data: st.DataObject, rank: int, spatial: list[int], kernel: list[int]
) -> dict[str, Any]:
    """Draw strides, dilations and pads (explicit or automatic) that fit."""
    attributes: dict[str, Any] = {
        "strides": [data.draw(st.integers(1, 3)) for _ in range(rank)],
        "dilations": [data.draw(st.integers(1, 2)) for _ in range(rank)],
    }
    mode = data.draw(st.sampled_from(["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    if mode == "NOTSET":
        pads = [data.draw(st.integers(0, max(k - 1, 0))) for k in kernel * 2]
        attributes["pads"] = pads
    else:
        # automatic pads with dilations: onnxruntime computes sizes differently from version to version
        attributes["dilations"] = [1] * rank
        attributes["auto_pad"] = mode
        # onnxruntime refuses automatic pads that would be negative
        attributes["strides"] = [
            min(s, k) for s, k in zip(attributes["strides"], kernel, strict=True)
        ]
        pads = [0] * (2 * rank)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, attributes["dilations"], strict=True)]
    assume(
        all(s + b + e >= w for s, b, e, w in zip(spatial, pads, pads[rank:], spans, strict=False))
    )
    return attributes


@quick
@given(st.data())
def test_conv(compare_node: CompareNode, data: st.DataObject):
    rank = data.draw(st.integers(1, 2))
    groups = data.draw(st.sampled_from([1, 2, 4]))
    spatial = [data.draw(st.integers(3, 8)) for _ in range(rank)]
    kernel = [data.draw(st.integers(1, 3)) for _ in range(rank)]
    attributes = window_attributes(data, rank, spatial, kernel)
    out = groups * data.draw(st.integers(1, 2))
    known = [normal(out, 4 // groups, *kernel)]
    if data.draw(st.booleans()):
        known.append(normal(out))
    compare_node("Conv", [normal(2, 4, *spatial)], known=known, group=groups, **attributes)


@quick
@given(st.data())
def test_conv_transpose(compare_node: CompareNode, data: st.DataObject):
    rank = data.draw(st.integers(1, 2))
    groups = data.draw(st.sampled_from([1, 2]))
    spatial = [data.draw(st.integers(2, 5)) for _ in range(rank)]
    kernel = [data.draw(st.integers(1, 4)) for _ in range(rank)]
    strides = [data.draw(st.integers(1, 3)) for _ in range(rank)]
    pads = [data.draw(st.integers(0, 1)) for _ in range(2 * rank)]
    extra = [data.draw(st.integers(0, s - 1)) for s in strides]
    sizes = zip(spatial, kernel, strides, pads, pads[rank:], extra, strict=False)
    assume(all(s * (d - 1) + k - b - e + x > 0 for d, k, s, b, e, x in sizes))
    known = [normal(4, 6 // groups, *kernel), normal(6)]
    compare_node(
        "ConvTranspose",
        [normal(1, 4, *spatial)],
        known=known,
        group=groups,
        strides=strides,
        pads=pads,
        output_padding=extra,
    )


@quick
@given(st.data())
def test_pool(compare_node: CompareNode, data: st.DataObject):
    rank = data.draw(st.integers(1, 2))
    op_type = data.draw(st.sampled_from(["MaxPool", "AveragePool", "LpPool"]))
    spatial = [data.draw(st.integers(4, 9)) for _ in range(rank)]
    kernel = [data.draw(st.integers(1, 3)) for _ in range(rank)]
    attributes = window_attributes(data, rank, spatial, kernel)
    if op_type == "AveragePool":
        attributes["count_include_pad"] = data.draw(st.integers(0, 1))
    if "auto_pad" not in attributes:
        attributes["ceil_mode"] = data.draw(st.integers(0, 1))
    if op_type == "AveragePool" and attributes.get("ceil_mode"):
        attributes["dilations"] = [1] * rank
    compare_node(op_type, [normal(2, 3, *spatial)], kernel_shape=kernel, opset=19, **attributes)


@quick
@given(st.data())
def test_resize(compare_node: CompareNode, data: st.DataObject):
    mode = data.draw(st.sampled_from(["nearest", "linear", "cubic"]))
    coordinates = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]
    attributes: dict[str, Any] = {
        "mode": mode,
        "coordinate_transformation_mode": data.draw(st.sampled_from(coordinates)),
    }
    if mode == "nearest":
        rounding = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]
        attributes["nearest_mode"] = data.draw(st.sampled_from(rounding))
    if mode == "cubic":
        attributes["exclude_outside"] = data.draw(st.integers(0, 1))
    # sizes whose ratios are exact: rounding positions halfway would be a matter of luck
    factors = st.sampled_from([0.5, 1.0, 2.0, 4.0])
    scales = np.array([1.0, 1.0, data.draw(factors), data.draw(factors)], np.float32)
    compare_node("Resize", [normal(1, 2, 4, 8)], known=[None, scales], opset=18, **attributes)


@quick
@given(st.data())
def test_gather(compare_node: CompareNode, data: st.DataObject):
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    size = shape[axis]
    count = data.draw(st.lists(st.integers(1, 3), max_size=2))
    indices = data.draw(
        st.lists(
            st.integers(-size, size - 1), min_size=int(np.prod(count)), max_size=int(np.prod(count))
        )
    )
    array = np.array(indices, np.int64).reshape(count)
    if data.draw(st.booleans()):
        compare_node("Gather", [normal(*shape)], known=[array], axis=axis)
    else:
        compare_node("Gather", [normal(*shape), array], axis=axis)


@quick
@given(st.data())
def test_broadcast(compare_node: CompareNode, data: st.DataObject):
    full = data.draw(st.lists(st.integers(1, 4), max_size=4))
    arrays = []
    for _ in range(2):
        kept = full[data.draw(st.integers(0, len(full))) :]
        arrays.append(normal(*(1 if data.draw(st.booleans()) else d for d in kept)))
    op_type = data.draw(
        st.sampled_from(["Add", "Sub", "Mul", "Div", "Max", "Min", "Less", "PRelu"])
    )
    if op_type == "PRelu":
        arrays[0] = normal(*np.broadcast_shapes(arrays[0].shape, arrays[1].shape))
    known = data.draw(st.integers(0, 1))
    compare_node(op_type, arrays[: 2 - known], known=arrays[2 - known :])


@quick
@given(st.data())
def test_matmul(compare_node: CompareNode, data: st.DataObject):
    batch = data.draw(st.lists(st.integers(1, 3), max_size=2))
    m, k, n = (data.draw(st.integers(1, 5)) for _ in range(3))
    left = [1 if data.draw(st.booleans()) else d for d in batch]
    right = batch[data.draw(st.integers(0, len(batch))) :]
    x = normal(k) if not batch and data.draw(st.booleans()) else normal(*left, m, k)
    y = normal(k) if data.draw(st.booleans()) else normal(*right, k, n)
    compare_node("MatMul", [x, y])


@quick
@given(st.data())
def test_reduce(compare_node: CompareNode, data: st.DataObject):
    names = ["Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "LogSumExp", "SumSquare"]
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    axes = data.draw(st.lists(st.integers(0, len(shape) - 1), unique=True))
    op_type = f"Reduce{data.draw(st.sampled_from(names))}"
    keep = data.draw(st.integers(0, 1))
    known = [np.array(axes, np.int64)] if axes else []
    compare_node(op_type, [normal(*shape)], known=known, keepdims=keep, opset=18)
    if axes and op_type != "ReduceSum":
        compare_node(op_type, [normal(*shape)], axes=axes, keepdims=keep, opset=13)

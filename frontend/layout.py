"""Moves transposes towards the outputs, so that pairs of them meet and vanish.

Models from channels-last frameworks transpose around every convolution; the elementwise operators in
between do not care about the order of axes.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import numpy as np

from tilewright.frontend.editing import Editor
from tilewright.graph import Graph, Op, TensorType


def sink_transposes(graph: Graph) -> Graph:
    """Rewrite f(transpose(x), ...) to transpose(f(x, ...)) for elementwise f, pad, concat and reduce."""
    editor = Editor(graph)
    kept: list[Op] = []
    for op in graph.ops:
        kept.extend(_sunk(editor, op) if op.kind in ("map", "pad", "concat", "reduce") else [op])
    if not editor.changed:
        return graph
    editor.ops = kept
    return editor.finish()


def _perm_of(editor: Editor, op: Op) -> tuple[int, ...] | None:
    """Return the permutation that all inputs of an operator share; constants fit any."""
    perms = set()
    for name in op.inputs:
        if name in editor.constants or name in editor.absent:
            continue
        maker = editor.producer.get(name)
        if maker is None or maker.kind != "transpose":
            return None
        perms.add(maker.ints("perm"))
    return perms.pop() if len(perms) == 1 else None


def _sunk(editor: Editor, op: Op) -> list[Op]:
    perm = _perm_of(editor, op)
    if perm is None:
        return [op]
    inverse = tuple(int(i) for i in np.argsort(perm))
    inputs = []
    made = []
    for name in op.inputs:
        if name in editor.absent and editor.types[name].elements > 1:
            made.append(_transposed(editor, name, inverse))
            inputs.append(made[-1].output)
        elif name in editor.absent:
            inputs.append(name)
        elif name in editor.constants:
            constant = editor.constants[name]
            inputs.append(
                editor.add_constant(name, constant.transpose(inverse))
                if constant.size > 1
                else name
            )
        else:
            inputs.append(editor.producer[name].inputs[0])
    out = editor.types[op.output]
    inner = editor.fresh(f"{op.output}.untransposed")
    editor.types[inner] = TensorType(tuple(out.shape[i] for i in inverse), out.dtype)
    moved = replace(
        op,
        inputs=tuple(inputs),
        outputs=(inner,),
        attrs=MappingProxyType(_permuted(op, perm, inverse)),
    )
    after = Op(
        name=f"{op.name}.transpose",
        kind="transpose",
        inputs=(inner,),
        outputs=op.outputs,
        attrs=MappingProxyType({"perm": perm}),
    )
    editor.producer[inner] = moved
    editor.producer[op.output] = after
    editor.changed = True
    return [*made, moved, after]


def _transposed(editor: Editor, name: str, perm: tuple[int, ...]) -> Op:
    """Return an operator that transposes a constant whose values are not here."""
    shape, output = editor.types[name].shape, editor.fresh(name)
    editor.types[output] = TensorType(tuple(shape[i] for i in perm), editor.types[name].dtype)
    op = Op(
        name=f"{output}.transpose",
        kind="transpose",
        inputs=(name,),
        outputs=(output,),
        attrs=MappingProxyType({"perm": perm}),
    )
    editor.producer[output] = op
    return op


def _permuted(
    op: Op, perm: tuple[int, ...], inverse: tuple[int, ...]
) -> dict[str, int | float | str | tuple[int, ...]]:
    """Return an operator's attributes in the order of axes before the transpose."""
    attrs = dict(op.attrs)
    match op.kind:
        case "pad":
            for key in ("begins", "ends"):
                values = op.ints(key)
                attrs[key] = tuple(values[i] for i in inverse)
        case "concat":
            attrs["axis"] = perm[op.integer("axis")]
        case "reduce":
            attrs["axes"] = tuple(sorted(perm[a] for a in op.ints("axes")))
    return attrs

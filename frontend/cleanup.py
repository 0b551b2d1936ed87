"""Clean-up of an imported graph: dead code, duplicates, redundant layout changes and casts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from math import prod

import numpy as np

from tilewright.constants import absent, known
from tilewright.frontend.editing import Editor, remove_dead
from tilewright.frontend.layout import sink_transposes
from tilewright.frontend.patterns import recognise
from tilewright.frontend.quantised import keep_quantised
from tilewright.graph import Array, Graph

MAX_ROUNDS = 50


def clean_up(graph: Graph) -> Graph:
    """Return the graph after all passes; the function it computes is the same."""
    graph = keep_quantised(remove_dead(graph, graph.types, graph.constants))
    graph = to_fixpoint(graph, merge_duplicates, simplify)
    graph = to_fixpoint(graph, recognise, merge_duplicates)
    sunk = to_fixpoint(graph, sink_transposes, simplify)
    if moved_bytes(sunk) < moved_bytes(graph):
        graph = sunk
    return to_fixpoint(graph, merge_duplicates, simplify, recognise)


def to_fixpoint(graph: Graph, *passes: Callable[[Graph], Graph]) -> Graph:
    """Apply passes in turn until none changes the graph."""
    for _ in range(MAX_ROUNDS):
        before = graph
        for apply in passes:
            graph = apply(graph)
        if graph is before:
            break
    return graph


def moved_bytes(graph: Graph) -> int:
    """Return the bytes that transposes move."""
    return sum(graph.types[op.output].size_bytes for op in graph.ops if op.kind == "transpose")


def merge_duplicates(graph: Graph) -> Graph:
    """Let equal constants and equal operators on equal inputs be computed once."""
    editor = Editor(graph)
    constants: dict[tuple[object, ...], str] = {}
    contents: dict[str, tuple[object, ...]] = {
        name: _content(array) for name, array in known(graph.constants).items()
    }
    contents |= {
        name: ("absent", place, graph.types[name])
        for name, place in absent(graph.constants).items()
    }
    for name, content in contents.items():
        first = constants.setdefault(content, name)
        if first != name:
            editor.alias(name, first)
    seen: dict[tuple[object, ...], str] = {}
    for op in graph.ops:
        if op.kind == "host":
            continue
        inputs = tuple(editor.resolve(n) for n in op.inputs)
        key = (op.kind, inputs, tuple(sorted(op.attrs.items())), graph.types[op.output])
        first = seen.setdefault(key, op.output)
        if first != op.output:
            editor.alias(op.output, first)
    return editor.finish() if editor.changed else graph


def _content(array: Array) -> tuple[object, ...]:
    """Return a key that equal constants share; broadcast views are not copied."""
    if array.size > 1 and not any(array.strides):
        return (
            "uniform",
            array.dtype.str,
            array.dtype.name,
            array.shape,
            array.reshape(-1)[:1].tobytes(),
        )
    if array.nbytes > 1 << 22:
        return ("large", id(array))
    digest = hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=16).digest()
    return (array.dtype.name, array.shape, digest)


def simplify(graph: Graph) -> Graph:
    """Compose neighbouring layout changes, drop those and the casts that do nothing."""
    editor = Editor(graph)
    for index, op in enumerate(graph.ops):
        if op.kind == "reshape":
            _simplify_reshape(editor, index)
        elif op.kind == "transpose":
            _simplify_transpose(editor, index)
        elif op.kind == "map":
            _simplify_cast(editor, index)
    return editor.finish() if editor.changed else graph


def _simplify_reshape(editor: Editor, index: int) -> None:
    """reshape(reshape(x)) -> reshape(x); reshape(x) of the same shape -> x."""
    op = editor.ops[index]
    source = editor.resolve(op.inputs[0])
    inner = editor.producer.get(source)
    if inner is not None and inner.kind == "reshape":
        source = editor.resolve(inner.inputs[0])
        op = replace(op, inputs=(source,))
        editor.set_op(index, op)
    if editor.types[source] == editor.types[op.output]:
        editor.alias(op.output, source)


def _simplify_transpose(editor: Editor, index: int) -> None:
    """transpose(transpose(x)) -> transpose(x); one that moves no data -> reshape or nothing."""
    op = editor.ops[index]
    perm = op.ints("perm")
    source = editor.resolve(op.inputs[0])
    inner = editor.producer.get(source)
    if inner is not None and inner.kind == "transpose":
        first = inner.ints("perm")
        perm = tuple(first[p] for p in perm)
        source = editor.resolve(inner.inputs[0])
        editor.set_op(index, editor.remake(op, "transpose", (source,), perm=perm))
    if perm == tuple(range(len(perm))):
        editor.alias(op.output, source)
        return
    shape = editor.types[source].shape
    moving = [p for p in perm if shape[p] != 1]
    if moving == sorted(moving):
        target = editor.types[op.output].shape
        assert prod(target) == prod(shape), "a transpose keeps its elements"
        editor.set_op(index, editor.remake(op, "reshape", (source,), shape=target))


def _simplify_cast(editor: Editor, index: int) -> None:
    """Drop identities, casts to the same type, and casts back from a wider type."""
    op = editor.ops[index]
    fn = op.text("fn")
    if len(op.inputs) != 1 or not (fn == "identity" or (fn.startswith("cast(") and "|" not in fn)):
        return
    source = editor.resolve(op.inputs[0])
    out = editor.types[op.output]
    if editor.types[source] == out:
        editor.alias(op.output, source)
        return
    inner = editor.producer.get(source)
    if (
        inner is None
        or inner.kind != "map"
        or not inner.text("fn").startswith("cast(")
        or "|" in inner.text("fn")
    ):
        return
    origin = editor.resolve(inner.inputs[0])
    if editor.types[origin] == out and np.can_cast(
        out.dtype.numpy, editor.types[source].dtype.numpy, "safe"
    ):
        editor.alias(op.output, origin)

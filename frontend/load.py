"""The entry of the frontend: a model file in, a validated graph out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType

from tilewright.constants import Constants
from tilewright.errors import ModelError
from tilewright.frontend.builder import Builder
from tilewright.frontend.cleanup import clean_up
from tilewright.frontend.host import RetryWithHost, merge_regions
from tilewright.frontend.importer import ModelImport, all_importers, check_outputs, port_of
from tilewright.frontend.model_file import read_model
from tilewright.graph import Graph

DEFAULT_MAX_CONSTANT_BYTES = 2 << 30


def load_onnx(
    source: str | os.PathLike[str] | bytes,
    *,
    dims: Mapping[str, int] | None = None,
    weights: bool = True,
    max_constant_bytes: int = DEFAULT_MAX_CONSTANT_BYTES,
) -> Graph:
    """Import an ONNX model, opset 9 to 23.

    Args:
        source: Path of a model file, or its bytes.
        dims: Sizes of symbolic input dimensions by name; an unnamed one is called `input.position`.
        weights: Whether to load values in external files; else such constants are known by type only
            (`tilewright.constants`), and what needs their values raises.
        max_constant_bytes: Budget for constants that folding computes, [bytes].

    Returns:
        A validated graph; `Graph.notes` says what was folded or left to the host.

    Raises:
        ModelError: The file is broken, unsafe or contradicts itself.
        ShapeError: A dimension is unbound, or shapes do not fit.
        UnsupportedOpError: Neither the target nor the host can run an operator.
    """
    model = read_model(source, weights=weights)
    forced: frozenset[str] = frozenset()
    while True:
        b = Builder(max_constant_bytes=max_constant_bytes)
        state = ModelImport(model, b, forced, all_importers())
        inputs, results = state.run(dims or {})
        check_outputs(results)
        outputs = tuple(port_of(name, value) for name, value in results)
        kept = [p.tensor for p in outputs]
        try:
            ops, host_models = merge_regions(b.ops, state.hosts, state.origin, kept)
        except RetryWithHost as retry:
            if retry.keys <= forced:
                raise ModelError("host-only values cannot be kept inside one host region") from None
            forced |= retry.keys
            continue
        break
    for region in host_models.values():
        state.notes.append(f"host region of {len(region.op_types)} operator types: {region.reason}")
    graph = Graph(
        name=model.graph.name or "model",
        inputs=inputs,
        outputs=outputs,
        types=MappingProxyType(b.types),
        constants=Constants(b.constants, b.absent),
        ops=ops,
        host_models=MappingProxyType(host_models),
        notes=tuple(state.notes),
    )
    graph = clean_up(graph)
    graph.validate()
    return graph

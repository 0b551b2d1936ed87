"""The models that tests and benchmarks compile, by name.

A name is a key of the fetcher, a `light_*` model of the onnx package (with seeded weights), or a
transformer of `examples/` such as `llama_prefill`, `gpt2_decode_8x128` (layers x width) or
`llama_decode_1x1024x128` (and tokens, with heads 64 wide), or a stack of their feed-forward layers
alone such as `llama_mlp_4x1024x16` (layers x width x tokens). Models that are only saturated have their
published size and no weights: `SHAPES`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx

from tilewright.fetch import fetch_model, onnx_light_models
from tilewright.graph import Array, Graph
from tilewright.inputs import example_inputs
from tilewright.light_models import seeded_weights

ROOT = Path(__file__).parent.parent
SEED = 0

Fetch = Callable[[str], Path]


@dataclass(frozen=True, slots=True)
class Case:
    """A model to compile: its name, where it comes from, and sizes of its symbolic dimensions."""

    name: str
    source: str
    dims: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))


def _fixed(source: str, name: str = "", **dims: int) -> Case:
    return Case(name or source, source, MappingProxyType(dims))


def _dotted(source: str, dims: Mapping[str, int]) -> Case:
    return Case(source, source, MappingProxyType(dict(dims)))


LIGHT = (
    "light_bvlc_alexnet",
    "light_densenet121",
    "light_inception_v1",
    "light_inception_v2",
    "light_resnet50",
    "light_shufflenet",
    "light_squeezenet",
    "light_vgg19",
    "light_zfnet512",
)
TRAINED = (
    _fixed("kws_embed", unk__316=1),
    _fixed("basic_pitch", unk__749=1),
    _fixed("resnet50thin", batch=1),
    _fixed("minilm_int8w", batch=1, sequence=128),
    _fixed("silero_v6", seq_len=1),
)
SWEEP = (
    _fixed("magika", unk__214=1),
    _fixed("mtcnn_p", N=1, M1=96, M2=128),
    _fixed("mtcnn_r", N=1),
    _fixed("mtcnn_o", N=1),
    _fixed("eeg_unet1d", batch_size=1),
    _fixed("eeg_lstm", batch=1, time=64),
    _fixed("rawi_ens_int8", batch=1, seq=16),
    _fixed("silero_seq", sequence_length=1),
    _dotted("ppocr_cls", {"x.0": 1, "x.2": 48, "x.3": 96}),
    _dotted(
        "ppocrv4_det",
        {f"p2o.DynamicDimension.{i}": size for i, size in enumerate((1, 64, 64))},
    ),
    _dotted("ppocrv4_rec", {"p2o.DynamicDimension.0": 1, "x.2": 48, "p2o.DynamicDimension.1": 64}),
    _fixed("smart_turn_qdq", s6=1),
)
TRANSFORMERS = tuple(
    _fixed(f"{family}_{mode}") for family in ("llama", "gpt2") for mode in ("prefill", "decode")
)
SHORT_MINILM = _fixed("minilm_int8w", name="minilm_int8w_s16", batch=1, sequence=16)

CASES: Mapping[str, Case] = MappingProxyType(
    {
        case.name: case
        for case in (*TRAINED, *map(_fixed, LIGHT), *TRANSFORMERS, *SWEEP, SHORT_MINILM)
    }
)

SHAPES = (
    *(f"{name}_{mode}" for name in ("llama3-8b", "llama3-70b") for mode in ("prefill", "decode")),
    *("gpt2_prefill", "gpt2_decode", "mobilenetv2", "resnet50", "unet"),
)
"""Presets of the scripts in `examples/` that saturation is measured on; see `shapes_of`."""

SATURATED = (*SHAPES, "minilm_int8w")
"""These, and a trained model whose blocks, with quantised weights, need the most rounds of rules."""


_TRANSFORMER = re.compile(r"(llama|gpt2)_(prefill|decode)(?:_(\d+)x(\d+)(?:x(\d+))?)?")

_MLP = re.compile(r"(llama|gpt2)_mlp_(\d+)x(\d+)x(\d+)")


def case_of(name: str) -> Case:
    """Return a case by name; transformers may have any depth and width.

    Raises:
        KeyError: There is no such case.
    """
    if name not in CASES and (_TRANSFORMER.fullmatch(name) or _MLP.fullmatch(name)):
        return Case(name, name)
    return CASES[name]


def model_of(case: Case, fetch: Fetch = fetch_model) -> Path | bytes:
    """Return the model's file, or its bytes if it is made here.

    Args:
        case: The case.
        fetch: Gives the file of a trained model by key.
    """
    if match := _TRANSFORMER.fullmatch(case.source):
        return _transformer(*match.groups())
    if match := _MLP.fullmatch(case.source):
        family, *sizes = match.groups()
        return _feed_forward(family, *map(int, sizes))
    if case.source.startswith("light_"):
        (path,) = (p for p in onnx_light_models() if p.stem == case.source)
        return bytes(seeded_weights(onnx.load(path), SEED).SerializeToString())
    return fetch(case.source)


def inputs_of(case: Case, graph: Graph) -> dict[str, Array]:
    """Return inputs that make sense to the model; seeded random ones do for most.

    Two models answer noise with numbers on which onnxruntime itself is off, by 7e-3 and 3e-2 of the
    largest: magika's activations are all but constant for bytes of 0 and 1, so that of its layer
    norm's E[x^2] - E[x]^2 rounding errors remain; a text detector that finds none gives sigmoids
    of 1e-6. They get a text and an image of strokes.
    """
    if case.source == "magika":
        text = np.frombuffer((ROOT / "LICENSE").read_bytes(), np.uint8).astype(np.int32)
        return {"bytes": np.concatenate([text[:1024], text[-1024:]])[None]}
    if case.source == "ppocrv4_det":
        return {port.name: _strokes(port.shape) for port in graph.inputs}
    return example_inputs(graph)


def _strokes(shape: tuple[int, ...]) -> Array:
    """Draw dark strokes on a bright ground, [n, channels, height, width]."""
    height, width = shape[-2:]
    image = np.full((height, width), 2.0, np.float32)
    is_dark = np.arange(width - 16) // 3 % 2 == 0
    image[height // 3 : 2 * height // 3, 8:-8] = np.where(is_dark, -2.0, 2.0)
    image[height // 2 - 2 : height // 2 + 1, 8:-8] = -2.0
    return np.broadcast_to(image, shape).copy()


def shapes_of(name: str) -> bytes:
    """Return a model at its published size, whose weights refer to a file that is nowhere.

    Args:
        name: A preset of a script in `examples/`, and behind it the mode of a transformer that decodes
            (`llama3-8b_decode`, with its layers if not the preset's: `llama3-8b_decode_8`) or the batch of a
            CNN or encoder (`resnet50_b64`); or `blocks_8`, a Llama's feed-forward layers of 8 widths.
    """
    _find_examples()
    import write_cnn
    import write_encoder
    import write_gpt2
    import write_llama
    import write_mixtral
    from model_writer import referenced

    preset, *call = name.split("_")
    batch = int(call[0].removeprefix("b")) if call and call[0][1:].isdigit() else 1
    writer: Any
    if preset == "blocks":
        writer = _different_blocks(int(call[0]))
    elif preset in write_cnn.NETWORKS:
        graph, size = write_cnn.NETWORKS[preset]
        writer = graph(size, batch)
    elif preset in write_encoder.PRESETS:
        writer = write_encoder.encoder_graph(replace(write_encoder.PRESETS[preset], batch=batch))
    elif preset in write_mixtral.PRESETS:
        writer = write_mixtral.mixtral_graph(write_mixtral.PRESETS[preset], call[0])
    elif preset in write_llama.PRESETS:
        shape = write_llama.PRESETS[preset]
        layers = int(call[1]) if len(call) > 1 else shape.layers
        writer = write_llama.llama_graph(replace(shape, layers=layers), call[0])
    else:
        writer = write_gpt2.gpt2_graph(write_gpt2.PRESETS[preset], call[0])
    model = writer.model(name, referenced(writer.weights, "weights.data"))
    return bytes(model.SerializeToString())


def _find_examples() -> None:
    """Let the scripts of `examples/` be imported."""
    folder = str(ROOT / "examples")
    if folder not in sys.path:
        sys.path.insert(0, folder)


def _transformer(
    family: str, mode: str, layers: str | None, width: str | None, tokens: str | None
) -> bytes:
    """Build a transformer with the scripts of `examples/`."""
    _find_examples()
    if family == "llama":
        from write_llama import PRESETS, build_llama as build  # noqa: I001
    else:
        from write_gpt2 import PRESETS, build_gpt2 as build  # noqa: I001
    size = PRESETS["tiny"]
    if layers and width:
        size = replace(size, layers=int(layers), hidden=int(width), ffn=3 * int(width))
        if tokens:
            heads = max(1, int(width) // 64)
            kv_heads = max(1, heads // 4) if family == "llama" else heads
            size = replace(size, heads=heads, kv_heads=kv_heads, seq=int(tokens))
    return bytes(build(size, "decode" if mode == "decode" else "prefill", SEED).SerializeToString())


def halved(model: bytes) -> bytes:
    """Return a model without weights in half precision: inputs, outputs, constants and what lies between."""
    proto = onnx.load_model_from_string(model)
    full, half = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
    for number, tensor in enumerate(proto.graph.initializer):
        if tensor.data_type != full:
            continue
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            for entry in tensor.external_data:
                entry.value = str(int(entry.value) // 2) if entry.key != "location" else entry.value
            tensor.data_type = half
        else:
            values = onnx.numpy_helper.to_array(tensor).astype(np.float16)
            proto.graph.initializer[number].CopyFrom(
                onnx.numpy_helper.from_array(values, tensor.name)
            )
    for value in (*proto.graph.input, *proto.graph.output):
        if value.type.tensor_type.elem_type == full:
            value.type.tensor_type.elem_type = half
    return bytes(proto.SerializeToString())


def _different_blocks(kinds: int) -> Any:
    """Return the graph of feed-forward layers of a Llama, twice each of so many widths."""
    import write_llama
    from transformer_writer import Size, Writer

    def sized(kind: int) -> Size:
        ffn = 1024 * (kind + 1)
        return Size(layers=2, hidden=1024, heads=16, kv_heads=16, ffn=ffn, vocab=1, seq=64)

    w = Writer(size=sized(0), mode="prefill")
    x = w.input("x", 1, w.size.seq, w.size.hidden)
    for kind in range(kinds):
        w.size = sized(kind)
        for repeat in range(2):
            prefix = f"kind{kind}.{repeat}"
            x = w.op("Add", x, write_llama.swiglu(w, x, prefix), out=f"{prefix}.residual")
    w.output(x, 1, w.size.seq, w.size.hidden)
    return w


def _feed_forward(family: str, layers: int, width: int, tokens: int) -> bytes:
    """Stack residual feed-forward layers: norm, products and activation, as in the transformers."""
    _find_examples()
    import write_gpt2
    import write_llama
    from model_writer import embedded
    from transformer_writer import Size, Writer

    size = Size(
        layers=layers, hidden=width, heads=1, kv_heads=1, ffn=3 * width, vocab=1, seq=tokens
    )
    w = Writer(size=size, mode="prefill")
    x = w.input("x", 1, tokens, width)
    for layer in range(layers):
        if family == "llama":
            y = write_llama.swiglu(w, x, f"layers.{layer}")
        else:
            normed = write_gpt2.layer_norm(w, x, f"layers.{layer}.ln")
            inner = write_gpt2.linear(w, normed, f"layers.{layer}.c_fc", width, size.ffn)
            inner = w.op("Gelu", inner, out=f"layers.{layer}.gelu", approximate="tanh")
            y = write_gpt2.linear(w, inner, f"layers.{layer}.c_proj", size.ffn, width)
        x = w.op("Add", x, y, out=f"layers.{layer}.residual")
    w.output(x, 1, tokens, width)
    return bytes(w.model(family, embedded(w.weights, SEED)).SerializeToString())

"""Write a Mixtral-style ONNX mixture of experts of any size with seeded random weights.

    python examples/write_mixtral.py moe.onnx --layers 2 --hidden 128 --ffn 256 --experts 4
    python examples/write_mixtral.py mixtral.onnx --preset mixtral-8x7b --mode decode --no-weights

The Llama of `write_llama.py` with, in each block, SwiGLU experts of which a token takes the two that the
router rates highest (arXiv 2401.04088; sizes from its table 1). The experts of a layer are one batch
of products over all tokens; what the router does not choose weighs 0. So the model has no data-dependent
shapes, and computes experts whose results are dropped: with many tokens in a batch each is needed anyway.
Ratings that are exactly equal are taken together.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from model_writer import add_file_options, linear_std, save_as_asked
from transformer_writer import Mode, Size, Writer, residual_std
from write_llama import decoder_graph, rms_norm


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """The transformer around the experts, and their number in each block."""

    size: Size
    experts: int

    def __post_init__(self) -> None:
        """Check that two can be chosen."""
        if self.experts < 2:
            raise ValueError(f"experts is {self.experts}, must be at least 2")


PRESETS = {
    "tiny": Mixture(
        size=Size(layers=2, hidden=64, heads=4, kv_heads=2, ffn=96, vocab=256, seq=16), experts=4
    ),
    "mixtral-8x7b": Mixture(
        size=Size(layers=32, hidden=4096, heads=32, kv_heads=8, ffn=14336, vocab=32000, seq=2048),
        experts=8,
    ),
}


def mixtral_graph(mixture: Mixture, mode: Mode) -> Writer:
    """Return the graph of a mixture of experts; its weights are declared, not drawn."""

    def feed_forward(w: Writer, x: str, prefix: str) -> str:
        normed = rms_norm(w, x, f"{prefix}.post_norm")
        return experts(w, normed, f"{prefix}.moe", mixture.experts)

    return decoder_graph(mixture.size, mode, "moe", feed_forward)


def experts(w: Writer, x: str, prefix: str, count: int) -> str:
    """Mix the experts' results: softmax over the two highest ratings; [1, s, d] -> [1, s, d]."""
    size, s = w.size, w.new_tokens
    shares = _shares(w, x, prefix, count)
    inner_std, outer_std = linear_std(size.hidden), residual_std(size, size.ffn)
    gates = w.weight(f"{prefix}.gate_proj.weight", count, size.hidden, size.ffn, std=inner_std)
    ups = w.weight(f"{prefix}.up_proj.weight", count, size.hidden, size.ffn, std=inner_std)
    downs = w.weight(f"{prefix}.down_proj.weight", count, size.ffn, size.hidden, std=outer_std)
    gate = w.op("MatMul", x, gates, out=f"{prefix}.gate_proj")
    up = w.op("MatMul", x, ups, out=f"{prefix}.up_proj")
    silu = w.op("Mul", gate, w.op("Sigmoid", gate, out=f"{prefix}.sigmoid"), out=f"{prefix}.silu")
    inner = w.op("Mul", silu, up, out=f"{prefix}.inner")
    results = w.op("MatMul", inner, downs, out=f"{prefix}.down_proj")
    by_expert = w.op("Transpose", shares, out=f"{prefix}.shares_t", perm=(2, 1, 0))
    weighed = w.op("Mul", results, by_expert, out=f"{prefix}.weighed")
    mixed = w.op("ReduceSum", weighed, w.ints(0), out=f"{prefix}.mixed", keepdims=0)
    return w.op("Reshape", mixed, w.ints(1, s, size.hidden), out=f"{prefix}.joined")


def _shares(w: Writer, x: str, prefix: str, count: int) -> str:
    """Return each expert's share of each token, [1, s, experts]; 0 for all but the best two."""
    router = w.weight(
        f"{prefix}.router.weight", w.size.hidden, count, std=linear_std(w.size.hidden)
    )
    ratings = w.op("MatMul", x, router, out=f"{prefix}.ratings")
    lowest = w.floats(-1e9)
    best = w.op("ReduceMax", ratings, w.ints(-1), out=f"{prefix}.best", keepdims=1)
    is_best = w.op("GreaterOrEqual", ratings, best, out=f"{prefix}.is_best")
    others = w.op("Where", is_best, lowest, ratings, out=f"{prefix}.others")
    second = w.op("ReduceMax", others, w.ints(-1), out=f"{prefix}.second", keepdims=1)
    is_taken = w.op("GreaterOrEqual", ratings, second, out=f"{prefix}.is_taken")
    taken = w.op("Where", is_taken, ratings, lowest, out=f"{prefix}.taken")
    return w.op("Softmax", taken, out=f"{prefix}.shares", axis=-1)


def main(arguments: list[str] | None = None) -> None:
    """Write one model as the command line asks, and print what was written."""
    parser = argparse.ArgumentParser(description="Write a mixture of experts as an ONNX model.")
    parser.add_argument("output", type=Path, help="the .onnx file to write")
    parser.add_argument("--preset", choices=list(PRESETS), default=next(iter(PRESETS)))
    parser.add_argument("--mode", choices=["prefill", "decode"], default="prefill")
    sizes = ("layers", "hidden", "heads", "kv_heads", "ffn", "vocab", "seq")
    for name in (*sizes, "experts"):
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=int, help="instead of the preset's")
    add_file_options(parser)
    options = parser.parse_args(arguments)
    preset = PRESETS[options.preset]
    chosen = {name: getattr(options, name) for name in sizes if getattr(options, name) is not None}
    count = preset.experts if options.experts is None else options.experts
    try:
        mixture = Mixture(size=replace(preset.size, **chosen), experts=count)
        graph = mixtral_graph(mixture, options.mode)
        parameters = save_as_asked(graph, "mixtral", options.output, options)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(f"{options.output}: {mixture.size.layers} layers, {parameters:,} parameters")


if __name__ == "__main__":
    main()

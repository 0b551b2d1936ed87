"""Deterministic figures of each model and target, compared with the committed baseline."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.figures import Change, changes
from benchmarks.measure import MeasurementError, in_subprocess
from benchmarks.tables import print_table

BASELINE = Path(__file__).parent / "baseline.json"

Baseline = dict[str, dict[str, float]]
Pair = tuple[str, str]

TINY: tuple[Pair, ...] = (
    ("llama_prefill", "toy"),
    ("llama_decode", "mesh_2x3"),
    ("gpt2_prefill", "corsair"),
    ("gpt2_decode", "toy"),
    ("kws_embed", "toy"),
)
"""Pairs that the quick tests check too."""

QUICK: tuple[Pair, ...] = (
    *TINY,
    ("llama_prefill", "corsair"),
    ("llama_decode", "toy"),
    ("gpt2_prefill", "toy"),
    ("gpt2_decode", "gemmini"),
    ("silero_v6", "toy"),
    ("mtcnn_r", "toy"),
    ("light_squeezenet", "toy"),
    ("minilm_int8w_s16", "toy"),
)

FULL: tuple[Pair, ...] = (
    *QUICK,
    ("llama_prefill_8x128", "toy"),
    ("llama_prefill", "wormhole_n150"),
    *(
        (name, target)
        for name in ("minilm_int8w", "light_squeezenet")
        for target in ("toy", "corsair")
    ),
    *(
        (name, target)
        for name in ("basic_pitch", "resnet50thin", "light_resnet50", "light_shufflenet")
        for target in ("toy", "corsair")
    ),
    ("kws_embed", "corsair"),
    ("silero_v6", "corsair"),
    ("magika", "toy"),
    ("mtcnn_p", "toy"),
    ("mtcnn_o", "toy"),
)

HEADER = (
    "model",
    "target",
    "e-nodes",
    "e-classes",
    "blocks",
    "predicted",
    "bound",
    "gap",
    "simulated",
    "sim. bound",
    "SRAM peak",
    "instr.",
)


def key_of(pair: Pair) -> str:
    """Return the baseline's key of a model and target."""
    return f"{pair[0]} {pair[1]}"


def read_baseline() -> Baseline:
    """Return the committed figures by model and target."""
    if not BASELINE.exists():
        return {}
    baseline: Baseline = json.loads(BASELINE.read_text(encoding="utf-8"))
    return baseline


def write_baseline(baseline: Baseline) -> None:
    """Replace the committed figures."""
    text = json.dumps(baseline, indent=1, sort_keys=True)
    BASELINE.write_text(text + "\n", encoding="utf-8")
    print(f"wrote {BASELINE.name}")


def pairs_of(subset: str, names: Sequence[str]) -> tuple[Pair, ...]:
    """Return the pairs of a subset, or those of FULL whose model was named."""
    if names:
        return tuple(dict.fromkeys(pair for pair in FULL if pair[0] in names))
    return tuple(dict.fromkeys(FULL if subset == "full" else QUICK))


def main(*, subset: str, names: Sequence[str], update: bool) -> int:
    """Measure, print, compare; return the exit code: 1 if a figure got worse or a model failed."""
    baseline = read_baseline()
    found: Baseline = {}
    rows, differing, failed = [], list[Change](), []
    for pair in pairs_of(subset, names):
        try:
            figures = in_subprocess(*pair, "--simulate")["figures"]
        except MeasurementError as error:
            failed.append(str(error))
            continue
        found[key_of(pair)] = figures
        differing += changes(key_of(pair), baseline.get(key_of(pair), {}), figures)
        rows.append(_row(pair, figures))
        print(f"measured {key_of(pair)}", flush=True)
    print_table("quality (cycles; lower is better)", HEADER, rows, left=2)
    for message in failed:
        print(f"failed: {message}")
    _print_changes(differing)
    new = sorted(set(found) - set(baseline))
    if new:
        print(f"not in the baseline: {', '.join(new)}" + ("" if update else "; add with --update"))
    worse = [change for change in differing if change.is_worse]
    if update:
        merged = {key: {**found.get(key, baseline.get(key, {}))} for key in {*baseline, *found}}
        write_baseline(merged)
        return 1 if failed else 0
    return 1 if worse or failed else 0


def _row(pair: Pair, f: Mapping[str, float]) -> tuple[str, ...]:
    whole = ("e_nodes", "e_classes", "unique_blocks", "predicted_cycles", "bound_cycles")
    rest = ("simulated_cycles", "simulated_bound_cycles", "sram_peak_bytes", "instructions")
    return (
        *pair,
        *(f"{f[name]:,.0f}" for name in whole),
        f"{f['gap']:.1%}",
        *(f"{f[name]:,.0f}" for name in rest),
    )


def _print_changes(differing: Sequence[Change]) -> None:
    for title, is_worse in (("better or merely different", False), ("WORSE", True)):
        rows = [
            (c.where, c.figure, f"{c.before:,.6g}", f"{c.now:,.6g}", _percent(c))
            for c in differing
            if c.is_worse == is_worse
        ]
        if rows:
            header = ("model and target", "figure", "baseline", "now", "change")
            print_table(f"{title} than the baseline", header, rows, left=2)


def _percent(change: Change) -> str:
    return f"{change.now / change.before - 1:+.2%}" if change.before else "from 0"

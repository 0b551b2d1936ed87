"""What it is worth to move the denominators of norms and softmax past the next product.

The statistic of a row (a sum of squares, a sum of exponentials) needs a collective where the mesh splits the
row. Behind the product, its collective and the norm's element-wise work run while the matrix unit does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.measure import MeasurementError, in_subprocess
from benchmarks.tables import print_table

RULES = (
    "algebra.denominator_past_product",
    "algebra.rmsnorm_past_product",
    "algebra.layernorm_past_product",
    "algebra.affine_layernorm_past_product",
    "algebra.flattened_layernorm_past_product",
)
"""Left out in the comparison."""

CASES = tuple(
    f"{family}_{part}_{size}"
    for family in ("llama", "gpt2")
    for part, sizes in (
        ("mlp", ("4x256x1", "4x1024x1", "4x1024x16", "2x2048x1")),
        ("decode", ("1x256x64", "1x1024x64", "1x2048x64")),
        ("prefill", ("1x256x64", "1x1024x64")),
    )
    for size in sizes
)
"""Layers x width x tokens; in decoding, tokens are those in the cache."""

HEADER = (
    "model",
    "by rules",
    "hidden",
    "predicted",
    "without",
    "gain",
    "simulated",
    "without",
    "gain",
)


def main(*, target: str, names: Sequence[str]) -> int:
    """Measure and print; return the exit code: 1 if a model failed."""
    rows, failed = [], []
    for name in names or CASES:
        try:
            rows.append(_row(name, target))
        except MeasurementError as error:
            failed.append(str(error))
    title = f"denominators past products on {target}, with and without the rules (cycles)"
    print_table(title, HEADER, rows)
    print(
        "by rules: ops of the plan that these rules made; "
        "hidden: cycles of deliveries that the plan's cost leaves to products"
    )
    for message in failed:
        print(f"failed: {message}")
    return 1 if failed else 0


def _row(name: str, target: str) -> tuple[str, ...]:
    with_rules = in_subprocess(name, target, "--simulate")
    left_out = [option for rule in RULES for option in ("--without", rule)]
    without = in_subprocess(name, target, "--simulate", *left_out)
    made = sum(with_rules["planned_rules"].get(rule, 0) for rule in RULES)
    cells = [f"{made}", f"{with_rules['hidden_cycles']:,.0f}"]
    for figure in ("predicted_cycles", "simulated_cycles"):
        cells += _compared(with_rules["figures"], without["figures"], figure)
    return (name, *cells)


def _compared(now: dict[str, Any], before: dict[str, Any], figure: str) -> tuple[str, str, str]:
    """Return a figure with and without the rules, and what they save."""
    gain = 1 - now[figure] / before[figure]
    return f"{now[figure]:,.0f}", f"{before[figure]:,.0f}", f"{gain:+.1%}"

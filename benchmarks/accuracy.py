"""How far the cost model's prediction is from the timing simulator, model by model."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log

from benchmarks.measure import MeasurementError, in_subprocess
from benchmarks.quality import pairs_of
from benchmarks.tables import print_table

HEADER = (
    "model",
    "target",
    "predicted",
    "simulated",
    "sim. bound",
    "predicted / simulated",
    "error",
)


def main(*, subset: str, names: Sequence[str]) -> int:
    """Measure and print; return the exit code: 1 if a model failed."""
    rows, ratios, failed = [], [], []
    for pair in pairs_of(subset, names):
        try:
            f = in_subprocess(*pair, "--simulate")["figures"]
        except MeasurementError as error:
            failed.append(str(error))
            continue
        predicted, simulated = f["predicted_cycles"], f["simulated_cycles"]
        ratio = predicted / simulated
        ratios.append(ratio)
        cells = [f"{n:,.0f}" for n in (predicted, simulated, f["simulated_bound_cycles"])]
        rows.append((*pair, *cells, f"{ratio:.3f}", f"{ratio - 1:+.1%}"))
    print_table("prediction error of the cost model (cycles)", HEADER, rows, left=2)
    if ratios:
        logs = [log(ratio) for ratio in ratios]
        mean = exp(sum(map(abs, logs)) / len(logs))
        worst = exp(max(map(abs, logs)))
        bias = exp(sum(logs) / len(logs))
        print(
            f"off by a factor of {mean:.3f} in the geometric mean, {worst:.3f} at worst; "
            f"predicted / simulated is {bias:.3f} in the geometric mean"
        )
    for message in failed:
        print(f"failed: {message}")
    return 1 if failed else 0

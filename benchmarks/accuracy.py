"""The cost model against the timing simulator: every plan of the benchmark, and many plans of some models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from scipy.stats import spearmanr

from benchmarks.figures import Change, changes
from benchmarks.measure import MeasurementError, in_subprocess
from benchmarks.quality import Pair, key_of, pairs_of, read_baseline, write_baseline
from benchmarks.scatter import Series, scatter
from benchmarks.tables import markdown_table, print_table

DOCS = Path(__file__).parent.parent / "docs"
PAGE, PICTURE = DOCS / "accuracy.md", DOCS / "accuracy.svg"

ALTERNATIVES: tuple[Pair, ...] = (
    ("llama_prefill", "toy"),
    ("llama_decode", "mesh_2x3"),
    ("gpt2_decode", "gemmini"),
    ("mtcnn_r", "toy"),
    ("silero_v6", "toy"),
)
"""Models of which many plans are simulated."""
LEAST_PLANS = 50

MEDIAN_LIMIT, WORST_LIMIT, RANK_LIMIT = 0.10, 0.30, 0.90

HEADER = ("model", "target", "planned", "predicted", "simulated", "planned error", "error")
RANK_HEADER = (
    *("model", "target", "plans", "slowest / fastest", "rank, planned", "rank"),
    *("median error", "worst error"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A plan: what planning added up, what its program is predicted to take, what it took; [cycles]."""

    planned: float
    predicted: float
    simulated: float

    @property
    def error(self) -> float:
        """Of the prediction, relative to the simulation."""
        return self.predicted / self.simulated - 1.0

    @property
    def planned_error(self) -> float:
        """Of the sum that planning makes least."""
        return self.planned / self.simulated - 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """How close the predictions of many plans of a model are; all but the number of plans are judged."""

    plans: int
    median_error: float
    worst_error: float
    rank_loss: float
    """1 less Spearman's rank correlation of prediction and simulation."""
    planned_rank_loss: float
    """The same of what planning adds up."""


def accuracy_of(samples: Sequence[Sample]) -> Accuracy:
    """Return the accuracy of two plans or more."""
    errors = [abs(sample.error) for sample in samples]
    simulated = [sample.simulated for sample in samples]
    return Accuracy(
        plans=len(samples),
        median_error=median(errors),
        worst_error=max(errors),
        rank_loss=1 - _rank([sample.predicted for sample in samples], simulated),
        planned_rank_loss=1 - _rank([sample.planned for sample in samples], simulated),
    )


def _rank(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Spearman's rank correlation."""
    return float(spearmanr(first, second).statistic)


def alternatives_key(pair: Pair) -> str:
    """Return the baseline's key of the plans of a model on a target."""
    return f"alternatives {key_of(pair)}"


def main(*, subset: str, names: Sequence[str], update: bool, write: bool) -> int:
    """Measure and print; return the exit code: 1 if a limit is broken or a figure is worse than known."""
    failed: list[str] = []
    plans = _measured(pairs_of(subset, names), failed)
    chosen = tuple(pair for pair in ALTERNATIVES if not names or pair[0] in names)
    many = _alternatives(chosen, failed)
    found = {alternatives_key(pair): asdict(accuracy_of(own)) for pair, own in many.items()}
    rows, rank_rows = _rows(plans), _rank_rows(many)
    print_table("cost model and simulation (cycles)", HEADER, rows, left=2)
    print_table("alternative plans", RANK_HEADER, rank_rows, left=2)
    if plans:
        print(_summary(plans))
    broken = limits_broken(plans, many)
    baseline = read_baseline()
    worse = [
        change
        for key, figures in found.items()
        for change in changes(key, baseline.get(key, {}), figures)
        if change.is_worse
    ]
    for message in (*(f"failed: {text}" for text in failed), *broken, *map(_worse_text, worse)):
        print(message)
    if update:
        write_baseline(baseline | found)
    if write and plans and many:
        command = (
            "./tw bench accuracy --full --write"
            if subset == "full"
            else "./tw bench accuracy --write"
        )
        PAGE.write_text(_page(command, plans, rows, rank_rows), encoding="utf-8")
        PICTURE.write_text(scatter(_series(many)), encoding="utf-8")
        print(f"wrote {PAGE.name} and {PICTURE.name}")
    return 1 if failed or broken or (worse and not update) else 0


def _measured(pairs: Sequence[Pair], failed: list[str]) -> dict[Pair, Sample]:
    """Compile and simulate models; those that fail are named in `failed`."""
    found = {}
    for pair in pairs:
        try:
            figures = in_subprocess(*pair, "--simulate")["figures"]
        except MeasurementError as error:
            failed.append(str(error))
            continue
        found[pair] = Sample(
            planned=figures["predicted_cycles"],
            predicted=figures["scheduled_cycles"],
            simulated=figures["simulated_cycles"],
        )
        print(f"measured {key_of(pair)}", flush=True)
    return found


def _alternatives(pairs: Sequence[Pair], failed: list[str]) -> dict[Pair, tuple[Sample, ...]]:
    """Simulate many plans of each model, the best one first."""
    found = {}
    for pair in pairs:
        try:
            samples = in_subprocess(*pair, "--alternatives")["samples"]
        except MeasurementError as error:
            failed.append(str(error))
            continue
        found[pair] = tuple(Sample(**sample) for sample in samples)
        print(f"measured {len(samples)} plans of {key_of(pair)}", flush=True)
    return found


def limits_broken(plans: Mapping[Pair, Sample], many: Mapping[Pair, Sequence[Sample]]) -> list[str]:
    """Say which limits are broken, by plans of the benchmark and by many plans of some models."""
    errors = [abs(sample.error) for sample in plans.values()]
    found = []
    if errors and median(errors) > MEDIAN_LIMIT:
        found.append(f"OVER: the median error is {median(errors):.1%}, limit {MEDIAN_LIMIT:.0%}")
    found += [
        f"OVER: {key_of(pair)} is off by {sample.error:+.1%}, limit {WORST_LIMIT:.0%}"
        for pair, sample in plans.items()
        if abs(sample.error) > WORST_LIMIT
    ]
    for pair, samples in many.items():
        accuracy = accuracy_of(samples)
        if len(samples) < LEAST_PLANS:
            found.append(f"OVER: {key_of(pair)} has {len(samples)} plans, expected {LEAST_PLANS}")
        for what, loss in (
            ("predicted", accuracy.rank_loss),
            ("planned", accuracy.planned_rank_loss),
        ):
            if 1 - loss < RANK_LIMIT:
                found.append(
                    f"OVER: the rank correlation of {what} cycles of {key_of(pair)} is {1 - loss:.3f}, "
                    f"limit {RANK_LIMIT}"
                )
    return found


def _summary(plans: Mapping[Pair, Sample]) -> str:
    errors = [abs(sample.error) for sample in plans.values()]
    planned = [abs(sample.planned_error) for sample in plans.values()]
    return (
        f"error of the prediction: {median(errors):.1%} in the median, {max(errors):.1%} at worst; "
        f"of what planning adds up: {median(planned):.1%} and {max(planned):.1%}"
    )


def _worse_text(change: Change) -> str:
    return f"WORSE: {change.where}: {change.figure} was {change.before:.6g}, is {change.now:.6g}"


def _rows(plans: Mapping[Pair, Sample]) -> list[tuple[str, ...]]:
    return [
        (
            *pair,
            *(f"{n:,.0f}" for n in (s.planned, s.predicted, s.simulated)),
            *(f"{error:+.1%}" for error in (s.planned_error, s.error)),
        )
        for pair, s in plans.items()
    ]


def _rank_rows(many: Mapping[Pair, Sequence[Sample]]) -> list[tuple[str, ...]]:
    rows = []
    for pair, samples in many.items():
        simulated = [sample.simulated for sample in samples]
        accuracy = accuracy_of(samples)
        rows.append(
            (
                *(*pair, str(accuracy.plans), f"{max(simulated) / min(simulated):.1f}"),
                *(f"{1 - accuracy.planned_rank_loss:.3f}", f"{1 - accuracy.rank_loss:.3f}"),
                *(f"{accuracy.median_error:.1%}", f"{accuracy.worst_error:.1%}"),
            )
        )
    return rows


def _series(many: Mapping[Pair, Sequence[Sample]]) -> tuple[Series, ...]:
    """Return the points of the picture: cycles relative to the fastest plan of a model."""
    found = []
    for pair, samples in many.items():
        least = min(sample.simulated for sample in samples)
        points = tuple(
            (s.simulated / least, s.predicted / least, s.planned / least) for s in samples
        )
        found.append(Series(name=key_of(pair), points=points))
    return tuple(found)


def _page(
    command: str,
    plans: Mapping[Pair, Sample],
    rows: Sequence[Sequence[str]],
    rank_rows: Sequence[Sequence[str]],
) -> str:
    """Return the page's text."""
    lines = [
        "# The cost model against the simulator",
        "",
        f"Written by `{command}`; benchmarks/README.md says more.",
        "",
        "Two figures are compared with the timing simulator, which consults neither.",
        "*Planned* is what planning makes least: the sum of all kernels and collectives, one after the",
        "other but for what is proven to overlap, so that it can be added up and bounded. *Predicted* is the",
        "static schedule of the program made of the plan: the cost model's cycles of every instruction, with",
        "engines side by side and DRAM ports shared. Both are known when a model is compiled.",
        "",
        "## Plans of the benchmark",
        "",
        f"Cycles. {_summary(plans).capitalize()}.",
        f"Limits for the prediction: {MEDIAN_LIMIT:.0%} and {WORST_LIMIT:.0%}.",
        "",
        *markdown_table(HEADER, rows, left=2),
        "",
        "## Alternative plans",
        "",
        "Plans of each model that are best when prices are off by random factors, instructions in the plan's",
        f"order; rank is Spearman's correlation with the simulated cycles, limit {RANK_LIMIT}, at least",
        f"{LEAST_PLANS} plans. Errors are those of the prediction.",
        "",
        *markdown_table(RANK_HEADER, rank_rows, left=2),
        "",
        "![Cycles of alternative plans, simulated and predicted](accuracy.svg)",
    ]
    return "\n".join(lines) + "\n"

"""The figures of the smallest benchmarks are no worse than the committed baseline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace

import pytest
from benchmarks.accuracy import ALTERNATIVES, alternatives_key
from benchmarks.figures import JUDGED, Figures, changes, figures_of
from benchmarks.quality import FULL, QUICK, TINY, key_of, read_baseline
from end_to_end import EndToEnd

FIGURES = Figures(
    e_nodes=10,
    e_classes=8,
    unique_blocks=1,
    predicted_cycles=100.0,
    bound_cycles=90.0,
    gap=0.1,
    scheduled_cycles=118.0,
    simulated_cycles=120.0,
    simulated_bound_cycles=80.0,
    sram_peak_bytes=64,
    instructions=5,
)


@pytest.mark.parametrize("pair", TINY, ids=key_of)
def test_figures_are_no_worse(
    end_to_end: Callable[[str, str], EndToEnd], pair: tuple[str, str]
) -> None:
    done = end_to_end(*pair)
    found = figures_of(done.compilation, done.timing)
    differing = changes(key_of(pair), read_baseline()[key_of(pair)], found)
    worse = [f"{c.figure}: {c.before:g} -> {c.now:g}" for c in differing if c.is_worse]
    assert worse == [], "see benchmarks/README.md"


def test_the_baseline_has_all_quick_pairs_and_no_others() -> None:
    keys = set(read_baseline())
    plans = {alternatives_key(pair) for pair in ALTERNATIVES}
    assert {key_of(pair) for pair in QUICK} | plans <= keys
    assert keys <= {key_of(pair) for pair in FULL} | plans


@pytest.mark.parametrize("name", JUDGED)
def test_a_figure_that_goes_up_is_worse(name: str) -> None:
    before = asdict(FIGURES)
    up = asdict(FIGURES) | {name: before[name] * 1.001}
    down = asdict(FIGURES) | {name: before[name] * 0.999}
    assert [(c.figure, c.is_worse) for c in changes("x", before, up)] == [(name, True)]
    assert [(c.figure, c.is_worse) for c in changes("x", before, down)] == [(name, False)]


def test_bounds_and_equal_figures_are_not_worse() -> None:
    before = asdict(FIGURES)
    assert changes("x", before, FIGURES) == ()
    (found,) = changes("x", before, replace(FIGURES, bound_cycles=95.0))
    assert not found.is_worse

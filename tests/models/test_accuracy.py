"""Predictions against the timing simulator, and how the benchmark judges them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from benchmarks.accuracy import ALTERNATIVES, Sample, accuracy_of, limits_broken
from benchmarks.quality import TINY, key_of
from benchmarks.scatter import Series, scatter
from end_to_end import EndToEnd

from tilewright.alternative_plans import alternative_plans
from tilewright.extract.validate import validate_plan
from tilewright.lowering.lower import build_program
from tilewright.simulator.timing import simulate

PAIR = ("gpt2_decode", "toy")


def sample(predicted: float, simulated: float = 100.0, planned: float = 100.0) -> Sample:
    return Sample(planned=planned, predicted=predicted, simulated=simulated)


@pytest.mark.parametrize("pair", TINY, ids=key_of)
def test_predictions_are_close(
    end_to_end: Callable[[str, str], EndToEnd], pair: tuple[str, str]
) -> None:
    done = end_to_end(*pair)
    assert done.compilation.program is not None
    predicted = done.compilation.program.scheduled_cycles
    assert predicted == pytest.approx(done.timing.run.cycles, rel=0.05)


def test_alternative_plans_are_valid_and_differ(
    end_to_end: Callable[[str, str], EndToEnd],
) -> None:
    done = end_to_end(*PAIR).compilation
    assert done.plan is not None
    plans = list(alternative_plans(done, count=4))
    assert plans == list(alternative_plans(done, count=4))
    assert len(plans) == 4
    assert len({plan.cost for plan in plans}) == 4
    simulated = []
    for plan in plans:
        validate_plan(plan, done.target)
        assert plan.cost >= done.plan.bound
        simulated.append(simulate(build_program(plan, done.target)).cycles)
    assert max(simulated) > 1.2 * min(simulated)


def test_accuracy_is_that_of_ranks_and_errors() -> None:
    samples = [sample(110, 100, 1), sample(190, 200, 3), sample(300, 300, 2), sample(400, 400, 4)]
    found = accuracy_of(samples)
    assert found.plans == 4
    assert found.median_error == pytest.approx(0.025)
    assert found.worst_error == pytest.approx(0.1)
    assert found.rank_loss == pytest.approx(0.0)
    # Spearman: 1 - 6 (sum of squared rank differences) / (n (n^2 - 1))
    assert found.planned_rank_loss == pytest.approx(6 * 2 / (4 * 15))


def test_limits_are_checked() -> None:
    pair = ALTERNATIVES[0]
    many = tuple(sample(n, n, n) for n in range(100, 150))
    assert limits_broken({pair: sample(109)}, {pair: many}) == []
    over = limits_broken({pair: sample(111)}, {})
    assert [text.split()[:4] for text in over] == [["OVER:", "the", "median", "error"]]
    two = {PAIR: sample(100), ALTERNATIVES[1]: sample(100), pair: sample(131)}
    assert ["+31.0%" in text for text in limits_broken(two, {})] == [True]
    (few,) = limits_broken({}, {pair: many[1:]})
    assert "49 plans" in few
    upside_down = tuple(sample(n, 250 - n, n) for n in range(100, 150))
    assert len(limits_broken({}, {pair: upside_down})) == 2


def test_the_picture_has_every_point_twice() -> None:
    points = ((1.0, 1.1, 1.3), (2.0, 1.9, 2.5))
    text = scatter([Series(name="a", points=points), Series(name="b", points=points)])
    assert text.count("fill-opacity") == 8
    assert text.count("<svg") == text.count("</svg>") == 1

"""Which instances keep what: within the scratchpad, and the best that is, by brute force."""

from __future__ import annotations

from itertools import product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.extract.filling import Fillable, Replaced, filled
from tilewright.extract.option import Option


def random_fillables(rng: np.random.Generator) -> tuple[Fillable, ...]:
    found = []
    for number in range(int(rng.integers(1, 4))):
        options = tuple(
            Option(
                node=None,
                units=float(rng.integers(1, 60)),
                working_bytes=int(rng.integers(0, 8)),
                resident_bytes=int(rng.integers(0, 9)),
            )
            for _ in range(int(rng.integers(1, 4)))
        )
        one = Fillable(
            variable=(0, number),
            instances=tuple(range(int(rng.integers(1, 4)))),
            options=options,
            chosen=int(rng.integers(len(options))),
            row_bytes=int(rng.integers(8, 20)),
        )
        found.append(one)
    return tuple(found)


def judged(fillables: tuple[Fillable, ...], replaced: Replaced) -> tuple[float, float]:
    """Return units, and the bytes of the fullest row."""
    units, kept, rows = 0.0, 0, [0]
    for one in fillables:
        for instance in one.instances:
            number = replaced.get((instance, one.variable), one.chosen)
            option = one.options[number]
            more = option.working_bytes - one.options[one.chosen].working_bytes
            units, kept = units + option.units, kept + option.resident_bytes
            rows.append(one.row_bytes + max(0, more))
    return units, kept + max(rows)


@given(st.integers(0, 10**6), st.integers(15, 60))
@settings(max_examples=80, deadline=None)
def test_filled_instances_are_the_best(seed: int, capacity: int) -> None:
    fillables = random_fillables(np.random.default_rng(seed))
    places = [(i, one.variable, len(one.options)) for one in fillables for i in one.instances]
    every = [
        judged(fillables, {(i, v): n for (i, v, _), n in zip(places, numbers, strict=True)})
        for numbers in product(*(range(count) for _, _, count in places))
    ]
    fitting = [units for units, size in every if size <= capacity]
    units, size = judged(fillables, filled(fillables, capacity))
    if not fitting:
        return
    assert size <= capacity
    assert min(fitting) <= units <= min(fitting) * (1 + 1.01e-4)


def test_part_of_the_instances_keep_a_weight() -> None:
    streamed, resident = (Option(node=None, units=u, resident_bytes=b) for u, b in ((9, 0), (1, 4)))
    layers = Fillable(
        variable=(1, 0),
        instances=(2, 3, 4, 5),
        options=(streamed, resident),
        chosen=0,
        row_bytes=10,
    )
    assert filled((layers,), 21) == {(2, (1, 0)): 1, (3, (1, 0)): 1}


def test_options_that_give_something_else_are_not_exchanged() -> None:
    own = Option(node=None, units=9.0)
    other = Option(node=None, units=1.0, operands=(None,))
    one = Fillable(variable=(0, 0), instances=(0, 1), options=(own, other), chosen=0, row_bytes=1)
    assert filled((one,), 100) == {}

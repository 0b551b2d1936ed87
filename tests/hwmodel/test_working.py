"""Disabled tiles: what is left out, what remains of the machine, how its network and programs see it."""

from __future__ import annotations

from itertools import chain, combinations, product
from math import prod

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tilewright.errors import TargetError
from tilewright.hwmodel.load import load_target, parse_target
from tilewright.hwmodel.network import logical_mesh, network_of
from tilewright.hwmodel.target import Target
from tilewright.hwmodel.working import Coordinates, working_units

SHAPES = ((3,), (4, 4), (2, 5), (2, 3, 3))


def without(name: str, *tiles: int | Coordinates) -> Target:
    """Return a target with disabled tiles, checked as one from a file is."""
    data = load_target(name).model_dump(mode="json")
    disabled = [tile if isinstance(tile, int) else list(tile) for tile in tiles]
    text = yaml.safe_dump(
        {**data, "name": f"{name} without {disabled}", "disabled_tiles": disabled}
    )
    return parse_target(text, "test")


def most_tiles(sizes: Coordinates, disabled: tuple[Coordinates, ...]) -> int:
    """Return the most tiles of any choice of units without a disabled tile, by trying all choices."""
    choices = [
        tuple(chain.from_iterable(combinations(range(size), count) for count in range(size + 1)))
        for size in sizes
    ]
    return max(
        prod(map(len, units))
        for units in product(*choices)
        if not any(all(c in axis for c, axis in zip(tile, units, strict=True)) for tile in disabled)
    )


@st.composite
def broken_machines(draw: st.DrawFn) -> tuple[Coordinates, tuple[Coordinates, ...]]:
    """Draw the sizes of a machine's axes, and disabled tiles."""
    sizes = draw(st.sampled_from(SHAPES))
    places = list(product(*map(range, sizes)))
    return sizes, tuple(draw(st.lists(st.sampled_from(places), unique=True, max_size=8)))


@given(broken_machines())
def test_the_most_tiles_are_kept_and_none_is_disabled(
    machine: tuple[Coordinates, tuple[Coordinates, ...]],
) -> None:
    sizes, disabled = machine
    units = working_units(sizes, disabled)
    assert not set(product(*units)) & set(disabled)
    assert prod(map(len, units)) == most_tiles(sizes, disabled)


def test_hundreds_of_disabled_tiles_are_left_out_in_time() -> None:
    """The search is bounded; what it has found by then leaves out every disabled tile."""
    draws = np.random.default_rng(0).integers(0, 48, (300, 2)).tolist()
    disabled = tuple(dict.fromkeys((row, column) for row, column in draws))
    assert not set(product(*working_units((48, 48), disabled))) & set(disabled)


def test_a_row_with_two_disabled_tiles_is_left_out() -> None:
    target = without("toy", 6, (1, 3))
    assert target.units == ((0, 2, 3), (0, 1, 2, 3))
    assert (target.tiles, logical_mesh(target).sizes) == (12, (3, 4))
    assert network_of(target).places == (0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 15)


def test_routes_are_those_between_the_same_places_of_the_whole_machine() -> None:
    whole, target = network_of(load_target("toy")), network_of(without("toy", (1, 2)))
    assert target.links == whole.links
    for one, other in product(range(12), repeat=2):
        places = target.places[one], target.places[other]
        assert target.route(one, other) == whole.route(*places)
        assert target.dram_read(one) == whole.dram_read(places[0])
    # the router of row 1 forwards: rows 0 and 2 are two links apart, with the ports of both ends
    assert len(target.route(0, 4).links) == 4


def test_programs_name_the_target_with_its_disabled_tiles() -> None:
    target = without("toy", 5)
    assert Target.model_validate_json(target.model_dump_json(), strict=True) == target
    assert target != load_target("toy")


@pytest.mark.parametrize(
    ("tiles", "says"),
    [
        ((16,), "found 16, expected a tile from 0 to 15"),
        (((0, 4),), "found [0, 4], expected a coordinate on each of row 4 x column 4"),
        (((0,),), "found [0], expected a coordinate on each of row 4 x column 4"),
        ((5, (1, 1)), "found [1, 1] twice, expected each tile once"),
        (tuple(range(16)), "found all 16 tiles, expected at least one tile"),
    ],
)
def test_wrong_lists_are_refused(tiles: tuple[int | Coordinates, ...], says: str) -> None:
    with pytest.raises(TargetError, match="disabled_tiles") as caught:
        without("toy", *tiles)
    assert says in str(caught.value)

"""Prices of kernels: together they are those of each alone, and they add up what the pieces take."""

from __future__ import annotations

from functools import cache
from math import fsum

import pytest
from extract_cases import tiny
from kernel_cases import tiled_kernels

from tilewright.extract.kernel import Kernel
from tilewright.extract.kernel_price import Amounts, MovedPieces, Pieces, Pricer, price, price_all
from tilewright.extract.plan import Tiling

NAMES = ("matmul_chain", "attention_scores", "conv_relu", "heads")


@cache
def kernels(name: str) -> tuple[tuple[tuple[Kernel, ...], tuple[Tiling, ...]], ...]:
    """Return kernels wherever their tensors lie, with some tilings."""
    found = []
    for variants, candidates in tiled_kernels(name, 4):
        some = range(0, len(candidates), max(1, len(candidates) // 3))
        found.append((variants, tuple(map(candidates.tiling, some))))
    return tuple(found)


@pytest.mark.parametrize("name", NAMES)
def test_priced_together_they_cost_what_each_costs_alone(name: str) -> None:
    target = tiny(name).target
    pieces, moved = Pieces(target), dict[tuple[object, ...], MovedPieces]()
    for variants, tilings in kernels(name):
        shared = moved.setdefault(variants[0].moved_key, MovedPieces())
        units = dict[Tiling, tuple[int, ...]]()
        pricers = [Pricer(kernel, pieces, units, shared) for kernel in variants]
        asked = [(pricer, tiling) for pricer in pricers for tiling in tilings]
        alone = [price(pricer.kernel, tiling, target) for pricer, tiling in asked]
        assert price_all(asked) == alone


@pytest.mark.parametrize("name", NAMES)
def test_engines_take_what_the_pieces_take(name: str) -> None:
    target = tiny(name).target
    pieces = Pieces(target)
    for variants, tilings in kernels(name):
        for kernel in variants:
            if kernel.halo:
                continue  # an exchange comes in front of it
            for tiling in tilings:
                pricer = Pricer(kernel, pieces)
                (cost,) = price_all([(pricer, tiling)])
                rows = pieces.arrays[0][list(pricer.pieces_of(tiling))]
                for name_, column in zip(Amounts._fields, rows.T, strict=True):
                    assert getattr(cost, name_) == pytest.approx(fsum(column), rel=1e-15)
                assert cost.startup_cycles >= 0


def test_no_kernels_cost_nothing() -> None:
    assert price_all([]) == []

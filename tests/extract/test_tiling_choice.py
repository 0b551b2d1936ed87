"""The ranking of tilings: its bounds hold, its choices fit, its arrays round-trip."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from extract_cases import Builder, saturated, tiny, with_sram
from kernel_cases import tiled_kernels

from tilewright.extract.extraction import ExtractOptions, extract
from tilewright.extract.kernel import (
    Kernel,
    box_loads,
    footprint_bytes,
    is_padded,
    result_boxes,
    staging_shape,
    tileable_dims,
)
from tilewright.extract.kernel_price import price
from tilewright.extract.tiling_choice import (
    Candidates,
    Ranking,
    _is_least_exact,
    _least_footprints,
    _scores,
    whole_candidate,
)
from tilewright.extract.tiling_choice_core import likeliest
from tilewright.hwmodel.family import mesh_target
from tilewright.rules.loopnest import Role
from tilewright.rules.tiling.family import tiling_rules

NAMES = ("matmul_chain", "attention_scores", "conv_relu", "heads", "two_outputs")


@cache
def kernels(name: str) -> tuple[tuple[Kernel, Candidates], ...]:
    """Return kernels of a model in several memories with their candidates."""
    return tuple(
        (kernel, candidates)
        for variants, candidates in tiled_kernels(name, 3)
        for kernel in variants
    )


@pytest.mark.parametrize("name", NAMES)
def test_ranked_footprint_is_a_lower_bound(name: str) -> None:
    for kernel, candidates in kernels(name):
        for alignment in (1, 64):
            least = _least_footprints(kernel, candidates, alignment)
            for number in range(0, len(candidates), max(1, len(candidates) // 12)):
                exact = footprint_bytes(kernel, candidates.tiling(number), alignment)
                assert least[number] <= exact
                if _is_least_exact(kernel):
                    assert least[number] == exact


def test_ranked_footprint_of_convolutions_is_exact() -> None:
    """Padding and what comes from neighbours count, so that tilings far from fitting are not looked at."""
    seen = set()
    for kernel, candidates in kernels("conv_relu"):
        if kernel.kind != "conv":
            continue
        for alignment in (1, 64):
            least = _least_footprints(kernel, candidates, alignment)
            for number in range(0, len(candidates), max(1, len(candidates) // 12)):
                exact = footprint_bytes(kernel, candidates.tiling(number), alignment)
                assert least[number] == exact
        seen.add((is_padded(kernel, 0), bool(kernel.halo)))
    assert seen == {(True, False), (False, True)}


@pytest.mark.parametrize("name", NAMES)
def test_span_is_the_width_of_a_box(name: str) -> None:
    for kernel, candidates in kernels(name)[::5]:
        nest, sizes = kernel.nest, candidates.tiling(len(candidates) // 2).sizes
        for tensor in (*nest.operands, nest.result):
            ranges = nest.box(tensor, (0,) * len(sizes), sizes)
            assert [dim.span(sizes) for dim in tensor] == [high - low for low, high in ranges]


@pytest.mark.parametrize("name", NAMES)
def test_chosen_tilings_fit_and_are_what_they_say(name: str) -> None:
    target = tiny(name).target
    alignment = target.tile.sram.alignment_bytes
    for kernel, candidates in kernels(name)[::3]:
        every = {candidates.tiling(n) for n in range(len(candidates))}
        least = min(footprint_bytes(kernel, tiling, alignment) for tiling in every)
        for budget in (0, 256, 1024, 4096, 10**6):
            chosen = Ranking(kernel, candidates, target).within(budget)
            assert len(chosen) <= 3
            assert len({tiling for tiling, _ in chosen}) == len(chosen)
            for tiling, size in chosen:
                assert tiling in every
                assert size == footprint_bytes(kernel, tiling, alignment) <= budget
            assert bool(chosen) == (least <= budget), "a fitting tiling is overlooked"


@pytest.mark.parametrize("name", NAMES)
def test_chosen_tilings_are_of_two_sizes_where_two_fit(name: str) -> None:
    target = tiny(name).target
    alignment = target.tile.sram.alignment_bytes
    for kernel, candidates in kernels(name)[:40]:
        tilings = [candidates.tiling(number) for number in range(len(candidates))]
        fit = [t for t in tilings if footprint_bytes(kernel, t, alignment) <= 8192]
        chosen = Ranking(kernel, candidates, target).within(8192)
        assert len({t.sizes for t, _ in chosen}) == min(2, len({t.sizes for t in fit}))


def test_orders_of_one_size_keep_out_no_other_size() -> None:
    b = Builder("product")
    graph = b.graph(b.matmul(b.input(1021, 127), b.weight(127, 61)))
    case = saturated(graph, with_sram(mesh_target(1, 1), 32 * 1024))
    fewer = tuple(rule for rule in tiling_rules() if rule.name != "tiling.choose_outermost")
    every, inner = (
        extract(case.graph, case.rolled, case.alternatives, case.target, case.mesh, options)
        for options in (ExtractOptions(), ExtractOptions(tiling=fewer))
    )
    assert every.cost <= inner.cost


def test_likeliest_walks_the_candidates_in_order_of_score() -> None:
    random = np.random.default_rng(3)
    for _ in range(50):
        scores, least = (random.integers(0, 6, 40).astype(np.float64) for _ in range(2))
        sizes = random.integers(1, 3, (40, 2)).astype(np.float64)
        order = [n for n in np.argsort(scores, kind="stable").tolist() if least[n] <= 3]
        walked = [-1]
        while (found := likeliest(scores, least, sizes, 3, walked[-1], -1)) >= 0:
            walked.append(found)
        assert walked[1:] == order
        other = order[0]
        differing = [n for n in order[3:] if (sizes[n] != sizes[other]).any()]
        assert likeliest(scores, least, sizes, 3, order[2], other) == (differing or [-1])[0]


@pytest.mark.parametrize("name", NAMES)
def test_shapes_agree_with_the_kernel_functions(name: str) -> None:
    for kernel, candidates in kernels(name)[::3]:
        shapes = candidates.shape_of(kernel)
        for number in range(0, len(candidates), max(1, len(candidates) // 8)):
            tiling = candidates.tiling(number)
            assert shapes.results[number] == result_boxes(kernel, tiling)
            for operand, boxes in enumerate(shapes.operands):
                assert boxes.loads[number] == box_loads(kernel, tiling, operand)
                box = staging_shape(kernel, tiling, operand)
                assert boxes.elements[number] <= np.prod(box)


@pytest.mark.parametrize("name", NAMES)
def test_candidates_are_legal_and_the_whole_is_among_them(name: str) -> None:
    for kernel, candidates in kernels(name):
        dims = kernel.nest.dims
        tileable = tileable_dims(kernel)
        assert candidates.sizes.shape == candidates.orders.shape == (len(candidates), len(dims))
        extents = tuple(dim.extent for dim in dims)
        tilings = [candidates.tiling(n) for n in range(len(candidates))]
        assert extents in {tiling.sizes for tiling in tilings}
        assert len(set(tilings)) == len(tilings)
        for tiling in tilings:
            assert sorted(tiling.order) == list(range(len(dims)))
            for dim, size in enumerate(tiling.sizes):
                assert 1 <= size <= extents[dim]
                assert dim in tileable or size == extents[dim]
            roles = [dims[d].role is Role.REDUCTION for d in tiling.order if dims[d].extent > 1]
            assert roles == sorted(roles), "a reduction outside of a parallel loop"


def test_round_trip() -> None:
    for kernel, candidates in kernels("matmul_chain"):
        for number in range(len(candidates)):
            tiling = candidates.tiling(number)
            assert tiling.sizes == tuple(candidates.sizes[number].tolist())
            assert tiling.order == tuple(candidates.orders[number].tolist())
            assert all(isinstance(value, int) for value in (*tiling.sizes, *tiling.order))
        whole = whole_candidate(kernel)
        assert len(whole) == 1
        assert whole.tiling(0).sizes == tuple(d.extent for d in kernel.nest.dims)


@pytest.mark.parametrize("name", NAMES)
def test_the_ranking_finds_nearly_the_cheapest(name: str) -> None:
    target = tiny(name).target
    for kernel, candidates in kernels(name)[::7]:
        every = [candidates.tiling(n) for n in range(len(candidates))]
        best = min(price(kernel, tiling, target).latency_cycles for tiling in every[:150])
        chosen = Ranking(kernel, candidates, target).within(10**9)
        found = min(price(kernel, tiling, target).latency_cycles for tiling, _ in chosen)
        assert found <= 1.5 * best, f"{kernel.kind} {kernel.operand_types}"


def test_more_budget_never_costs_more_in_the_ranking() -> None:
    target = tiny("matmul_chain").target
    for kernel, candidates in kernels("matmul_chain")[::3]:
        scores = _scores(kernel, candidates, target)
        sizes = _least_footprints(kernel, candidates, target.tile.sram.alignment_bytes)
        best = [scores[sizes <= b].min(initial=np.inf) for b in (512, 2048, 8192, 10**6)]
        assert all(a >= b for a, b in pairwise(best))

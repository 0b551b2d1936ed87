"""Tiling and memory rules: each is right and matters, wrong ones are refused for the right reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from egglog import eq, i64

from tilewright.errors import RuleError
from tilewright.rules.memory.checking import check_memory_rule
from tilewright.rules.memory.family import memory_rules
from tilewright.rules.memory.ruleset import Holding, Level, MemoryRules
from tilewright.rules.tiling.checking import check_tiling_rule
from tilewright.rules.tiling.engine import TilingRequest, tiling_alternatives
from tilewright.rules.tiling.family import tiling_rules
from tilewright.rules.tiling.ruleset import TilingRewrite, TilingRules, tiling
from tilewright.rules.tiling.terms import COMBINES, PARALLEL, Kernel, Loop, tile_size

TILING = {rule.name: rule for rule in tiling_rules()}
MEMORY = {rule.name: rule for rule in memory_rules()}


@pytest.mark.parametrize("name", TILING)
def test_every_tiling_rule_is_sound(name: str) -> None:
    assert check_tiling_rule(TILING[name]) > 0
    assert "=" in TILING[name].equation
    assert TILING[name].source


@pytest.mark.parametrize("name", MEMORY)
def test_every_memory_rule_is_sound(name: str) -> None:
    assert check_memory_rule(MEMORY[name]) > 0
    assert "=" in MEMORY[name].equation
    assert MEMORY[name].source


def without_bound(extent: i64, quantum: i64, size: i64) -> TilingRewrite:
    """tiles of s = tiles of s / 2, whatever the candidates are."""
    return TilingRewrite(
        Loop.tiled(extent, quantum, PARALLEL, size),
        to=Loop.tiled(extent, quantum, PARALLEL, size / i64(2)),
        when=(i64(1) < size, eq(size % i64(2)).to(i64(0))),
    )


def past_the_end(extent: i64, quantum: i64, size: i64) -> TilingRewrite:
    """tiles of s = tiles of s + 1."""
    return TilingRewrite(
        Loop.tiled(extent, quantum, COMBINES, size),
        to=Loop.tiled(extent, quantum, COMBINES, size + 1),
        when=(size < extent + i64(1),),
    )


def never(extent: i64, quantum: i64, size: i64) -> TilingRewrite:
    """tiles of s = tiles of a candidate larger than the loop."""
    return TilingRewrite(
        Loop.tiled(extent, quantum, PARALLEL, size),
        to=Loop.tiled(extent, quantum, PARALLEL, size),
        when=(tile_size(extent, quantum, size), extent < size),
    )


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (without_bound, r"makes tiles of \d+ for a loop of \d+ .* add the fact tile_size"),
        (past_the_end, r"makes tiles of \d+ for a loop of \d+"),
        (never, "makes nothing of loops"),
    ],
)
def test_wrong_tiling_rules_are_refused(function: Callable[..., Any], reason: str) -> None:
    family = TilingRules("bad")
    family.rule(source="test")(function)
    with pytest.raises(RuleError, match=rf"test_rules_families\.py:\d+: rule 'bad\..*{reason}"):
        check_tiling_rule(family.rules[0])


def test_a_combining_loop_is_not_outermost() -> None:
    family = TilingRules("bad")

    @family.rule(source="test")
    def sum_outermost(kernel: i64) -> TilingRewrite:
        """kernel = kernel with its sum outermost."""
        return TilingRewrite(Kernel.named(kernel), to=Kernel.ordered(kernel, i64(2)))

    with pytest.raises(RuleError, match="puts loop 2 outermost"):
        check_tiling_rule(family.rules[0])


def test_registration_of_tiling_rules_refuses_what_is_incomplete() -> None:
    family = TilingRules("family")

    def no_docstring(extent: i64) -> TilingRewrite:
        return TilingRewrite(Loop.whole(extent, 1, 0), to=Loop.whole(extent, 1, 0))

    def no_sort(extent) -> TilingRewrite:  # type: ignore[no-untyped-def]
        """loop = loop."""
        return TilingRewrite(Loop.whole(extent, 1, 0), to=Loop.whole(extent, 1, 0))

    with pytest.raises(RuleError, match="has no docstring"):
        family.rule(source="test")(no_docstring)
    with pytest.raises(RuleError, match="parameter 'extent' has no sort"):
        family.rule(source="test")(no_sort)
    with pytest.raises(RuleError, match="belongs to tilewright"):
        tiling.rule(source="test")(never)


def test_a_sum_left_whole_without_the_rule_that_accumulates() -> None:
    request = TilingRequest(
        key="k",
        extents=(8, 8),
        is_tileable=(True, True),
        is_parallel=(True, False),
        is_combining=(False, True),
        quanta=(1, 1),
    )
    rules = tuple(r for r in tiling_rules() if r.name != "tiling.accumulate_over_parts")
    (found,) = tiling_alternatives([request], rules)
    (everything,) = tiling_alternatives([request])
    assert found.sizes == (everything.sizes[0], (8,))
    assert len(everything.sizes[1]) > 1


def test_wrong_memory_rules_are_refused() -> None:
    bad = MemoryRules("bad")

    @bad.allows(level=Level.SRAM, source="test")
    def everything_in_scratchpad(held: Holding) -> bool:
        """x = x in the scratchpad, however large."""
        return True

    @bad.allows(level=Level.DRAM, source="test")
    def partial_in_dram(held: Holding) -> bool:
        """x = x in DRAM, even when it is a part of a sum."""
        return True

    @bad.allows(level=Level.DRAM, source="test")
    def nowhere(held: Holding) -> bool:
        """x = x nowhere."""
        return False

    reasons = ("bytes in a scratchpad of", "puts a partial sum in DRAM", "allows nothing")
    for rule, reason in zip(bad.rules, reasons, strict=True):
        with pytest.raises(RuleError, match=reason):
            check_memory_rule(rule)

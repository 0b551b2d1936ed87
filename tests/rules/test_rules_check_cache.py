"""Reports of checks are kept by content, and never trusted blindly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from egglog import String
from known_bad_rules import relu_over_sum

from tilewright.errors import RuleError
from tilewright.rules import admission, checking
from tilewright.rules.admission import check_any
from tilewright.rules.checking import UnsoundRuleError, check_rules
from tilewright.rules.checks.cache import content_key
from tilewright.rules.memory.ruleset import Holding, Level, MemoryRule
from tilewright.rules.options import SaturationOptions, builtin_rules
from tilewright.rules.registry import Numerics, Rewrite, define
from tilewright.rules.terms import Tensor, map1

RULES = {rule.name: rule for rule in builtin_rules()}
SOME = (RULES["algebra.constant_second"], RULES["fusion.map_after_map"])
CHECKS = {
    "partition.elementwise": "check_partition_rule",
    "tiling.whole_loop": "check_tiling_rule",
    "collective.slice_of_all_gather": "check_collective_rule",
    "memory.weight_resident": "check_memory_rule",
    "pipeline.cut_at_one_value": "check_pipeline_rule",
}
"""A rule of each family of ordinary functions, and its check."""
OTHERS = {rule.name: rule for rule in SaturationOptions().everything if rule.name in CHECKS}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TILEWRIGHT_RULE_CHECKS", str(tmp_path / "checks"))
    return tmp_path / "checks"


def test_a_rule_is_checked_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    first = check_rules(SOME, progress=names.append)
    assert names == [rule.name for rule in SOME]
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".json"]
    monkeypatch.delattr(checking, "check_rule")
    assert check_rules(SOME) == first


def test_without_a_cache_nothing_is_written(folder: Path) -> None:
    check_rules(SOME[:1], cache=False)
    assert not folder.exists()


@pytest.mark.parametrize("broken", [b"", b"{", b'{"rule": 3}', b"\xff\xfe"])
def test_broken_entries_are_ignored_and_replaced(folder: Path, broken: bytes) -> None:
    first = check_rules(SOME[:1])
    (entry,) = folder.iterdir()
    whole = entry.read_bytes()
    entry.write_bytes(broken)
    assert check_rules(SOME[:1]) == first
    assert entry.read_bytes()[:20] == whole[:20]


def test_a_folder_that_cannot_be_written_is_no_error(folder: Path) -> None:
    folder.write_text("a file where the folder should be")
    assert check_rules(SOME[:1])[0].rule == SOME[0].name


def test_refusals_are_not_kept(folder: Path) -> None:
    bad = define("bad.rule", relu_over_sum, numerics=Numerics.REASSOCIATES, source="test")
    for _ in range(2):
        with pytest.raises(UnsoundRuleError):
            check_rules([bad])
    assert not folder.exists()


def test_the_key_changes_with_the_rule(tmp_path: Path) -> None:
    rule = SOME[0]
    key = content_key(rule)
    assert key == content_key(rule)
    others = [
        replace(rule, name="user.other"),
        replace(rule, numerics=Numerics.REASSOCIATES),
        replace(rule, numerics=Numerics.APPROXIMATE, tolerance=1e-3),
        SOME[1],
    ]
    assert len({key, *map(content_key, others)}) == 5


def negated(fn: str) -> object:
    def twice(x: Tensor, d: String) -> Rewrite:
        """f(f(x)) = x, for a function from outside of the text."""
        return Rewrite(map1(map1(x, fn, d), fn, d), to=x)

    return twice


def test_the_key_changes_with_what_a_closure_holds() -> None:
    keys = {
        content_key(define("user.rule", negated(fn), numerics=Numerics.EXACT, source="test"))  # type: ignore[arg-type]
        for fn in ("neg", "relu")
    }
    assert len(keys) == 2


@pytest.mark.parametrize("name", CHECKS)
def test_rules_of_every_family_are_checked_once(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = OTHERS[name]
    check_any(rule)
    assert not folder.exists()
    check_any(rule, cache=True)
    (entry,) = folder.iterdir()
    with monkeypatch.context() as patched:
        patched.delattr(admission, CHECKS[name])
        check_any(rule, cache=True)
    entry.write_bytes(b"{")
    check_any(rule, cache=True)
    with monkeypatch.context() as patched:
        patched.delattr(admission, CHECKS[name])
        check_any(rule, cache=True)


def test_refusals_of_every_family_are_not_kept(folder: Path) -> None:
    def greedy(held: Holding) -> bool:
        """Hold everything in the scratchpad."""
        return True

    bad = MemoryRule(name="bad.greedy", level=Level.SRAM, source="test", function=greedy)
    for _ in range(2):
        with pytest.raises(RuleError, match="compare"):
            check_any(bad, cache=True)
    assert not folder.exists()


def test_the_keys_of_every_family_differ() -> None:
    everything = SaturationOptions().everything
    keys = [content_key(rule) for rule in everything]
    assert len({*keys}) == len(everything)
    assert keys == [content_key(rule) for rule in everything]


def limited(share: float) -> MemoryRule:
    def small(held: Holding) -> bool:
        """Hold what takes a share of the scratchpad."""
        return held.shard_bytes <= share * held.scratchpad_bytes

    return MemoryRule(name="user.small", level=Level.SRAM, source="test", function=small)


def test_the_key_of_a_function_changes_with_what_it_closes_over() -> None:
    assert content_key(limited(0.5)) == content_key(limited(0.5))
    assert content_key(limited(0.5)) != content_key(limited(2.0))
    assert content_key(limited(0.5)) != content_key(replace(limited(0.5), level=Level.DRAM))

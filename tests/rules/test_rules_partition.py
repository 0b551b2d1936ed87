"""Partition rules: every one is right, wrong ones are refused for the right reason."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import pytest

from tilewright.errors import RuleError
from tilewright.graph import Op
from tilewright.hwmodel.mesh import PARTIAL_SUM, REPLICATED, LogicalMesh
from tilewright.rules.annotations import annotated_kinds
from tilewright.rules.loopnest import LoopDim, LoopNest, Role
from tilewright.rules.options import SaturationOptions
from tilewright.rules.partition.checking import PartitionReport, check_partition_rule
from tilewright.rules.partition.family import partition_rules
from tilewright.rules.partition.ruleset import (
    NOT_SPLIT,
    AxisUse,
    PartitionRule,
    PartitionRules,
    partition,
)
from tilewright.rules.partition.samples import sampled_kinds, samples
from tilewright.rules.splitting import strategies

RULES = {rule.name: rule for rule in partition_rules()}


@cache
def checked(name: str) -> PartitionReport:
    return check_partition_rule(RULES[name])


@pytest.mark.parametrize("name", RULES)
def test_every_rule_is_sound(name: str) -> None:
    report = checked(name)
    assert report.uses >= 10
    assert "=" in RULES[name].equation
    assert RULES[name].source


def test_every_kind_is_sampled_and_can_be_split() -> None:
    assert set(sampled_kinds()) == set(annotated_kinds())
    split = {kind for name in RULES for kind in checked(name).kinds}
    assert split == set(sampled_kinds())


def only(rules: PartitionRules) -> PartitionRule:
    (rule,) = rules.rules
    return rule


def test_flexflow_create_partition_linear_combine() -> None:
    """It splits rows of the input and combines the last dimension (FlexFlow, PR of Unity)."""
    bad = PartitionRules("bad")

    @bad.macro(source="unity_substitution_set.cc, create_partition_linear_combine")
    def partition_linear_combine(op: Op, nest: LoopNest, size: int) -> Iterable[AxisUse]:
        """combine(linear(partition(x, 0), w), last) = linear(x, w)."""
        if op.kind != "matmul" or len(nest.operands) > 2:
            return
        m, last = len(nest.dims) - 3, len(nest.result) - 1
        if nest.dims[m].extent % size == 0 and nest.dims[m + 1].extent % size == 0:
            yield AxisUse(
                rule="bad.partition_linear_combine",
                split_dim=m,
                operands=(len(nest.operands[0]) - 2, REPLICATED),
                result=last,
            )

    with pytest.raises(RuleError) as caught:
        check_partition_rule(only(bad))
    text = str(caught.value)
    assert "rule 'bad.partition_linear_combine'" in text
    assert "its piece of the result is" in text
    assert f"{__file__}:" in text


def test_partial_sums_through_a_function_that_is_not_linear() -> None:
    bad = PartitionRules("bad")

    @bad.passes(source="test")
    def relu_of_partial_sums(op: Op) -> bool:
        """relu(sum of parts) = sum of relu(parts)."""
        return op.kind == "map" and op.attrs["fn"] == "relu"

    with pytest.raises(RuleError, match=r"the tiles make -?\d+, the operator -?\d+"):
        check_partition_rule(only(bad))


def test_a_bias_must_not_be_added_once_for_each_tile() -> None:
    bad = PartitionRules("bad")

    @bad.macro(source="test")
    def bias_on_partial_sums(op: Op, nest: LoopNest, size: int) -> Iterable[AxisUse]:
        """sum of parts + b = sum of (part + b)."""
        if op.kind == "map" and op.attrs["fn"] == "add":
            yield AxisUse(
                rule="bad.bias_on_partial_sums",
                split_dim=NOT_SPLIT,
                operands=(PARTIAL_SUM, REPLICATED),
                result=PARTIAL_SUM,
            )

    with pytest.raises(RuleError, match="the tiles make"):
        check_partition_rule(only(bad))


def test_a_result_that_tiles_do_not_agree_on() -> None:
    bad = PartitionRules("bad")

    @bad.macro(source="test")
    def forgotten_sum(op: Op, nest: LoopNest, size: int) -> Iterable[AxisUse]:
        """reduce(x split) = the same on every tile, without a collective."""
        if op.kind == "reduce" and op.attrs["fn"] == "sum":
            for number, loop in enumerate(nest.dims):
                if loop.role is Role.REDUCTION and loop.extent % size == 0 and loop.extent:
                    yield AxisUse(
                        rule="bad.forgotten_sum",
                        split_dim=number,
                        operands=(number,),
                        result=REPLICATED,
                    )

    with pytest.raises(RuleError, match="holds another value than an earlier copy"):
        check_partition_rule(only(bad))


def test_pieces_that_do_not_fit_the_loops() -> None:
    bad = PartitionRules("bad")

    @bad.macro(source="test")
    def halo_without_exchange(op: Op, nest: LoopNest, size: int) -> Iterable[AxisUse]:
        """conv(x[h/p]) = y[h/p] although windows reach into the neighbours' rows."""
        if op.kind == "conv" and nest.dims[3].extent % size == 0:
            if nest.operands[0][2].size % size == 0 and nest.dims[3].extent >= size:
                yield AxisUse(
                    rule="bad.halo_without_exchange",
                    split_dim=3,
                    operands=(2, *(REPLICATED for _ in nest.operands[1:])),
                    result=2,
                )

    with pytest.raises(RuleError, match="its share of the loops is over"):
        check_partition_rule(only(bad))


def test_rules_that_allow_nothing_or_raise() -> None:
    bad = PartitionRules("bad")

    @bad.splits(source="test")
    def never(op: Op, loop: LoopDim) -> bool:
        """sort(x[d/p]) = y[d/p]."""
        return op.kind == "sort"

    with pytest.raises(RuleError, match="allows nothing on"):
        check_partition_rule(only(bad))
    raising = PartitionRules("raising")

    @raising.splits(source="test")
    def missing_attribute(op: Op, loop: LoopDim) -> bool:
        """f(x[d/p]) = y[d/p]."""
        return bool(op.attrs["colour"])

    with pytest.raises(RuleError, match=r"rule 'raising\.missing_attribute' raises KeyError"):
        check_partition_rule(only(raising))


def test_registration_refuses_incomplete_rules() -> None:
    family = PartitionRules("family")

    def no_docstring(op: Op, loop: LoopDim) -> bool:
        return False

    def wrong_parameters(op: Op) -> bool:
        """f(x) = y."""
        return False

    with pytest.raises(RuleError, match=r"family\.no_docstring' has no docstring"):
        family.splits(source="test")(no_docstring)
    with pytest.raises(RuleError, match=r"takes \(op\), a 'splits' rule takes \(op, loop\)"):
        family.splits(source="test")(wrong_parameters)
    family.passes(source="test")(wrong_parameters)
    with pytest.raises(RuleError, match="registered twice"):
        family.passes(source="test")(wrong_parameters)
    with pytest.raises(RuleError, match="belongs to tilewright"):
        partition.passes(source="test")(wrong_parameters)


def test_a_rule_left_out_forbids_its_split() -> None:
    chosen = SaturationOptions().chosen(("partition.matmul_contracting_axis",))
    mesh = LogicalMesh(("x",), (2,))
    sample = next(
        s
        for s in samples(20, seed=0)
        if s.op.kind == "matmul" and not s.op.attrs and s.nest.dims[-1].extent % 2 == 0
    )
    everything = strategies(sample.op, sample.nest, mesh)
    without = strategies(sample.op, sample.nest, mesh, chosen.partition)
    assert set(everything) - set(without) == {
        s for s in everything if "partition.matmul_contracting_axis" in s.rules
    }
    assert len(without) == len(everything) - 1

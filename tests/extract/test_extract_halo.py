"""Plans that split images in space: when they are chosen, and that damage to them is caught."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from extract_cases import Builder, Case, saturated

from tilewright.extract.halo import halo_sends, halo_work
from tilewright.extract.kernel import footprint_bytes
from tilewright.extract.kernel_price import price
from tilewright.extract.plan import Memory, Placement, Plan, PlannedOp
from tilewright.extract.planned import planned_kernel
from tilewright.extract.validate import PlanError, validate_plan
from tilewright.hwmodel.family import mesh_target
from tilewright.hwmodel.mesh import replicated

SAME = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1)}


@cache
def image(rows: int, columns: int, size: int = 24) -> tuple[Case, Plan]:
    """Return the plan of two convolutions of three and four channels and a pool."""
    b = Builder("image")
    x = b.input(1, 3, size, size)
    for channels in (4, 5):
        w = b.weight(channels, b.types[x].shape[1], 3, 3)
        x = b.op("conv", (x, w), (1, channels, size, size), groups=1, **SAME)
    half: dict[str, Any] = {**SAME, "strides": (2, 2), "fn": "max", "kernel": (3, 3)}
    x = b.op("pool", (x,), (1, 5, size // 2, size // 2), **half)
    case = saturated(b.graph(x), mesh_target(rows, columns))
    plan = case.extract()
    validate_plan(plan, case.target)
    return case, plan


@pytest.mark.parametrize(("rows", "columns"), [(2, 3), (1, 4), (4, 4)])
def test_large_images_of_few_channels_are_split_in_space(rows: int, columns: int) -> None:
    _, plan = image(rows, columns)
    for planned in plan.ops:
        assert planned.macros.count("halo") == sum(n > 1 for n in (rows, columns))
        assert set(planned.split_rules) <= {
            "",
            "partition.conv_space_halo",
            "partition.pool_space_halo",
        }
        assert planned.deliveries[0].after.memory is Memory.SRAM


def test_halos_are_part_of_price_and_footprint() -> None:
    case, plan = image(2, 3)
    for planned in plan.ops:
        kernel = planned_kernel(planned, plan.types, plan.mesh)
        assert planned.tiling is not None
        alone = replace(kernel, halo=())
        with_, without = (price(k, planned.tiling, case.target) for k in (kernel, alone))
        masks = sum(w.elements for w in halo_work(kernel)[1])
        sends = halo_sends(kernel, case.target)
        assert masks > 0
        assert with_.latency_cycles >= without.latency_cycles + sends.cycles
        assert with_.noc_bytes == without.noc_bytes + round(sends.noc_bytes)
        needed = footprint_bytes(kernel, planned.tiling, 1)
        extra = kernel.operand_types[0].size_bytes + 2 + 3 + 4  # flags of both axes, one f32
        assert needed == footprint_bytes(alone, planned.tiling, 1) + extra


def damaged(plan: Plan, number: int, **changes: Any) -> Plan:
    ops = list(plan.ops)
    ops[number] = replace(ops[number], **changes)
    return replace(plan, ops=tuple(ops))


def without_one(planned: PlannedOp) -> tuple[str, ...]:
    first = planned.macros.index("halo")
    return tuple("" if a == first else m for a, m in enumerate(planned.macros))


def test_a_missing_exchange_is_caught() -> None:
    case, plan = image(2, 3)
    for number, planned in enumerate(plan.ops):
        wrong = damaged(plan, number, macros=without_one(planned))
        with pytest.raises(PlanError):
            validate_plan(wrong, case.target)


def test_an_operand_that_is_not_split_is_caught() -> None:
    case, plan = image(2, 3)
    planned = plan.ops[1]
    delivery = planned.deliveries[0]
    whole = Placement(Memory.SRAM, replicated(plan.mesh))
    moved = replace(delivery, before=whole, moves=(), after=whole)
    result = damaged(plan, 0, result=whole)
    wrong = damaged(result, 1, deliveries=(moved, *planned.deliveries[1:]))
    with pytest.raises(PlanError):
        validate_plan(wrong, case.target)


@pytest.mark.parametrize("change", [{"low": 0}, {"low": 2}, {"high": 0}, {"high": 9}, {"axis": 1}])
def test_a_wrong_halo_is_caught(monkeypatch: pytest.MonkeyPatch, change: dict[str, int]) -> None:
    """The kernel's own idea of the halo is held against the loops of every tile."""
    case, plan = image(2, 3)

    def wrong(*arguments: Any) -> Any:
        kernel = planned_kernel(*arguments)
        dims = tuple(replace(d, **change) if d.axis == 0 else d for d in kernel.halo)
        return replace(kernel, halo=dims)

    monkeypatch.setattr("tilewright.extract.validate.planned_kernel", wrong)
    with pytest.raises(PlanError, match=r"halo|buffer|exchanges|neighbour|reads"):
        validate_plan(plan, case.target)

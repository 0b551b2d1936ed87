"""Inputs and outputs at other shares of their leads: the transfer stays whole, and every price follows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tilewright.calibration_programs import layers
from tilewright.dtypes import DType
from tilewright.extract.extraction import extract
from tilewright.extract.plan import Memory, Move, MoveKind, Placement
from tilewright.extract.plan_error import PlanError
from tilewright.extract.reshard import Crossing, dram_placement, single_moves
from tilewright.extract.validate import validate_plan
from tilewright.graph import TensorType
from tilewright.hwmodel.change import changed_target
from tilewright.hwmodel.exposure import Exposure, exposed, exposure_of
from tilewright.hwmodel.load import load_target
from tilewright.hwmodel.network import logical_mesh
from tilewright.hwmodel.roofline import roofline
from tilewright.hwmodel.submesh import submesh_target
from tilewright.hwmodel.target import Target
from tilewright.rules.engine import saturate
from tilewright.rules.roll import roll

TOY = load_target("toy")
MESH = logical_mesh(TOY)
NONE = Exposure(input=0.0, output=0.0)
TENSOR = TensorType((64, 64), DType.F32)


def moves_of(target: Target, crossing: Crossing, tensor: TensorType = TENSOR) -> list[Move]:
    """Return the loads, the stores and the collectives of a tensor."""
    places = [dram_placement(MESH)]
    places += [Placement(Memory.SRAM, sharding) for sharding in ((-1, -1), (0, 1), (-2, 0))]
    found = [single_moves(p, tensor, MESH, target, crossing=crossing) for p in places]
    return [move for moves in found for move in moves]


def test_a_target_without_shares_counts_whole_leads() -> None:
    assert exposure_of(TOY) == Exposure(input=1.0, output=1.0)
    for crossing in Crossing:
        plain = moves_of(TOY, Crossing.NONE)
        assert moves_of(TOY, crossing) == moves_of(exposed(TOY, Exposure()), crossing) == plain


@pytest.mark.parametrize("crossing", list(Crossing))
def test_a_share_is_of_the_moves_across_its_boundary(crossing: Crossing) -> None:
    target = exposed(TOY, Exposure(input=0.25, output=0.5))
    shares = {(Crossing.INPUT, MoveKind.LOAD): 0.25, (Crossing.OUTPUT, MoveKind.STORE): 0.5}
    changed = set()
    for before, after in zip(moves_of(TOY, crossing), moves_of(target, crossing), strict=True):
        share = shares.get((crossing, before.kind), 1.0)
        assert after == replace(before, cycles=after.cycles)
        assert after.cycles == pytest.approx(before.cycles - (1 - share) * before.lead_cycles)
        changed |= {before.kind} if after.cycles < before.cycles else set()
    assert changed == {kind for own, kind in shares if own is crossing}


@pytest.mark.parametrize("rows", [0, 4, 64, 4096])
def test_without_its_lead_a_move_takes_what_the_transfer_takes(rows: int) -> None:
    """The same as on a machine without latencies and start-up, at least."""
    dma = TOY.tile.dma.model_copy(update={"startup_cycles": 0.0})
    bare = TOY.model_copy(
        update={
            "name": "bare",
            "tile": TOY.tile.model_copy(update={"dma": dma}),
            "dram": TOY.dram.model_copy(update={"latency_cycles": 0.0}),
            "interconnects": tuple(
                level.model_copy(update={"hop_cycles": 0.0}) for level in TOY.interconnects
            ),
        }
    )
    tensor = TensorType((rows, 64), DType.F32)
    for crossing, kind in ((Crossing.INPUT, MoveKind.LOAD), (Crossing.OUTPUT, MoveKind.STORE)):
        own = [m.cycles for m in moves_of(exposed(TOY, NONE), crossing, tensor) if m.kind is kind]
        transfers = [m.cycles for m in moves_of(bare, crossing, tensor) if m.kind is kind]
        assert len(own) >= 2
        assert min(own) >= 0.0
        assert own == pytest.approx(transfers)


def test_plans_bounds_and_checks_follow_the_shares() -> None:
    graph = layers(16, 32, 2)
    rolled = roll(graph)
    alternatives = tuple(saturate(block.graph, MESH) for block in rolled.blocks)
    targets = (TOY, exposed(TOY, NONE))
    plans = [extract(graph, rolled, alternatives, target, MESH) for target in targets]
    for plan, target in zip(plans, targets, strict=True):
        validate_plan(plan, target)
        assert roofline(graph, TOY).bound_cycles <= plan.cost
    assert plans[1].cost < plans[0].bound
    with pytest.raises(PlanError, match=r"load|store"):
        validate_plan(plans[1], TOY)


def test_parts_of_a_machine_keep_its_shares() -> None:
    part = submesh_target(exposed(TOY, NONE), (1, 2))
    assert exposure_of(part) == NONE
    assert part != submesh_target(TOY, (1, 2))


def test_the_description_of_a_machine_says_nothing_of_shares() -> None:
    assert "exposure" not in TOY.model_dump()
    assert exposed(TOY, Exposure()) != TOY
    assert exposure_of(changed_target(TOY, "sram=x2")) == Exposure()

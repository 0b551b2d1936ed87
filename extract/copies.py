"""Scratchpad of the copies that deliveries make, which depends on both ends of a use."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tilewright.extract.choice import Costs
from tilewright.extract.model_tables import Link, ModelTables
from tilewright.extract.move_buffers import shard_bytes
from tilewright.extract.options import Option
from tilewright.extract.plan import Placement
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.rules.alternatives import Alternatives


@dataclass(frozen=True, slots=True, eq=False)
class PairUsage:
    """Bytes that options of two variables need together in the row of the second one."""

    producer: int
    consumer: int
    amounts: Costs
    """By (option of the producer, option of the consumer)."""


def copies(
    tables: ModelTables,
    alternatives: tuple[Alternatives, ...],
    mesh: LogicalMesh,
    alignment_bytes: int,
) -> tuple[PairUsage, ...]:
    """Return the bytes of delivered copies of computed values while their reader runs."""
    return tuple(
        PairUsage(
            tables.number[link.producer],
            tables.number[link.consumer],
            copied_bytes(tables, alternatives, link, mesh, alignment_bytes),
        )
        for link in tables.links
        if link.producer is not None and link.producer != link.consumer
    )


def copied_bytes(
    tables: ModelTables,
    alternatives: tuple[Alternatives, ...],
    link: Link,
    mesh: LogicalMesh,
    alignment_bytes: int,
) -> Costs:
    """Return the bytes of copies for a use, by (option of the producer, option of the consumer)."""
    assert link.producer is not None, "somebody makes the value"
    readers = tables.options[tables.number[link.consumer]]
    tensor = alternatives[link.consumer[0]].classes[link.argument].type

    def bytes_from(made: Placement | None, reader: Option) -> float:
        if reader.node is None or reader.node.kind == "reshape":
            return 0.0  # a moved copy becomes the result
        return float(
            sum(
                shard_bytes(wanted, tensor, mesh, alignment_bytes)
                for own, wanted in zip(reader.node.args, reader.operands, strict=True)
                if own == link.argument and wanted is not None and wanted != made
            )
        )

    makers = [option.result for option in tables.options[tables.number[link.producer]]]
    by_place = {
        place: [bytes_from(place, reader) for reader in readers] for place in dict.fromkeys(makers)
    }
    return np.array([by_place[place] for place in makers])

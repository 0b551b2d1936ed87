"""Scratchpad of the copies that deliveries make, which depends on both ends of a use."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np

from tilewright.extract.choice import Costs
from tilewright.extract.links import Link
from tilewright.extract.model_tables import ModelTables
from tilewright.extract.move_buffers import chain_bytes, shard_bytes
from tilewright.extract.option import Option
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


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class CopiedBytes:
    """Bytes of the copies that a use makes, by (option of the producer, option of the consumer).

    `arrived` are the copies while the reader runs, `with_moves` what they need at most: what moves take on
    their way, such as slots to reduce from, counts of the operand that is delivered last, when the copies
    of all others are there.
    """

    arrived: Costs
    with_moves: Costs


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
            copied_bytes(tables, alternatives, link, mesh, alignment_bytes).with_moves,
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
) -> CopiedBytes:
    """Return the bytes of copies for a use, which are beside the reader's result and buffers."""
    assert link.producer is not None, "somebody makes the value"
    tensor = alternatives[link.consumer[0]].classes[link.argument].type
    table = tables.tables[link.producer]
    readers = tables.options[tables.number[link.consumer]]
    used = [_use_of(reader, link.argument) for reader in readers]
    uses = _numbered(used)
    makers = [option.result for option in tables.options[tables.number[link.producer]]]
    places = _numbered(makers)

    @cache
    def size_bytes(place: Placement | None) -> int:
        return 0 if place is None else shard_bytes(place, tensor, mesh, alignment_bytes)

    def moving_bytes(made: Placement | None, wanted: Placement | None) -> int:
        if made is None or wanted is None:
            return 0
        start, end = table.index[made], table.index.get(wanted)
        if end is None or start == end or not np.isfinite(table.cost[start, end]):
            return 0  # nothing is delivered so
        moving = chain_bytes(table.moves(start, end), tensor, mesh, alignment_bytes)
        return moving - size_bytes(wanted)

    lasts = _numbered([use.last for use in uses])
    moving = np.array([[moving_bytes(made, last) for last in lasts] for made in places])
    arrived = np.zeros((len(places), len(uses)))
    more = np.zeros(arrived.shape)
    for use, column in uses.items():
        arrived[:, column] = sum(map(size_bytes, use.wanted))
        for wanted in use.wanted:
            if wanted in places:
                arrived[places[wanted], column] -= size_bytes(wanted)
        more[:, column] = np.maximum(moving[:, lasts[use.last]] - use.working_bytes, 0)
    pairs = np.ix_([places[made] for made in makers], [uses[use] for use in used])
    return CopiedBytes(arrived=arrived[pairs], with_moves=(arrived + more)[pairs])


@dataclass(frozen=True, slots=True)
class _Use:
    """How a reader wants an argument, in several placements perhaps.

    `last` is the placement in which it is delivered after all other operands, None if it is not, and
    `working_bytes` what the reader has not begun to use by then.
    """

    wanted: tuple[Placement, ...] = ()
    last: Placement | None = None
    working_bytes: int = 0


def _use_of(reader: Option, argument: int) -> _Use:
    if reader.node is None or reader.is_view:
        return _Use()  # a moved copy becomes the result
    operands = [
        (own, wanted)
        for own, wanted in zip(reader.node.args, reader.operands, strict=True)
        if wanted is not None
    ]
    wanted = tuple(place for own, place in operands if own == argument)
    if not operands or operands[-1][0] != argument:
        return _Use(wanted)
    return _Use(wanted, operands[-1][1], reader.working_bytes)


def _numbered[T: Hashable](values: Iterable[T]) -> dict[T, int]:
    """Return the distinct values with their places among them."""
    return {value: number for number, value in enumerate(dict.fromkeys(values))}

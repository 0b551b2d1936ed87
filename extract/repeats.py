"""What is known to be needed of the scratchpad by one instance of each block."""

from __future__ import annotations

import numpy as np

from tilewright.extract.account import Account, Reader
from tilewright.extract.branching import is_shared
from tilewright.extract.choice import Costs
from tilewright.extract.copies import CopiedBytes, copied_bytes
from tilewright.extract.links import Link
from tilewright.extract.model_tables import ModelTables
from tilewright.extract.move_buffers import shard_bytes
from tilewright.extract.plan import Placement
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.rules.alternatives import Alternatives


def account_of(
    tables: ModelTables,
    alternatives: tuple[Alternatives, ...],
    mesh: LogicalMesh,
    alignment_bytes: int,
) -> Account:
    """Return what options need, and how uses within one instance of a block keep values alive."""
    own = [np.zeros(len(options)) for options in tables.options]
    for usage, shared in zip(tables.relaxed.usages, is_shared(tables.relaxed), strict=True):
        if not shared and usage.low <= usage.variable < usage.high:
            own[usage.variable] += usage.amounts
    alive = []
    for variable, options in zip(tables.variables, tables.options, strict=True):
        tensor = alternatives[variable[0]].classes[variable[1]].type
        sizes = [
            0.0
            if option.node is None or option.result is None or option.is_view
            else float(shard_bytes(option.result, tensor, mesh, alignment_bytes))
            for option in options
        ]
        alive.append(np.array(sizes))
    inside = [
        link
        for link in tables.links
        if link.producer is not None and link.producer[0] == link.consumer[0] and not link.repeated
    ]
    # Plans follow the rows only in blocks in which no node comes before its arguments.
    disordered = {
        link.consumer[0]
        for link in inside
        if link.producer is not None
        and tables.number[link.producer] >= tables.number[link.consumer]
    }
    readers: list[list[Reader]] = [[] for _ in tables.options]
    for link in inside:
        if link.producer is not None and link.consumer[0] not in disordered:
            copied = copied_bytes(tables, alternatives, link, mesh, alignment_bytes)
            readers[tables.number[link.producer]].append(_reader(tables, link, copied))
    return Account(
        own_bytes=tuple(own), alive_bytes=tuple(alive), readers=tuple(map(tuple, readers))
    )


def resident_bytes(tables: ModelTables) -> tuple[Costs, ...]:
    """Return what options keep in the scratchpad in all instances together, by variable."""
    return tuple(
        np.array([float(option.resident_bytes) for option in options])
        * tables.multiplicity[variable[0]]
        for variable, options in zip(tables.variables, tables.options, strict=True)
    )


def _reader(tables: ModelTables, link: Link, copied: CopiedBytes) -> Reader:
    assert link.producer is not None, "links inside a block have one"
    makers = tables.options[tables.number[link.producer]]
    readers = tables.options[tables.number[link.consumer]]
    reads = np.array(
        [option.node is not None and link.argument in option.node.args for option in readers]
    )
    views = [option.operands[0] if option.is_view else None for option in readers]
    number: dict[Placement | None, int] = {None: -1}
    wanted = np.array([number.setdefault(place, len(number)) for place in views])
    made = np.array([number.get(maker.result, -2) for maker in makers])
    is_same = (made[:, None] == wanted[None, :]) & (wanted >= 0)
    return Reader(
        variable=tables.number[link.consumer],
        reads=reads,
        copied_bytes=copied.with_moves,
        arrived_bytes=copied.arrived,
        is_same=is_same & reads,
    )

"""The tensor part of an e-graph as plain data, read after each round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

from tilewright.rules.constructors import CONSTRUCTORS, Constructor
from tilewright.rules.session import Session
from tilewright.rules.terms import MOST_OPERANDS

_ANALYSES = ("has_type", "is_constant")

_TABLES = (
    *CONSTRUCTORS,
    *("leaf", "node", "cons", "empty", "origin", "nothing"),
    *_ANALYSES,
)

INSERTED = 0
"""Origin of the e-nodes of the inserted graph; others count rules from 1."""


@dataclass(frozen=True, slots=True)
class ENode:
    """An e-node of sort Tensor; `args` and `result` are e-class ids of the engine."""

    constructor: Constructor
    args: tuple[int, ...]
    texts: tuple[str, ...]
    dtype: str
    result: int
    origin: int
    columns: tuple[int, ...]
    """Operand columns of the engine's row: `args`, or the id of the list that holds them."""

    @property
    def signature_texts(self) -> tuple[str, ...]:
        """Return all text columns, the element type last."""
        return (*self.texts, self.dtype)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """E-nodes, and what analyses know of e-classes; e-classes are ids of the engine."""

    enodes: tuple[ENode, ...]
    leaves: Mapping[int, int]
    """Leaf number to e-class."""
    named: Mapping[int, int]
    """Tensor number of the inserted graph to e-class."""
    types: Mapping[int, tuple[int, ...]]
    """Type numbers of each e-class: one, unless a rule is wrong."""
    constants: frozenset[int]

    @property
    def e_classes(self) -> int:
        """Number of e-classes of sort Tensor."""
        return len({*self.leaves.values(), *(n.result for n in self.enodes)})

    @property
    def e_nodes(self) -> int:
        """Number of e-nodes of sort Tensor, leaves included."""
        return len(self.leaves) + len(self.enodes)


def _lists(tables: Mapping[str, list[tuple[int | str, ...]]]) -> dict[int, tuple[int, ...]]:
    """Return the elements of each list."""
    tails = {cast(int, row[2]): row[:2] for row in tables.get("cons", [])}
    lists: dict[int, tuple[int, ...]] = {cast(int, row[0]): () for row in tables.get("empty", [])}
    for start in tails:
        chain, at = [], start
        while at not in lists:
            chain.append(at)
            at = cast(int, tails[at][1])
        for item in reversed(chain):
            head, tail = tails[item]
            lists[item] = (cast(int, head), *lists[cast(int, tail)])
    return lists


def take_snapshot(session: Session) -> Snapshot:
    """Read the tensor part of an e-graph."""
    tables = session.read(_TABLES)
    lists = _lists(tables)
    origins = {row[:-1]: cast(int, row[-1]) for row in tables.get("origin", [])}
    nothing = [cast(int, row[-1]) for row in tables.get("nothing", [])]
    enodes = []
    for name, constructor in CONSTRUCTORS.items():
        arity = constructor.arity
        for row in tables.get(name, []):
            operands = row[:arity]
            texts = cast(tuple[str, ...], row[arity:-2])
            dtype, result = cast(str, row[-2]), cast(int, row[-1])
            origin = INSERTED
            if constructor.operands is None:
                args = lists[cast(int, operands[0])]
            else:
                args = cast(tuple[int, ...], operands)
                padding = nothing * (MOST_OPERANDS - arity)
                origin = origins[(name, *operands, *padding, "\t".join((*texts, dtype)))]
            columns = cast(tuple[int, ...], operands)
            enodes.append(ENode(constructor, args, texts, dtype, result, origin, columns))
    return Snapshot(
        enodes=tuple(enodes),
        leaves={cast(int, row[0]): cast(int, row[1]) for row in tables.get("leaf", [])},
        named={cast(int, row[0]): cast(int, row[1]) for row in tables.get("node", [])},
        types=_types(tables),
        constants=_constants(tables),
    )


def analysed(snapshot: Snapshot, session: Session) -> Snapshot:
    """Return a snapshot with what analyses have found since; they make no e-nodes and unite nothing."""
    tables = session.read(_ANALYSES)
    return replace(snapshot, types=_types(tables), constants=_constants(tables))


def _types(tables: Mapping[str, list[tuple[int | str, ...]]]) -> dict[int, tuple[int, ...]]:
    types: dict[int, list[int]] = {}
    for row in tables.get("has_type", []):
        types.setdefault(cast(int, row[0]), []).append(cast(int, row[1]))
    return {number: tuple(sorted(found)) for number, found in types.items()}


def _constants(tables: Mapping[str, list[tuple[int | str, ...]]]) -> frozenset[int]:
    return frozenset(cast(int, row[0]) for row in tables.get("is_constant", []))

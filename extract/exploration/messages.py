"""Messages along links between variables, carried from one choice problem to others that are like it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tilewright.extract.choice import ChoiceProblem, Costs, Indices, priced
from tilewright.extract.links import Link
from tilewright.extract.message_passing import MessagePassing, Sent
from tilewright.extract.model_tables import ModelTables
from tilewright.extract.option import Option
from tilewright.extract.origins import Variable

Ends = tuple[Variable, Variable, int]
"""The variables that make and read a value, and the argument as which it is read."""

_SWEEPS = 24
"""Of message passing, for messages that are carried on."""


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """What runs along a link, in units of the objective for each use, by option of either end."""

    makers: tuple[Option, ...]
    readers: tuple[Option, ...]
    to_maker: Costs
    to_reader: Costs


Messages = Mapping[Ends, Message]


def messages_of(
    tables: ModelTables, prices: Costs, start: Messages, *, is_relaxed: bool
) -> Messages:
    """Return the messages of a problem at some prices of its rows.

    Args:
        tables: Whose problem it is.
        prices: Of its rows.
        start: Messages to go on from.
        is_relaxed: Whether it is the problem that bounds.
    """
    problem = tables.relaxed if is_relaxed else tables.problem
    passing = MessagePassing(problem, carried_to(tables, start, is_relaxed=is_relaxed))
    costs = priced(problem, prices)
    for _ in range(_SWEEPS):
        passing.sweep(costs)
    found = dict[Ends, Message]()
    for link, sent in zip(_joining(tables, is_relaxed=is_relaxed), passing.sent, strict=True):
        maker, reader, unit = *_ends(tables, link), tables.scale * link.count
        to_right, to_left = (own / unit for own in sent)
        to_maker, to_reader = (to_left, to_right) if maker < reader else (to_right, to_left)
        own = tables.options[maker], tables.options[reader]
        found[_key(link)] = Message(*own, to_maker, to_reader)
    return found


def carried_to(
    tables: ModelTables, known: Messages, *, is_relaxed: bool
) -> tuple[Sent | None, ...]:
    """Return the messages of each edge of a problem, None where the options of its ends are others."""
    found: list[Sent | None] = []
    for link in _joining(tables, is_relaxed=is_relaxed):
        maker, reader, unit = *_ends(tables, link), tables.scale * link.count
        one = known.get(_key(link))
        is_same = (
            one is not None
            and one.makers is tables.options[maker]
            and one.readers is tables.options[reader]
        )
        if one is None or not is_same:
            found.append(None)
            continue
        to_maker, to_reader = one.to_maker * unit, one.to_reader * unit
        found.append((to_reader, to_maker) if maker < reader else (to_maker, to_reader))
    return tuple(found)


def among(
    problem: ChoiceProblem, sent: Sequence[Sent | None], kept: Sequence[Indices]
) -> tuple[Sent | None, ...]:
    """Return messages about some options of each variable only, given by their numbers."""
    return tuple(
        None if one is None else (one[0][kept[edge.right]], one[1][kept[edge.left]])
        for edge, one in zip(problem.edges, sent, strict=bool(sent))
    )


def _joining(tables: ModelTables, *, is_relaxed: bool) -> list[Link]:
    """Return the links that are edges of a problem, in their order."""
    return [
        link
        for link in tables.links
        if link.producer is not None
        and link.producer != link.consumer
        and not (is_relaxed and link.repeated)
    ]


def _ends(tables: ModelTables, link: Link) -> tuple[int, int]:
    """Return the numbers of the variables that make and read a value."""
    producer, consumer = _key(link)[:2]
    return tables.number[producer], tables.number[consumer]


def _key(link: Link) -> Ends:
    assert link.producer is not None, "inputs have no edges"
    return link.producer, link.consumer, link.argument

"""What links between instances of repeated blocks cost at least, as costs of the options at their ends.

A bound for instances that may differ cannot count a link between two of them as an edge, which would join
a variable's options with those of the same instance. But for any numbers u of the producer's options and
v of the consumer's whose sum is never above what a use costs, the uses cost at least what all instances'
u and v add up to. So u and v become costs of options, and the links are gone. Links that share the uses of
an instance among them (a block's first and its other instances read a value from different producers)
share u and v, so that those of all instances are equal.

The best u and v are dual to the linear relaxation in which uses are transports between the *average*
options of all instances. However good they are, they are made safe here: nothing rests on the solver.

Source:
    Guignard, Kim, "Lagrangean decomposition", Math. Program. 39 (1987) (copies of what two parts share).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tilewright.extract.certificate import LinkPrices
from tilewright.extract.choice import (
    FORBIDDEN,
    NOT_ALLOWED,
    ChoiceProblem,
    Costs,
    Edge,
    Indices,
    Usage,
    restricted,
)
from tilewright.extract.dominance import without_dominated
from tilewright.extract.linear import LinearProgram, optimum

_LARGEST = 1e-3 * FORBIDDEN
"""Of u and v: far above costs, so that sums keep their digits."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Between:
    """Uses of a producer's value by a consumer in other instances.

    `matrix[producer_ports[i], consumer_ports[j]]` is what all of them cost together if all producers take
    option i and all consumers option j. `producers` and `consumers` are the instances at the ends of each
    use; `argument` is what a consumer reads, of which each of its instances has one source.
    """

    producer: int
    consumer: int
    argument: int
    producer_ports: Indices
    consumer_ports: Indices
    matrix: Costs
    producers: tuple[int, ...]
    consumers: tuple[int, ...]

    def cost(self, choice: Sequence[int]) -> float:
        """Return what all uses cost if all instances take a choice."""
        made, wanted = choice[self.producer], choice[self.consumer]
        return float(self.matrix[self.producer_ports[made], self.consumer_ports[wanted]])


def with_links_as_costs(
    problem: ChoiceProblem, links: Sequence[Between], instances: Sequence[int]
) -> tuple[ChoiceProblem, LinkPrices | None]:
    """Return a problem with what links between its instances cost at least in the costs of options.

    The second result are the prices that prove it, if there are some.

    Args:
        problem: The choice for one instance of each variable, its costs those of all instances.
        links: What joins the instances.
        instances: How many instances each variable has.
    """
    ends = _ends(links, instances)
    averages = _Averages(problem, links, ends)
    prices = averages.prices()
    return (problem, None) if prices is None else _with_costs(problem, links, ends, prices)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _End:
    """Links at whose end a variable's instances take turns, so that they share the numbers of its options.

    `parts` are the links' uses as a part of all that the instances can have, which is 1 for all of them
    together if the end `is_whole`. Options of a port are the same to all links.
    """

    variable: int
    is_producer: bool
    ports: Indices
    parts: dict[int, float]
    is_whole: bool

    def port_of(self, ports: Indices) -> Indices:
        """Return a link's port of each port of the end."""
        found = np.zeros(int(self.ports.max()) + 1, dtype=np.int64)
        found[self.ports] = ports
        return found


def _ends(links: Sequence[Between], instances: Sequence[int]) -> tuple[_End, ...]:
    """Return the ends of all links: a consumer's by argument, a producer's so that few instances idle."""
    wanted: dict[tuple[int, int], list[int]] = {}
    made: dict[int, list[list[int]]] = {}
    for number, link in enumerate(links):
        wanted.setdefault((link.consumer, link.argument), []).append(number)
        groups = made.setdefault(link.producer, [])
        for group in groups:
            if all(set(link.producers).isdisjoint(links[other].producers) for other in group):
                group.append(number)
                break
        else:
            groups.append([number])
    consumers = [_end(links, group, instances, is_producer=False) for group in wanted.values()]
    producers = [
        _end(links, group, instances, is_producer=True) for own in made.values() for group in own
    ]
    return (*producers, *consumers)


def _end(
    links: Sequence[Between], group: Sequence[int], instances: Sequence[int], *, is_producer: bool
) -> _End:
    own = [links[number] for number in group]
    variable = own[0].producer if is_producer else own[0].consumer
    ports = [link.producer_ports if is_producer else link.consumer_ports for link in own]
    uses = [link.producers if is_producer else link.consumers for link in own]
    count = Counter(instance for used in uses for instance in used)
    most = max(count.values()) * instances[variable]
    _, numbers = np.unique(np.stack(ports, axis=1), axis=0, return_inverse=True)
    return _End(
        variable=variable,
        is_producer=is_producer,
        ports=numbers.reshape(-1),
        parts={number: len(used) / most for number, used in zip(group, uses, strict=True)},
        is_whole=sum(count.values()) == most,
    )


class _Averages(LinearProgram):
    """The linear program of a problem with links between its instances, over averages of all instances."""

    def __init__(
        self, problem: ChoiceProblem, links: Sequence[Between], ends: Sequence[_End]
    ) -> None:
        apart = [  # options of different ports do not compare
            Usage(end.variable, 0, 1, way * end.ports.astype(np.float64))
            for end in ends
            for way in (1, -1)
        ]
        _, kept = without_dominated(replace(problem, usages=(*problem.usages, *apart)))
        few = restricted(problem, kept)
        self._links, self._ends = links, ends
        self._sizes = [int(end.ports.max()) + 1 for end in ends]
        self._first_rows: list[int] = []
        # What an end has of each port is the transport to one more variable, of one option.
        count = len(few.costs)
        stock = [
            Edge(
                *(end.variable, count + number, end.ports[kept[end.variable]]),
                *(np.zeros(1, dtype=np.int64), np.zeros((size, 1))),
            )
            for number, (end, size) in enumerate(zip(ends, self._sizes, strict=True))
        ]
        extended = replace(
            few,
            costs=(*few.costs, *(np.zeros(1) for _ in ends)),
            edges=(*few.edges, *stock),
        )
        super().__init__(extended)

    def _add_capacity(self) -> int:
        """Add the links' transports, then the rows of capacity, which come last."""
        stocks = self.transports[len(self.transports) - len(self._ends) :]
        for stock, size in zip(stocks, self._sizes, strict=True):
            first = self.equal.new(size)
            self._first_rows.append(first)
            self.equal.put(first + stock.left_ports, stock.columns, -1.0)
        for end, first, size in zip(self._ends, self._first_rows, self._sizes, strict=True):
            if not end.is_whole:
                self.equal.put(first + np.arange(size), self._new_columns(np.zeros(size)), 1.0)
        for number, link in enumerate(self._links):
            left, right = _ends_of(number, self._ends)
            matrix = _matrix(link, self._ends[left], self._ends[right])
            rows, columns = np.nonzero(matrix < NOT_ALLOWED)
            flow = self._new_columns(matrix[rows, columns])
            self.equal.put(self.equal.new(1, 1.0), flow, 1.0)
            for side, ports in ((left, rows), (right, columns)):
                part = self._ends[side].parts[number]
                self.equal.put(self._first_rows[side] + ports, flow, part)
        return super()._add_capacity()

    def prices(self) -> list[Costs] | None:
        """Return the price of each port of each end; None if the program has no solution."""
        found = optimum(self.rows())
        if found is None:
            return None
        return [
            np.clip(found.eqlin.marginals[first : first + size], -_LARGEST, _LARGEST)
            for first, size in zip(self._first_rows, self._sizes, strict=True)
        ]


def _ends_of(number: int, ends: Sequence[_End]) -> tuple[int, int]:
    """Return the numbers of a link's two ends, the producer's first."""
    left, right = sorted(
        (n for n, end in enumerate(ends) if number in end.parts),
        key=lambda n: not ends[n].is_producer,
    )
    return left, right


def _matrix(link: Between, producer: _End, consumer: _End) -> Costs:
    """Return what a link costs by the ports of its ends."""
    rows, columns = producer.port_of(link.producer_ports), consumer.port_of(link.consumer_ports)
    return link.matrix[np.ix_(rows, columns)]


def _with_costs(
    problem: ChoiceProblem, links: Sequence[Between], ends: Sequence[_End], prices: list[Costs]
) -> tuple[ChoiceProblem, LinkPrices]:
    """Return the problem with the prices of ends in its costs, as far as they are safe."""
    prices = [
        own if end.is_whole else np.minimum(own, 0.0) for end, own in zip(ends, prices, strict=True)
    ]
    room: list[Costs] = []
    """What the producer's price leaves of each link, by the consumer's port."""
    constant = 0.0
    for number, link in enumerate(links):
        left, right = _ends_of(number, ends)
        matrix = _matrix(link, ends[left], ends[right])
        own = (matrix - ends[left].parts[number] * prices[left][:, None]).min(axis=0)
        least = float((own - ends[right].parts[number] * prices[right]).min())
        constant += least
        room.append(own - least)
    added = [np.zeros(len(own)) for own in problem.costs]
    shares: dict[tuple[int, bool], Costs] = {}
    for end, own in zip(ends, prices, strict=True):
        if not end.is_producer:  # as dear as may be, so that what reads nothing stays cheapest
            own = np.stack([room[number] / part for number, part in end.parts.items()]).min(axis=0)
            own = own if end.is_whole else np.minimum(own, 0.0)
        added[end.variable] += own[end.ports]
        for number, part in end.parts.items():
            shares[number, end.is_producer] = part * own[end.ports]
    proof = LinkPrices(
        made=tuple(shares[number, True] for number in range(len(links))),
        wanted=tuple(shares[number, False] for number in range(len(links))),
        added=tuple(added),
    )
    costs = [own + more for own, more in zip(problem.costs, added, strict=True)]
    costs[links[0].consumer] += constant  # whatever is chosen
    return replace(problem, costs=tuple(np.minimum(own, FORBIDDEN) for own in costs)), proof

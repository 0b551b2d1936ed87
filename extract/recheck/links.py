"""What links between instances cost at least, counted use by use and instance by instance.

A use costs at least what both ends send, and what is left of the link at its cheapest. So all uses together
cost at least what their ends send over all instances; each instance of a variable sends at least what is said
to be added to the costs of its options.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tilewright.extract.between import Between
from tilewright.extract.certificate import LinkPrices
from tilewright.extract.choice import FORBIDDEN, ChoiceProblem, Edge
from tilewright.extract.recheck.dual import least_left


def with_links(
    problem: ChoiceProblem,
    links: Sequence[Between],
    instances: Sequence[int],
    prices: LinkPrices,
) -> ChoiceProblem:
    """Return the problem with what links cost at least in the costs of options.

    What they cost whatever is chosen is in the costs of some variable that they join.

    Args:
        problem: Costs of all instances of each variable, as if they took the same option.
        links: What joins the instances.
        instances: How many instances each variable has.
        prices: What uses cost by the options at their ends; anything may be said.
    """
    beside = 0.0
    sent = [
        [np.zeros(len(own)) for _ in range(count)]
        for own, count in zip(problem.costs, instances, strict=True)
    ]
    place_of: list[dict[int, int]] = [{} for _ in instances]
    for link, made, wanted in zip(links, prices.made, prices.wanted, strict=True):
        edge = Edge(0, 1, link.producer_ports, link.consumer_ports, link.matrix)
        beside += least_left(edge, made, wanted)
        for variable, ends, share in (
            (link.producer, link.producers, made),
            (link.consumer, link.consumers, wanted),
        ):
            for instance in ends:
                place = place_of[variable].setdefault(instance, len(place_of[variable]))
                sent[variable][place] += share / len(ends)
    costs = []
    for own, added, shares, count in zip(problem.costs, prices.added, sent, instances, strict=True):
        short = max(float((added - count * share).max()) for share in shares)
        beside -= max(0.0, short)  # each instance may be short of a part of it
        costs.append(own + added)
    costs[links[0].consumer] = costs[links[0].consumer] + beside
    return replace(problem, costs=tuple(np.minimum(own, FORBIDDEN) for own in costs))

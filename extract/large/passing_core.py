"""The loops of message passing, compiled. `messages` holds, by half, what each port is told."""

from __future__ import annotations

import numpy as np

from tilewright.extract.choice import Costs, Indices
from tilewright.extract.large.compile import compiled
from tilewright.extract.large.flat import Flat


@compiled
def belief_of(flat: Flat, costs: Costs, messages: Costs, variable: int, belief: Costs) -> float:
    """Write the costs of a variable's options plus its messages to `belief`; return the least."""
    start = flat.first[variable]
    count = flat.first[variable + 1] - start
    for option in range(count):
        belief[option] = costs[start + option]
    for half in range(flat.half_first[variable], flat.half_first[variable + 1]):
        ports_at, message_at = flat.ports_at[half], flat.message_at[half]
        for option in range(count):
            belief[option] += messages[message_at + flat.ports[ports_at + option]]
    least = np.inf
    for option in range(count):
        least = min(least, belief[option])
    return least


@compiled
def slack_of(flat: Flat, messages: Costs, half: int, belief: Costs, slack: Costs) -> None:
    """Write to `slack`, by port, the share of the belief that goes to a half's message."""
    variable = flat.other[flat.mate[half]]
    width, ports_at, message_at = flat.width[half], flat.ports_at[half], flat.message_at[half]
    for port in range(width):
        slack[port] = np.inf
    for option in range(flat.first[variable + 1] - flat.first[variable]):
        port = flat.ports[ports_at + option]
        if belief[option] < slack[port]:
            slack[port] = belief[option]
    weight = flat.weight[variable]
    for port in range(width):
        slack[port] = weight * slack[port] - messages[message_at + port]


@compiled
def send(flat: Flat, messages: Costs, half: int, belief: Costs, slack: Costs) -> float:
    """Update the message to the other end; return its minimum, which moves into the bound."""
    slack_of(flat, messages, half, belief, slack)
    mate = flat.mate[half]
    width, matrix_at = flat.width[mate], flat.matrix_at[half]
    sent = messages[flat.message_at[mate] : flat.message_at[mate] + width]
    for port in range(width):
        sent[port] = np.inf
    for own in range(flat.width[half]):
        row = flat.matrix[matrix_at + own * width : matrix_at + (own + 1) * width]
        offset = slack[own]
        for port in range(width):
            value = row[port] + offset
            sent[port] = value if value < sent[port] else sent[port]
    least = np.inf
    for port in range(width):
        least = min(least, sent[port])
    for port in range(width):
        sent[port] -= least
    return least


@compiled
def pass_messages(
    flat: Flat, costs: Costs, messages: Costs, belief: Costs, slack: Costs, times: int
) -> float:
    """Pass messages forwards and backwards some times; return the last lower bound."""
    count = len(flat.first) - 1
    bound = 0.0
    for _ in range(times):
        for variable in range(count):
            least = belief_of(flat, costs, messages, variable, belief)
            for option in range(flat.first[variable + 1] - flat.first[variable]):
                belief[option] -= least
            for half in range(flat.half_first[variable], flat.half_first[variable + 1]):
                if flat.other[half] > variable:
                    send(flat, messages, half, belief, slack)
        bound = 0.0
        for variable in range(count - 1, -1, -1):
            least = belief_of(flat, costs, messages, variable, belief)
            for option in range(flat.first[variable + 1] - flat.first[variable]):
                belief[option] -= least
            bound += least
            for half in range(flat.half_first[variable], flat.half_first[variable + 1]):
                if flat.other[half] < variable:
                    bound += send(flat, messages, half, belief, slack)
    return bound


@compiled
def bound_options(
    flat: Flat, costs: Costs, messages: Costs, belief: Costs, slack: Costs, above: Costs
) -> float:
    """Pass messages backwards; add to `above` what each option costs at least above the bound."""
    bound = 0.0
    for variable in range(len(flat.first) - 2, -1, -1):
        start, end = flat.first[variable], flat.first[variable + 1]
        least = belief_of(flat, costs, messages, variable, belief)
        bound += least
        for option in range(end - start):
            belief[option] -= least
        lower = 0
        for half in range(flat.half_first[variable], flat.half_first[variable + 1]):
            lower += flat.other[half] < variable
        weight = flat.weight[variable]
        for option in range(end - start):
            above[start + option] += (1.0 - weight * lower) * belief[option]
        for half in range(flat.half_first[variable], flat.half_first[variable + 1]):
            if flat.other[half] >= variable:
                continue
            message_at, ports_at = flat.message_at[half], flat.ports_at[half]
            least = send(flat, messages, half, belief, slack)
            bound += least
            mate = flat.mate[half]
            width = flat.width[mate]
            for port in range(flat.width[half]):
                rest = np.inf
                at = flat.matrix_at[half] + port * width
                for other in range(width):
                    sent = messages[flat.message_at[mate] + other] + least
                    rest = min(rest, flat.matrix[at + other] - sent)
                slack[port] = rest
            for option in range(end - start):
                port = flat.ports[ports_at + option]
                kept = weight * belief[option] - messages[message_at + port]
                above[start + option] += kept + slack[port]
    return bound


@compiled
def costs_given(
    flat: Flat, costs: Costs, messages: Costs, choice: Indices, variable: int, total: Costs
) -> int:
    """Write the options' costs to `total` and return the cheapest option.

    Neighbours that are chosen (not -1) count by their choice, others by their messages.
    """
    start = flat.first[variable]
    count = flat.first[variable + 1] - start
    for option in range(count):
        total[option] = costs[start + option]
    for half in range(flat.half_first[variable], flat.half_first[variable + 1]):
        ports_at = flat.ports_at[half]
        chosen = choice[flat.other[half]]
        if chosen >= 0:
            mate = flat.mate[half]
            width = flat.width[half]
            at = flat.matrix_at[mate] + flat.ports[flat.ports_at[mate] + chosen] * width
            for option in range(count):
                total[option] += flat.matrix[at + flat.ports[ports_at + option]]
        else:
            at = flat.message_at[half]
            for option in range(count):
                total[option] += messages[at + flat.ports[ports_at + option]]
    best = 0
    for option in range(1, count):
        if total[option] < total[best]:
            best = option
    return best


@compiled
def choose_in_order(
    flat: Flat, costs: Costs, messages: Costs, choice: Indices, total: Costs, backwards: bool
) -> None:
    """Fix the variables one by one, in their order or against it."""
    count = len(choice)
    choice[:] = -1
    for step in range(count):
        variable = count - 1 - step if backwards else step
        choice[variable] = costs_given(flat, costs, messages, choice, variable, total)


@compiled
def descend(
    flat: Flat, costs: Costs, messages: Costs, choice: Indices, total: Costs, rounds: int
) -> None:
    """Change single variables to their best option until nothing changes."""
    for _ in range(rounds):
        changed = False
        for variable in range(len(choice)):
            best = costs_given(flat, costs, messages, choice, variable, total)
            if total[best] < total[choice[variable]] - 1e-9:
                choice[variable] = best
                changed = True
        if not changed:
            break

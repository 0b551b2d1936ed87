"""How two sets of tiles share the DRAM's ports while both read."""

from __future__ import annotations

from typing import NamedTuple


class Readers(NamedTuple):
    """Tiles that read from DRAM at the same time: each for itself, or for a group that it relays to."""

    tiles: float
    size_bytes: float
    """What each reads."""
    padding: float
    """Bytes that the ports move for each byte, with bursts filled."""
    bytes_per_cycle: float
    """Rate of each while the ports have nothing else to do."""

    @property
    def port_bytes(self) -> float:
        """What the ports move for a byte of each."""
        return self.tiles * self.padding


def fair_read_cycles(port_bytes_per_cycle: float, own: Readers, others: Readers) -> float:
    """Return the cycles until readers have their bytes while others read, too.

    The ports let all that read go at the same rate, whatever they still want, but for what slower ones
    leave (max-min fair, as in the timing simulator): one tile that relays beside 64 that read for themselves
    gets a 65th until these are done.

    Args:
        port_bytes_per_cycle: Rate of all ports together.
        own: The readers that are asked about.
        others: Those beside them; all begin together.
    """
    rate = _rate(port_bytes_per_cycle, own, others)
    together_cycles = others.size_bytes / _rate(port_bytes_per_cycle, others, own)
    if own.size_bytes <= rate * together_cycles:
        return own.size_bytes / rate
    alone = min(own.bytes_per_cycle, port_bytes_per_cycle / own.port_bytes)
    return together_cycles + (own.size_bytes - rate * together_cycles) / alone


def _rate(port_bytes_per_cycle: float, own: Readers, others: Readers) -> float:
    """Return the rate of each of the own readers while all read."""
    alike = port_bytes_per_cycle / (own.port_bytes + others.port_bytes)
    left = port_bytes_per_cycle - others.port_bytes * others.bytes_per_cycle
    return min(own.bytes_per_cycle, max(alike, left / own.port_bytes))

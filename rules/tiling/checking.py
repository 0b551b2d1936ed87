"""Registration check of tiling rules: every tiling they make covers its loop, within the candidates."""

from __future__ import annotations

import numpy as np

from tilewright.errors import RuleError
from tilewright.rules.tiling.candidates import tile_sizes
from tilewright.rules.tiling.engine import TilingAlternatives, TilingRequest, tiling_alternatives
from tilewright.rules.tiling.family import tiling_rules
from tilewright.rules.tiling.ruleset import TilingRule

_EXTENTS = (1, 2, 3, 5, 7, 8, 12, 60, 97, 384)
_QUANTA = (1, 4, 64)


def check_tiling_rule(rule: TilingRule) -> int:
    """Check what a rule makes of loops of many extents; return how many tilings it made.

    The rule runs beside the one that takes every loop whole. Sums over the loop, box by box as the
    tile size says, are compared with the sum at once.

    Raises:
        RuleError: A tile is empty, larger than its loop or no candidate (the rule would grow without
            bound), a loop that must run whole is cut, a loop that combines is outermost, or
            nothing is made.
    """
    start = tuple(r for r in tiling_rules() if r.name == "tiling.whole_loop" and r != rule)
    requests = [_request(e, q, whole) for e in _EXTENTS for q in _QUANTA for whole in (False, True)]
    before = tiling_alternatives(requests, start) if start else ()
    made = 0
    for request, found in zip(requests, tiling_alternatives(requests, (*start, rule)), strict=True):
        made += sum(len(sizes) for sizes in found.sizes) + len(found.outermost)
        _check(rule, request, found)
    made -= sum(sum(len(s) for s in f.sizes) + len(f.outermost) for f in before)
    if made <= 0:
        raise RuleError(
            f"{rule.where} makes nothing of loops of {_EXTENTS} indices; its conditions can hardly "
            "be met"
        )
    return made


def _request(extent: int, quantum: int, is_whole: bool) -> TilingRequest:
    """Return a kernel of two parallel loops and one that combines, the first of them perhaps whole."""
    return TilingRequest(
        key=f"{extent}.{quantum}",
        extents=(extent, extent, extent),
        is_tileable=(not is_whole, True, not is_whole),
        is_parallel=(True, True, False),
        is_combining=(False, False, True),
        quanta=(quantum, quantum, quantum),
    )


def _check(rule: TilingRule, request: TilingRequest, found: TilingAlternatives) -> None:
    for number, sizes in enumerate(found.sizes):
        extent, quantum = request.extents[number], request.quanta[number]
        allowed = tile_sizes(extent, quantum) if request.is_tileable[number] else (extent,)
        for size in sizes:
            if size not in allowed:
                raise RuleError(
                    f"{rule.where} makes tiles of {size} for a loop of {extent} indices and quantum "
                    f"{quantum}{'' if request.is_tileable[number] else ' that must run whole'}; "
                    f"candidates are {list(allowed)}; add the fact tile_size to `when`"
                )
            values = np.arange(extent)
            boxes = [values[first : first + size].sum() for first in range(0, extent, size)]
            if sum(boxes) != values.sum():
                raise RuleError(f"{rule.where}: tiles of {size} do not cover {extent} indices")
    for outer in found.outermost:
        if not request.is_parallel[outer] or not request.is_tileable[outer]:
            raise RuleError(
                f"{rule.where} puts loop {outer} outermost, which combines or must run whole; add "
                "the fact outermost_candidate to `when`"
            )

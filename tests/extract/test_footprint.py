"""Bounds of spans of footprints."""

from __future__ import annotations

from math import inf

import pytest

from tilewright.extract.closing import Scales
from tilewright.extract.footprint import _Span


def span(low: int, high: int, least: float) -> _Span:
    return _Span(low=low, high=high, least=least, limit_bytes=high, certificate=None)


@pytest.mark.parametrize("sum_price", [0.0, 1.0])
def test_a_span_without_plans_is_no_bound(sum_price: float) -> None:
    scales = Scales(sum_price=sum_price, use_price=2.0)
    empty, full = span(64, 128, inf), span(192, 256, 1000.0)
    assert empty.bound(scales) == inf
    assert min(span.bound(scales) for span in (empty, full)) == 1000.0 * sum_price + 384

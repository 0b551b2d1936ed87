"""Bounds of spans of footprints."""

from __future__ import annotations

from math import inf

import pytest

from tilewright.extract.closing import Scales
from tilewright.extract.footprint import _Span


@pytest.mark.parametrize("sum_price", [0.0, 1.0])
def test_a_span_without_plans_is_no_bound(sum_price: float) -> None:
    scales = Scales(sum_price=sum_price, use_price=2.0)
    empty, full = _Span(low=64, high=128, least=inf), _Span(low=192, high=256, least=1000.0)
    assert empty.bound(scales) == inf
    assert min(span.bound(scales) for span in (empty, full)) == 1000.0 * sum_price + 384

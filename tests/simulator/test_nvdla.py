"""The bound of ResNet-50's layers that the page on validation compares with NVDLA's estimates."""

from __future__ import annotations

import pytest
from benchmarks.validation.nvdla import ROWS, bound_fps, macs, resnet50


def test_the_layers_are_resnet50s() -> None:
    assert macs() == pytest.approx(4.09e9, rel=0.002)  # torchvision's resnet50: 4.09 G
    weights = sum(x.channels * x.kernels * x.window**2 for x in resnet50())
    assert weights == pytest.approx(25.5e6, rel=0.01)


def test_the_bound_is_near_the_estimates_of_larger_configurations() -> None:
    ratios = [bound_fps(row) / row.published_fps for row in ROWS]
    assert all(abs(ratio - 1.0) < 0.15 for ratio in ratios[:4])
    assert all(ratio > 1.7 for ratio in ratios[5:])  # as the page says

"""The deterministic figures of one compilation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tilewright.compiler import Compilation
from tilewright.lowering.loops import expanded_length
from tilewright.simulator.timing import TimingReport

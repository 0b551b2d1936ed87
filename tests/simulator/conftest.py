"""Lets these tests import `packet_reference` and `timing_cases`, which the importlib mode would not find."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

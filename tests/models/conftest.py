"""Lets the tests of this folder import its helpers, which pytest's importlib mode would not find."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

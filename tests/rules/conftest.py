"""Graphs for rule tests."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tilewright.graph import Graph
from tilewright.rules.checks.zoo import GraphBuilder, encoder, resnet, transformer

# pytest's importlib mode does not find `rule_cases` and `known_bad_rules` by itself.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def make_builder() -> Callable[..., GraphBuilder]:
    return GraphBuilder


@pytest.fixture
def models() -> dict[str, Callable[..., Graph]]:
    return {"transformer": transformer, "encoder": encoder, "resnet": resnet}

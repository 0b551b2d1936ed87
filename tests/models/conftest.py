"""Lets these tests import their helpers and `benchmarks`, and compiles each model once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tilewright import api

if TYPE_CHECKING:
    from end_to_end import EndToEnd

# pytest's importlib mode finds neither by itself.
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]


@pytest.fixture(scope="session")
def end_to_end(fetched: Callable[[str], Path]) -> Callable[[str, str], EndToEnd]:
    """Return a function that compiles and checks a case on a target, once for all tests."""
    from benchmarks.models import case_of, inputs_of, model_of
    from end_to_end import check_end_to_end

    @cache
    def checked(name: str, target: str) -> EndToEnd:
        case = case_of(name)
        model = model_of(case, fetched)
        inputs = inputs_of(case, api.load(model, dims=case.dims))
        return check_end_to_end(model, target, dims=case.dims, inputs=inputs)

    return checked

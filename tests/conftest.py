"""Settings and fixtures that all tests share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from tilewright.fetch import cached_model, fetch_model

# The same examples on every machine and run: a failure is the change's fault, not the draw's. No
# deadline: timing on a busy machine says nothing about the code.
settings.register_profile("fixed", derandomize=True, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


class SharedScheduling(LoadFileScheduling):
    """Keeps in one process the tests that share what they compile: those of a file, and those of models."""

    def _split_scope(self, nodeid: str) -> str:
        return (
            "tests/models" if nodeid.startswith("tests/models/") else super()._split_scope(nodeid)
        )


@pytest.hookimpl(tryfirst=True, optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling | None:
    """Schedule `--dist loadfile`, which asks for no marks: pytest 9.2 hides them from pytest-xdist 3.8."""
    return SharedScheduling(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a random generator that draws the same numbers in every run."""
    return np.random.default_rng(20)


@pytest.fixture(scope="session")
def fetched() -> Callable[[str], Path]:
    """Return a function from a model's key to its file, which is downloaded when not cached.

    With TILEWRIGHT_OFFLINE=1 a model that is not cached skips the test. Without it a failed
    download fails the test, so that nothing goes unchecked quietly.
    """

    def path_of(key: str) -> Path:
        if os.environ.get("TILEWRIGHT_OFFLINE") != "1":
            return fetch_model(key)
        path = cached_model(key)
        if path is None:
            pytest.skip(f"model {key} is not cached and TILEWRIGHT_OFFLINE is set")
        return path

    return path_of

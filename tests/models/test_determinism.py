"""Compiling a model twice gives the same bytes, whatever the seed of Python's hashes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from end_to_end import EndToEnd

from tilewright.lowering.program_file import program_bytes

ROOT = Path(__file__).parents[2]

SCRIPT = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
from benchmarks.models import case_of, model_of
from tilewright import api
from tilewright.lowering.program_file import program_bytes
case = case_of(sys.argv[2])
program = api.compile(model_of(case), sys.argv[3], dims=case.dims).program
print(hashlib.sha256(program_bytes(program)).hexdigest())
"""


def digest(name: str, target: str, hash_seed: str) -> str:
    """Compile in a new process and return the SHA-256 of the program file."""
    command = [sys.executable, "-c", SCRIPT, str(ROOT), name, target]
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_same_bytes(end_to_end: Callable[[str, str], EndToEnd]) -> None:
    """A process that has compiled much, with a seed of its own, and a new one write the same program."""
    name, target = "llama_decode", "mesh_2x3"
    program = end_to_end(name, target).compilation.program
    assert program is not None
    seed = "1" if os.environ.get("PYTHONHASHSEED") == "2" else "2"
    assert digest(name, target, seed) == hashlib.sha256(program_bytes(program)).hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "target"),
    [("kws_embed", "toy"), ("gpt2_prefill", "corsair"), ("minilm_int8w_s16", "toy")],
)
def test_more_of_the_same_bytes(name: str, target: str) -> None:
    if os.environ.get("TILEWRIGHT_OFFLINE") == "1" and name != "gpt2_prefill":
        pytest.skip("the model may have to be fetched and TILEWRIGHT_OFFLINE is set")
    assert len({digest(name, target, seed) for seed in ("0", "7", "42")}) == 1

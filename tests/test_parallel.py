"""Tests that share what they compile run in one process."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent
ONE = """
import pytest

@pytest.mark.parametrize("number", range(3))
def test_one(number):
    pass
"""


def test_files_and_the_folder_of_models_are_not_divided(tmp_path: Path) -> None:
    tests = tmp_path / "tests"
    (tests / "models").mkdir(parents=True)
    (tests / "conftest.py").write_text((TESTS / "conftest.py").read_text("utf-8"), "utf-8")
    for name in ("test_a.py", "test_b.py", "models/test_c.py", "models/test_d.py"):
        (tests / name).write_text(ONE)
    command = [sys.executable, "-m", "pytest", "-v", "-n", "2", "--dist", "loadfile"]
    options = ["-c", "/dev/null", "--rootdir", str(tmp_path), "--import-mode=importlib", str(tests)]
    done = subprocess.run(
        command + options, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    ran = re.findall(r"^\[(gw\d)\].* PASSED tests/(\S+)::", done.stdout, re.MULTILINE)
    assert len(ran) == 12, done.stdout + done.stderr
    processes = {name: {own for own, other in ran if other == name} for _, name in ran}
    assert all(len(own) == 1 for own in processes.values()), processes
    assert processes["models/test_c.py"] == processes["models/test_d.py"]

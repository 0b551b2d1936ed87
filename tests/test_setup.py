"""The set-up script finds a Python, or says in one line what to install."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOOLS = ("dirname", "cat", "cksum", "mv", "rm", "sed", "sh")


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """Return a folder for PATH with the shell's own tools and no Python."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in TOOLS:
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)
    return folder


def write_stub(path: Path, body: str) -> Path:
    """Write an executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def real_python(path: Path) -> Path:
    """Write a stub that runs the interpreter of this test."""
    return write_stub(path, f'exec "{sys.executable}" "$@"')


def broken_shim(path: Path) -> Path:
    """Write a stub that refuses to run, as pyenv's shims do for versions that are not selected."""
    return write_stub(path, "echo 'pyenv: python: command not found' >&2\nexit 127")


def old_python(path: Path) -> Path:
    """Write a stub that fails the version check, as an old interpreter does."""
    return write_stub(path, "exit 1")


def tw(
    *arguments: str, path: Path, script: Path = ROOT / "tw", **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run the script with an environment of nothing but PATH and these variables."""
    return subprocess.run(
        ["/bin/sh", str(script), *arguments],
        env={"PATH": str(path), **variables},
        cwd=path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("name", ["python3.14", "python3.13", "python3.12", "python3", "python"])
def test_finds_each_name_on_path(tools: Path, name: str) -> None:
    expected = real_python(tools / name)
    assert tw("python", path=tools).stdout.strip() == str(expected)


def test_passes_over_shims_and_old_versions(tools: Path) -> None:
    broken_shim(tools / "python3.13")
    old_python(tools / "python3")
    expected = real_python(tools / "python")
    assert tw("python", path=tools).stdout.strip() == str(expected)


@pytest.mark.parametrize("variable", ["PYENV_ROOT", "HOME"])
def test_looks_among_the_versions_of_pyenv(tools: Path, tmp_path: Path, variable: str) -> None:
    home = tmp_path / "a home"
    pyenv = home if variable == "PYENV_ROOT" else home / ".pyenv"
    broken_shim(tools / "python3")
    old_python(pyenv / "versions" / "3.11.7" / "bin" / "python")
    expected = real_python(pyenv / "versions" / "3.12.1" / "bin" / "python")
    result = tw("python", path=tools, **{variable: str(home)})
    assert result.stdout.strip() == str(expected)


def test_an_interpreter_that_was_asked_for_comes_first(tools: Path, tmp_path: Path) -> None:
    real_python(tools / "python3")
    expected = real_python(tmp_path / "chosen" / "python")
    result = tw("python", path=tools, TILEWRIGHT_PYTHON=str(expected))
    assert result.stdout.strip() == str(expected)


def test_says_what_to_install(tools: Path) -> None:
    broken_shim(tools / "python3.13")
    old_python(tools / "python3")
    result = tw("python", path=tools)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr == (
        "tw: no Python 3.12 or newer with venv found on PATH or in pyenv; install one "
        "(for example: pyenv install 3.13, or apt install python3.12-venv)\n"
    )


def test_set_up_stops_without_a_python(tools: Path, tmp_path: Path) -> None:
    """No command goes on, and nothing is left behind, when there is no interpreter."""
    clone = tmp_path / "a clone"
    clone.mkdir()
    for name in ("tw", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, clone)
    result = tw("demo", path=tools, script=clone / "tw")
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert not (clone / ".venv").exists()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a clone in a path with a space, whose lock and package install in no time."""
    folder = tmp_path / "a clone"
    folder.mkdir()
    shutil.copy(ROOT / "tw", folder)
    (folder / "requirements.lock").write_text("# nothing\n")
    (folder / "pyproject.toml").write_text("# nothing\n")
    return folder


def fake_interpreter(path: Path, log: Path) -> Path:
    """Write a Python whose `-m venv` makes a copy of it; its pip and compileall only write to a log."""
    return write_stub(
        path,
        f"""case "$*" in
*'import sys'*) exit 0 ;;
'-m venv '*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; echo venv >>'{log}' ;;
'-m pip '*) echo pip >>'{log}'; exit "${{PIP_STATUS:-0}}" ;;
'-m compileall '*) echo bytecode >>'{log}' ;;
*) echo "ran $*" ;;
esac""",
    )


def test_sets_up_once_and_again_after_a_change(clone: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    python = fake_interpreter(tmp_path / "fake" / "python3", log)

    def run() -> list[str]:
        log.write_text("")
        result = subprocess.run(
            ["/bin/sh", str(clone / "tw"), "demo", "--flag", "two words"],
            env={"PATH": "/usr/bin:/bin", "TILEWRIGHT_PYTHON": str(python)},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert result.stdout == "ran -m tilewright demo --flag two words\n"
        return log.read_text().split()

    assert run() == ["venv", "pip", "pip", "bytecode"]
    assert run() == []
    (clone / "requirements.lock").write_text("# other\n")
    assert run() == ["venv", "pip", "pip", "bytecode"]
    (clone / "pyproject.toml").write_text("# other\n")
    assert run() == ["pip", "bytecode"]
    clone.rename(tmp_path / "moved")
    clone = tmp_path / "moved"
    assert run() == ["venv", "pip", "pip", "bytecode"]


def test_a_set_up_that_broke_off_is_done_again(clone: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    python = fake_interpreter(tmp_path / "fake" / "python3", log)
    environment = {"PATH": "/usr/bin:/bin", "TILEWRIGHT_PYTHON": str(python)}
    command = ["/bin/sh", str(clone / "tw"), "setup"]
    failed = subprocess.run(
        command, env={**environment, "PIP_STATUS": "1"}, capture_output=True, text=True, check=False
    )
    assert failed.returncode == 1
    assert "check the network and run the command again" in failed.stderr
    log.write_text("")
    subprocess.run(command, env=environment, capture_output=True, check=True)
    assert log.read_text().split() == ["venv", "pip", "pip", "bytecode"]


def test_unknown_command_is_an_error(tools: Path) -> None:
    result = tw("tset", path=tools)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == "tw: unknown command 'tset'"


def test_continuous_integration_runs_the_test_command() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert './tw test "$@"' in script.read_text()

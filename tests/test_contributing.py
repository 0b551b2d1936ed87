"""The recipe of CONTRIBUTING.md for a rewrite rule, followed step by step."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tilewright.cli import main
from tilewright.demo import demo_model

TEXT = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text("utf-8")
FILES = re.findall(r"```python\n(.*?)```", TEXT.partition("## Add an operator")[0], re.DOTALL)
PROMISES = re.findall(r"```console\n(.*?)```", TEXT.partition("## Add an operator")[0], re.DOTALL)


def ran(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    with pytest.raises(SystemExit) as done:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return int(done.value.code or 0), captured.out + captured.err


def test_the_first_file_is_refused_as_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "my_rules.py"
    path.write_text(FILES[0])
    code, out = ran(capsys, "rules", "check", "--rules", path)
    assert code == 1
    command, verdict, _, *lines = PROMISES[0].splitlines()
    assert command == "$ ./tw run rules check --rules my_rules.py"
    assert verdict in out
    for line in lines:
        assert line in out


def test_the_second_file_is_accepted_and_fires_on_a_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, model = tmp_path / "my_rules.py", tmp_path / "model.onnx"
    path.write_text(FILES[1])
    model.write_bytes(demo_model())
    code, out = ran(capsys, "rules", "check", "--rules", path)
    assert code == 0, out
    assert re.search(r"^mine\.map_after_pool +accepted", out, re.MULTILINE)
    options = ("--target", "toy", "--rules", path)
    code, out = ran(capsys, "rules", "stats", model, *options, "--no-worth")
    assert code == 0, out
    row = re.search(r"^mine\.map_after_pool +(\d+) +(\d+) +[\d.]+ +(\S+)", out, re.MULTILINE)
    assert row is not None
    assert row.groups() == ("1", "2", "2")


@pytest.mark.parametrize("dropped", ["is_relu(fn), ", ", max_pool_inside(rest)"])
def test_each_condition_is_needed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], dropped: str
) -> None:
    path = tmp_path / "my_rules.py"
    left = "(is_relu(fn),)" if "pool" in dropped else "(max_pool_inside(rest),)"
    path.write_text(FILES[1].replace("(is_relu(fn), max_pool_inside(rest))", left, 1))
    code, out = ran(capsys, "rules", "check", "--rules", path)
    assert code == 1
    assert "is wrong: its sides have different" in out

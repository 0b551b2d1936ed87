"""`tilewright assign`: strategies in the contest's form; bad instances end with one clear error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tilewright.cli import _exit_code

NODES = {
    "intervals": [[0, 2], [1, 3]],
    "costs": [[9, 1], [5, 6, 4]],
    "usages": [[1, 8], [2, 3, 7]],
}
EDGES = {"nodes": [[0, 1]], "costs": [[10**18, 3, 0, 0, 0, 0]]}


def instance(limit: int = 10, **changes: Any) -> dict[str, Any]:
    nodes = NODES | {key: value for key, value in changes.items() if key in NODES}
    edges = EDGES | changes.get("edges", {})
    return {"problem": {"nodes": nodes, "edges": edges, "usage_limit": limit}}


def test_writes_the_best_strategies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "small.json", tmp_path / "out.json"
    path.write_text(json.dumps(instance()))
    assert _exit_code(["assign", str(path), "--time-limit", "5", "-o", str(out)]) == 0
    assert json.loads(out.read_text()) == [1, 0]
    printed = capsys.readouterr().out
    assert "cost" in printed
    assert "0.00 %" in printed
    assert _exit_code(["assign", str(path), "--time-limit", "5"]) == 0
    assert json.loads(capsys.readouterr().out) == [1, 0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[]", "not an instance of the contest"),
        ("{}", "key 'problem' is missing"),
        (instance(usages=[[1], [2, 3, 7]]), "node 0 has 2 costs and 1 usages"),
        (instance(usages=[[1, -8], [2, 3, 7]]), "node 0 has a negative usage"),
        (instance(costs=[[9, "x"], [5, 6, 4]]), "costs of node 0 are not a list of numbers"),
        (instance(intervals=[[0, 2]]), "nodes differ in the number"),
        (instance(edges={"nodes": [[0, 2]]}), "edge 0 joins [0, 2], expected two of 2 nodes"),
        (instance(edges={"costs": [[1, 2]]}), "edge 0 has 2 costs, expected 2 x 3"),
        (instance(limit=2), "uses at least 3 at some time, the limit is 2; raise usage_limit"),
        (instance(edges={"costs": [[10**18] * 6]}), "without a forbidden strategy or pair"),
    ],
)
def test_a_bad_instance_is_one_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: Any, message: str
) -> None:
    path, out = tmp_path / "bad.json", tmp_path / "out.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    assert _exit_code(["assign", str(path), "--time-limit", "2", "-o", str(out)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1
    assert message in error
    assert not out.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        lambda folder: [str(folder / "absent.json")],
        lambda folder: [str(folder)],
        lambda folder: [str(folder / "small.json"), "-o", str(folder / "no" / "out.json")],
        lambda folder: [str(folder / "small.json"), "--time-limit", "0"],
    ],
)
def test_wrong_arguments_are_one_error(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: Callable[[Path], list[str]],
) -> None:
    (tmp_path / "small.json").write_text(json.dumps(instance()))
    assert _exit_code(["assign", *arguments(tmp_path)]) in (1, 2)
    assert len(capsys.readouterr().err.splitlines()) == 1

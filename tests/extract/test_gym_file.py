"""Serialized e-graphs: the reader, the independent walk and the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tilewright.cli import main
from tilewright.errors import ModelError
from tilewright.extract.general.gym_file import parse_egraph, read_egraph
from tilewright.extract.general.walk import WalkError, walk


def node(group: str, cost: float, *children: str) -> dict[str, Any]:
    """An e-node as in the file."""
    return {"op": "f", "cost": cost, "eclass": group, "children": list(children)}


# Class "a" uses "b" twice; "b" is made of "c" or is cyclic with "a"; class "z" has no e-node.
DOCUMENT: dict[str, Any] = {
    "nodes": {
        "a.0": node("a", 1, "b.0", "b.1", "c.0"),
        "b.0": node("b", 0, "a.0"),
        "b.1": node("b", 2.5, "c.0"),
        "c.0": node("c", -1),
    },
    "root_eclasses": ["a", "z"],
}
CHOICES = {"a": "a.0", "b": "b.1", "c": "c.0"}


def test_reads_classes_of_children_once() -> None:
    named = parse_egraph(DOCUMENT, "here")
    assert named.nodes == ("a.0", "b.0", "b.1", "c.0")
    assert named.classes == ("a", "b", "c")
    assert named.empty_roots == ("z",)
    assert named.graph.roots == (0,)
    assert named.graph.children == ((1, 2), (0,), (2,), ())


def test_walk_adds_up_each_e_node_once() -> None:
    assert walk(DOCUMENT, CHOICES) == 2.5


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({**CHOICES, "b": "b.0"}, "class '[ab]' needs itself"),
        ({"a": "a.0", "b": "b.1"}, "class 'c' is needed, but no e-node is chosen"),
        ({**CHOICES, "c": "b.1"}, "class 'c': 'b.1' is not one of its e-nodes"),
        ({**CHOICES, "c": "d"}, "class 'c': 'd' is not one of its e-nodes"),
        ({}, "class 'a' is needed"),
    ],
)
def test_walk_refuses_what_is_no_extraction(choices: dict[str, str], message: str) -> None:
    with pytest.raises(WalkError, match=message):
        walk(DOCUMENT, choices)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "expected an object with 'nodes'"),
        ("{", "is not JSON"),
        ('{"nodes": [], "root_eclasses": []}', "found list and list"),
        ('{"nodes": {}, "root_eclasses": []}', "'root_eclasses' is empty"),
        ('{"nodes": {"n": 3}, "root_eclasses": ["x"]}', "e-node 'n' needs 'eclass' and 'cost'"),
        (
            '{"nodes": {"n": {"eclass": 3, "cost": 1}}, "root_eclasses": ["x"]}',
            "'eclass' is 3, expected a string",
        ),
        (
            '{"nodes": {"n": {"eclass": "x", "cost": "1"}}, "root_eclasses": ["x"]}',
            "'cost' is '1', expected a number",
        ),
        (
            '{"nodes": {"n": {"eclass": "x", "cost": NaN}}, "root_eclasses": ["x"]}',
            "cost is nan, expected a finite number",
        ),
        (
            '{"nodes": {"n": {"eclass": "x", "cost": 1, "children": ["m"]}}, "root_eclasses": ["x"]}',
            "its child 'm' is not in 'nodes'",
        ),
        (
            '{"nodes": {"n": {"eclass": "x", "cost": 1, "children": [[]]}}, "root_eclasses": ["x"]}',
            "its child '\\[\\]' is not in 'nodes'",
        ),
        (
            '{"nodes": {"n": {"eclass": "x", "cost": 1, "children": "m"}}, "root_eclasses": ["x"]}',
            "'children' is 'm', expected a list",
        ),
    ],
)
def test_files_that_are_no_e_graphs_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "egraph.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match=message):
        read_egraph(path)


def test_command_writes_the_choice(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "egraph.json"
    path.write_text(json.dumps(DOCUMENT), encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        main(["extract", str(path)])
    assert not stopped.value.code
    output, messages = capfd.readouterr()
    found = json.loads(output)
    assert found["choices"] == CHOICES
    assert (found["cost"], found["bound"], found["gap"]) == (2.5, 2.5, 0)
    assert found["proof"] == "reductions"
    assert found["empty_roots"] == ["z"]
    assert "1 root classes have no e-node and are passed over, the first is 'z'" in messages
    assert "cost 2.5, bound 2.5, optimal (reductions), 3 e-nodes" in messages


def test_command_names_the_class_that_cannot_be_extracted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "egraph.json"
    document = {"nodes": {"n": node("loop", 1, "n")}, "root_eclasses": ["loop"]}
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        main(["extract", str(path), "--output", str(tmp_path / "out.json")])
    assert stopped.value.code == 1
    messages = capsys.readouterr().err
    assert messages.startswith("error: class 'loop' of '")
    assert "must be extracted, but each of its e-nodes needs the class itself" in messages
    assert not (tmp_path / "out.json").exists()

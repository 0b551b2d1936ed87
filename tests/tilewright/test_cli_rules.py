"""The commands on rules: list, check, stats, explain, and rules given to compile."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

Command = Callable[..., Any]

MODEL = ("--target", "toy", "--dim", "batch=2")
RULES = '''
from tilewright.rules.authoring import Numerics, Rewrite, RuleSet, String, Tensor
from tilewright.rules.terms import map1

mine = RuleSet("mine")


@mine.rule(numerics=Numerics.EXACT, source="test")
def relu_of_relu(x: Tensor, d: String) -> Rewrite:
    """relu(relu(x)) = relu(x)."""
    return Rewrite(map1(map1(x, "relu", d), "relu", d), to=map1(x, "relu", d))
'''
WRONG = '''

@mine.rule(numerics=Numerics.EXACT, source="test")
def relu_vanishes(x: Tensor, d: String) -> Rewrite:
    """relu(x) = x."""
    return Rewrite(map1(x, "relu", d), to=x)
'''


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    path = tmp_path / "sound.py"
    path.write_text(RULES)
    return path


@pytest.fixture
def wrong(tmp_path: Path) -> Path:
    path = tmp_path / "wrong.py"
    path.write_text(RULES + WRONG)
    return path


def test_list_names_every_family_and_rules_of_files(tilewright: Command, sound: Path) -> None:
    ran = tilewright("rules", "list", "--rules", sound)
    assert ran.code == 0, ran.err
    for family in ("algebra", "fusion", "partition", "mine"):
        assert re.search(rf"^{family}$", ran.out, re.M), family
    assert re.search(r"^relu_of_relu +exact +relu\(relu\(x\)\) = relu\(x\)\.", ran.out, re.M)
    assert re.search(r"^matmul_contracting_axis +exact +A\[m, k/p\]", ran.out, re.M)
    assert re.search(r"^keeps_pad_value +tilewright\.rules\.facts +Hold when", ran.out, re.M), (
        "what a rule may ask, and where it is imported from"
    )


def test_check_accepts_and_refuses(tilewright: Command, sound: Path, wrong: Path) -> None:
    ran = tilewright("rules", "check", "--rules", sound)
    assert ran.code == 0, ran.err
    assert re.search(r"^mine\.relu_of_relu +accepted", ran.out, re.M)
    assert "algebra." not in ran.out
    ran = tilewright("rules", "check", "--rules", wrong)
    assert ran.code == 1
    assert re.search(r"^mine\.relu_vanishes +REFUSED", ran.out, re.M)
    assert "relu(x) = x" in ran.out
    ran = tilewright("rules", "check", "partition.matmul_rows", "fusion.map_after_map")
    assert ran.code == 0
    assert len(re.findall(r"accepted", ran.out)) == 2
    ran = tilewright("rules", "check", "fusion.nothing")
    assert ran.code == 1
    assert "rule 'fusion.nothing' is unknown" in ran.err


def test_check_proves(tilewright: Command) -> None:
    pytest.importorskip("z3", reason="z3-solver is not installed (extra 'proof')")
    rules = ("fusion.map_after_map", "algebra.softmax_in_parts", "tiling.whole_loop")
    ran = tilewright("rules", "check", "--prove", *rules)
    assert ran.code == 0, ran.err
    proofs = dict(re.findall(r"^(\w+\.\w+) +accepted +(.+?) +[\d.]+$", ran.out, re.M))
    assert re.fullmatch(r"proved, \d+ choices of shapes", proofs["fusion.map_after_map"])
    assert re.fullmatch(r"proved, \d+ choices of shapes", proofs["algebra.softmax_in_parts"])
    assert proofs["tiling.whole_loop"] == "not covered, no rewrite of tensors"
    assert ran.out.rstrip().endswith("proved 2, not covered 1")


def test_proofs_without_a_solver_say_what_to_install(
    tilewright: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> object:
        raise ImportError(name)

    monkeypatch.setattr("tilewright.rules.checks.proof.import_module", absent)
    ran = tilewright("rules", "check", "--prove", "fusion.map_after_map")
    assert ran.code == 1
    assert "proofs of rules need z3; install it with pip install 'tilewright[proof]'" in ran.err


def test_a_refused_rule_stops_a_compilation_unless_asked(
    tilewright: Command, cnn: Path, wrong: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ran = tilewright("compile", cnn, *MODEL, "--rules", wrong, "-o", out)
    assert ran.code == 1
    assert "mine.relu_vanishes" in ran.err
    assert not out.exists()
    ran = tilewright("compile", cnn, *MODEL, "--rules", wrong, "--skip-refused", "--verify")
    assert ran.code == 0, ran.err
    first = next(line for line in ran.out.splitlines() if line and not line.startswith("["))
    assert first == ("refused 1 of the rules given, going on without: mine.relu_vanishes")
    assert ran.out.splitlines()[-1].startswith("verified: 2 outputs agree")


def test_a_broken_file_stops_a_compilation_unless_asked(
    tilewright: Command, cnn: Path, tmp_path: Path
) -> None:
    path = tmp_path / "broken.py"
    path.write_text("def broken(:\n")
    ran = tilewright("compile", cnn, *MODEL, "--rules", path, "--stop-after", "extract")
    assert ran.code == 1
    assert "broken.py:1: syntax error" in ran.err
    ran = tilewright(
        *("compile", cnn, *MODEL, "--rules", path, "--skip-refused", "--stop-after", "extract")
    )
    assert ran.code == 0, ran.err
    first = next(line for line in ran.out.splitlines() if line and not line.startswith("["))
    assert first == f"refused 1 of the rules given, going on without: {path}"


def test_stats_show_matches_uses_and_worth(tilewright: Command, cnn: Path) -> None:
    ran = tilewright("rules", "stats", cnn, *MODEL)
    assert ran.code == 0, ran.err
    rows = re.findall(r"^(\w+\.\w+) +[\d,-]+ +[\d,-]+ +[\d.-]+ +(\S+) +(\S.*?) *$", ran.out, re.M)
    worth = {name: value for name, uses, value in rows if uses != "-"}
    families = {name.partition(".")[0] for name in worth}
    assert {"partition", "tiling", "memory"} <= families
    assert all(re.fullmatch(r"[+-][\d.]+%|no plan", value) for value in worth.values())
    assert not re.search(r"^(typing|load|constness)\.", ran.out, re.M)
    only = tilewright("rules", "stats", cnn, *MODEL, "--only", "tiling", "--only", "partition")
    named = re.findall(r"^(\w+)\.\w+ .*?(\S+)$", only.out, re.M)
    assert {family for family, _ in named} == {"tiling", "partition"}
    assert {worth for _, worth in named} > {"-"}
    unknown = tilewright("rules", "stats", cnn, *MODEL, "--only", "nothing")
    assert unknown.code == 1
    assert "rule 'nothing' is unknown" in unknown.err
    without = tilewright("rules", "stats", cnn, *MODEL, "--without-rule", "partition", "--no-worth")
    assert without.code == 0
    assert "partition." not in without.out


def test_explain_follows_fused_tensors(tilewright: Command, cnn: Path) -> None:
    ran = tilewright("compile", cnn, *MODEL, "--stop-after", "frontend")
    names = re.findall(r"^ *(\S+): f32\[[\d,]+\] = (\w+)", ran.out, re.M)
    relu = next(name for name, kind in names if kind == "map")
    ran = tilewright("rules", "explain", cnn, *MODEL, "--tensor", relu)
    assert ran.code == 0, ran.err
    assert "[the model]" in ran.out
    assert "runs as" in ran.out or "takes it in" in ran.out
    ran = tilewright("rules", "explain", cnn, *MODEL, "--tensor", "no such")
    assert ran.code == 1
    assert "no operator makes a tensor 'no such'" in ran.err


def padded_model(path: Path) -> Path:
    """Write conv, pad, relu, conv on [1, 16, 24, 24]."""
    weights = np.random.default_rng(0).standard_normal((16, 16, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Pad", ["a", "pads"], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("Conv", ["c", "w"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "padded",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 16, 24, 24])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 16, 32, 32])],
        [
            numpy_helper.from_array(weights, "w"),
            numpy_helper.from_array(np.array([0, 0, 4, 4, 0, 0, 4, 4]), "pads"),
        ],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def test_explain_has_names_for_what_rules_made(tilewright: Command, tmp_path: Path) -> None:
    """The relu of what is not padded yet is no tensor of the model."""
    model = padded_model(tmp_path / "padded.onnx")
    ran = tilewright("rules", "explain", model, "--target", "toy", "--tensor", "c")
    assert ran.code == 0, ran.err
    assert "  = pad(relu(a))    [algebra.pad_after_map]" in ran.out
    assert "  where #1 = relu(a)    [algebra.pad_after_map]" in ran.out
    assert re.search(r"^ +#1 comes by ", ran.out, re.M)


def test_explain_defines_only_what_it_shows(tilewright: Command, tmp_path: Path) -> None:
    """The gain in the weight is written out in the step, so that no number stands for it."""
    path = tmp_path / "gain.onnx"
    random = np.random.default_rng(0)
    nodes = [
        helper.make_node("Tanh", ["x"], ["t"]),
        helper.make_node("Mul", ["t", "g"], ["h"]),
        helper.make_node("MatMul", ["h", "w"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "gain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [64, 256])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [64, 64])],
        [
            numpy_helper.from_array(random.standard_normal(256).astype(np.float32), "g"),
            numpy_helper.from_array(random.standard_normal((256, 64)).astype(np.float32), "w"),
        ],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    ran = tilewright("rules", "explain", path, "--target", "mesh_1x1", "--tensor", "y")
    assert ran.code == 0, ran.err
    assert "[algebra.gain_into_weight]" in ran.out
    assert "where" not in ran.out


def test_import_judges_a_file(tilewright: Command, tmp_path: Path) -> None:
    path = tmp_path / "rules.txt"
    path.write_text("(relu (relu ?input_1))=>(relu ?input_1)\n")
    ran = tilewright("rules", "import", path)
    assert ran.code == 0, ran.err
    assert re.search(r"^rules\.line_1|^tensat\.line_1 +accepted", ran.out, re.M)
    path.write_text("(relu ?input_1)=>(tanh ?input_1)\n")
    ran = tilewright("rules", "import", path)
    assert ran.code == 1
    assert "refused" in ran.out
    path.write_text("(relu ?input_1)=>(relu ?input_1\n")
    ran = tilewright("rules", "import", path)
    assert ran.code == 1
    assert "rules.txt:1:" in ran.err


def test_errors_of_several_lines_keep_them(tilewright: Command, cnn: Path, wrong: Path) -> None:
    ran = tilewright("compile", cnn, *MODEL, "--rules", wrong)
    assert ran.code == 1
    assert len(ran.err.splitlines()) > 3
    assert "\\n" not in ran.err

"""Rules from files and entry points: loading, checking, and clear errors with places."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest

from tilewright.dtypes import DType
from tilewright.errors import RuleError
from tilewright.graph import Graph, Op, Port, TensorType
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.rules import user_rules
from tilewright.rules.admission import admit, load
from tilewright.rules.engine import saturate
from tilewright.rules.options import SaturationOptions, builtin_rules
from tilewright.rules.user_rules import load_entry_points, load_rule_files, united

Write = Callable[..., Path]

HEAD = "from tilewright.rules.authoring import *\nfrom tilewright.rules.terms import map1, map2\n"
SOUND = '''
mine = RuleSet("mine")

@mine.rule(numerics=Numerics.EXACT, source="test")
def negation_of_negation(x: Tensor, d: String) -> Rewrite:
    """neg(neg(x)) = x."""
    return Rewrite(map1(map1(x, "neg", d), "neg", d), to=x)
'''
WRONG = '''
theirs = RuleSet("theirs")

@theirs.rule(numerics=Numerics.EXACT, source="test")
def negation_vanishes(x: Tensor, d: String) -> Rewrite:
    """neg(x) = x."""
    return Rewrite(map1(x, "neg", d), to=x)
'''
SPLITS = '''
splits = PartitionRules("splits")

@splits.splits(source="test")
def pool_channels(op: Op, loop: LoopDim) -> bool:
    """pool(x[c/p]) = y[c/p]."""
    return op.kind == "pool" and loop.name == "c"
'''


@pytest.fixture
def rule_file(tmp_path: Path) -> Write:
    def write(text: str, name: str = "rules.py") -> Path:
        path = tmp_path / name
        path.write_text(HEAD + text)
        return path

    return write


def test_rules_of_a_file_run(rule_file: Write, make_builder: Callable[..., Any]) -> None:
    loaded = load_rule_files([rule_file(SOUND + SPLITS)])
    assert [rule.name for rule in loaded.rules] == [
        "mine.negation_of_negation",
        "splits.pool_channels",
    ]
    assert not admit(loaded).refused
    b = make_builder()
    y = b.op("map", b.op("map", b.input("x", 2, 3), fn="neg"), fn="neg")
    options = SaturationOptions(rules=(*builtin_rules(), *loaded.rewrites))
    found = saturate(b.graph(y), LogicalMesh((), ()), options=options)
    matched = {stats.rule: stats.matches for stats in found.rule_stats}
    assert matched["mine.negation_of_negation"] >= 1


def test_a_file_can_be_loaded_twice(rule_file: Write) -> None:
    path = rule_file(SOUND)
    first, second = load_rule_files([path]), load_rule_files([path])
    assert [r.name for r in first.rules] == [r.name for r in second.rules]
    assert len(load_rule_files([path, path]).rules) == 1


def test_unsound_rules_are_refused_with_place_and_reason(rule_file: Write) -> None:
    loaded = load_rule_files([rule_file(SOUND + WRONG)])
    with pytest.raises(RuleError, match=r"theirs\.negation_vanishes"):
        admit(loaded)
    told: list[str] = []
    admission = admit(loaded, skip_refused=True, tell=told.append)
    assert [r.name for r in admission.rules.rules] == ["mine.negation_of_negation"]
    assert [r.rule for r in admission.refused] == ["theirs.negation_vanishes"]
    assert told == [
        "checking rule mine.negation_of_negation",
        "checking rule theirs.negation_vanishes",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def broken(:\n", r"rules\.py:3: syntax error"),
        ("x = 1 / 0\n", r"rules\.py:3: ZeroDivisionError: division by zero; mend that line"),
        ("from nowhere_to_be_found import x\n", r"rules\.py:3: ModuleNotFoundError"),
        ("x = 1\n", r"rules\.py holds no rule; make a RuleSet"),
        (SOUND.replace('    """neg(neg(x)) = x."""\n', ""), r"rules\.py:.*has no docstring"),
        (SOUND.replace("d: String", "d"), r"rules\.py:.*parameter 'd' has no sort"),
        (SOUND.replace('"mine"', '"algebra"').replace("negation_of_negation", "sum_of_products"),
         r"rules\.py:6: rule 'algebra\.sum_of_products' has the name of a rule of tilewright"),
        ("from tilewright.rules.algebra.ruleset import algebra\n" + SOUND.replace("@mine", "@algebra"),
         r"rule set 'algebra' belongs to tilewright; make a RuleSet of your own"),
        (SOUND + SOUND.partition("\n\n")[2], r"rules\.py:.*registered twice"),
    ],
)  # fmt: skip
def test_broken_files_are_refused_with_the_line(rule_file: Write, text: str, message: str) -> None:
    with pytest.raises(RuleError, match=message):
        load_rule_files([rule_file(text)])


BROKEN = {
    "syntax.py": ("def broken(:\n", r"syntax\.py:3: syntax error"),
    "twice.py": (SOUND + SOUND.partition("\n\n")[2], r"twice\.py:\d+: .*registered twice"),
    "untold.py": (SOUND.replace('    """neg(neg(x)) = x."""\n', ""), "has no docstring"),
    "taken.py": (SOUND, r"taken\.py:6: .*has the name of a rule of .*good\.py"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_files_that_do_not_load_are_left_out_if_asked(rule_file: Write, name: str) -> None:
    text, message = BROKEN[name]
    paths = [rule_file(SOUND, "good.py"), rule_file(text, name)]
    with pytest.raises(RuleError, match=message):
        load(paths)
    loaded = load(paths, skip_refused=True)
    assert [rule.name for rule in loaded.rules.rules] == ["mine.negation_of_negation"]
    (refusal,) = loaded.refused
    assert refusal.rule == str(paths[1])
    assert re.search(message, refusal.reason)


def test_a_rule_that_raises_says_the_line(rule_file: Write) -> None:
    lines = {
        "mine": SOUND.replace("to=x)", "to=x[0])"),
        "splits": SPLITS.replace("op.kind ==", "op.no_such_thing =="),
    }
    for family, text in lines.items():
        path = rule_file(text, f"{family}.py")
        (number,) = (
            n
            for n, line in enumerate(path.read_text().splitlines(), 1)
            if "x[0]" in line or "no_such" in line
        )
        with pytest.raises(RuleError) as caught:
            admit(load_rule_files([path]))
        assert str(caught.value).startswith(f"{path}:{number}: rule '{family}.")
        assert str(caught.value).endswith("mend that line")


def test_the_place_is_said_once(rule_file: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path that was given is relative, that of the function is not."""
    path = rule_file(SOUND + SOUND.partition("\n\n")[2])
    monkeypatch.chdir(path.parent)
    with pytest.raises(RuleError) as caught:
        load_rule_files([Path(path.name)])
    before, after = str(caught.value).split("registered twice")
    assert before.count(path.name) == after.count(path.name) == 1


def test_missing_and_strange_files(tmp_path: Path, rule_file: Write) -> None:
    with pytest.raises(RuleError, match="is not there; expected a Python file with rules"):
        load_rule_files([tmp_path / "none.py"])
    with pytest.raises(RuleError, match=r"expected a name that ends in \.py"):
        load_rule_files([rule_file(SOUND, "rules.txt")])


def test_two_files_with_one_name(rule_file: Write) -> None:
    paths = [rule_file(SOUND, "one.py"), rule_file(SOUND, "two.py")]
    with pytest.raises(RuleError, match=r"two\.py:.*has the name of a rule of .*one\.py"):
        load_rule_files(paths)
    with pytest.raises(RuleError, match="has the name of a rule of"):
        united(load_rule_files(paths[:1]), load_rule_files(paths[1:]))


def test_entry_points(rule_file: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = rule_file(SOUND, "installed_rules_of_a_test.py")
    monkeypatch.syspath_prepend(str(path.parent))
    points = {"good": "installed_rules_of_a_test"}

    def announced(group: str) -> EntryPoints:
        assert group == "tilewright.rules"
        return EntryPoints(EntryPoint(n, v, group) for n, v in points.items())

    monkeypatch.setattr(user_rules, "entry_points", announced)
    assert [r.name for r in load_entry_points().rules] == ["mine.negation_of_negation"]
    points["bad"] = "nowhere_to_be_found"
    with pytest.raises(
        RuleError, match=r"entry point 'bad' \(nowhere_to_be_found\) cannot be loaded"
    ):
        load_entry_points()


TABLE = '''
from egglog import StringLike, Unit, function
from tilewright.rules.facts import fact_table

mine = RuleSet("{family}")

@function(egg_fn="is_idempotent")
def is_idempotent(fn: StringLike) -> Unit:
    """Hold for {fn}."""

@fact_table(is_idempotent)
def _is_idempotent(known):
    yield ("{fn}",)

@mine.rule(numerics=Numerics.EXACT, source="test")
def twice(x: Tensor, fn: String, d: String) -> Rewrite:
    """f(f(x)) = f(x)."""
    return Rewrite(
        map1(map1(x, fn, d), fn, d), to=map1(x, fn, d), when=(is_idempotent(fn),)
    )
'''


def test_fact_tables_of_files_stay_apart(rule_file: Write) -> None:
    first = load_rule_files([rule_file(TABLE.format(family="one", fn="relu"), "one.py")])
    second = load_rule_files([rule_file(TABLE.format(family="two", fn="floor"), "two.py")])
    assert not admit(first).refused
    assert not admit(second).refused
    both = united(first, second)
    graph = make_graph()
    options = SaturationOptions(rules=both.rewrites)
    with pytest.raises(
        RuleError, match=r"relation 'is_idempotent' is declared in .*one\.py:\d+ and "
    ):
        saturate(graph, LogicalMesh((), ()), options=options)


def make_graph() -> Graph:
    shape = TensorType((2, 3), DType.F64)
    op = Op(name="y", kind="map", inputs=("x",), outputs=("y",), attrs={"fn": "relu"})
    ports = [Port(name=n, tensor=n, shape=shape.shape, dtype=shape.dtype) for n in "xy"]
    return Graph(
        name="g",
        inputs=(ports[0],),
        outputs=(ports[1],),
        types={"x": shape, "y": shape},
        constants={},
        ops=(op,),
    )

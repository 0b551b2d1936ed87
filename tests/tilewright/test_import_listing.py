from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from tilewright.errors import RuleError
from tilewright.import_listing import import_command, print_import
from tilewright.rules.importing import ImportReport, import_rules

RULES = """\
(relu (relu ?x))=>(relu ?x)
(ewadd ?x ?y)=>(ewmul ?x ?y)
(matmul 0 (ewadd ?x (matmul 0 ?x ?y)) ?z)=>(matmul 0 ?x (ewadd ?z (matmul 0 ?y ?z)))
(ewmul ?x Iewmul\x1b)=>?x
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> ImportReport:
    path = tmp_path_factory.mktemp("rules") / "four.txt"
    path.write_text(RULES, encoding="utf-8")
    return import_rules(path)


def printed(report: ImportReport, *, verbose: bool) -> str:
    console = Console(width=110, markup=False, highlight=False, emoji=False)
    with console.capture() as capture:
        print_import(report, console, verbose=verbose)
    return capture.get()


def test_summary_rows_and_counterexample(report: ImportReport):
    text = printed(report, verbose=False)
    assert "TENSAT rules of four.txt" in text
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "with guard 1: right under a condition that the rule does not state" in lines
    assert "tensat.line_1 accepted right yes" in lines
    assert "tensat.line_2 refused wrong no the right side has other values, see below" in lines
    assert (
        "tensat.line_3 accepted with guard right grows x and matmul(x, y) have the same shape"
        in lines
    )
    start = lines.index("tensat.line_2 (four.txt:2): refused")
    assert lines[start + 1] == "ewadd(x, y) = ewmul(x, y)"
    assert [line.split(" ")[0] for line in lines[start + 3 : start + 7]] == [
        "x",
        "y",
        "left",
        "right",
    ]
    assert "tensat.line_3 (four.txt:3): accepted with guard" not in lines


def test_verbose_prints_every_rule_and_what_its_guard_keeps_out(report: ImportReport):
    text = printed(report, verbose=True)
    lines = [line.strip() for line in text.splitlines()]
    start = lines.index("tensat.line_3 (four.txt:3): accepted with guard")
    assert lines[start + 2] == "if x and matmul(x, y) have the same shape"
    assert lines[start + 3] == "otherwise the right side has no meaning:"


def test_control_characters_of_a_file_are_not_printed(report: ImportReport):
    text = printed(report, verbose=True)
    assert "\x1b" not in text
    assert "operator Iewmul\\x1b" in text


@pytest.mark.parametrize(
    ("rule", "code"), [("(relu (relu ?x))=>(relu ?x)", 0), ("(relu ?x)=>?x", 1)]
)
def test_the_command_tells_whether_a_rule_was_refused(rule: str, code: int, tmp_path: Path):
    path = tmp_path / "one.txt"
    path.write_text(rule, encoding="utf-8")
    console = Console(width=110)
    with console.capture() as capture:
        assert import_command(path, console=console) == code
    assert ("refused" in capture.get()) == bool(code)


def test_a_file_that_is_no_rule_file_is_refused(tmp_path: Path):
    path = tmp_path / "rules.pb"
    path.write_bytes(b"\x0a\x05")
    with pytest.raises(RuleError, match=r"rules\.pb: a message of 5 bytes has 0 left"):
        import_command(path)

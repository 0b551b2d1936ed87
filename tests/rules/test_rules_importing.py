from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.errors import RuleError
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.rules.checking import check_rule
from tilewright.rules.engine import saturate
from tilewright.rules.importing import Assumed, ImportedRule, ImportReport, Verdict, import_rules
from tilewright.rules.importing.foreign import LARGEST_RULE, Call, ForeignRule, Variable
from tilewright.rules.importing.mapping import same_pads
from tilewright.rules.importing.taso import read_taso
from tilewright.rules.importing.tensat import read_tensat
from tilewright.rules.options import SaturationOptions

Importer = Callable[..., ImportReport]


@pytest.fixture
def imported(tmp_path: Path) -> Importer:
    def run(*rules: str | bytes, seed: int = 0) -> ImportReport:
        if rules and isinstance(rules[0], bytes):
            path = tmp_path / "rules.pb"
            path.write_bytes(b"".join(r for r in rules if isinstance(r, bytes)))
        else:
            path = tmp_path / "rules.txt"
            path.write_text("\n".join(str(r) for r in rules), encoding="utf-8")
        return import_rules(path, seed=seed)

    return run


def refused_or_read(read: Callable[[], tuple[ForeignRule, ...]]) -> tuple[ForeignRule, ...] | None:
    """The rules, or None if they were refused; any other error is a failure."""
    try:
        return read()
    except RuleError:
        return None


# --- TENSAT's text


def test_rules_are_named_by_their_lines():
    first, second = read_tensat("r.txt", "(relu ?a)=>(tanh ?a)\n\n (ewadd ?a ?b) => ?a \n")
    assert (first.name, first.place, second.name) == ("tensat.line_1", "r.txt:1", "tensat.line_3")
    assert second.left == (Call(operator="ewadd", operands=(Variable("a"), Variable("b"))),)
    assert second.right == (Variable("a"),)


def test_arguments_and_parts_of_splits():
    (rule,) = read_tensat("r", "(conv2d 2 1 1 3 ?x ?w)=>(split_1 (split 1 (concat3 1 4 ?x ?x ?w)))")
    (left,), (right,) = rule.left, rule.right
    assert isinstance(left, Call)
    assert isinstance(right, Call)
    assert dict(left.parameters) == {"stride_h": 2, "stride_w": 1, "pad": 1, "acti": 3}
    assert (right.operator, right.output, right.number("axis")) == ("split", 1, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(relu ?x)", "r:1:10: found the end of the line, expected '=>'"),
        ("(relu ?x=>?x", "r:1:9: found '=>', expected a term"),
        ("(ewadd ?x)=>?x", "r:1:2: found 'ewadd', expected 2 arguments (_ _), not 1"),
        ("(relu ?x)=>?x ?y", "r:1:15: found '?y', expected the end of the line"),
        ("(matmul ?x 0 ?y)=>?x", "variable ?x as acti"),
        ("(matmul (relu ?x) ?x ?y)=>?x", "r:1:10: found 'relu', expected a number as acti"),
        ("(relu 3)=>?x", "r:1:7: found '3', expected a term"),
        ("(split_0 ?x)=>?x", "r:1:2: found 'split_0', expected one argument, a split"),
        ("(relu (split 0 ?x))=>?x", "r:1:8: found 'split', expected split_0 or split_1"),
        ("()=>?x", "r:1:2: found ')', expected the name of an operator"),
        ("(relu ?x)=>(relu ?x", "r:1:20: found the end of the line, expected ')' for '(relu'"),
        ("(relu " * 200 + "?x", "nested more than 100 deep"),
        ("", "no rule; expected lines such as"),
    ],
)
def test_text_that_is_no_rule(text: str, message: str):
    if message.startswith("variable"):
        assert read_tensat("r", text)[0].unreadable == message
        return
    with pytest.raises(RuleError, match=re.escape(message)):
        read_tensat("r", text)


@given(st.text(alphabet="()?xyz =>10_relumatspi\n", max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_text_is_read_or_refused(text: str):
    found = refused_or_read(lambda: read_tensat("r", text))
    assert found is None or found[0].place.startswith("r:")


# --- TASO's protobuf, written byte by byte

RELU, CONCAT, SPLIT, TRANSPOSE, EWADD, MATMUL = 8, 12, 13, 15, 16, 18


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def message(number: int, *fields: bytes) -> bytes:
    content = b"".join(fields)
    return varint(number << 3 | 2) + varint(len(content)) + content


def numbers(*values: int) -> bytes:
    return b"".join(varint(i << 3) + varint(v) for i, v in enumerate(values, start=1))


def operator(
    side: int,
    kind: int,
    inputs: Sequence[tuple[int, int]],
    parameters: dict[int, int] | None = None,
) -> bytes:
    return message(
        side,
        varint(1 << 3) + varint(kind),
        *(message(2, numbers(*pair)) for pair in inputs),
        *(message(3, numbers(*pair)) for pair in (parameters or {}).items()),
    )


def one_rule(
    *parts: bytes, outputs: Sequence[tuple[int, int, int, int]] = ((0, 0, 0, 0),)
) -> bytes:
    return message(1, *parts, *(message(3, numbers(*output)) for output in outputs))


JOIN = {10: 2, 11: 0, 1: 2}  # PM_NUMDIM, PM_AXIS, PM_NUM_INPUTS
RELU_OF_PARTS = (
    operator(1, RELU, [(-1, 0)]),
    operator(1, RELU, [(-2, 0)]),
    operator(2, CONCAT, [(-1, 0), (-2, 0)], JOIN),
    operator(2, RELU, [(0, 0)]),
    operator(2, SPLIT, [(1, 0)], {2: 2, 11: 0}),
)


def test_several_results_are_checked_together(imported: Importer):
    good = one_rule(*RELU_OF_PARTS, outputs=((0, 2, 0, 0), (1, 2, 0, 1)))
    swapped = one_rule(*RELU_OF_PARTS, outputs=((0, 2, 0, 1), (1, 2, 0, 0)))
    first, second = imported(good, swapped).entries
    assert first.name == "taso.rule_0"
    assert first.equations[1] == (
        "relu(input_2) = split(relu(concat(input_1, input_2; axis 0)); axis 0)[1]"
    )
    # the axes that are not joined must be equal
    assert first.conditions == ("input_1 and input_2 have the same shape",)
    assert "several results" in first.note
    assert first.rule is None
    assert second.verdict is Verdict.REFUSED
    assert second.assumed is Assumed.WRONG


def test_permutations_are_numbers(imported: Importer):
    turn = {10: 2, 12: 2, 13: 1}  # digits of 2 to base 2: (1, 0)
    rule = one_rule(
        operator(1, TRANSPOSE, [(-1, 0)], turn),
        operator(1, TRANSPOSE, [(0, 0)], turn),
        operator(2, RELU, [(-1, 0)]),
        outputs=((1, 0, 0, 0),),
    )
    (entry,) = imported(rule).entries
    assert entry.equations == ("transpose(transpose(input_1; perm 1_0); perm 1_0) = relu(input_1)",)
    assert entry.verdict is Verdict.REFUSED


def test_a_file_that_is_cut_off_is_refused_everywhere():
    data = one_rule(*RELU_OF_PARTS, outputs=((0, 2, 0, 0), (1, 2, 0, 1)))
    assert len(read_taso("r.pb", data)) == 1
    for stop in range(len(data)):
        with pytest.raises(RuleError, match=r"r\.pb"):
            read_taso("r.pb", data[:stop])


@given(st.binary(max_size=80))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_read_or_refused(data: bytes):
    found = refused_or_read(lambda: read_taso("r.pb", message(1, data)))
    assert found is None or len(found) == 1


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        (one_rule(operator(1, RELU, [(0, 0)])), "operator 0 is used, expected one of the 0 before"),
        (one_rule(operator(1, RELU, [(-1, 0), (-2, 0)])), "relu of 2 operands, expected 1"),
        (one_rule(operator(1, MATMUL, [(-1, 0), (-2, 0)])), "matmul without its parameter acti"),
        (one_rule(operator(1, SPLIT, [(-1, 0)], {2: 99, 11: 0})), "a split into 99"),
        (one_rule(operator(1, TRANSPOSE, [(-1, 0)], {10: 2, 12: 9, 13: 1})), "permutation 9 of 2"),
        (message(1, operator(1, RELU, [(-1, 0)])), "no output is mapped"),
        (b"(relu ?x)=>?x", "wire type"),
        (message(2, b""), "no collection of rules"),
        (b"\xff" * 11, "more than ten bytes"),
        (
            one_rule(
                operator(1, RELU, [(-1, 0)]), operator(2, RELU, [(-1, 0)]), outputs=((0, 0, 0, 1),)
            ),
            "result 1 of a relu, which has 1",
        ),
    ],
)
def test_bytes_that_are_no_rule(rule: bytes, reason: str):
    with pytest.raises(RuleError, match=re.escape(reason)):
        read_taso("r.pb", rule)


def test_shared_operators_do_not_grow_without_bound():
    doubled = [operator(1, EWADD, [(i - 1, 0), (i - 1, 0)]) for i in range(1, 40)]
    rule = one_rule(operator(1, RELU, [(-1, 0)]), *doubled, outputs=((39, 0, 0, 0),))
    with pytest.raises(RuleError, match=f"expected {LARGEST_RULE} at most"):
        read_taso("r.pb", rule)


def test_operators_without_a_meaning_here_are_named(imported: Importer):
    merged = one_rule(operator(1, 21, [(-1, 0)]), operator(2, RELU, [(-1, 0)]))
    assert imported(merged).entries[0].note == "operator merge_gconv"
    (entry,) = imported("(ewmul ?x Iewmul)=>?x").entries
    assert (entry.verdict, entry.note) == (Verdict.NOT_COVERED, "operator Iewmul")
    (entry,) = imported("(poolmax ?x 99999 1 1 1 0 0)=>?x").entries
    assert entry.note == "kernel_h 99999 of poolmax"
    (entry,) = imported("(relu ?x)=>(concat 0 99999 ?x ?x)").entries
    assert entry.note == "concat of 99999 dimensions"
    (entry,) = imported("(relu ?x)=>(split_0 (split 1 (relu (concat 1 2 ?x ?y))))").entries
    assert entry.note == "variable y is not bound by the left side"


# --- verdicts

CONV = "conv2d 1 1 0 0"
VERDICTS: tuple[tuple[str, Verdict, Assumed, tuple[str, ...]], ...] = (
    (
        "(matmul 0 (matmul 0 ?x ?y) ?z)=>(matmul 0 ?x (matmul 0 ?y ?z))",
        Verdict.ACCEPTED,
        Assumed.RIGHT,
        (),
    ),
    (
        "(ewmul ?x (ewadd ?y ?z))=>(ewadd (ewmul ?x ?y) (ewmul ?x ?z))",
        Verdict.ACCEPTED,
        Assumed.RIGHT,
        (),
    ),
    ("(transpose (transpose ?x 1_0 1) 1_0 1)=>?x", Verdict.ACCEPTED, Assumed.RIGHT, ()),
    ("(sigmoid (smul ?x ?s))=>(smul (sigmoid ?x) ?s)", Verdict.REFUSED, Assumed.WRONG, ()),
    ("(ewadd ?x ?y)=>(ewmul ?x ?y)", Verdict.REFUSED, Assumed.WRONG, ()),
    ("(relu ?x)=>(relu ?x)", Verdict.VACUOUS, Assumed.UNKNOWN, ()),
    ("(transpose ?x 0_5 1)=>?x", Verdict.VACUOUS, Assumed.UNKNOWN, ()),
    (f"(matmul 0 ?x ({CONV} ?x ?w))=>?x", Verdict.VACUOUS, Assumed.UNKNOWN, ()),
    (
        "(concat 0 2 (ewadd ?a ?b) (ewadd ?c ?d))=>(ewadd (concat 0 2 ?a ?c) (concat 0 2 ?b ?d))",
        Verdict.GUARDED,
        Assumed.RIGHT,
        ("a and b have the same shape", "c and d have the same shape"),
    ),
    (
        f"({CONV} ?x (ewadd ?v ?w))=>(ewadd ({CONV} ?x ?v) ({CONV} ?x ?w))",
        Verdict.GUARDED,
        Assumed.RIGHT,
        ("v and w have the same shape",),
    ),
    (
        f"(concat 1 4 ({CONV} ?x ?v) ({CONV} ?x ?w))=>({CONV} ?x (concat 0 4 ?v ?w))",
        Verdict.GUARDED,
        Assumed.WRONG,
        ("conv2d(x, v) has one group", "v and w have the same shape"),
    ),
)


@pytest.mark.parametrize(("text", "verdict", "assumed", "conditions"), VERDICTS)
def test_verdicts(
    text: str,
    verdict: Verdict,
    assumed: Assumed,
    conditions: tuple[str, ...],
    imported: Importer,
):
    (entry,) = imported(text).entries
    assert (entry.verdict, entry.assumed) == (verdict, assumed)
    assert sorted(entry.conditions) == sorted(conditions)
    assert (entry.counterexample is None) == (verdict not in (Verdict.GUARDED, Verdict.REFUSED))


def test_other_random_instances_give_the_same_verdicts(imported: Importer):
    texts = [VERDICTS[i][0] for i in (3, 8)]
    found = [[(e.verdict, e.conditions) for e in imported(*texts, seed=s).entries] for s in (1, 2)]
    assert found[0] == found[1]


def test_the_same_seed_gives_the_same_report(imported: Importer):
    texts = [VERDICTS[3][0], VERDICTS[8][0]]
    first, second = (
        [replace(entry, rule=None) for entry in imported(*texts).entries] for _ in range(2)
    )
    assert first == second


def test_counterexamples_are_small_and_show_both_sides(imported: Importer):
    (entry,) = imported("(ewadd ?x ?y)=>(ewmul ?x ?y)").entries
    found = entry.counterexample
    assert found is not None
    values = {name: float(value.split(" = ")[1].strip("[]")) for name, value in found.inputs}
    left, right = (float(side.split(" = ")[1].strip("[]")) for side in (found.left, found.right))
    assert (values["x"] + values["y"], values["x"] * values["y"]) == (left, right)
    assert left != right


def test_average_pools_count_padding_as_their_authors_do(imported: Importer):
    # 1 / (h w) everywhere, so the average of a sum is the sum of averages, on the border too
    pool = "3 3 1 1 0 0"
    text = f"(poolavg (ewadd ?x ?y) {pool})=>(ewadd (poolavg ?x {pool}) (poolavg ?y {pool}))"
    (entry,) = imported(text).entries
    assert entry.verdict is Verdict.GUARDED
    assert entry.conditions == ("x and y have the same shape",)
    assert "depend on shapes" in entry.note


def test_an_enlarged_kernel_is_the_kernel_if_its_centre_stays(imported: Importer):
    text = (
        f"(ewadd ({CONV} ?x ?w) ({CONV} ?x ?v))=>(ewadd ({CONV} ?x (enlarge ?w ?v)) ({CONV} ?x ?v))"
    )
    (entry,) = imported(text).entries
    assert entry.assumed is Assumed.UNTYPED  # v may be the smaller one
    assert entry.verdict is Verdict.GUARDED


@pytest.mark.parametrize("size", range(1, 8))
@pytest.mark.parametrize("kernel", range(1, 5))
@pytest.mark.parametrize("stride", range(1, 4))
def test_same_padding_keeps_one_window_for_each_stride(size: int, kernel: int, stride: int):
    before, after = same_pads(size, kernel, stride)
    assert (size + before + after - kernel) // stride + 1 == ceil(size / stride)
    assert 0 <= after - before <= 1


# --- rules that run


@pytest.mark.parametrize(
    "text",
    [
        "(matmul 0 (ewadd ?x (matmul 0 ?x ?y)) ?z)=>(matmul 0 ?x (ewadd ?z (matmul 0 ?y ?z)))",
        f"(relu ({CONV} ?x ?w))=>(conv2d 1 1 0 2 ?x ?w)",
        f"({CONV} (ewadd ?x ?y) ?w)=>(ewadd ({CONV} ?x ?w) ({CONV} ?y ?w))",
        "(ewmul ?x (ewmul ?y ?z))=>(ewmul ?y (ewmul ?x ?z))",
        "(smul (smul ?x ?s) ?t)=>(smul ?x (ewmul ?s ?t))",
        "(ewadd (matmul 0 ?a ?x) (matmul 0 ?b ?x))=>(matmul 0 (ewadd ?a ?b) ?x)",
        "(transpose (transpose ?x 1_0 1) 1_0 1)=>?x",
    ],
)
def test_what_is_offered_passes_the_check_of_own_rules(text: str, imported: Importer):
    (entry,) = imported(text).entries
    assert entry.rule is not None, entry.note
    assert check_rule(entry.rule, count=60, seed=5).matches >= 10


def test_an_imported_rule_runs_in_the_engine(
    imported: Importer, make_builder: Callable[..., object]
):
    report = imported("(relu (relu ?x))=>(relu ?x)", "(ewadd ?x ?y)=>(ewadd ?y ?x)")
    assert [rule.name for rule in report.rules] == ["tensat.line_1"]
    assert [rule.name for rule in report.expansive_rules] == ["tensat.line_2"]
    builder = make_builder()
    relu = builder.op("map", builder.input("x", 2, 3), fn="relu")  # type: ignore[attr-defined]
    graph = builder.graph(builder.op("map", relu, fn="relu"))  # type: ignore[attr-defined]
    options = SaturationOptions(rules=report.rules)
    found = saturate(graph, LogicalMesh((), ()), options=options)
    assert [(stats.rule, stats.matches) for stats in found.rule_stats if stats.rule[:6] == "tensat"]
    assert len({found.outputs[0], *(c.number for c in found.classes if relu in c.names)}) == 1


def test_unreadable_files(tmp_path: Path):
    with pytest.raises(RuleError, match="name a readable rule file"):
        import_rules(tmp_path / "absent.txt")
    with pytest.raises(RuleError, match="name a readable rule file"):
        import_rules(tmp_path)
    if Path("/dev/zero").exists():
        with pytest.raises(RuleError, match="more than 8,000,000 bytes"):
            import_rules(Path("/dev/zero"))
    (tmp_path / "rules.txt").write_bytes(b"\x0a\xff\xfe")
    with pytest.raises(RuleError, match=r"byte 1 is no UTF-8 text; .*\.pb"):
        import_rules(tmp_path / "rules.txt")


def test_progress_is_told_before_each_rule(tmp_path: Path):
    (tmp_path / "r.txt").write_text("(relu ?x)=>?x\n(tanh ?x)=>?x\n", encoding="utf-8")
    told: list[str] = []
    import_rules(tmp_path / "r.txt", progress=told.append)
    assert told == ["rule 1 of 2", "rule 2 of 2"]


def test_entries_are_plain_data(imported: Importer):
    entry: ImportedRule = imported("(relu ?x)=>?x").entries[0]
    with pytest.raises(AttributeError):
        entry.name = "other"  # type: ignore[misc]

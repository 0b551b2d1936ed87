"""Engines that serve one session after another, and programs that one process keeps for the next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tilewright.graph import Graph
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.rules import kept
from tilewright.rules.engine import _engine, saturate
from tilewright.rules.kept import kept_text
from tilewright.rules.session import ProgramText, Session
from tilewright.rules.tiling.engine import _program, _write
from tilewright.rules.tiling.family import tiling_rules
from tilewright.rules.tiling.terms import row_loop, tile_size

GRID = LogicalMesh(("x", "y"), (2, 2))
TEXT = ProgramText(
    declared=(("run", '(relation at (i64 String))\n(at 1 "a\tb\\"c")'),),
    runs=(("run", "(run-schedule (run))"),),
    tables=(("module.at", "at"),),
)


def test_an_engine_knows_nothing_of_the_session_before(
    models: dict[str, Callable[..., Graph]],
) -> None:
    _engine.cache_clear()
    fresh = saturate(models["encoder"](1), GRID)
    saturate(models["resnet"](1), GRID)
    again = saturate(models["encoder"](1), GRID)
    timeless = {"ruleset_stats": (), "rule_stats": ()}
    assert replace(again, **timeless) == replace(fresh, **timeless)  # type: ignore[arg-type]


def test_sessions_of_one_program_at_the_same_time_are_apart() -> None:
    program = _program(tiling_rules())
    first, second = Session(program), Session(program)
    first.insert([(row_loop, [(12, 4, 0)])])
    assert first.read(["row_loop"])
    assert not second.read(["row_loop"])
    first.close()
    second.close()
    assert not Session(program).read(["row_loop"])


def test_tables_leave_nothing_open_or_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for has_memory_files in (True, False):
        if not has_memory_files:
            monkeypatch.delattr("os.memfd_create", raising=False)
        session = Session(_program(tiling_rules()))
        path = session._table.path
        for extent in (12, 8):  # each table replaces the one before
            session.insert([(row_loop, [(extent, 4, 0)])])
        assert sorted(row[0] for row in session.read(["row_loop"])["row_loop"]) == [8, 12]
        session.close()
        assert not path.exists()
        assert not list(tmp_path.iterdir())


def test_rows_that_no_rule_reads_are_left_out() -> None:
    rows = [(tile_size, [(12, 4, 8)])]
    for rules, expected in ((tiling_rules(), 1), ((), 0)):
        session = Session(_program(rules))
        session.insert(rows)
        assert len(session.read(["tile_size"])) == expected


class TestKeptText:
    """`kept_text` in a cache of its own."""

    @pytest.fixture(autouse=True)
    def _cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        self.folder = tmp_path / "tilewright" / "rule-texts"
        self.written = 0

    def write(self) -> ProgramText:
        """Write the program, and count."""
        self.written += 1
        return TEXT

    def test_it_is_written_once(self) -> None:
        assert kept_text("a", self.write) == kept_text("a", self.write) == TEXT
        assert self.written == 1

    def test_other_rules_and_other_sources_have_texts_of_their_own(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kept_text("a", self.write)
        kept_text("b", self.write)
        assert self.written == 2
        monkeypatch.setattr(kept, "_sources", lambda: "edited")
        kept_text("a", self.write)
        assert self.written == 3

    @pytest.mark.parametrize("content", [b"", b"{}", b"\xff"])
    def test_a_broken_file_is_written_anew(self, content: bytes) -> None:
        kept_text("a", self.write)
        (file,) = self.folder.iterdir()
        file.write_bytes(content)
        assert kept_text("a", self.write) == TEXT
        assert kept_text("a", self.write) == TEXT
        assert self.written == 2

    def test_without_a_place_to_keep_it_it_is_written_each_time(self) -> None:
        self.folder.parent.mkdir()
        self.folder.write_text("no folder")
        assert kept_text("a", self.write) == kept_text("a", self.write) == TEXT
        assert self.written == 2

    def test_it_says_what_the_rules_say(self) -> None:
        rules = tiling_rules()
        kept_text("tiling", lambda: _write(rules))
        assert kept_text("tiling", self.write) == _write(rules)
        assert self.written == 0

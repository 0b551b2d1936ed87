"""Text for people is safe and fits."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tilewright import terminal
from tilewright.terminal import clean, print_facts, print_table, print_text, progress, shorten


def console(width: int) -> Console:
    return Console(file=io.StringIO(), width=width, markup=False, highlight=False, emoji=False)


def text_of(target: Console) -> str:
    assert isinstance(target.file, io.StringIO)
    return target.file.getvalue()


@given(st.text())
def test_clean_text_has_no_controls(text: str) -> None:
    assert all(c.isprintable() for c in clean(text))
    if text.isprintable():
        assert clean(text) == text


@given(st.text(), st.integers(2, 40))
def test_short_names_end_as_long_ones(name: str, width: int) -> None:
    short = shorten(name, width)
    assert len(short) <= width
    assert clean(name).endswith(short.removeprefix("…"))


@pytest.mark.parametrize("width", [40, 80, 120])
def test_facts_stay_in_their_column(width: int) -> None:
    target = console(width)
    print_facts(
        target,
        "title",
        [("name", "word " * 60), ("x" * 90, "y" * 300), ("[red]a", "[/red]:smile:")],
    )
    lines = text_of(target).splitlines()
    assert max(map(len, lines)) <= width
    assert all(
        line[:20].strip() in ("", "name", "[red]a", "title") or "…" in line for line in lines
    )
    assert "[/red]:smile:" in text_of(target)


def test_numbers_are_right_aligned() -> None:
    target = console(60)
    print_table(target, "t", ("what", "n"), [("a", "1"), ("b", "1,000")])
    rows = [line.rstrip() for line in text_of(target).splitlines()[-2:]]
    assert [len(row) for row in rows] == [len(rows[0])] * 2


def test_long_texts_say_what_is_left_out() -> None:
    target = console(20)
    print_text(target, "\n".join("long line " * 5 for _ in range(30)), 10)
    lines = text_of(target).splitlines()
    assert len(lines) == 11
    assert lines[-1] == "… 20 more lines"


def test_progress_is_lines_without_a_terminal() -> None:
    target = console(80)
    with progress(target, 0.0) as tell:
        tell("cutting [bold]tiles\x1b[1m")
    assert text_of(target).rstrip().endswith("s] cutting [bold]tiles\\x1b[1m")


def test_progress_is_a_spinner_on_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen, results = Screen(), console(80)
    monkeypatch.setattr(terminal.sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with progress(results, 0.0) as tell:
        tell("cutting [bold]tiles " + "very " * 40)
        tell("setting tiles")
    assert "setting tiles" in screen.getvalue()
    assert "cutting [bold]tiles" in screen.getvalue()
    assert text_of(results) == "", "results stay free of it"

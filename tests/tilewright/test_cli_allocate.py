"""`tilewright allocate`."""

from __future__ import annotations

from pathlib import Path

import pytest

ROWS = "id,lower,upper,size\np,0,3,40\nq,3,9,40\nr,0,9,40\ns,9,21,40\nt,0,21,40\n"


@pytest.fixture
def problem(tmp_path: Path) -> Path:
    path = tmp_path / "problem.csv"
    path.write_text(ROWS)
    return path


def test_addresses_are_printed(tilewright, problem: Path) -> None:
    ran = tilewright("allocate", problem, "--capacity", "120")
    assert ran.code == 0
    header, *rows = ran.out.splitlines()
    assert header == "id,lower,upper,size,offset"
    assert [row.rpartition(",")[0] for row in rows] == ROWS.splitlines()[1:]
    offsets = {row.split(",")[0]: int(row.rpartition(",")[2]) for row in rows}
    assert {offsets["p"], offsets["r"], offsets["t"]} == {0, 40, 80}
    assert {offsets["q"], offsets["r"], offsets["t"]} == {0, 40, 80}
    assert offsets["s"] != offsets["t"]


def test_addresses_are_written(tilewright, problem: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    ran = tilewright("allocate", problem, "--capacity", "200", "--alignment", "64", "-o", out)
    assert ran.code == 0
    assert "5 buffers in" in ran.out
    offsets = [int(row.rpartition(",")[2]) for row in out.read_text().splitlines()[1:]]
    assert all(offset % 64 == 0 for offset in offsets)


@pytest.mark.parametrize(
    ("capacity", "message"),
    [
        ("119", "120 bytes alive at time 0, capacity 119 bytes, short by 1 bytes"),
        ("119", "cannot fit together: 'p', 'r', 't'; relief: split 'p' (up to 40 bytes)"),
    ],
)
def test_what_does_not_fit_is_explained(
    tilewright, problem: Path, tmp_path: Path, capacity: str, message: str
) -> None:
    out = tmp_path / "out.csv"
    ran = tilewright("allocate", problem, "--capacity", capacity, "-o", out)
    assert ran.code == 1
    assert message in " ".join(ran.err.split())
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [("absent.csv", "cannot be read as text"), (".", "cannot be read as text")],
)
def test_files_that_cannot_be_read(tilewright, tmp_path: Path, name: str, message: str) -> None:
    ran = tilewright("allocate", tmp_path / name, "--capacity", "9")
    assert ran.code == 1
    assert message in " ".join(ran.err.split())
    assert "Traceback" not in ran.err

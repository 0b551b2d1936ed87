"""The built package ships everything the repository has, and the lock covers what it needs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import tilewright

ROOT = Path(__file__).parent.parent
FOLDERS = ("extract", "frontend", "hwmodel", "lowering", "rules", "simulator")
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS: dict[str, Any] = PYPROJECT["tool"]["setuptools"]
LOCK = (ROOT / "requirements.lock").read_text()


def pins() -> dict[str, tuple[str, int]]:
    """Version and number of hashes of every pinned package, by canonical name."""
    found: dict[str, tuple[str, int]] = {}
    for block in re.split(r"\n(?=[A-Za-z0-9])", LOCK):
        if match := re.match(r"([A-Za-z0-9._-]+)==(\S+)", block):
            hashes = re.findall(r"--hash=sha256:[0-9a-f]{64}\b", block)
            found[canonicalize_name(match[1])] = (match[2], len(hashes))
    return found


def source_folder(package: str) -> Path:
    """Where the table package-dir, or that of the package around it, says that a package lies."""
    table: dict[str, str] = SETUPTOOLS["package-dir"]
    if package in table:
        return ROOT / table[package]
    outer, _, name = package.rpartition(".")
    return source_folder(outer) / name


def test_every_package_is_listed() -> None:
    nested = {
        ".".join(("tilewright", *init.parent.relative_to(ROOT).parts))
        for folder in FOLDERS
        for init in (ROOT / folder).rglob("__init__.py")
    }
    found = {"tilewright"} | nested
    listed = set(SETUPTOOLS["packages"])
    assert listed == found, f"missing {sorted(found - listed)}, stale {sorted(listed - found)}"


def test_every_module_lies_in_a_package() -> None:
    """A nested folder without __init__.py is visible in place and absent from the wheel."""
    modules = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    orphans = [str(path) for path in modules if not (path.parent / "__init__.py").exists()]
    assert modules
    assert orphans == []


def test_the_links_point_at_the_mapped_folders() -> None:
    for folder in FOLDERS:
        link = ROOT / "src" / "tilewright" / folder
        assert link.is_symlink()
        assert link.resolve() == source_folder(f"tilewright.{folder}").resolve()


def test_every_data_file_is_shipped() -> None:
    """Each YAML and JSON file inside a package matches a pattern of package-data."""
    shipped = {
        path
        for package, patterns in SETUPTOOLS["package-data"].items()
        for pattern in patterns
        for path in source_folder(package).glob(pattern)
    }
    present = {
        path
        for folder in ("src/tilewright", *FOLDERS)
        for suffix in ("*.yaml", "*.yml", "*.json")
        for path in (ROOT / folder).rglob(suffix)
    }
    assert present, "no data file found"
    assert sorted(map(str, present - shipped)) == []


def test_the_wheel_holds_every_file(tmp_path: Path) -> None:
    """A wheel built from a copy without the links has all modules and data, and nothing else."""
    clone = tmp_path / "clone"
    shutil.copytree(
        ROOT / "src", clone / "src", ignore=shutil.ignore_patterns(*FOLDERS, "*.egg-info")
    )
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, clone / folder)
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, clone)
    command = [sys.executable, "-m", "pip", "wheel", "-qq", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", str(tmp_path), str(clone)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if ".dist-info/" not in name}
    roots = {clone / "src" / "tilewright": ""} | {clone / name: f"{name}/" for name in FOLDERS}
    expected = {
        f"tilewright/{prefix}{path.relative_to(base)}"
        for base, prefix in roots.items()
        for path in base.rglob("*")
        if path.suffix in {".py", ".typed", ".json", ".yaml"}
    }
    assert shipped == expected


def test_versions_agree() -> None:
    assert tilewright.__version__ == PYPROJECT["project"]["version"]


def test_public_names_import_late_and_resolve() -> None:
    """The public list is fixed, and each name of it exists in the API."""
    names = {
        "UserMetric",
        "check",
        "load",
        "load_rules",
        "compile",
        "explore",
        "front",
        "run",
        "save",
        "simulate",
        "target",
        "targets",
        "verify",
    }
    assert set(tilewright.__all__) == names | {"__version__"}
    assert all(callable(getattr(tilewright, name)) for name in names)
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        _ = tilewright.absent


def test_the_lock_satisfies_the_requirements() -> None:
    project = PYPROJECT["project"]
    locked = pins()
    for text in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        requirement = Requirement(text)
        version, _ = locked[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{text}: the lock has {version}"


def test_every_pin_has_hashes() -> None:
    assert len(pins()) > 30
    assert {name for name, (_, hashes) in pins().items() if hashes == 0} == set()
    # Compiled packages have one wheel per platform and Python: a lock made for one machine has two.
    assert all(pins()[name][1] > 10 for name in ("egglog", "numpy", "onnxruntime", "scipy"))


def test_the_lock_names_no_host_and_no_path() -> None:
    settings = [line for line in LOCK.splitlines() if not line.lstrip().startswith("#")]
    assert [line for line in settings if re.search(r"://|file:|@|^\s*-(?!-hash)|/", line)] == []

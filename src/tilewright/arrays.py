"""Arrays in .npz files, and files that appear whole or not at all."""

from __future__ import annotations

import io
import os
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tilewright.errors import CompileError, ModelError
from tilewright.graph import Array


def read_arrays(path: Path) -> dict[str, Array]:
    """Return the arrays of an .npz file by name.

    Raises:
        ModelError: The file cannot be read, is no .npz, or holds Python objects.
    """
    try:
        # numpy leaves files open that it cannot read
        with path.open("rb") as file:
            stored = np.load(file, allow_pickle=False)
            if not isinstance(stored, np.lib.npyio.NpzFile):
                raise ValueError("it holds one array without a name")
            with stored:
                return {name: stored[name] for name in stored.files}
    except OSError as error:
        raise ModelError(
            f"input file '{path}': cannot be read: {error.strerror or error}; check the path"
        ) from None
    except (
        ValueError,
        EOFError,
        KeyError,
        zipfile.BadZipFile,
        zlib.error,
        NotImplementedError,
    ) as error:
        raise ModelError(
            f"input file '{path}': found no .npz file ({_first_line(error)}), expected one array for "
            "each input; save it with numpy.savez"
        ) from None


def npz_bytes(arrays: Mapping[str, Array]) -> bytes:
    """Return an .npz file of arrays.

    Unlike numpy.savez it takes any name, and equal arrays give equal bytes.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue())
    return buffer.getvalue()


def write_file(path: Path, data: bytes) -> None:
    """Write a file; an existing one is replaced at once or not at all.

    Raises:
        CompileError: It cannot be written.
    """
    try:
        handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-", suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.chmod(part, 0o644)  # mkstemp makes files that only their owner can read
            os.replace(part, path)
        except BaseException:
            os.unlink(part)
            raise
    except OSError as error:
        raise CompileError(
            f"'{path}' cannot be written: {error.strerror or error}; choose another place with -o"
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]

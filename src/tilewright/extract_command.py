"""The command `extract`: an extraction from a serialized e-graph, as JSON."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tilewright.errors import CompileError
from tilewright.extract.general.egraph import Extraction
from tilewright.extract.general.extractor import extract
from tilewright.extract.general.gym_file import NamedEGraph, read_egraph
from tilewright.extract.general.workspace import NoExtractionError


def extract_and_report(path: Path, output: Path | None, time_limit: float) -> None:
    """Extract from an e-graph file; write the choice, and a line on stderr.

    Args:
        path: JSON of the extraction gym, see `tilewright.extract.general.gym_file`.
        output: Where to write; None for stdout.
        time_limit: Wall time of the extraction, [s].

    Raises:
        ModelError: The file is no e-graph.
        NoExtractionError: A root has no acyclic extraction.
        CompileError: The output cannot be written.
    """
    named = read_egraph(path)
    with _solver_messages_on_stderr():
        extraction = _extract(named, path, time_limit)
    text = json.dumps(_document(named, extraction), indent=1) + "\n"
    if output is None:
        print(text, end="")
    else:
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as error:
            raise CompileError(f"'{output}': cannot be written: {error.strerror}") from None
    if named.empty_roots:
        print(
            f"'{path}': {len(named.empty_roots)} root classes have no e-node and are passed over, "
            f"the first is {named.empty_roots[0]!r}",
            file=sys.stderr,
        )
    status = "optimal" if extraction.is_optimal else f"gap {extraction.gap:.1%}"
    print(
        f"cost {extraction.cost:.10g}, bound {extraction.bound:.10g}, {status} "
        f"({extraction.proof}), {len(extraction.chosen)} e-nodes",
        file=sys.stderr,
    )


def _extract(named: NamedEGraph, path: Path, time_limit: float) -> Extraction:
    """Extract, with the names of the file in errors."""
    try:
        return extract(named.graph, time_limit)
    except NoExtractionError as error:
        name = f"'{named.classes[error.group]}' of '{path}'"
        raise NoExtractionError(error.group, name) from None


def _document(named: NamedEGraph, extraction: Extraction) -> dict[str, Any]:
    return {
        "choices": named.named(extraction.chosen),
        "cost": extraction.cost,
        "bound": extraction.bound,
        "gap": extraction.gap,
        "proof": extraction.proof.value,
        "steps": list(extraction.steps),
        "empty_roots": list(named.empty_roots),
    }


@contextmanager
def _solver_messages_on_stderr() -> Iterator[None]:
    """Keep what the solver prints by itself out of the JSON on stdout."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)

"""Price workloads with Stream. Runs under a Python that has stream-dse, and knows nothing of this project.

Reads a JSON list of jobs from a file and writes the answers to another, one a line:

    job     {"hardware": file, "model": file, "mappings": [file], "repeats": n}
    answer  {"cycles": [of each group], "seconds": [of each repeat], "mappings": [text of each group],
             "priced": [{"cycles": total} | {"error": text}]}

Seconds are user CPU time of `evaluate_mapping` without a mapping; neither the import nor the first call is
measured.
"""

from __future__ import annotations

import json
import logging
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any


def user_seconds() -> float:
    """Return the user CPU time of this process, all threads."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


def priced(job: dict[str, Any], mapping: str, folder: str) -> dict[str, Any]:
    """Return what a mapping costs, or why Stream refuses it."""
    from stream.api import SolveOptions, evaluate_mapping

    try:
        found = evaluate_mapping(
            job["hardware"], job["model"], folder, mapping, SolveOptions(artifacts=False)
        )
    except (RuntimeError, ValueError) as error:
        return {"error": str(error).splitlines()[0][:200]}
    return {"cycles": found.cycles}


def answered(job: dict[str, Any]) -> dict[str, Any]:
    """Return Stream's own mapping with its cycles and CPU seconds, and the prices of the others."""
    from stream.api import SolveOptions, evaluate_mapping

    options = SolveOptions(artifacts=False)
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(job["repeats"]):
            start = user_seconds()
            own = evaluate_mapping(job["hardware"], job["model"], folder, None, options)
            seconds.append(user_seconds() - start)
        texts = [
            (Path(folder) / f"group_{group}" / "mapping.yaml").read_text()
            for group in range(len(own.group_cycles))
        ]
        return {
            "cycles": list(own.group_cycles),
            "dispatch": own.dispatch_cycles,
            "seconds": seconds,
            "mappings": texts,
            "priced": [priced(job, mapping, folder) for mapping in job["mappings"]],
        }


def main(asked: str, written: str) -> int:
    """Answer all jobs of a file."""
    logging.disable(logging.WARNING)
    jobs = json.loads(Path(asked).read_text())
    answered({**jobs[0], "repeats": 1, "mappings": []})  # what is imported or compiled late
    with Path(written).open("w") as lines:
        for job in jobs:
            print(json.dumps(answered(job)), file=lines, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

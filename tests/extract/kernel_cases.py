"""Kernels of small models, wherever their tensors lie, with the tilings that planning chooses from."""

from __future__ import annotations

from functools import cache

from extract_cases import tiny

from tilewright.extract.kernel import Kernel
from tilewright.extract.options import implementations_by_node, kernel_of
from tilewright.extract.plan import Memory
from tilewright.extract.tiling_choice import Candidates, tiling_key


@cache
def tiled_kernels(name: str, step: int) -> tuple[tuple[tuple[Kernel, ...], Candidates], ...]:
    """Return every `step`-th way to run each operator of `tiny(name)`.

    Each is a kernel for every memory of the operands and of the result, and the tilings of all of them.
    """
    case = tiny(name)
    alternatives, pricing, _ = case.tables()
    found = []
    for block in alternatives:
        by_node = implementations_by_node(block)
        for node in block.nodes:
            if node.nest is None or node.kind in ("reshape", "host"):
                continue
            for implementation in by_node.get(node.number, ())[::step]:
                kernels = tuple(
                    kernel_of(
                        block, node, implementation, (memory,) * len(node.args), result, case.mesh
                    )
                    for memory in Memory
                    for result in Memory
                )
                candidates = pricing.tilings.get(tiling_key(kernels[0]))
                if candidates is not None:
                    found.append((kernels, candidates))
    assert found
    return tuple(found)

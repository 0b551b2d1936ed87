"""Tables of stages: sums of what blocks cost, with blocks that some parts have no room for."""

from __future__ import annotations

from collections.abc import Hashable
from itertools import pairwise
from math import inf

import numpy as np
import pytest
from extract_cases import Builder

from tilewright.errors import CompileError
from tilewright.extract.extraction import ExtractOptions
from tilewright.extract.pipeline.prices import Price, Prices
from tilewright.extract.pipeline.segments import Segments
from tilewright.extract.pipeline.table import Parts, StageTable
from tilewright.graph import Graph
from tilewright.hwmodel.family import mesh_target
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.hwmodel.submesh import Submesh, submeshes
from tilewright.rules.alternatives import Alternatives
from tilewright.rules.pipeline.family import pipeline_rules
from tilewright.rules.pipeline.legality import Legality
from tilewright.rules.roll import Block, roll_at

TARGET = mesh_target(1, 2, name="pair", sram_kib=24)


class Given(Prices):
    """Prices of blocks by the number of the first value that they make; the first fits no single tile."""

    def alone(self, key: Hashable, block: Block, shape: Submesh) -> Price:
        width = block.graph.types[block.graph.outputs[0].tensor].shape[1]
        if width == 36 and shape != (1, 2):
            return Price(cost=inf, bound=inf)
        return Price(cost=float(width), bound=width / 2)


def nothing(graph: Graph, mesh: LogicalMesh) -> Alternatives:
    raise CompileError("no block is saturated")


def test_a_block_that_fits_nowhere_says_nothing_of_those_behind_it() -> None:
    b = Builder("narrowing")
    x = b.input(7, 40)
    for inputs, outputs in pairwise((40, 36, 32, 28)):
        x = b.matmul(x, b.weight(inputs, outputs))
    graph = b.graph(x)
    rolled, legality = roll_at(graph, (0, 1, 2, 3)), Legality(rules=pipeline_rules())
    shapes = submeshes(TARGET)
    parts = Parts(
        graph=graph,
        rolled=rolled,
        segments=Segments(graph, rolled, legality),
        target=TARGET,
        shapes=shapes,
    )
    table = StageTable(parts, Given(TARGET, nothing, ExtractOptions(), 0))
    widths = (36, 32, 28)
    for number, shape in enumerate(shapes):
        for first in range(3):
            for last in range(first + 1, 4):
                least = sum(widths[first:last]) / 2 + parts.exchange_cycles(first, last)
                if first == 0 and shape == (1, 1):
                    least = inf
                assert table.lower[first, last, number] == pytest.approx(least)
    assert np.isinf(table.lower[1, 1]).all()

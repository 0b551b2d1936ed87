"""Moves are simulated on what each tile holds; chains are compared with Bellman-Ford."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np
import pytest
from conftest import Distances
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tilewright.dtypes import DType
from tilewright.extract.plan import Memory, Move, MoveKind, Objective, Placement
from tilewright.extract.reshard import (
    ReshardTable,
    build_table,
    dram_placement,
    move_units,
    single_moves,
)
from tilewright.graph import TensorType
from tilewright.hwmodel.family import mesh_target
from tilewright.hwmodel.mesh import LogicalMesh, Sharding
from tilewright.hwmodel.target import Target

Coords = tuple[int, ...]

"""Lower bounds of a whole model on a target, resource by resource.

The bounds hold for every schedule that computes each contraction of the given graph (not of a
rewritten one) in full, dense ones on matrix units, with nothing but the limits of the one resource:

* matrix: multiply-adds of dense contractions (matmul, and conv with one group) at the peak rate.
  Grouped convolutions may run on the vector units and are left out.
* vector: one transcendental function (exp, erf, tanh, ...) per element, each at the cost of the
  cheapest such function, on the smallest tensor that it can be hoisted to and once for all that
  share that tensor. Other functions may be fused, folded or moved, so they do not count.
* SRAM: every different tensor that contractions read is read once, at its smallest size along the
  views and elementwise maps that lead to it.
* DRAM: inputs and outputs cross it once; weights only as far as all scratchpads together cannot
  hold them.
* path: contractions that wait for each other take at least the shortest instruction each.

Ops on constants alone are folded before execution and count nowhere, nor do ops that no output
needs. Host regions cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

from tilewright.dtypes import DType
from tilewright.graph import Graph, Op, parse_pipeline
from tilewright.hwmodel.target import Target

_TRANSCENDENTAL = frozenset(
    "exp log sigmoid tanh erf gelu gelu_tanh silu softplus sin cos tan asin acos atan sinh cosh".split()
)
_VIEWS = frozenset(("reshape", "transpose", "expand", "slice", "gather", "map"))
_PARTS = frozenset(("slice", "gather"))
_WHOLE = frozenset(("matmul", "conv", "host"))
_WIDE_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Roofline:
    """Cycles that each resource needs at least, and the work behind them."""

    matrix_cycles: float
    vector_cycles: float
    sram_cycles: float
    dram_cycles: float
    path_cycles: float
    macs: int
    """Multiply-adds of all contractions, grouped convolutions included."""
    weight_bytes: int
    io_bytes: int
    dram_bytes: int
    """Bytes that must cross DRAM ports."""

    @property
    def by_resource(self) -> tuple[tuple[str, float], ...]:
        """Name and cycles of each bound, in fixed order."""
        return (
            ("matrix", self.matrix_cycles),
            ("vector", self.vector_cycles),
            ("sram", self.sram_cycles),
            ("dram", self.dram_cycles),
            ("path", self.path_cycles),
        )

    @property
    def bound_cycles(self) -> float:
        """The largest bound: no schedule is faster."""
        return max(cycles for _, cycles in self.by_resource)

    @property
    def limit(self) -> str:
        """The resource with the largest bound."""
        return max(self.by_resource, key=lambda item: item[1])[0]


def roofline(graph: Graph, target: Target) -> Roofline:
    """Return the lower bounds of a model on a target; see the module for what they count."""
    ops = _live_ops(graph)
    makers = {name: op for op in graph.ops for name in op.outputs}
    contractions = [op for op in ops if op.kind in ("matmul", "conv")]
    whole = _tensors_read_in_full(graph, ops)
    weight_bytes = _weight_bytes(graph, makers, ops)
    io_bytes = _io_bytes(graph, ops, whole)
    dram_bytes = io_bytes + max(0, weight_bytes - target.sram_bytes)
    sram_rate = target.tiles * target.tile.sram.bytes_per_cycle
    return Roofline(
        matrix_cycles=sum(_matrix_cycles(graph, target, op) for op in contractions),
        vector_cycles=_vector_cycles(
            graph, target, makers, [op for op in ops if op.outputs[0] in whole]
        ),
        sram_cycles=_operand_bytes(graph, makers, contractions) / sram_rate,
        dram_cycles=dram_bytes / target.dram_bytes_per_cycle,
        path_cycles=_path_cycles(graph, target, ops),
        macs=sum(contraction_macs(graph, op) for op in contractions),
        weight_bytes=weight_bytes,
        io_bytes=io_bytes,
        dram_bytes=dram_bytes,
    )


def least_energy_pj(graph: Graph, target: Target) -> float:
    """Return the energy of the multiply-adds and the DRAM traffic of the bounds, and of static power."""
    energy, bound = target.energy, roofline(graph, target)
    total = bound.dram_bytes * energy.dram_pj_per_byte
    total += energy.static_watt * 1e12 * target.seconds(bound.bound_cycles)
    cheapest = min(energy.mac_pj.values())
    for op in _live_ops(graph):
        if op.kind in ("matmul", "conv"):
            each = energy.mac_pj.get(graph.types[op.inputs[1]].dtype, cheapest)
            total += contraction_macs(graph, op) * each
    return total


def contraction_macs(graph: Graph, op: Op) -> int:
    """Return the multiply-adds of a matmul or conv: elements of the result times terms of each sum."""
    elements = graph.types[op.output].elements
    if op.kind == "matmul":
        return elements * graph.types[op.inputs[0]].shape[-1]
    assert op.kind == "conv", f"{op.kind} '{op.name}' is no contraction"
    return elements * prod(graph.types[op.inputs[1]].shape[1:])


def _live_ops(graph: Graph) -> tuple[Op, ...]:
    """Return the ops that outputs need and that depend on an input, in order."""
    wanted = {port.tensor for port in graph.outputs}
    needed = []
    for op in reversed(graph.ops):
        if not wanted.isdisjoint(op.outputs):
            wanted.update(op.inputs)
            needed.append(op)
    variable = {port.tensor for port in graph.inputs}
    live = []
    for op in reversed(needed):
        if not variable.isdisjoint(op.inputs):
            variable.update(op.outputs)
            live.append(op)
    return tuple(live)


def _tensors_read_in_full(graph: Graph, ops: tuple[Op, ...]) -> frozenset[str]:
    """Return the tensors of which every element is wanted, even if parts are cut out early."""
    whole = {port.tensor for port in graph.outputs}
    for op in reversed(ops):
        is_wanted = op.kind in _WHOLE or not whole.isdisjoint(op.outputs)
        if is_wanted and op.kind not in _PARTS:
            whole.update(op.inputs)
    return frozenset(whole)


def _source(
    graph: Graph, makers: Mapping[str, Op], name: str, through: Iterable[str]
) -> tuple[str, int]:
    """Follow some kinds of op back from a tensor.

    Returns:
        The first tensor, and the fewest bytes of any tensor on the way.
    """
    fewest_bytes = graph.types[name].size_bytes
    while (op := makers.get(name)) is not None and op.kind in through:
        if op.kind == "map":
            name = max(op.inputs, key=lambda item: graph.types[item].elements)
        else:
            name = op.inputs[0]
        fewest_bytes = min(fewest_bytes, graph.types[name].size_bytes)
    return name, fewest_bytes


def _matrix_cycles(graph: Graph, target: Target, op: Op) -> float:
    """Return the time of all matrix units for a dense contraction, with the faster operand type."""
    if op.kind == "conv" and op.integer("groups") > 1:
        return 0.0
    matrix = target.tile.matrix
    rates = [
        matrix.rows * matrix.columns[dtype] / matrix.cycles_per_row[dtype]
        for dtype in (graph.types[name].dtype for name in op.inputs)
        if dtype in matrix.columns
    ]
    if not rates:
        return 0.0
    return contraction_macs(graph, op) / (target.tiles * max(rates))


def _vector_cycles(graph: Graph, target: Target, makers: Mapping[str, Op], ops: list[Op]) -> float:
    """Return the time of all vector units for the transcendental functions that cannot go away."""
    vector = target.tile.vector
    cheapest = min(vector.function_cycles.get(fn, 1.0) for fn in sorted(_TRANSCENDENTAL))
    variable = {port.tensor for port in graph.inputs} | {name for op in ops for name in op.outputs}
    work: dict[str, float] = {}
    for op in ops:
        if not _is_transcendental(op):
            continue
        # exp(x + y) is exp(x) exp(y): only the larger operand's elements are sure to be needed.
        operand = max(op.inputs, key=lambda name: graph.types[name].elements)
        source, size_bytes = _source(graph, makers, operand, _VIEWS - {"map"})
        itemsize_bytes = graph.types[source].dtype.itemsize_bytes
        if source not in variable or graph.types[source].dtype is DType.BOOL:
            continue  # a function of a constant, or of one of two constants, is folded
        elements = size_bytes // itemsize_bytes * (2 if itemsize_bytes >= _WIDE_BYTES else 1)
        work[source] = max(elements, work.get(source, 0))
    return cheapest * sum(work.values()) / (target.tiles * vector.lanes)


def _is_transcendental(op: Op) -> bool:
    if op.kind == "map":
        return any(fn in _TRANSCENDENTAL for fn, _ in parse_pipeline(op.text("fn")))
    return op.kind == "softmax"


def _operand_bytes(graph: Graph, makers: Mapping[str, Op], contractions: list[Op]) -> int:
    """Return the bytes of the different tensors that contractions read."""
    read: dict[str, int] = {}
    for op in contractions:
        for position, name in enumerate(op.inputs):
            source, size_bytes = _source(graph, makers, name, _VIEWS)
            if op.kind == "conv" and position == 0:
                size_bytes = min(size_bytes, _touched_bytes(graph, op))
            read[source] = max(read.get(source, 0), size_bytes)
    return sum(read.values())


def _touched_bytes(graph: Graph, op: Op) -> int:
    """Return the most bytes of its input that a strided convolution can touch."""
    x, w = (graph.types[name] for name in op.inputs)
    out = graph.types[op.output].shape
    height = min(x.shape[2], out[2] * w.shape[2])
    width = min(x.shape[3], out[3] * w.shape[3])
    return x.shape[0] * x.shape[1] * height * width * x.dtype.itemsize_bytes


def _weight_bytes(graph: Graph, makers: Mapping[str, Op], ops: tuple[Op, ...]) -> int:
    """Return the bytes of the constants that are read, of tables only as many as are gathered."""
    variable = {port.tensor for port in graph.inputs} | {name for op in ops for name in op.outputs}
    read: dict[str, int] = {}
    for op in ops:
        for name in op.inputs:
            if name in variable:
                continue
            source, size_bytes = _source(graph, makers, name, _VIEWS)
            if op.kind in _PARTS:
                size_bytes = min(size_bytes, graph.types[op.output].size_bytes)
            read[source] = max(read.get(source, 0), size_bytes)
    return sum(read.values())


def _io_bytes(graph: Graph, ops: tuple[Op, ...], whole: frozenset[str]) -> int:
    """Return the bytes of inputs that are read in full and of outputs that are computed."""
    used = {name for op in ops for name in op.inputs} & whole
    made = {name for op in ops for name in op.outputs}
    inputs = {port.tensor for port in graph.inputs} & used
    outputs = {port.tensor for port in graph.outputs} & made
    return sum(graph.types[name].size_bytes for name in sorted(inputs | outputs))


def _path_cycles(graph: Graph, target: Target, ops: tuple[Op, ...]) -> float:
    """Return the time of the longest chain of contractions, each one the shortest instruction."""
    matrix, vector = target.tile.matrix, target.tile.vector
    shortest = min(*matrix.cycles_per_row.values(), vector.startup_cycles + 1.0)
    done: dict[str, int] = {}
    for op in ops:
        depth = max((done.get(name, 0) for name in op.inputs), default=0)
        depth += op.kind in ("matmul", "conv")
        done.update(dict.fromkeys(op.outputs, depth))
    return max((done.get(port.tensor, 0) for port in graph.outputs), default=0) * max(1.0, shortest)

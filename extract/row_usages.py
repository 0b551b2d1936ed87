"""What choices need of the scratchpad in each row.

Rows are the positions in the blocks' orders; what lives while an instance runs counts in every row of its
block between its making and its last use.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

import numpy as np

from tilewright.extract.choice import Costs, Mask, Usage
from tilewright.extract.move_buffers import aligned_bytes
from tilewright.extract.option import Option
from tilewright.extract.origins import Variable
from tilewright.extract.plan import Memory, Placement
from tilewright.extract.priced_model import PricedModel
from tilewright.graph import TensorType
from tilewright.hwmodel.mesh import is_partial, local_shape


class RowUsages:
    """What the options of a model's variables take of the rows of scratchpad."""

    def __init__(self, model: PricedModel) -> None:
        """Take the variables with their options and links."""
        self.model = model

    def usages(self, *, cautious: bool) -> Iterable[Usage]:
        """Yield what options may need (cautious), or what every plan needs for them."""
        rows = len(self.model.variables)
        last_sure = {} if cautious else self._last_sure_rows()
        for number, variable in enumerate(self.model.variables):
            arguments = None if cautious else self._read_from_dram(variable)
            working = self.model.of_options(
                variable,
                ("working", arguments),
                partial(self._working_bytes, variable, arguments),
            )
            yield Usage(number, number, number + 1, working)
            resident = self.model.of_options(variable, ("resident",), _resident_bytes)
            if resident.any():
                yield Usage(number, 0, rows, resident * self.model.multiplicity[variable[0]])
            alive = self.model.of_options(
                variable,
                ("alive", cautious),
                partial(self._result_bytes, variable, cautious),
            )
            if cautious:
                ranges = self._live_rows(variable) if alive.any() else []
                yield from (Usage(number, low, high, alive) for low, high in ranges)
                yield from self._waiting(variable, self.model.options[number])
                continue
            # A view is bytes of its source, which counts as long as that is sure to be alive.
            is_view = self.model.of_options(variable, ("view",), _are_views)
            start = max(number, self._last_source_row(variable, last_sure) + 1)
            for low, bytes_ in ((number, alive * ~is_view), (start, alive * is_view)):
                if bytes_.any() and low <= last_sure[variable]:
                    yield Usage(number, low, last_sure[variable] + 1, bytes_)

    def _read_from_dram(self, variable: Variable) -> frozenset[int]:
        """Return the arguments that every instance of a variable finds in DRAM: the model's inputs."""
        return frozenset(
            link.argument
            for link in self.model.links
            if link.consumer == variable
            and link.producer is None
            and link.count == self.model.multiplicity[variable[0]]
        )

    def _last_source_row(self, variable: Variable, last_sure: Mapping[Variable, int]) -> int:
        """Return the last row in which something counts that a variable may be a view of, or -1."""
        block, last, seen = variable[0], -1, {variable}
        todo = [variable]
        while todo:
            for option in self.model.options[self.model.number[todo.pop()]]:
                if not option.is_view or option.node is None:
                    continue
                source = (block, option.node.args[0])
                if source in self.model.number and source not in seen:
                    seen.add(source)
                    todo.append(source)
                    last = max(last, last_sure[source])
        return last

    def _last_sure_rows(self) -> dict[Variable, int]:
        """Return the last row of each variable's block in which a use of it is sure, or its own."""
        number = self.model.number
        rows = dict(number)
        # Plans follow the rows only in blocks in which no node comes before its arguments.
        inside = [
            (x.producer, x)
            for x in self.model.links
            if x.producer and x.producer[0] == x.consumer[0] and not x.repeated
        ]
        disordered = {
            source[0] for source, link in inside if number[source] >= number[link.consumer]
        }
        for source, link in inside:
            options = self.model.options[number[link.consumer]]
            is_sure = all(o.node is not None and link.argument in o.node.args for o in options)
            if is_sure and source[0] not in disordered:
                rows[source] = max(rows[source], number[link.consumer])
        return rows

    def _working_bytes(
        self, variable: Variable, arguments: frozenset[int] | None, options: tuple[Option, ...]
    ) -> Costs:
        """Return what each option needs beside its result, with the operands that `arguments` names."""
        return np.array(
            [o.working_bytes + self._delivered_bytes(variable, o, arguments) for o in options],
            dtype=np.float64,
        )

    def _delivered_bytes(
        self, variable: Variable, option: Option, arguments: frozenset[int] | None
    ) -> int:
        """Return the bytes of the operands that an option wants in SRAM, perhaps of some arguments only."""
        if option.node is None or option.is_view:
            return 0
        classes = self.model.alternatives[variable[0]].classes
        total = 0
        for argument, placement in zip(option.node.args, option.operands, strict=True):
            if placement is not None and (arguments is None or argument in arguments):
                is_cautious = arguments is None
                total += self._shard_bytes(classes[argument].type, placement, cautious=is_cautious)
        return total

    def _shard_bytes(
        self, tensor: TensorType, placement: Placement, *, cautious: bool = True
    ) -> int:
        if placement.memory is Memory.DRAM:
            return 0
        local = local_shape(self.model.pricing.mesh, placement.sharding, tensor.shape)
        size_bytes = TensorType(local, tensor.dtype).size_bytes
        if cautious and is_partial(placement.sharding):
            size_bytes *= 2  # reducing it takes as many bytes of slots
        return aligned_bytes(size_bytes, self.model.pricing.target.tile.sram.alignment_bytes)

    def _result_bytes(
        self, variable: Variable, cautious: bool, options: tuple[Option, ...]
    ) -> Costs:
        tensor = self.model.type_of(variable)

        def size(option: Option) -> float:
            if option.result is None:
                return 0.0
            return float(self._shard_bytes(tensor, option.result, cautious=cautious))

        return np.array([size(option) for option in options])

    def _waiting(self, variable: Variable, options: tuple[Option, ...]) -> Iterable[Usage]:
        """Yield what options of a value for readers far behind hold until then: it, or what it is made of.

        Of several such values that hold the same, each has the rows behind the one before.
        """
        if self.model.again_of(variable) is None:
            return
        number = self.model.number[variable]
        for link in self.model.links:
            if link.consumer != variable or link.producer is None:
                continue
            tensor = self.model.type_of(link.producer)
            held = [
                max(
                    self._shard_bytes(tensor, place)
                    for argument, place in zip(option.node.args, option.operands, strict=True)
                    if argument == link.argument and place is not None
                )
                if option.node is not None and link.argument in option.node.args
                else 0
                for option in options
            ]
            before = self._live_rows(link.producer, number)
            after = self._live_rows(link.producer, number + 1)
            amounts = np.array(held, dtype=np.float64)
            yield from (Usage(number, low, high, amounts) for low, high in _without(after, before))

    def _live_rows(self, variable: Variable, until: int = 0) -> list[tuple[int, int]]:
        """Return the row ranges in which a value is alive, in its own block and in others'.

        Values for readers far behind count their rows themselves, but those in rows before `until`.
        """
        own = self.model.number[variable]
        block = variable[0]
        last = own
        elsewhere: dict[int, int] = {}
        for link in self.model.links:
            if link.producer != variable:
                continue
            row = self.model.number[link.consumer]
            if row >= until and self.model.again_of(link.consumer) is not None:
                continue
            if link.consumer[0] == block and row > own and not link.repeated:
                last = max(last, row)
            else:
                elsewhere[link.consumer[0]] = max(elsewhere.get(link.consumer[0], 0), row)
        if not elsewhere:
            return [(own, last + 1)]
        ends = self._block_rows(block)
        ranges = [(own, ends[1])]
        for other, row in sorted(elsewhere.items()):
            low = self._block_rows(other)[0]
            ranges.append((low, min(row + 1, own) if other == block else row + 1))
            for between in range(min(block, other) + 1, max(block, other)):
                ranges.append(self._block_rows(between))
        return [(low, high) for low, high in _merged(ranges)]

    def _block_rows(self, block: int) -> tuple[int, int]:
        rows = [n for n, variable in enumerate(self.model.variables) if variable[0] == block]
        return (rows[0], rows[-1] + 1) if rows else (0, 0)


def _are_views(options: tuple[Option, ...]) -> Mask:
    return np.array([option.is_view for option in options])


def _resident_bytes(options: tuple[Option, ...]) -> Costs:
    return np.array([float(option.resident_bytes) for option in options])


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Unite overlapping half-open ranges."""
    merged: list[tuple[int, int]] = []
    for low, high in sorted(r for r in ranges if r[0] < r[1]):
        if merged and low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((low, high))
    return merged


def _without(ranges: list[tuple[int, int]], taken: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return what some half-open ranges have and others do not; both are ascending and apart."""
    left = []
    for low, high in ranges:
        for other_low, other_high in taken:
            if other_low < high and low < other_high:
                left.append((low, other_low))
                low = max(low, other_high)
        left.append((low, high))
    return [(low, high) for low, high in left if low < high]

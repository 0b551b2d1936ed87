"""Strategies of every signature as rows of the partition tables."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from tilewright.graph import Op
from tilewright.hwmodel.mesh import LogicalMesh, Sharding, replicated
from tilewright.rules.annotations import annotate
from tilewright.rules.constructors import decode
from tilewright.rules.partition.derived import strategy_table
from tilewright.rules.partition.ruleset import NOT_SPLIT, PartitionRule
from tilewright.rules.scattered import SCATTERED, makers_of, sums_bytes
from tilewright.rules.signatures import Signature, Typing
from tilewright.rules.snapshot import ENode, Snapshot
from tilewright.rules.splitting import Strategy, combined, uses_of_axes

Rows = list[tuple[int | str, ...]]


class StrategyTables:
    """Numbers of layouts, and the strategies of each signature that computes at run time."""

    def __init__(
        self,
        mesh: LogicalMesh,
        typing: Typing,
        snapshot: Snapshot,
        rules: tuple[PartitionRule, ...],
        least_large_bytes: float,
    ) -> None:
        """Find the strategies.

        Args:
            mesh: The mesh.
            typing: Types and signatures.
            snapshot: The e-graph.
            rules: The partition rules that run.
            least_large_bytes: Size of sums from which on rules for large ones run, too; of those on a tile,
                from which on they are scattered.
        """
        self.layouts: list[Sharding] = []
        self.strategies: dict[int, tuple[Strategy, ...]] = {}
        self._typing, self._rules, self._least_large_bytes = typing, rules, least_large_bytes
        self._combined: dict[Hashable, tuple[Strategy, ...]] = {}
        """Memo: a product has the same strategies whatever its epilogue is."""
        self._numbers: dict[Sharding, int] = {}
        self._types = {e_class: numbers[0] for e_class, numbers in snapshot.types.items()}
        for node in snapshot.enodes:
            signature = self.signature_of(node)
            # what is constant is computed by the compiler and delivered in any layout
            if node.result not in snapshot.constants and signature not in self.strategies:
                self.strategies[signature] = self._strategies(mesh, typing.signatures[signature])

    def _strategies(self, mesh: LogicalMesh, signature: Signature) -> tuple[Strategy, ...]:
        constructor = signature.constructor
        attrs = decode(constructor, signature.texts)
        op = Op(name="", kind=constructor.kind, inputs=(), outputs=(), attrs=attrs)
        types = tuple(self._typing.types[t] for t in signature.operands)
        nest = annotate(op, types, self._typing.types[signature.result])
        if nest is None:
            whole = replicated(mesh)
            nothing = ("",) * mesh.rank
            return (
                Strategy(
                    split_dims=(NOT_SPLIT,) * mesh.rank,
                    operands=(whole,) * len(types),
                    result=whole,
                    rules=nothing,
                    macros=nothing,
                ),
            )
        dtype = self._typing.types[signature.result].dtype
        is_large = sums_bytes(nest, dtype) >= self._least_large_bytes
        rules = tuple(rule for rule in self._rules if is_large or not rule.is_for_large)
        uses = uses_of_axes(op, nest, mesh, rules)
        found = self._combined.get((nest, uses))
        if found is None:
            found = self._combined[nest, uses] = combined(nest, mesh, uses)
        found = tuple(
            strategy
            for strategy in found
            if SCATTERED not in strategy.macros
            or sums_bytes(nest, dtype, makers_of(mesh, strategy.macros)) >= self._least_large_bytes
        )
        if constructor.operands is None:
            assert all(len({*s.operands}) == 1 for s in found), "list operands share one layout"
        return found

    def signature_of(self, node: ENode) -> int:
        """Return the signature of an e-node."""
        operands = tuple(self._types[arg] for arg in node.args)
        signature = self._typing.signature_number(node, operands)
        assert signature is not None, "every e-node was typed"
        return signature

    def layout_number(self, layout: Sharding) -> int:
        """Return the number of a layout."""
        if layout not in self._numbers:
            self._numbers[layout] = len(self.layouts)
            self.layouts.append(layout)
        return self._numbers[layout]

    def rows(self) -> list[tuple[Any, Rows]]:
        """Return the rows of the partition tables."""
        tables: dict[str, tuple[Any, Rows]] = {}
        for number, found in self.strategies.items():
            constructor = self._typing.signatures[number].constructor
            is_list = constructor.operands is None
            key = "items" if is_list else str(constructor.operands)
            _, rows = tables.setdefault(key, (strategy_table(constructor), []))
            for index, strategy in enumerate(found):
                layouts = strategy.operands[:1] if is_list else strategy.operands
                columns = [self.layout_number(layout) for layout in (*layouts, strategy.result)]
                rows.append((number, index, *columns))
        return list(tables.values())

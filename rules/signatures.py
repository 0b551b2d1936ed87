"""Types and signatures of e-nodes: the Python half of the type analysis.

After each round every new combination of operator and operand types gets a signature with its
result type; the engine joins them (`encoding`). An e-node whose type differs from that of its
e-class, or that has none, is the work of a wrong rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tilewright.dtypes import DType
from tilewright.errors import RuleError, ShapeError
from tilewright.graph import TensorType
from tilewright.rules.constructors import Constructor, decode
from tilewright.rules.encoding import NIL_TYPES, TABLES, prepend_type
from tilewright.rules.facts import FactTable, Vocabulary
from tilewright.rules.inference import infer_type
from tilewright.rules.snapshot import INSERTED, ENode, Snapshot


@dataclass(frozen=True, slots=True)
class Signature:
    """An operator on operands of known types; types are numbers."""

    constructor: Constructor
    texts: tuple[str, ...]
    dtype: str
    operands: tuple[int, ...]
    result: int


class Typing:
    """Numbers of types, type lists and signatures; grows as rules make new terms."""

    def __init__(self, multiples: tuple[int, ...] = (), least_sliced_bytes: float = 0.0) -> None:
        self._multiples = multiples
        self._least_sliced_bytes = least_sliced_bytes
        self.types: list[TensorType] = []
        self.signatures: list[Signature] = []
        self._types: dict[TensorType, int] = {}
        self._lists: dict[tuple[int, int], int] = {}
        self._signatures: dict[tuple[str, tuple[str, ...], str, tuple[int, ...]], int] = {}
        self._rows: dict[str, list[tuple[int | str, ...]]] = {}
        self._prepended: list[tuple[int, int, int]] = []
        self._known_facts: dict[str, set[tuple[int | str, ...]]] = {}
        self._vocabulary: Vocabulary | None = None

    def type_number(self, value: TensorType) -> int:
        """Return the number of a type."""
        if value not in self._types:
            self._types[value] = len(self.types)
            self.types.append(value)
        return self._types[value]

    def signature_number(self, node: ENode, operands: tuple[int, ...]) -> int | None:
        """Return the signature of an e-node on operands of these types, if it has one."""
        return self._signatures.get((node.constructor.name, node.texts, node.dtype, operands))

    def _list_number(self, operands: tuple[int, ...]) -> int:
        number = NIL_TYPES
        for head in reversed(operands):
            key = (head, number)
            if key not in self._lists:
                self._lists[key] = len(self._lists) + 1
                self._prepended.append((head, number, self._lists[key]))
            number = self._lists[key]
        return number

    def _sign(self, node: ENode, operands: tuple[int, ...], result: int | None) -> Signature:
        """Return the signature of an e-node, made on first sight.

        Args:
            node: The e-node.
            operands: Type numbers of its operands.
            result: Type of its e-class, used for host regions, whose types only the graph knows.
        """
        number = self.signature_number(node, operands)
        if number is not None:
            return self.signatures[number]
        if node.constructor.kind == "host":
            assert result is not None, "outputs of host regions are typed on insertion"
        else:
            types = [self.types[t] for t in operands]
            attrs = decode(node.constructor, node.texts)
            result = self.type_number(
                infer_type(node.constructor.kind, attrs, types, DType(node.dtype))
            )
        signature = Signature(node.constructor, node.texts, node.dtype, operands, result)
        number = len(self.signatures)
        self.signatures.append(signature)
        self._signatures[node.constructor.name, node.texts, node.dtype, operands] = number
        columns = (self._list_number(operands),) if node.constructor.operands is None else operands
        row: tuple[int | str, ...] = (*node.signature_texts, *columns, number, result)
        self._rows.setdefault(node.constructor.name, []).append(row)
        return signature

    def extend(self, snapshot: Snapshot, rule_names: Sequence[str], ran: str) -> dict[int, int]:
        """Type every e-node.

        Args:
            snapshot: The e-graph.
            rule_names: Names of the rules by origin, for messages.
            ran: What ran last, for messages.

        Returns:
            The type number of each e-class.

        Raises:
            RuleError: Terms of different types are in one e-class, or a term has no type.
        """
        for numbers in snapshot.types.values():
            if len(numbers) > 1:
                found = " and ".join(str(self.types[n]) for n in numbers)
                raise RuleError(
                    f"ruleset {ran} put {found} into one e-class; a rule lacks a condition"
                )
        types = {number: found[0] for number, found in snapshot.types.items()}
        waiting = list(snapshot.enodes)
        while waiting:
            later = []
            for node in waiting:
                if all(arg in types for arg in node.args):
                    self._check(node, types, rule_names)
                else:
                    later.append(node)
            assert len(later) < len(waiting), "terms are built from leaves up, so one can be typed"
            waiting = later
        return types

    def _check(self, node: ENode, types: dict[int, int], rule_names: Sequence[str]) -> None:
        maker = "the graph" if node.origin == INSERTED else f"rule '{rule_names[node.origin - 1]}'"
        operands = tuple(types[arg] for arg in node.args)
        try:
            signature = self._sign(node, operands, types.get(node.result))
        except ShapeError as error:
            raise RuleError(f"{maker} made a term without a type: {error}") from error
        own = types.setdefault(node.result, signature.result)
        if own != signature.result:
            raise RuleError(
                f"{maker} made a {node.constructor.kind} of type {self.types[signature.result]} "
                f"in an e-class of type {self.types[own]}"
            )

    def new_rows(self) -> list[tuple[Any, list[tuple[int | str, ...]]]]:
        """Return the rows of signatures made since the last call."""
        tables: list[tuple[Any, list[tuple[int | str, ...]]]] = [
            (TABLES[name].signature, rows) for name, rows in self._rows.items()
        ]
        if self._prepended:
            tables.append((prepend_type, [tuple(row) for row in self._prepended]))
        self._rows, self._prepended = {}, []
        return tables

    def new_facts(
        self, tables: Iterable[FactTable], snapshot: Snapshot
    ) -> list[tuple[Any, list[tuple[int | str, ...]]]]:
        """Return the rows of fact tables that the e-graph does not have yet.

        Args:
            tables: The same in every call.
            snapshot: The e-graph.
        """
        texts: dict[str, dict[str, None]] = {}
        for node in snapshot.enodes:
            for column, text in zip(node.constructor.columns, node.texts, strict=True):
                texts.setdefault(column, {})[text] = None
        known = Vocabulary(
            tuple(self.types),
            {k: tuple(v) for k, v in texts.items()},
            self._siblings(snapshot),
            self._multiples,
            self._least_sliced_bytes,
        )
        if known == self._vocabulary:
            return []
        self._vocabulary = known
        new = []
        for table in tables:
            seen = self._known_facts.setdefault(table.name, set())
            rows = [row for row in dict.fromkeys(table.rows(known)) if row not in seen]
            seen.update(rows)
            new.append((table.relation, rows))
        return new

    def _siblings(self, snapshot: Snapshot) -> tuple[tuple[int, ...], ...]:
        """Return the weights of plain products and convolutions that share their other operand."""
        named = sorted(snapshot.named.items(), reverse=True)  # the first name of a class counts
        inserted = {e_class: number for number, e_class in named}
        inserted |= {e_class: number for number, e_class in snapshot.leaves.items()}
        weights = {c: number for c, number in inserted.items() if c in snapshot.constants}
        groups: dict[tuple[object, ...], set[int]] = {}
        for node in snapshot.enodes:
            name = node.constructor.name
            if name not in ("matmul", "conv") or node.args[1] not in weights:
                continue
            shape = self.types[snapshot.types[node.args[1]][0]].shape
            inner = shape[:-1] if name == "matmul" else shape[1:]
            key = (name, node.args[0], node.signature_texts, inner)
            groups.setdefault(key, set()).add(weights[node.args[1]])
        return tuple(sorted(tuple(sorted(found)) for found in groups.values() if len(found) > 1))

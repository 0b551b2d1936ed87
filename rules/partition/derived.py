"""The partition rules that follow from annotations: one for each constructor.

    x = op(a, b), a: ta, b: tb, sig_op(..., ta, tb, s), strategy2(s, k, la, lb, l)
    ->  delivered(x, l) = impl2(delivered(a, la), delivered(b, lb), s, k)

All knowledge is in the strategy tables, which `tilewright.rules.splitting` derives from the loop nests;
layouts that do not divide a dimension never come to exist. There is one rule for each constructor
because patterns are typed; their form is the same.
"""

from __future__ import annotations

from typing import Any

from egglog import eq, i64, relation, rule, union, var
from egglog import ruleset as make_ruleset

from tilewright.rules.constructors import CONSTRUCTORS, Constructor
from tilewright.rules.encoding import TABLES, pattern, typed_operands
from tilewright.rules.terms import Delivered, Tensor

_declare: Any = relation

strategies1: Any = _declare("strategies1", *(i64,) * 4, egg_fn="strategies1")
"""Rows (signature, strategy, layout of the operand, layout of the result)."""

strategies2: Any = _declare("strategies2", *(i64,) * 5, egg_fn="strategies2")
"""Rows (signature, strategy, layouts of two operands, layout of the result)."""

strategies3: Any = _declare("strategies3", *(i64,) * 6, egg_fn="strategies3")
"""Rows (signature, strategy, layouts of three operands, layout of the result)."""

strategies4: Any = _declare("strategies4", *(i64,) * 7, egg_fn="strategies4")
"""Rows (signature, strategy, layouts of four operands, layout of the result)."""

strategies5: Any = _declare("strategies5", *(i64,) * 8, egg_fn="strategies5")
"""Rows (signature, strategy, layouts of five operands, layout of the result)."""

strategies_items: Any = _declare("strategies_items", *(i64,) * 4, egg_fn="strategies_items")
"""Rows (signature, strategy, layout of every operand, layout of the result)."""


def strategy_table(constructor: Constructor) -> Any:
    """Return the table that holds the strategies of a constructor."""
    if constructor.operands is None:
        return strategies_items
    tables = (strategies1, strategies2, strategies3, strategies4, strategies5)
    return tables[constructor.operands - 1]


def partition_rule(constructor: Constructor) -> Any:
    """Return the rule that implements e-nodes of a constructor by the strategies of its table."""
    term, operands, texts = pattern(constructor)
    types, facts = typed_operands(operands)
    root, result = var("root", Tensor), var("result_type", i64)
    signature, strategy, layout = (var(name, i64) for name in ("signature", "strategy", "layout"))
    layouts = [var(f"layout{i}", i64) for i in range(len(operands))]
    implementation: Any
    if constructor.operands is None:
        implementation = Delivered.impl_items(operands[0], layouts[0], signature, strategy)
    else:
        delivered = [Delivered.at(x, at) for x, at in zip(operands, layouts, strict=True)]
        builds: Any = (
            *(Delivered.impl1, Delivered.impl2, Delivered.impl3, Delivered.impl4),
            Delivered.impl5,
        )
        implementation = builds[len(operands) - 1](*delivered, signature, strategy)
    return rule(
        eq(root).to(term),
        *facts,
        TABLES[constructor.name].signature(*texts, *types, signature, result),
        strategy_table(constructor)(signature, strategy, *layouts, layout),
        name=f"partition.{constructor.name}",
    ).then(union(Delivered.at(root, layout)).with_(implementation))


def partition_ruleset() -> Any:
    """Return what implements every e-node on the mesh."""
    return make_ruleset(*(partition_rule(c) for c in CONSTRUCTORS.values()), name="partition")

"""Everything that a file of rules needs, in one place to import from.

    from tilewright.rules.authoring import Numerics, Rewrite, RuleSet, String, Tensor, pad, map1

Constructors (`matmul`, `map1`, ...) are those of `tilewright.rules.terms`, facts those of
`tilewright.rules.facts`; `facts.fact_table` registers new ones.
"""

from __future__ import annotations

from egglog import String, eq, i64, join

from tilewright.graph import Op
from tilewright.hwmodel.mesh import PARTIAL_MAX, PARTIAL_SUM, REPLICATED
from tilewright.rules import facts, terms
from tilewright.rules.collectives.ruleset import CollectiveRules, Step, StepKind
from tilewright.rules.loopnest import LoopDim, LoopNest, Role
from tilewright.rules.memory.ruleset import Holding, Level, MemoryRules
from tilewright.rules.partition.ruleset import NOT_SPLIT, AxisUse, PartitionRules
from tilewright.rules.pipeline.ruleset import Batch, Cut, PipelineRules, Value
from tilewright.rules.registry import Numerics, Rewrite, RuleSet
from tilewright.rules.terms import Tensor, constant_of_type, has_type, is_constant
from tilewright.rules.tiling.ruleset import TilingRewrite, TilingRules

__all__ = [
    "NOT_SPLIT",
    "PARTIAL_MAX",
    "PARTIAL_SUM",
    "REPLICATED",
    "AxisUse",
    "Batch",
    "CollectiveRules",
    "Cut",
    "Holding",
    "Level",
    "LoopDim",
    "LoopNest",
    "MemoryRules",
    "Numerics",
    "Op",
    "PartitionRules",
    "PipelineRules",
    "Rewrite",
    "Role",
    "RuleSet",
    "Step",
    "StepKind",
    "String",
    "Tensor",
    "TilingRewrite",
    "TilingRules",
    "Value",
    "constant_of_type",
    "eq",
    "facts",
    "has_type",
    "i64",
    "is_constant",
    "join",
    "terms",
]

"""What saturation may be asked for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from math import inf

from tilewright.errors import RuleError
from tilewright.rules.algebra.ruleset import algebra
from tilewright.rules.collectives.family import collective_rules
from tilewright.rules.collectives.ruleset import CollectiveRule
from tilewright.rules.fusion.ruleset import fusion
from tilewright.rules.memory.family import memory_rules
from tilewright.rules.memory.ruleset import MemoryRule
from tilewright.rules.partition.family import partition_rules
from tilewright.rules.partition.ruleset import PartitionRule
from tilewright.rules.pipeline.family import pipeline_rules
from tilewright.rules.pipeline.ruleset import PipelineRule
from tilewright.rules.registry import Numerics, Rule
from tilewright.rules.tiling.family import tiling_rules
from tilewright.rules.tiling.ruleset import TilingRule

_MODULES = (
    *(
        "algebra.movement",
        "algebra.commuting",
        "algebra.heads",
        "algebra.joining",
        "algebra.padding",
        "algebra.parting",
        "algebra.products",
        "algebra.scales",
        "algebra.normalisation",
    ),
    *("fusion.maps", "fusion.matmul", "fusion.transposes", "fusion.norms", "fusion.conv"),
    *("fusion.attention", "fusion.chains"),
    "fusion.dequantisation",
)


def builtin_rules() -> tuple[Rule, ...]:
    """Return the rules of this package: algebra, then fusion."""
    for module in _MODULES:
        import_module(f"tilewright.rules.{module}")
    for family in (algebra, fusion):
        family.close()
    return (*algebra.rules, *fusion.rules)


type AnyRule = Rule | PartitionRule | TilingRule | MemoryRule | CollectiveRule | PipelineRule


@dataclass(frozen=True, slots=True, kw_only=True)
class SaturationOptions:
    """Which rules run, and how far."""

    rules: tuple[Rule, ...] = field(default_factory=builtin_rules)
    """Algebra and fusion rules, in the order in which their rulesets run."""
    partition: tuple[PartitionRule, ...] = field(default_factory=partition_rules)
    """Partition rules, in the order in which they claim loops."""
    tiling: tuple[TilingRule, ...] = field(default_factory=tiling_rules)
    """Tiling rules, for the kernels of the plan."""
    memory: tuple[MemoryRule, ...] = field(default_factory=memory_rules)
    """Memory rules, for the tensors of the plan."""
    collective: tuple[CollectiveRule, ...] = field(default_factory=collective_rules)
    """Collective rules, for the resharding of the plan."""
    pipeline: tuple[PipelineRule, ...] = field(default_factory=pipeline_rules)
    """Rules of pipeline legality, for the stages of the plan."""
    numerics: frozenset[Numerics] = frozenset({Numerics.EXACT, Numerics.REASSOCIATES})
    """Rules of other classes stay out."""
    rounds: int = 12
    """At most so many times algebra, then fusion. Models need 3 to 7; the last changes nothing."""
    nodes_per_class: int = 16
    """An e-class with more e-nodes ends the rounds; so many of them stay."""
    nodes_per_op: int = 16
    """A block with more logical e-nodes for each of its ops is saturated without the rule that made most."""
    multiples: tuple[int, ...] = ()
    """Sizes of mesh axes, to whose multiples rules may pad; `saturate` takes its mesh's if there are none."""
    scratchpad_bytes: int | None = None
    """Of a tile: values that fill much of it may be computed again; None: all are kept."""

    least_sliced_bytes: float = inf
    """Size from which on what is between two products may be made and used in slices; inf: never."""
    least_scattered_bytes: float = inf
    """Size in a tile from which on the sums of a product may be scattered box by box; inf: never."""

    @property
    def everything(self) -> tuple[AnyRule, ...]:
        """Rules of all families."""
        return (
            *self.rules,
            *self.partition,
            *self.tiling,
            *self.memory,
            *self.collective,
            *self.pipeline,
        )

    def chosen(self, without_rules: tuple[str, ...]) -> ChosenRules:
        """Return the rules that run.

        Args:
            without_rules: Names of rules or of whole rulesets to leave out.

        Raises:
            RuleError: A name is unknown.
        """
        left_out = frozenset(rule.name for rule in named(self.everything, without_rules))

        def kept[R: AnyRule](rules: tuple[R, ...]) -> tuple[R, ...]:
            return tuple(rule for rule in rules if rule.name not in left_out)

        return ChosenRules(
            rewrites=tuple(r for r in kept(self.rules) if r.numerics in self.numerics),
            partition=kept(self.partition),
            tiling=kept(self.tiling),
            memory=kept(self.memory),
            collective=kept(self.collective),
            pipeline=kept(self.pipeline),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenRules:
    """The rules that run, by what they are about."""

    rewrites: tuple[Rule, ...]
    """Of logical values."""
    partition: tuple[PartitionRule, ...]
    tiling: tuple[TilingRule, ...]
    memory: tuple[MemoryRule, ...]
    collective: tuple[CollectiveRule, ...]
    pipeline: tuple[PipelineRule, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all."""
        everything: tuple[AnyRule, ...] = (
            *self.rewrites,
            *self.partition,
            *self.tiling,
            *self.memory,
            *self.collective,
            *self.pipeline,
        )
        return tuple(rule.name for rule in everything)


def named(rules: Iterable[AnyRule], names: Iterable[str]) -> tuple[AnyRule, ...]:
    """Return the rules that have one of these names, or whose family has.

    Raises:
        RuleError: A name is that of no rule and no family.
    """
    rules = tuple(rules)
    known = {rule.name for rule in rules} | {rule.ruleset for rule in rules}
    for name in names:
        if name not in known:
            raise RuleError(f"rule '{name}' is unknown; {suggestion(name, known)}")
    return tuple(rule for rule in rules if {rule.name, rule.ruleset} & {*names})


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return what to write instead of an unknown name of a rule or family."""
    known = sorted(known)
    close = [k for k in known if k.partition(".")[2] == name] or get_close_matches(name, known, 3)
    return f"did you mean {' or '.join(close)}" if close else "see 'tilewright rules list'"

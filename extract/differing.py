"""Plans in which instances of a repeated block differ: in what they keep, how they tile, or altogether."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from types import MappingProxyType

from tilewright.errors import InfeasibleError
from tilewright.extract.choice import FORBIDDEN
from tilewright.extract.closing import counted, with_account
from tilewright.extract.filling import Fillable, filled
from tilewright.extract.mixing import Choice, Use, mixtures
from tilewright.extract.origins import Variable
from tilewright.extract.plan import Plan, Proof
from tilewright.extract.profile import resident_constants_bytes, sram_profile
from tilewright.extract.setting import Setting
from tilewright.extract.solution import Solution

_MIXTURES = 3
"""Of two choices, that are written out."""


def with_differing_repeats(setting: Setting, solution: Solution, first: Written) -> Plan:
    """Return a plan in which instances of blocks keep different constants if that is better.

    The best choice without them need not be the best with them: those that the search tried have a say.

    Args:
        setting: What was chosen from.
        solution: The choice, and others that the search tried.
        first: The choice written out.
    """
    plan = with_account(first.plan, first.profile)
    if not setting.tables.has_repeats:
        return plan
    choices = [
        choice
        for choice in dict.fromkeys((solution.choice, *solution.tried))
        if setting.tables.problem.cost(choice) < FORBIDDEN
    ]
    best, uses, bound = plan, list[Use](), (plan.bound, plan.proof)
    for choice in choices:
        if setting.pricing.deadline.is_past:
            return best
        written = first if choice == first.choice else Written(setting, choice, bound)
        best = _better(setting, written, best, plan)
        if len(choices) > 1:
            uses.append(written.use)
    blocks = [instance.block for instance in setting.rolled.instances]
    for mixture in mixtures(uses, blocks, setting.pricing.limit_bytes)[:_MIXTURES]:
        if mixture.units >= best.cost or setting.pricing.deadline.is_past:
            break
        with suppress(InfeasibleError):  # if values cannot get from one choice to the other
            written = Written(setting, mixture.choice, bound, mixture.others)
            best = _better(setting, written, best, plan)
    return best


def _better(setting: Setting, written: Written, best: Plan, unfilled: Plan) -> Plan:
    """Return the better of a known plan and what was written, with what is best to keep in each instance."""
    own = written.filled()
    if own.peak_sram_bytes <= setting.pricing.limit_bytes and own.cost < best.cost:
        return replace(own, unfilled=unfilled)
    return best


class Written:
    """A choice, or several, written out with one set of constants for all instances of a choice."""

    def __init__(
        self,
        setting: Setting,
        choice: Choice,
        bound: tuple[float, Proof],
        others: Mapping[int, Choice] = MappingProxyType({}),
    ) -> None:
        """Write out a choice, and others that some instances take, by their number.

        Args:
            setting: What was chosen from.
            choice: The option of each variable.
            bound: In units of the objective, with its proof.
            others: Choices of single instances.
        """
        self._setting, self._others = setting, others
        self.choice, self._bound = choice, bound
        writer = setting.writer(choice, others=others)
        self.plan = writer.write(bound)
        """The plan, without its account of scratchpad."""
        self.op_variables = writer.op_variables
        self.profile = sram_profile(self.plan, setting.pricing.target)

    @property
    def use(self) -> Use:
        """What the choice costs and keeps in each instance."""
        mesh, alignment = self.plan.mesh, self._setting.pricing.target.tile.sram.alignment_bytes
        count = len(self._setting.rolled.instances)
        units, kept = [0.0] * count, [0] * count
        for planned in self.plan.ops:
            units[planned.instance] += planned.cost_units
            kept[planned.instance] += resident_constants_bytes(
                planned, self.plan.types, mesh, alignment
            )
        return Use(
            choice=self.choice,
            units=tuple(units),
            resident_bytes=tuple(kept),
            row_bytes=max(self.profile.rows, default=0) - self.profile.resident_bytes,
        )

    def filled(self) -> Plan:
        """Return the plan with the constants that are best to keep in each instance."""
        tables = self._setting.tables
        rows: dict[tuple[Variable, Choice], int] = {}
        instances: dict[tuple[Variable, Choice], list[int]] = {}
        for variable, planned, row in zip(
            self.op_variables, self.plan.ops, self.profile.rows, strict=True
        ):
            key = variable, self._others.get(planned.instance, self.choice)
            instances.setdefault(key, []).append(planned.instance)
            rows[key] = max(rows.get(key, 0), row - self.profile.resident_bytes)
        fillables = [
            Fillable(
                variable=variable,
                instances=tuple(own),
                options=tables.options[tables.number[variable]],
                chosen=choice[tables.number[variable]],
                row_bytes=rows[variable, choice],
            )
            for (variable, choice), own in instances.items()
        ]
        different = filled(fillables, self._setting.pricing.limit_bytes)
        if not different:
            return with_account(self.plan, self.profile)
        plan = self._setting.writer(self.choice, different, self._others).write(self._bound)
        return counted(plan, self._setting.pricing.target)

"""Plans in which instances of a repeated block differ: in what they keep, how they tile, or altogether."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from types import MappingProxyType

from tilewright.errors import InfeasibleError
from tilewright.extract.choice import FORBIDDEN
from tilewright.extract.closing import counted
from tilewright.extract.filling import Fillable, filled
from tilewright.extract.mixing import Choice, Use, mixtures
from tilewright.extract.origins import Variable
from tilewright.extract.plan import Plan
from tilewright.extract.profile import resident_constants_bytes, sram_profile
from tilewright.extract.setting import Setting
from tilewright.extract.solution import Solution

_MIXTURES = 3
"""Of two choices, that are written out."""


def with_differing_repeats(setting: Setting, solution: Solution, plan: Plan) -> Plan:
    """Return a plan in which instances of blocks keep different constants if that is better.

    The best choice without them need not be the best with them: those that the search tried have a say.
    """
    if not setting.tables.has_repeats:
        return plan
    choices = [
        choice
        for choice in dict.fromkeys((solution.choice, *solution.tried))
        if setting.tables.problem.cost(choice) < FORBIDDEN
    ]
    best, uses = plan, []
    for choice in choices:
        if setting.pricing.deadline.is_past:
            return best
        written = _Written(setting, choice, plan)
        best = _better(setting, written, best, plan)
        uses.append(written.use)
    blocks = [instance.block for instance in setting.rolled.instances]
    for mixture in mixtures(uses, blocks, setting.pricing.limit_bytes)[:_MIXTURES]:
        if mixture.units >= best.cost or setting.pricing.deadline.is_past:
            break
        with suppress(InfeasibleError):  # if values cannot get from one choice to the other
            written = _Written(setting, mixture.choice, plan, mixture.others)
            best = _better(setting, written, best, plan)
    return best


def _better(setting: Setting, written: _Written, best: Plan, unfilled: Plan) -> Plan:
    """Return the better of a known plan and what was written, with what is best to keep in each instance."""
    own = written.filled()
    if own.peak_sram_bytes <= setting.pricing.limit_bytes and own.cost < best.cost:
        return replace(own, unfilled=unfilled)
    return best


class _Written:
    """A choice, or several, written out with one set of constants for all instances of a choice."""

    def __init__(
        self,
        setting: Setting,
        choice: Choice,
        known: Plan,
        others: Mapping[int, Choice] = MappingProxyType({}),
    ) -> None:
        self._setting, self._choice, self._others = setting, choice, others
        self._bound = known.bound, known.proof
        self._writer = setting.writer(choice, others=others)
        self._plan = self._writer.write(self._bound)
        self._profile = sram_profile(self._plan, setting.pricing.target)

    @property
    def use(self) -> Use:
        """What the choice costs and keeps in each instance."""
        mesh, alignment = self._plan.mesh, self._setting.pricing.target.tile.sram.alignment_bytes
        count = len(self._setting.rolled.instances)
        units, kept = [0.0] * count, [0] * count
        for planned in self._plan.ops:
            units[planned.instance] += planned.cost_units
            kept[planned.instance] += resident_constants_bytes(
                planned, self._plan.types, mesh, alignment
            )
        return Use(
            choice=self._choice,
            units=tuple(units),
            resident_bytes=tuple(kept),
            row_bytes=max(self._profile.rows, default=0) - self._profile.resident_bytes,
        )

    def filled(self) -> Plan:
        """Return the plan with the constants that are best to keep in each instance."""
        tables = self._setting.tables
        rows: dict[tuple[Variable, Choice], int] = {}
        instances: dict[tuple[Variable, Choice], list[int]] = {}
        for variable, planned, row in zip(
            self._writer.op_variables, self._plan.ops, self._profile.rows, strict=True
        ):
            key = variable, self._others.get(planned.instance, self._choice)
            instances.setdefault(key, []).append(planned.instance)
            rows[key] = max(rows.get(key, 0), row - self._profile.resident_bytes)
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
        plan = self._setting.writer(self._choice, different, self._others).write(self._bound)
        return counted(plan, self._setting.pricing.target)

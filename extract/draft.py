"""The beginning of planning: a bound, and a first choice, from which planning may go on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from tilewright.extract.setting import Setting
from tilewright.extract.solution import Solution
from tilewright.extract.solve import Floor, SolveOptions, floor, solve


@dataclass(frozen=True, kw_only=True, eq=False)
class Draft:
    """A priced model with what bounds its plans, and the first choice of its search once that is asked for.

    Attributes:
        setting: What to choose from.
        options: How long to try.
        below: The problem that bounds, with its relaxation.
    """

    setting: Setting
    options: SolveOptions
    below: Floor

    @property
    def limit_bytes(self) -> int:
        """Scratchpad of a tile that plans have, [bytes]."""
        return self.setting.pricing.limit_bytes

    @property
    def bound(self) -> float:
        """What every plan costs at least in metrics that add up, by the relaxation; 0 if there is none."""
        relaxation = self.below.relaxation
        return 0.0 if relaxation is None else relaxation.bound / self.setting.tables.scale

    @cached_property
    def first(self) -> Solution:
        """The first choice; whether it fits is known but for what only the exact account sees."""
        return solve(self.setting.tables.problem, self.options, below=self.below)

    @property
    def cost(self) -> float:
        """What the first choice costs in metrics that add up; inf if it does not fit."""
        return self.first.cost / self.setting.tables.scale if self.first.feasible else float("inf")


def begin(setting: Setting, options: SolveOptions) -> Draft:
    """Return the draft of a priced model: its bound by the relaxation."""
    return Draft(setting=setting, options=options, below=floor(setting.tables.relaxed, options))

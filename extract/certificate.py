"""What a search leaves behind so that its bound can be computed again without the search; see `recheck`.

All of it are numbers that may be wrong: a checker computes what they prove, so that wrong ones prove less.
A certificate holds the multipliers of the bound, which are few; what follows from them is not kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tilewright.extract.choice import Costs, Indices, Mask


@dataclass(frozen=True, slots=True, eq=False)
class Dropped:
    """Options of a variable, each beaten by another one that stays, when those dropped before are gone."""

    variable: int
    options: Indices
    by: Indices


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Cut:
    """At most one user takes a variable's option of a `part` in one of its own options that need it.

    Of the `part`, `stock` are the options that are not idle. `users` are numbers of edges that join the
    variable to its users, with the options of the user.
    """

    variable: int
    part: Mask
    stock: Mask
    users: tuple[tuple[int, Mask], ...]
    price: float


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Dual:
    """Multipliers of a relaxation.

    `prices` are those of a unit of each row. `messages` move costs of edges into those of the options at
    both ends, by option of the left and of the right variable. `idle` is the option of each variable that
    no other is cheaper than if nobody needs the variable, or -1.
    """

    prices: Costs
    messages: tuple[tuple[Costs, Costs], ...]
    cuts: tuple[Cut, ...] = ()
    idle: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Priced:
    """The least cost at `prices` of rows, among options that no relaxation excludes.

    `dual` is of the options that are left when the `dropped` ones are gone; None if nothing is excluded.
    `solver` names a program whose word the bound rests on.
    """

    dropped: tuple[Dropped, ...]
    dual: Dual | None
    prices: Costs
    solver: str = ""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class LinkPrices:
    """Costs of links between instances as costs of options, see `between`.

    `made` and `wanted` are by link and option of its producer and consumer, for all uses together; `added` is
    what all links together add to the costs of each variable's options.
    """

    made: tuple[Costs, ...]
    wanted: tuple[Costs, ...]
    added: tuple[Costs, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """A node's options in two: those of `variable` that are in `inside`, and the others.

    Nodes are numbered from 0, all options; the split number k makes 2 k + 1 (inside) and 2 k + 2.
    """

    node: int
    variable: int
    inside: Mask


@dataclass(frozen=True, slots=True)
class SpanStep:
    """The least cost of each part of the problem within rows of `most` bytes, or less than that."""

    most: float
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Spans:
    """Limits of rows that are walked down, see `spans`; `parts` are the variables joined by edges."""

    price: float
    steps: tuple[SpanStep, ...]
    """From all of the scratchpad down; each holds until the next."""
    parts: tuple[tuple[int, ...], ...]
    splits: tuple[tuple[Split, ...], ...]
    """Of each part, in the order in which they were made."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Certificate:
    """Why the bound of a problem holds.

    If it `is_exhausted`, because every choice that costs less makes a plan that does not fit: which ones
    these are is found again, as a list of them would not spare that. Else by `spans` if there are some, else
    by prices.
    """

    priced: Priced | None = None
    links: LinkPrices | None = None
    spans: Spans | None = None
    is_exhausted: bool = False


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class LimitPrice:
    """Why a bound of plans within a limit of a metric holds, see `limited`.

    `certificate` is that of what every plan costs at least when a unit of the metric costs `price` more; less
    the price of the whole limit, that bounds the plans within it.
    """

    price: float
    certificate: Certificate


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class SpanBound:
    """Plans with footprints up to `high` bytes and above those of the span below, see `footprint`.

    `certificate` is that of what every plan within `limit_bytes` costs at least, without its footprint.
    """

    high: int
    limit_bytes: int
    certificate: Certificate | None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Footprints:
    """Why a bound of an objective that weighs the footprint holds.

    If it `is_exhausted`, because every choice that costs less makes a plan that does not; these are
    found again. Else by spans that cover all footprints, the lowest first.
    """

    spans: tuple[SpanBound, ...] = ()
    is_exhausted: bool = False


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Claim:
    """What every plan costs at least, with what proves it; inf if there is no plan."""

    bound: float
    certificate: Certificate | None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Divisions:
    """Why a bound of all divisions into stages holds, see `pipeline`.

    `alone[shape][item]` are claims of the items by themselves, which bound every stage; `stages` have what is
    claimed of stages that were planned, by first item, last one (exclusive) and shape.
    """

    alone: tuple[tuple[Claim, ...], ...]
    stages: Mapping[tuple[int, int, int], Claim]


AnyCertificate = Certificate | LimitPrice | Footprints | Divisions

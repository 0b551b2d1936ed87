"""Options that several commands have."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tilewright.errors import CompileError

if TYPE_CHECKING:
    from tilewright.rule_commands import PlanRequest


class ScheduleName(StrEnum):
    """How instructions are ordered."""

    list = "list"
    exact = "exact"
    program = "program"


def _known_objective(text: str) -> str:
    """Refuse an objective that cannot be read, as a wrong use of the command line."""
    from tilewright.extract.objective import parse_objective

    try:
        parse_objective(text)
    except CompileError as error:
        raise typer.BadParameter(str(error)) from None
    return text


Model = Annotated[Path, typer.Argument(help="An ONNX model.")]
Objective = Annotated[
    str,
    typer.Option(
        metavar="METRIC|MIX",
        callback=_known_objective,
        help="What to minimise: latency, throughput, energy, sram (bytes of a tile), or a mix by weights "
        "such as latency:0.7,energy:0.3.",
    ),
]
Dims = Annotated[
    list[str] | None,
    typer.Option("--dim", metavar="NAME=VALUE", help="Size of a symbolic dimension; repeatable."),
]
TargetName = Annotated[
    str, typer.Option("--target", "-t", help="Preset name, mesh_RxC or a YAML file.")
]
RuleFiles = Annotated[
    list[Path] | None,
    typer.Option("--rules", metavar="FILE", help="A Python file with rules; repeatable."),
]
SkipRefused = Annotated[
    bool,
    typer.Option(
        "--skip-refused",
        help="Go on without rules that fail their check, or files.",
    ),
]
Padding = Annotated[
    bool,
    typer.Option(
        "--padding/--no-padding",
        help="Pad rows, such as 197 tokens, for the mesh to divide them, if plans are cheaper.",
    ),
]
WithoutRules = Annotated[
    list[str] | None,
    typer.Option(
        "--without-rule", metavar="RULE", help="Leave out a rule or a rule set; repeatable."
    ),
]


def parse_dims(pairs: list[str] | None) -> dict[str, int]:
    """Parse --dim options."""
    found: dict[str, int] = {}
    for pair in pairs or ():
        name, _, value = pair.rpartition("=")
        # isdecimal alone takes digits of any script and any length
        if not name or not (value.isascii() and value.isdecimal() and 0 < int(value[:19]) < 2**48):
            raise CompileError(
                f"--dim '{pair}': expected name=value with a positive whole number; "
                "write e.g. --dim batch=1"
            )
        if found.get(name, int(value)) != int(value):
            raise CompileError(f"--dim '{name}' is given as {found[name]} and {value}; drop one")
        found[name] = int(value)
    return found


def plan_request(
    model: Path,
    target: str,
    dim: list[str] | None,
    objective: str,
    rules: list[Path] | None,
    skip_refused: bool,
    without_rule: list[str] | None,
    padding: bool = True,
) -> PlanRequest:
    """Return what to plan, from the options of the commands that ask about a plan."""
    from tilewright.rule_commands import PlanRequest, RuleSources

    return PlanRequest(
        model=model,
        target=target,
        dims=parse_dims(dim),
        objective=objective,
        without_rules=tuple(without_rule or ()),
        pads=padding,
        sources=RuleSources(files=tuple(rules or ()), skip_refused=skip_refused),
    )

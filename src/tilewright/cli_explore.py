"""The command line of `tilewright explore`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tilewright.cli_options import (
    Dims,
    Model,
    Objective,
    ObjectiveName,
    RuleFiles,
    SkipRefused,
    TargetName,
    WithoutRules,
    plan_request,
)

if TYPE_CHECKING:
    from tilewright.explore_commands import ExploreRequest

explore_app = typer.Typer(
    help="Ask about a plan: alternatives, reasons, demands, other targets.", no_args_is_help=True
)

Tensor = Annotated[str, typer.Argument(help="A tensor that the model computes.")]
ShapesOnly = Annotated[
    bool, typer.Option("--shapes-only", help="Load no weights from external files.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Demands = Annotated[
    list[str],
    typer.Argument(
        metavar="DEMAND...",
        help="ASPECT=VALUE@TENSOR; aspects: rule, sharding (y:S0,x:R), split (y:m,x:n), tile (m=16,n=64), "
        "memory (sram, dram), weights (resident, streamed). A rule may go without a tensor.",
    ),
]
AlsoForbid = Annotated[
    list[str] | None,
    typer.Option("--forbid", metavar="DEMAND", help="Also forbid this; repeatable."),
]
AlsoForce = Annotated[
    list[str] | None,
    typer.Option("--force", metavar="DEMAND", help="Also force this; repeatable."),
]


@explore_app.command("alternatives")
def alternatives_command(
    model: Model,
    tensor: Tensor,
    target: TargetName = "corsair",
    dim: Dims = None,
    shapes_only: ShapesOnly = False,
    objective: Objective = ObjectiveName.latency,
    top: Annotated[
        int, typer.Option(min=0, help="Make a plan for so many ways, the likeliest first.")
    ] = 5,
    rules: RuleFiles = None,
    skip_refused: SkipRefused = False,
    without_rule: WithoutRules = None,
    as_json: AsJson = False,
) -> None:
    """List the ways to compute a tensor, with what a plan with each costs."""
    from tilewright.explore_commands import report_alternatives
    from tilewright.terminal import output_console

    request = _request(
        model, target, dim, shapes_only, objective, rules, skip_refused, without_rule, as_json
    )
    report_alternatives(request, tensor, top, output_console())


@explore_app.command("explain")
def explain_command(
    model: Model,
    tensor: Tensor,
    target: TargetName = "corsair",
    dim: Dims = None,
    shapes_only: ShapesOnly = False,
    objective: Objective = ObjectiveName.latency,
    rules: RuleFiles = None,
    skip_refused: SkipRefused = False,
    without_rule: WithoutRules = None,
    as_json: AsJson = False,
) -> None:
    """Say why a tensor is computed as it is: against the next best way, and what binds."""
    from tilewright.explore_commands import report_explanation
    from tilewright.terminal import output_console

    request = _request(
        model, target, dim, shapes_only, objective, rules, skip_refused, without_rule, as_json
    )
    report_explanation(request, tensor, output_console())


@explore_app.command("force")
def force_command(
    model: Model,
    demands: Demands,
    forbid: AlsoForbid = None,
    target: TargetName = "corsair",
    dim: Dims = None,
    shapes_only: ShapesOnly = False,
    objective: Objective = ObjectiveName.latency,
    rules: RuleFiles = None,
    skip_refused: SkipRefused = False,
    without_rule: WithoutRules = None,
    as_json: AsJson = False,
) -> None:
    """Plan with demands, and say what they cost."""
    from tilewright.explore_commands import report_answer
    from tilewright.terminal import output_console

    request = _request(
        model, target, dim, shapes_only, objective, rules, skip_refused, without_rule, as_json
    )
    report_answer(_demanding(request, demands, forbid), output_console())


@explore_app.command("forbid")
def forbid_command(
    model: Model,
    demands: Demands,
    force: AlsoForce = None,
    target: TargetName = "corsair",
    dim: Dims = None,
    shapes_only: ShapesOnly = False,
    objective: Objective = ObjectiveName.latency,
    rules: RuleFiles = None,
    skip_refused: SkipRefused = False,
    without_rule: WithoutRules = None,
    as_json: AsJson = False,
) -> None:
    """Plan without what is named, and say what that costs."""
    from tilewright.explore_commands import report_answer
    from tilewright.terminal import output_console

    request = _request(
        model, target, dim, shapes_only, objective, rules, skip_refused, without_rule, as_json
    )
    report_answer(_demanding(request, force, demands), output_console())


@explore_app.command("diff")
def diff_command(
    model: Model,
    demands: Demands,
    forbid: AlsoForbid = None,
    against: Annotated[
        list[str] | None,
        typer.Option("--against", metavar="DEMAND", help="Of the first plan; else the best plan."),
    ] = None,
    target: TargetName = "corsair",
    dim: Dims = None,
    shapes_only: ShapesOnly = False,
    objective: Objective = ObjectiveName.latency,
    rules: RuleFiles = None,
    skip_refused: SkipRefused = False,
    without_rule: WithoutRules = None,
    as_json: AsJson = False,
) -> None:
    """Compare two plans op by op: one under demands with the best one, or with one under others."""
    from tilewright.explore_commands import report_diff
    from tilewright.terminal import output_console

    request = _request(
        model, target, dim, shapes_only, objective, rules, skip_refused, without_rule, as_json
    )
    report_diff(_demanding(request, demands, forbid), tuple(against or ()), output_console())


@explore_app.command("what-if")
def what_if_command(
    model: Model,
    changes: Annotated[
        list[str],
        typer.Argument(
            metavar="CHANGE...",
            help="FIGURE=VALUE or FIGURE=xFACTOR: sram=x2, dram_bandwidth=32, mesh=8x8, "
            "tile.vector.lanes=x2.",
        ),
    ],
    target: TargetName = "corsair",
    dim: Dims = None,
    shapes_only: ShapesOnly = False,
    objective: Objective = ObjectiveName.latency,
    rules: RuleFiles = None,
    skip_refused: SkipRefused = False,
    without_rule: WithoutRules = None,
    as_json: AsJson = False,
) -> None:
    """Plan for a target with one figure changed; say what each resource has of it."""
    from tilewright.explore_commands import report_what_if
    from tilewright.terminal import output_console

    request = _request(
        model, target, dim, shapes_only, objective, rules, skip_refused, without_rule, as_json
    )
    report_what_if(request, tuple(changes), output_console())


def _request(
    model: Path,
    target: str,
    dim: list[str] | None,
    shapes_only: bool,
    objective: ObjectiveName,
    rules: list[Path] | None,
    skip_refused: bool,
    without_rule: list[str] | None,
    as_json: bool,
) -> ExploreRequest:
    from tilewright.explore_commands import ExploreRequest

    plan = plan_request(model, target, dim, objective, rules, skip_refused, without_rule)
    return ExploreRequest(plan=plan, shapes_only=shapes_only, as_json=as_json)


def _demanding(
    request: ExploreRequest, forced: list[str] | None, forbidden: list[str] | None
) -> ExploreRequest:
    from dataclasses import replace

    return replace(request, forced=tuple(forced or ()), forbidden=tuple(forbidden or ()))

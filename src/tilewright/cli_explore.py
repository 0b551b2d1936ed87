"""The command line of `tilewright explore`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from tilewright.cli_options import (
    Dims,
    Model,
    Objective,
    Padding,
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
Explained = Annotated[
    str,
    typer.Argument(
        metavar="TENSOR",
        help="A tensor that the model computes, or cut@TENSOR for the stages there.",
    ),
]
ShapesOnly = Annotated[
    bool, typer.Option("--shapes-only", help="Load no weights from external files.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Demands = Annotated[
    list[str],
    typer.Argument(
        metavar="DEMAND...",
        help="ASPECT=VALUE@TENSOR; aspects: rule, sharding (y:S0,x:R), split (y:m,x:n), tile (m=16,n=64), "
        "memory (sram, dram), weights (resident, streamed). A rule may go without a tensor. Of stages: "
        "stage=2@TENSOR, cut@TENSOR, part=2x4@TENSOR, stages=3.",
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


def _request(
    model: Model,
    *,
    target: TargetName = "corsair",
    dim: Dims = None,
    shapes_only: ShapesOnly = False,
    objective: Objective = "latency",
    rules: RuleFiles = None,
    skip_refused: SkipRefused = False,
    without_rule: WithoutRules = None,
    padding: Padding = True,
    as_json: AsJson = False,
) -> ExploreRequest:
    """Return what to plan, from the options that all commands have."""
    from tilewright.explore_commands import ExploreRequest

    plan = plan_request(model, target, dim, objective, rules, skip_refused, without_rule, padding)
    return ExploreRequest(plan=plan, shapes_only=shapes_only, as_json=as_json)


def _asking(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the model and the options of `_request`, from which its first argument is made."""
    return _with_options(command, tuple(signature(_request).parameters))


def _weighing(command: Callable[..., None]) -> Callable[..., None]:
    """Do the same for a command that has no single objective."""
    shared = (name for name in signature(_request).parameters if name != "objective")
    return _with_options(command, tuple(shared))


def _with_options(command: Callable[..., None], shared: tuple[str, ...]) -> Callable[..., None]:
    lazy = {"ExploreRequest": object}  # its module is imported only when a command runs
    hints = get_type_hints(command, localns=lazy, include_extras=True)
    shared_hints = get_type_hints(_request, localns=lazy, include_extras=True)
    own = list(signature(command).parameters)[1:]

    @wraps(command)
    def run(**given: Any) -> None:
        request = _request(**{name: given.pop(name) for name in shared})
        command(request, **given)

    def parameter(name: str, source: Callable[..., Any], found: Mapping[str, Any]) -> Parameter:
        default = signature(source).parameters[name].default
        return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=found[name])

    first, *rest = shared
    names = [first, *own, *rest]
    parameters = [
        parameter(name, _request, shared_hints)
        if name in shared
        else parameter(name, command, hints)
        for name in names
    ]
    vars(run)["__signature__"] = Signature(parameters)
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run


@explore_app.command("alternatives")
@_asking
def alternatives_command(
    request: ExploreRequest,
    tensor: Tensor,
    top: Annotated[
        int, typer.Option(min=0, help="Make a plan for so many ways, the likeliest first.")
    ] = 5,
) -> None:
    """List the ways to compute a tensor, with what a plan with each costs."""
    from tilewright.explore_commands import report_alternatives
    from tilewright.terminal import output_console

    report_alternatives(request, tensor, top, output_console())


@explore_app.command("explain")
@_asking
def explain_command(
    request: ExploreRequest,
    tensor: Explained,
) -> None:
    """Say why a tensor is computed as it is: against the next best way, and what binds; or why a cut is."""
    from tilewright.explore_commands import report_explanation
    from tilewright.terminal import output_console

    report_explanation(request, tensor, output_console())


@explore_app.command("force")
@_asking
def force_command(
    request: ExploreRequest,
    demands: Demands,
    forbid: AlsoForbid = None,
) -> None:
    """Plan with demands, and say what they cost."""
    from tilewright.explore_commands import report_answer
    from tilewright.terminal import output_console

    report_answer(_demanding(request, demands, forbid), output_console())


@explore_app.command("forbid")
@_asking
def forbid_command(
    request: ExploreRequest,
    demands: Demands,
    force: AlsoForce = None,
) -> None:
    """Plan without what is named, and say what that costs."""
    from tilewright.explore_commands import report_answer
    from tilewright.terminal import output_console

    report_answer(_demanding(request, force, demands), output_console())


@explore_app.command("diff")
@_asking
def diff_command(
    request: ExploreRequest,
    demands: Demands,
    forbid: AlsoForbid = None,
    against: Annotated[
        list[str] | None,
        typer.Option("--against", metavar="DEMAND", help="Of the first plan; else the best plan."),
    ] = None,
) -> None:
    """Compare two plans op by op: one under demands with the best one, or with one under others."""
    from tilewright.explore_commands import report_diff
    from tilewright.terminal import output_console

    report_diff(_demanding(request, demands, forbid), tuple(against or ()), output_console())


@explore_app.command("what-if")
@_asking
def what_if_command(
    request: ExploreRequest,
    changes: Annotated[
        list[str],
        typer.Argument(
            metavar="CHANGE...",
            help="FIGURE=VALUE or FIGURE=xFACTOR: sram=x2, dram_bandwidth=32, clock=1.5, "
            "link_bandwidth=x2, mesh=8x8, or a path in the target's file as tile.matrix.rows=x2.",
        ),
    ],
) -> None:
    """Plan for a target with one figure changed; say what each resource has of it."""
    from tilewright.explore_commands import report_what_if
    from tilewright.terminal import output_console

    report_what_if(request, tuple(changes), output_console())


@explore_app.command("pareto")
@_weighing
def pareto_command(
    request: ExploreRequest,
    objectives: Annotated[
        str,
        typer.Option(
            metavar="METRIC,METRIC[,METRIC]",
            help="Two or three of latency, throughput, energy, sram.",
        ),
    ] = "latency,energy",
    points: Annotated[int, typer.Option(metavar="N", help="Plans at most.")] = 8,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Write a picture, and each plan with its program; simulate these.",
        ),
    ] = None,
) -> None:
    """Find plans of which none is better than another in every metric."""
    from tilewright.front_command import FrontRequest, report_front
    from tilewright.terminal import output_console

    metrics = tuple(objectives.split(","))
    report_front(
        FrontRequest(explore=request, metrics=metrics, points=points, output=output),
        output_console(),
    )


def _demanding(
    request: ExploreRequest, forced: list[str] | None, forbidden: list[str] | None
) -> ExploreRequest:
    from dataclasses import replace

    return replace(request, forced=tuple(forced or ()), forbidden=tuple(forbidden or ()))

"""Steps that do the work of two."""

from __future__ import annotations

from tilewright.rules.collectives.ruleset import Step, StepKind, collective


@collective.rule(source="Shardy: reduce_scatter_fusion")
def slice_of_all_reduce(first: Step, second: Step) -> tuple[Step, ...] | None:
    """slice(all_reduce(x), d) = reduce_scatter(x, d) on one axis: half of the bytes move."""
    kinds = (first.kind, second.kind)
    if kinds != (StepKind.ALL_REDUCE, StepKind.SLICE) or first.axis != second.axis:
        return None
    return (Step(kind=StepKind.REDUCE_SCATTER, axis=first.axis, dim=second.dim),)


@collective.rule(source="GSPMD (arXiv 2105.04663); Ulysses (arXiv 2309.14509)")
def slice_of_all_gather(first: Step, second: Step) -> tuple[Step, ...] | None:
    """slice(all_gather(x, d), e) = all_to_all(x, d, e) on one axis, and x itself when e is d."""
    kinds = (first.kind, second.kind)
    if kinds != (StepKind.ALL_GATHER, StepKind.SLICE) or first.axis != second.axis:
        return None
    if first.dim == second.dim:
        return ()
    return (Step(kind=StepKind.ALL_TO_ALL, axis=first.axis, dim=first.dim, to_dim=second.dim),)

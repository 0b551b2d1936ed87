"""Names of tensors that can be asked about."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from itertools import islice

from tilewright.errors import DemandError
from tilewright.extract.origins import Variable, find_origins
from tilewright.graph import Graph
from tilewright.rules.alternatives import Alternatives
from tilewright.rules.roll import Rolled


def variables_of(
    graph: Graph, rolled: Rolled, alternatives: tuple[Alternatives, ...]
) -> dict[str, Variable]:
    """Return the variable of each computed tensor, by the names of the model and those of plans."""
    names = {
        name: origin.made[1]
        for name, origin in find_origins(graph, rolled, alternatives).items()
        if origin.made is not None
    }
    for number, instance in enumerate(rolled.instances):
        block = rolled.blocks[instance.block]
        for tensor in alternatives[instance.block].classes:
            if not tensor.names and not tensor.is_constant and not tensor.is_input:
                names[f"{block.name}.{number}.{tensor.number}"] = (instance.block, tensor.number)
    return names


def unknown_tensor(tensor: str, graph: Graph, known: Collection[str]) -> DemandError:
    """Return the error of a tensor that is not among those that a model computes."""
    is_given = tensor in graph.constants or tensor in {p.tensor for p in graph.inputs}
    close = get_close_matches(tensor, known, 3)
    hint = (
        f"did you mean {' or '.join(close)}" if close else f"such as {', '.join(islice(known, 3))}"
    )
    reason = "is an input or a constant" if is_given else "is not in the model"
    return DemandError(f"tensor '{tensor}' {reason}, expected one that is computed; {hint}")

"""Call a chain of methods on tensors in memory: one block of a merge, or a whole tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from laconic.merging.draws import Draws
from laconic.merging.survey import survey_tensor
from laconic.registry import Method, get_method


@dataclass(frozen=True)
class Link:
    """One method of a chain with its knobs."""

    method: Method
    knobs: Mapping[str, Any]


def apply(
    name: str,
    base: Tensor | None,
    experts: Tensor,
    *,
    seed: int = 0,
    tensor: str = "",
    **knobs: Any,
) -> Tensor:
    """Run one method on whole tensors: base (*shape), experts (n, *shape), float32.

    Returns (*shape); for a sparsifier (n, *shape). Raises LaconicError for a bad name or knob.
    """
    method = get_method(name)
    return run_chain([Link(method, method.settings(knobs))], base, experts, Draws(seed, tensor))


def run_chain(
    chain: Sequence[Link],
    base: Tensor | None,
    experts: Tensor,
    rng: Draws,
    found: Callable[[int], Any] | None = None,
) -> Tensor:
    """Run a chain on one block: sparsifiers, one combiner, wrappers.

    `found` returns the result of the survey of the chain's i-th link; without it every survey is
    taken of the tensors at hand. A chain of sparsifiers alone returns the experts (n, *shape).
    """
    merged: Tensor | None = None
    for index, (method, knobs) in enumerate((link.method, link.knobs) for link in chain):
        survey = None
        if method.survey and found:
            survey = found(index)
        elif method.survey:
            survey = survey_tensor(method.survey(**knobs), or_zero(base), experts)
        supplied = {"base": base, "experts": experts, "merged": merged, "rng": rng}
        supplied["survey"] = survey
        output = method.function(*(supplied[name] for name in method.inputs), **knobs)
        if method.kind == "sparsifier":
            experts = output
        else:
            merged = output
    return experts if merged is None else merged


def or_zero(base: Tensor | None) -> Tensor:
    """Return the base, or a zero that broadcasts for methods that have none."""
    return base if base is not None else torch.zeros(1)

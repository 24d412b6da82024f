"""Call a chain of methods on tensors in memory: one block of a merge, or a whole tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from laconic.merging.draws import Draws
from laconic.merging.survey import survey_tensor
from laconic.recipe import Stage
from laconic.registry import Method, get_method
from laconic.tensors.header import TensorSpec
from laconic.tensors.names import layer_of, role_of


@dataclass(frozen=True)
class Link:
    """One method of a chain with its knobs."""

    method: Method
    knobs: Mapping[str, Any]


@dataclass(frozen=True)
class TensorInfo:
    """Which tensor a method is working on: its name, full shape, role and layer."""

    name: str
    shape: tuple[int, ...]

    @property
    def role(self) -> str:
        """`embedding`, `head`, `norm`, `attention`, `mlp`, ...: see `laconic.tensors.names`."""
        return role_of(self.name)

    @property
    def layer(self) -> int:
        """The decoder layer; negative outside the layers."""
        return layer_of(self.name)


@dataclass(frozen=True)
class Context:
    """What the engine supplies beside tensors for one block.

    `found` returns the result of the survey of the chain's i-th link; without it every survey is
    taken of the tensors at hand. `stats`: the statistics of this tensor, for methods that name
    them.
    """

    rng: Draws
    tensor: TensorInfo
    stats: Any = None
    found: Callable[[int], Any] | None = None


def apply(
    name: str,
    base: Tensor | None,
    experts: Tensor,
    *,
    seed: int = 0,
    tensor: str = "",
    stats: Any = None,
    merged: Tensor | None = None,
    **knobs: Any,
) -> Tensor:
    """Run one method on whole tensors: base (*shape), experts (n, *shape), float32.

    tensor: the name it goes by, for methods that treat roles differently and for random draws.
    merged: what a wrapper wraps, (*shape); the average of the experts unless given.
    Returns (*shape); for a sparsifier (n, *shape). Raises LaconicError for a bad name or knob.
    """
    method = get_method(name)
    info = TensorInfo(tensor, tuple(experts.shape[1:]))
    context = Context(Draws(seed, tensor), info, stats)
    if method.kind == "wrapper" and merged is None:
        merged = experts.mean(0)
    return run_chain([Link(method, method.settings(knobs))], base, experts, context, merged)


def unit_of(stages: Sequence[Stage], output: TensorSpec) -> int:
    """How many neighbouring entries of a tensor its chain must be given together."""
    tensor = TensorInfo(output.name, output.shape)
    return max((get_method(s.method).unit(tensor, s.knobs) for s in stages), default=1)


def run_chain(
    chain: Sequence[Link],
    base: Tensor | None,
    experts: Tensor,
    context: Context,
    merged: Tensor | None = None,
) -> Tensor:
    """Run a chain on one block: sparsifiers, one combiner, wrappers.

    merged: a merge to begin with, for a chain of wrappers alone. A chain of sparsifiers alone
    returns the experts (n, *shape). Wrappers see the parents as they were before sparsifiers.
    """
    parents = experts
    for index, (method, knobs) in enumerate((link.method, link.knobs) for link in chain):
        survey = None
        if method.survey and context.found:
            survey = context.found(index)
        elif method.survey:
            survey = survey_tensor(method.survey(**knobs), or_zero(base, experts), experts)
        supplied = {
            "base": base,
            "experts": parents if method.kind == "wrapper" else experts,
            "merged": merged,
            "rng": context.rng,
            "tensor": context.tensor,
            "stats": context.stats and context.stats.on(experts.device),
            "survey": survey,
        }
        output = method.function(*(supplied[name] for name in method.inputs), **knobs)
        if method.kind == "sparsifier":
            experts = output
        else:
            merged = output
    return experts if merged is None else merged


def or_zero(base: Tensor | None, experts: Tensor) -> Tensor:
    """Return the base, or a zero that broadcasts to the experts for methods that have none."""
    return base if base is not None else experts.new_zeros(1)

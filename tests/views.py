"""Statistics that tests make up for one tensor: every kind, different in every layer and row."""

from __future__ import annotations

from dataclasses import fields

import torch

from laconic.statistics.view import Information, TensorStatistics

LAYERS, SAMPLES = 3, 5


def view(shape: tuple[int, ...], experts: int = 3, layer: int = 1) -> TensorStatistics:
    """Statistics of a model with three layers, for one tensor of a shape."""
    random = torch.Generator().manual_seed(7)

    def draw(*size: int) -> torch.Tensor:
        return torch.rand(size, generator=random, dtype=torch.float64)

    def information() -> Information:
        groups = (-3, -2, -1, *range(LAYERS))
        size = (len(groups), SAMPLES)
        return Information(groups, 2 + draw(*size), 1 + draw(*size))

    return TensorStatistics(
        layer=layer,
        channel_means=draw(shape[-1]) if shape else None,
        crossed_sensitivity=draw(experts, LAYERS),
        task_sensitivity=draw(experts, LAYERS),
        logit_distances=draw(experts, experts),
        merged_information=information(),
        expert_information=tuple(information() for _ in range(experts)),
        fisher=draw(LAYERS),
        delta_norms=draw(LAYERS),
        think_inputs=draw(2, shape[-1]).float() if len(shape) > 1 else None,
    )


def only(*kinds: str, of: TensorStatistics) -> TensorStatistics:
    """The same statistics with all kinds but these left out."""
    keep = {"layer", *kinds}
    values = {f.name: getattr(of, f.name) for f in fields(of) if f.name in keep}
    return TensorStatistics(**values)

"""Straight-line merges: averages, interpolation and task arithmetic."""

from __future__ import annotations

import torch
from torch import Tensor

from laconic.merging.blocks import weighted_sum
from laconic.merging.knobs import Scale, Weight
from laconic.registry import method


@method(source="Wortsman et al. 2022, arXiv:2203.05482")
def average(experts: Tensor) -> Tensor:
    """Average the parents (a uniform model soup).

    theta* = (1/n) sum_i theta_i

    experts: (n, *shape) float32, every parent, the quick model among them. Returns (*shape).
    """
    return experts.mean(0)


@method(source="Wortsman et al. 2022, arXiv:2203.05482")
def linear(experts: Tensor, *, weights: tuple[Scale, ...] | None = None) -> Tensor:
    """Average the parents with weights that are normalised to sum to one.

    theta* = sum_i w_i theta_i / sum_i w_i

    experts: (n, *shape) float32. Returns (*shape).
    weights: one per parent, in the recipe's order; their sum must not be zero; none: equal.
    """
    if weights is None:
        return experts.mean(0)
    total = sum(weights)
    return weighted_sum(experts, tuple(weight / total for weight in weights))


@method(source="Wu et al. 2025, arXiv:2510.10977", parents=2)
def interpolation(experts: Tensor, *, weight: Weight = 0.5) -> Tensor:
    """Interpolate between the quick and the slow model.

    theta* = (1 - lambda) theta_quick + lambda theta_slow

    experts: (2, *shape) float32, quick then slow. Returns (*shape).
    weight: lambda in [0, 1]; 0 is the quick model and 1 the slow one, both bit for bit.
    Equals task arithmetic with the quick model as base and alpha = lambda.
    """
    return torch.lerp(experts[0], experts[1], weight)


@method(source="Ilharco et al. 2022, arXiv:2212.04089")
def task_arithmetic(
    base: Tensor, experts: Tensor, *, alpha: Scale | tuple[Scale, ...] = 0.7
) -> Tensor:
    """Add the scaled task vectors to the base.

    theta* = theta_0 + sum_i alpha_i (theta_i - theta_0)

    base: (*shape) float32; experts: (n, *shape) float32, the parents that are not the base.
    alpha: one coefficient for the SUM of all task vectors, or one per parent. With several
    parents a single alpha overshoots unless it is near 1/n. 0.7 is the setting of
    arXiv 2503.20641 at every size.
    """
    return weighted_sum(experts - base, alpha, reuse=True).add_(base)

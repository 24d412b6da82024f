"""Model Stock: how far to go from the base to the average, from the angle between parents."""

from __future__ import annotations

import torch
from torch import Tensor

from laconic.merging.gram import GramSurvey, cosines
from laconic.registry import method


def _survey(**_: object) -> GramSurvey:
    return GramSurvey(deltas=True)


@method(source="Jang et al. 2024, arXiv:2403.19522", survey=_survey, least=2)
def model_stock(base: Tensor, experts: Tensor, survey: Tensor) -> Tensor:
    """Go from the base towards the average of the parents as far as their angle says.

    cos = mean over pairs of cos(delta_i, delta_j), delta_i = theta_i - theta_0;
    t = n cos / (1 + (n - 1) cos); theta* = t mean_i theta_i + (1 - t) theta_0

    base: (*shape) float32; experts: (n, *shape) float32, at least two parents that are not the
    base, for one task vector has no angle: a pair whose quick model is the base cannot be merged
    so. Returns (*shape). Each tensor has its own t. Task vectors of unrelated training are nearly
    orthogonal, which keeps the result near the base. Where 1 + (n - 1) cos vanishes there is no
    such point, and the base is kept; a negative cosine gives a negative t, as in the paper.
    """
    count = len(experts)
    above = torch.triu(torch.ones(count, count, dtype=torch.bool), diagonal=1)
    cosine = float(cosines(survey)[above].mean()) if survey.any() else 0.0
    divisor = 1 + (count - 1) * cosine
    share = count * cosine / divisor if abs(divisor) > 1e-6 else 0.0
    return torch.lerp(base, experts.mean(0), share)

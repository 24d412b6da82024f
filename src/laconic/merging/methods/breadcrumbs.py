"""Model breadcrumbs: keep a task vector's middle magnitudes."""

from __future__ import annotations

import torch
from torch import Tensor

from laconic.merging.knobs import Share
from laconic.merging.survey import survey_tensor
from laconic.merging.tails import Body, BodySurvey, in_body
from laconic.registry import method


def _survey(*, trim: float, outliers: float) -> BodySurvey:
    return BodySurvey(trim, outliers)


@method(source="Davari and Belilovsky 2023, arXiv:2312.06795", kind="sparsifier", survey=_survey)
def breadcrumbs(
    base: Tensor,
    experts: Tensor,
    survey: Body | None = None,
    *,
    trim: Share = 0.85,
    outliers: Share = 0.01,
) -> Tensor:
    """Set the smallest and the largest entries of each task vector to zero.

    theta_i' = theta_0 + m_i * (theta_i - theta_0), m_i = 0 for the floor(entries * beta) smallest
    magnitudes of a tensor and its floor(entries * gamma) largest, else 1

    base: (*shape) float32; experts: (n, *shape) float32. Returns experts of the same shape, for
    the combiner that follows: `breadcrumbs -> task_arithmetic` is the paper's method.
    trim: beta, share of the smallest entries set to zero.
    outliers: gamma, share of the largest entries set to zero.
    Nothing is rescaled. Thresholds are exact; of tied magnitudes the earliest count as smaller.
    When both shares leave nothing the result is the base.
    """
    if survey is None:
        survey = survey_tensor(_survey(trim=trim, outliers=outliers), base, experts)
    return torch.where(in_body(experts - base, survey), experts, base)

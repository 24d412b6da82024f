"""ACM: layers on which base and merge agree already take a smaller step."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from laconic.merging.knobs import Scale
from laconic.registry import method
from laconic.statistics.view import Information, TensorStatistics, required

SOURCE = "Yao et al. 2025, arXiv:2505.14009"
Shift = Literal["per_layer", "global", "none"]
Estimator = Literal["exact", "hist"]


@method(source=SOURCE, kind="wrapper", needs=("merged_information",))
def acm(
    base: Tensor,
    merged: Tensor,
    stats: TensorStatistics,
    *,
    t: Scale = 0.7,
    shift: Shift = "per_layer",
    estimator: Estimator = "exact",
    level_matched: bool = False,
) -> Tensor:
    """Pull a merge back to the base by a coefficient per layer from mutual information (the code).

    theta* = theta_0 + c_g (theta_m - theta_0), c_g = 1 - mean_s sigmoid(t (I_gs - max_s I_gs)),
    I_gs = mutual information of the outputs of base and merge in group g for prompt s

    base, merged: (*shape) float32. Returns (*shape).
    stats: `merged_information`: groups are the decoder layers (outputs of down_proj, used for the
      whole layer), the embedding, the final norm and the head; the text is questions only.
    t: temperature; 0.7 is the paper's for every L2S pair (flat from 0.5 to 0.9).
    shift: what is subtracted from I: `per_layer` its largest over prompts, as the code does, so
      that c_g holds the spread over prompts, not the level of I; `global` the largest of all;
      `none`, the paper's equation.
    estimator: `exact`: values rounded to bfloat16 are the labels, as the code does; `hist`: 128
      equal bins each.
    level_matched: every tensor takes the mean coefficient of the decoder layers: the control that
      shows what the shape of the coefficients adds to their level.
    With the shifts c_g lies in [0.5, 1): this can only pull towards the base. See `acm_paper` for
    the published equation, which weighs task vectors.
    """
    found = required(stats, "merged_information", "acm")
    each = acm_coefficients(found, t=t, shift=shift, estimator=estimator)
    return base + _pick(each, found.groups, stats.layer, level_matched) * (merged - base)


@method(source=SOURCE, kind="sparsifier", needs=("expert_information",))
def acm_paper(
    base: Tensor,
    experts: Tensor,
    stats: TensorStatistics,
    *,
    t: Scale = 0.7,
    estimator: Estimator = "exact",
    level_matched: bool = False,
) -> Tensor:
    """Weigh each task vector by a coefficient per layer from mutual information (the paper).

    theta_i' = theta_0 + lambda_i^k (theta_i - theta_0), lambda_i^k = 1 - 1 / (1 + exp(-t I_i^k)),
    I_i^k = mutual information of the outputs of base and expert i in layer k, mean over prompts

    base: (*shape) float32; experts: (n, *shape) float32. Returns experts of the same shape, for the
    combiner that follows: task_arithmetic with alpha 1/n is the paper's equation.
    stats: `expert_information`, of the same groups and text as for `acm`.
    t: temperature; 0.7 for L2S pairs, -1.8 for general merging. At 0.7 lambda is at most 0.5.
    estimator: `exact` (bfloat16 values as labels) or `hist` (128 equal bins each).
    level_matched: every tensor takes the mean coefficient of the decoder layers: the control.
    The numbers of the paper come from its code, which is `acm`.
    """
    rows = []
    for expert, found in zip(
        experts, required(stats, "expert_information", "acm_paper"), strict=True
    ):
        mean = getattr(found, estimator).double().mean(1)
        each = 1 - torch.sigmoid(t * mean)
        scale = _pick(each, found.groups, stats.layer, level_matched)
        rows.append(base + scale * (expert - base))
    return torch.stack(rows)


def acm_coefficients(
    information: Information, *, t: float, shift: Shift, estimator: Estimator
) -> Tensor:
    """Return the code's coefficient of every group, (groups,) float64."""
    values: Tensor = getattr(information, estimator).double()
    if shift == "per_layer":
        values = values - values.max(dim=1, keepdim=True).values
    elif shift == "global":
        values = values - values.max()
    return 1 - torch.sigmoid(t * values).mean(1)


def _pick(each: Tensor, groups: tuple[int, ...], layer: int, level_matched: bool) -> float:
    """Return a layer's coefficient; the mean of the decoder layers for a group that has none."""
    if layer in groups and not level_matched:
        return each[groups.index(layer)].item()
    return each[[group >= 0 for group in groups]].mean().item()

"""TIES: trim, elect sign, and merge."""

from __future__ import annotations

from torch import Tensor

from laconic.merging.blocks import ZeroSign, agreeing_mean, elect_sign, trim_smallest
from laconic.merging.bracket import BracketSurvey
from laconic.merging.knobs import Scale, Share
from laconic.merging.survey import Scope, Survey, Trimming, TrimRule, TrimSurvey, survey_tensor
from laconic.registry import method


def _survey(
    *, trim: float, scope: Scope, rule: TrimRule, zero_sign: ZeroSign, **_: object
) -> Survey:
    if scope == "tensor" and zero_sign == "plus":
        return BracketSurvey(trim, rule)
    return TrimSurvey(trim, rule, zero_sign)


@method(source="Yadav et al. 2023, arXiv:2306.01708", survey=_survey)
def ties(
    base: Tensor,
    experts: Tensor,
    survey: Trimming | None = None,
    *,
    trim: Share = 0.8,
    alpha: Scale = 1.0,
    scope: Scope = "tensor",
    rule: TrimRule = "ge",
    zero_sign: ZeroSign = "plus",
) -> Tensor:
    """Trim each task vector, elect a sign per entry, average the entries that agree with it.

    delta_i = theta_i - theta_0, with c = floor(entries * trim) of its smallest magnitudes zeroed;
    s = sign(sum_i delta_i); m = mean of the non-zero delta_i with sign s;
    theta* = theta_0 + alpha m

    base: (*shape) float32; experts: (n, *shape) float32. Returns (*shape).
    trim: share of entries set to zero, from 0 to 1 (the paper's k; density is 1 - trim).
    alpha: scale of the merged task vector.
    scope: what is ranked together: each `tensor`, or the whole model (`global`, the original).
    rule: `ge` keeps every entry not smaller than the c-th smallest magnitude, one more than
      1 - trim and all ties with it, as the reference code does; `exact` drops exactly c, the
      earliest of the tied entries first.
    zero_sign: sign where the task vectors cancel: `plus` (+1, also mergekit's rule) or
      `majority` (the sign of the sum of all elected signs, as in the original code).
    With one task vector election and mean are inert: theta* = theta_0 + alpha trim(delta).
    """
    if survey is None:
        found = _survey(trim=trim, scope=scope, rule=rule, zero_sign=zero_sign)
        survey = survey_tensor(found, base, experts)
    kept = trim_smallest(experts - base, survey.cut, reuse=True)
    merged = kept[0] if len(kept) == 1 else agreeing_mean(kept, elect_sign(kept, survey.zero_sign))
    return merged.mul_(alpha).add_(base)

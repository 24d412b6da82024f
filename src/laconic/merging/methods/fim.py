"""FIM-Merging: small steps where the base is sharp and the task vector long."""

from __future__ import annotations

import torch
from torch import Tensor

from laconic.merging.apply import TensorInfo
from laconic.merging.knobs import Positive, Scale
from laconic.registry import method
from laconic.statistics.view import TensorStatistics, required


@method(
    source="Xia 2026, arXiv:2603.21705 (reconstruction)",
    kind="wrapper",
    needs=("fisher", "delta_norms"),
)
def fim(
    base: Tensor,
    merged: Tensor,
    tensor: TensorInfo,
    stats: TensorStatistics,
    *,
    kappa: Positive = 1.0,
    alpha_min: Scale = 0.4,
    alpha_max: Scale = 1.0,
    recenter: Scale | None = None,
    gate_scale: Scale = 1.0,
    level_matched: bool = False,
) -> Tensor:
    """Scale a merge per layer by Fisher information on random tokens; a RECONSTRUCTION.

    theta*^l = theta_0^l + alpha_l (theta_m^l - theta_0^l),
    alpha_l = alpha_min + (alpha_max - alpha_min) sigmoid(-kappa z_l),
    z_l = (log s_l - mean) / std over layers, s_l = F_l ||delta_l||_F^2

    base, merged: (*shape) float32. Returns (*shape).
    stats: `fisher` F_l, the mean squared gradient of the base's next-token loss on 8 sequences of
      64 uniform random token ids; `delta_norms`, summed over task vectors. No text is needed.
    kappa: steepness.
    alpha_min: coefficient of the sharpest layers.
    alpha_max: coefficient of the flattest layers.
    recenter: shift all coefficients so that their mean is this number (say 0.7, to be compared
      with task_arithmetic at 0.7: the shape at a given level); none: no shift.
    gate_scale: further factor on gate_proj (0.7 in the published FIM-TIES).
    level_matched: every layer takes the mean of the coefficients: the control.
    `task_arithmetic(alpha=1) -> fim` is FIM-TA; `ties(trim=0.8, alpha=1) -> fim(gate_scale=0.7)`
    is FIM-TIES (trim 0.6 at 7B). The published text gives F_l, s_l and "log-normalise, then
    sigmoid"; the map from s_l to alpha_l, its knobs, and the mean coefficient outside the decoder
    layers are our reading. The published residual-norm calibration is left out.
    """
    fisher = required(stats, "fisher", "fim")
    norms = required(stats, "delta_norms", "fim")
    each = fim_coefficients(fisher, norms, kappa, alpha_min, alpha_max)
    if recenter is not None:
        each = each + (recenter - each.mean())
    inside = stats.layer >= 0 and not level_matched
    scale = (each[stats.layer] if inside else each.mean()).item()
    if "gate_proj" in tensor.name:
        scale *= gate_scale
    return base + scale * (merged - base)


def fim_coefficients(
    fisher: Tensor, norms: Tensor, kappa: float, alpha_min: float, alpha_max: float
) -> Tensor:
    """Return alpha_l for every layer: (layers,) Fisher and squared norms in, (layers,) out."""
    tiny = torch.finfo(torch.float64).tiny
    logs = (fisher.double() * norms.double()).clamp(min=tiny).log()
    spread = (logs - logs.mean()) / (logs.std(correction=0) + 1e-12)
    return alpha_min + (alpha_max - alpha_min) * torch.sigmoid(-kappa * spread)

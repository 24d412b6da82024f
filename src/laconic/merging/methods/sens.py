"""Sens-Merging: per-layer coefficients from the sensitivity of the loss to each layer."""

from __future__ import annotations

import torch
from torch import Tensor

from laconic.merging.blocks import weighted_sum
from laconic.merging.knobs import Positive, Scale
from laconic.registry import method
from laconic.statistics.view import TensorStatistics, required

SOURCE = "Liu et al. 2025, arXiv:2502.12420"
PAIR = 2
"""K of the released form: its two coefficients sum to the number of models."""


@method(source=SOURCE, parents=2, needs=("crossed_sensitivity",))
def sens(
    experts: Tensor,
    stats: TensorStatistics,
    *,
    alpha: Scale = 0.7,
    temperature: Positive = 2.0,
    scale_base: bool = True,
) -> Tensor:
    """Merge quick and slow with layer coefficients from crossed sensitivities (released L2S form).

    theta*^l = c_q^l theta_q^l + c_s^l alpha (theta_s^l - theta_q^l) in decoder layer l, and
    theta* = theta_q + alpha (theta_s - theta_q) outside the layers;
    (c_q^l, c_s^l) = 2 softmax(((1 - alpha) s_q^l, alpha s_s^l) / T), s = S / ||S||_2 over layers

    experts: (2, *shape) float32, quick then slow. Returns (*shape).
    stats: `crossed_sensitivity` (2, layers): S^l is the sum of |theta * g| over the entries of
      layer l and over samples, for the loss on answer tokens; the quick model reads the slow
      model's answers and the slow model the quick one's.
    alpha: coefficient of the task vector and prior of the softmax at once (arXiv 2503.20641: 0.4
      at 1.5B, 0.7 at 7B, 0.8 at 14B).
    temperature: T > 0 (3.0, 2.0 and 6.0 there); a large T is task arithmetic at alpha.
    scale_base: c_q scales the quick weights too, norms and biases included, as the released code
      does; false leaves them: theta_q + c_s alpha delta. That scaling may be a quirk of the code.
    Not the paper's form: with one task vector that is plain task arithmetic (see `sens_task`).
    The control is task_arithmetic at the SAME alpha: coefficients differ from it by a few percent.
    """
    start, delta = experts[0], experts[1] - experts[0]
    if stats is not None and stats.layer < 0:
        return start + alpha * delta
    found = sens_coefficients(required(stats, "crossed_sensitivity", "sens"), alpha, temperature)
    quick, slow = found[:, stats.layer].tolist()
    merged: Tensor = (quick if scale_base else 1.0) * start + slow * alpha * delta
    return merged


@method(source=SOURCE, needs=("task_sensitivity", "logit_distances"))
def sens_task(
    base: Tensor,
    experts: Tensor,
    stats: TensorStatistics,
    *,
    alpha: Scale | tuple[Scale, ...] = 0.5,
    temperature: Positive = 1.0,
) -> Tensor:
    """Add task vectors with layer coefficients from sensitivity and logit distance (paper's form).

    theta*^l = theta_0^l + sum_i K sigma_i^l alpha_i (theta_i^l - theta_0^l);
    sigma_i^l = softmax over i of (a_i^l tau_i / T), a_i = S_i / ||S_i||_2 over layers,
    tau_i = sum_(j != i) g_ij, normalised to sum 1, g_ij = mean ||f_i(x) - f_j(x)||_2, x of task j

    base: (*shape) float32; experts: (n, *shape) float32, n = K >= 2. Returns (*shape).
    stats: `task_sensitivity` (n, layers), of each expert on its own answers; `logit_distances`
      (n, n), over answer tokens. A recipe with `models` has one text for all of them.
    alpha: task-arithmetic coefficient, one for all or one per parent.
    temperature: T > 0.
    Power of the norm (1) and normalisation of tau (L1) are readings: the text is not clear. Outside
    the decoder layers K sigma is 1. With one task vector this is task arithmetic everywhere.
    """
    if stats is not None and stats.layer < 0:
        return base + weighted_sum(experts - base, alpha)
    found = task_coefficients(
        required(stats, "task_sensitivity", "sens_task"),
        required(stats, "logit_distances", "sens_task"),
        temperature,
    )
    each = alpha if isinstance(alpha, tuple | list) else (alpha,) * len(experts)
    scales = tuple(a * c for a, c in zip(each, found[:, stats.layer].tolist(), strict=True))
    return base + weighted_sum(experts - base, scales)


def sens_coefficients(sensitivity: Tensor, alpha: float, temperature: float) -> Tensor:
    """Return (c_q, c_s) for every layer: (2, layers) sensitivities in, (2, layers) out."""
    prior = torch.tensor([[1 - alpha], [alpha]], dtype=torch.float64)
    found: Tensor = PAIR * torch.softmax(prior * _profiles(sensitivity) / temperature, 0)
    return found


def task_coefficients(sensitivity: Tensor, distances: Tensor, temperature: float) -> Tensor:
    """Return K sigma for every expert and layer: (n, layers) and (n, n) in, (n, layers) out."""
    tau = distances.double().sum(1)
    tau = tau / tau.sum() if tau.sum() > 0 else tau
    scores = _profiles(sensitivity) * tau[:, None] / temperature
    found: Tensor = len(sensitivity) * torch.softmax(scores, 0)
    return found


def _profiles(sensitivity: Tensor) -> Tensor:
    norms = sensitivity.double().norm(dim=1, keepdim=True)
    found: Tensor = sensitivity.double() / norms.clamp(min=torch.finfo(torch.float64).tiny)
    return found

"""SCE: select, calculate, erase."""

from __future__ import annotations

import torch
from torch import Tensor

from laconic.merging.knobs import Share
from laconic.registry import method

_CHUNK = 1 << 20  # entries


@method(source="Wan et al. 2024, arXiv:2408.07990", pointwise=False, least=2)
def sce(base: Tensor, experts: Tensor, *, select: Share = 1.0) -> Tensor:
    """Select the entries where task vectors differ most, weight by energy, erase other signs.

    delta_i = theta_i - theta_0, zero but for the floor(select * #{var > 0}) entries whose
    variance over i is largest; w_i = mean(delta_i^2); s = sign(sum_i delta_i), + for 0;
    theta* = theta_0 + sum_i w_i delta_i [sign(delta_i) = s] / sum_i w_i [sign(delta_i) = s]

    base: (*shape) float32; experts: (n, *shape) float32, at least two parents that are not the
    base: the variance of one task vector is 0. Returns (*shape).
    select: share of entries kept; 1 keeps all (FuseO1's setting). Of tied variances the earliest
      entries are kept.
    Weights are per tensor and of the kept entries. An entry where no task vector has the sign s
    keeps the base's value.
    """
    deltas = experts - base
    if deltas.numel() == 0:
        return base.clone()
    if select < 1:
        deltas = deltas * _largest(_scatter(deltas), select)
    energy = torch.linalg.vector_norm(
        deltas.reshape(len(deltas), -1), dim=1, dtype=torch.float64
    ).square()
    weights = (energy / energy.sum().clamp(min=1e-300)).float()
    sign = torch.where(deltas.sum(0) < 0, -1.0, 1.0)
    top, bottom = torch.zeros_like(base), torch.zeros_like(base)
    for delta, weight in zip(deltas, weights, strict=True):
        agreeing = weight * (delta * sign > 0)
        top += agreeing * delta
        bottom += agreeing
    return base + torch.where(bottom > 0, top / bottom, 0.0)


def _scatter(deltas: Tensor) -> Tensor:
    """Return n^2 times the variance over i per entry, (*shape), summed in float64.

    In float32 the order of the parents would decide between entries that tie.
    """
    out = torch.empty_like(deltas[0])
    flat, total = deltas.reshape(len(deltas), -1), out.view(-1)
    for start in range(0, len(total), _CHUNK):
        exact = flat[:, start : start + _CHUNK].double()
        scatter = len(deltas) * exact.square().sum(0) - exact.sum(0).square()
        total[start : start + _CHUNK] = scatter
    return out.clamp_(min=0)


def _largest(values: Tensor, share: float) -> Tensor:
    """Tell the floor(share * non-zeros) largest entries, the earliest of those that tie."""
    flat = values.reshape(-1)
    count = int(int(torch.count_nonzero(flat)) * share)
    if count == 0:
        return torch.zeros_like(values, dtype=torch.bool)
    edge = flat.kthvalue(len(flat) - count + 1).values
    chosen = flat > edge
    tied = (flat == edge).nonzero()[: count - int(chosen.sum())]
    chosen[tied] = True
    return chosen.view(values.shape)

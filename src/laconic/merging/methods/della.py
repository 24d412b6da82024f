"""DELLA's MagPrune: drop task-vector entries at random, small ones more often."""

from __future__ import annotations

import torch
from torch import Tensor

from laconic.merging.draws import Draws
from laconic.merging.knobs import Share
from laconic.registry import method

_CHUNK = 1 << 22  # entries ranked at a time: ranks are 64-bit


@method(
    source="Deep et al. 2024, arXiv:2406.11617", kind="sparsifier", pointwise=False, rowwise=True
)
def della(
    base: Tensor,
    experts: Tensor,
    rng: Draws,
    *,
    drop: Share = 0.3,
    window: Share = 0.2,
    rescale: bool = True,
) -> Tensor:
    """Drop task-vector entries at random, small ones more often, and rescale the others.

    Of the k entries of a row, that of rank r by magnitude (0 the smallest) is dropped with
    p_r = p + epsilon (1/2 - r / (k - 1)); theta_i' = theta_0 + (1 - M_i) delta_i / (1 - p_r),
    M_i ~ Bernoulli(p_r), delta_i = theta_i - theta_0

    base: (*shape) float32; experts: (n, *shape) float32. Returns experts of the same shape, for
    the combiner that follows. Rows run along the last dimension; a vector is one row.
    drop: p in [0, 1], the mean probability.
    window: epsilon, what the smallest entry's probability exceeds the largest's by; probabilities
      are clipped to [0, 1]. 0 is DARE. mergekit's epsilon is half of it.
    rescale: divide by 1 - p_r, so that the expectation is the undropped parent; mergekit matches
      the L1 norm instead.
    Equal magnitudes rank in index order.
    """
    if drop == window == 0:
        return experts
    deltas = experts - base
    chance = (drop + window * (0.5 - _relative_rank(deltas))).clamp_(0, 1)
    kept = rng.uniform(experts) >= chance
    if rescale:
        deltas /= (1 - chance).clamp_(min=1e-6)
    return torch.where(kept, base + deltas, base)


def _relative_rank(deltas: Tensor) -> Tensor:
    """Return each entry's rank by magnitude in its row, from 0 to 1; 1/2 in a row of one."""
    if deltas.numel() == 0 or deltas.ndim == 1 or deltas.shape[-1] == 1:
        return torch.full_like(deltas, 0.5)
    columns = deltas.shape[-1]
    ranks = torch.empty_like(deltas)
    places = torch.arange(columns, dtype=torch.float32, device=deltas.device) / (columns - 1)
    rows, out = deltas.reshape(-1, columns), ranks.view(-1, columns)
    size = max(_CHUNK // columns, 1)
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        order = part.abs().argsort(dim=-1, stable=True)
        out[start : start + size].scatter_(-1, order, places.expand(part.shape))
    return ranks

"""DARE: drop task-vector entries at random and rescale the rest."""

from __future__ import annotations

import torch
from torch import Tensor

from laconic.merging.draws import Draws
from laconic.merging.knobs import Share
from laconic.registry import method


@method(source="Yu et al. 2023, arXiv:2311.03099", kind="sparsifier")
def dare(
    base: Tensor, experts: Tensor, rng: Draws, *, drop: Share = 0.3, rescale: bool = True
) -> Tensor:
    """Drop each task-vector entry with probability p and divide the others by 1 - p.

    theta_i' = theta_0 + (1 - M_i) * delta_i / (1 - p), M_i ~ Bernoulli(p) per entry

    base: (*shape) float32; experts: (n, *shape) float32. Returns experts of the same shape, for
    the combiner that follows: `dare -> average`, `dare -> task_arithmetic`, `dare -> ties`.
    drop: p in [0, 1]; the expectation of the result is the undropped parent. p = 1 leaves the base.
    rescale: divide by 1 - p.
    Before TIES, the dropped zeros count among the smallest entries. Draws are float32 and keyed
    by (seed, tensor, expert); the reference code rounds p to bfloat16 and is not seeded.
    """
    if drop == 0:
        return experts
    scale = 1.0 / (1.0 - drop) if rescale and drop < 1 else 1.0
    kept = rng.uniform(experts) >= drop
    return torch.where(kept, base + (experts - base) * scale, base)

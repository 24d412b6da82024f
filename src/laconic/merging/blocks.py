"""The steps that methods are made of, under the names the papers give them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

ZeroSign = Literal["plus", "majority"]


@dataclass(frozen=True)
class Cut:
    """Where to trim n task vectors by magnitude, for one block of a tensor.

    `thresholds[i]`: entries of task vector i smaller in magnitude are dropped.
    `ties_dropped[i]`: so many of the entries equal to it, from the block's start, go too.
    """

    thresholds: tuple[float, ...]
    ties_dropped: tuple[int, ...]


def trim_smallest(deltas: Tensor, cut: Cut | None, *, reuse: bool = False) -> Tensor:
    """Set to zero the entries of each task vector that fall below its threshold.

    deltas: (n, *shape) float32. Returns the same shape.
    reuse: the task vectors are not needed any more, so that the result may take their place.
    """
    if cut is None:
        return deltas
    kept = deltas if reuse else torch.empty_like(deltas)
    for vector, out, threshold, ties in zip(
        deltas, kept, cut.thresholds, cut.ties_dropped, strict=True
    ):
        # hardshrink keeps |x| > bound; the next float below makes that |x| >= threshold
        below = torch.nextafter(torch.tensor(threshold), torch.tensor(0.0)).item()
        torch.hardshrink(vector, below, out=out)
        if ties:  # not trimmed, so that they are in `out` too
            tied = (out.view(-1).abs() == threshold).nonzero()[:ties]
            out.view(-1)[tied] = 0.0
    return kept


def elect_sign(kept: Tensor, zero_sign: float = 1.0) -> Tensor:
    """Return the sign of the summed task vectors per entry, `zero_sign` where they cancel.

    kept: (n, *shape). Returns (*shape) of -1, 0, 1.
    """
    sign = kept.sum(0).sign_()
    return sign.masked_fill_(sign == 0, zero_sign)


def agreeing_mean(kept: Tensor, sign: Tensor) -> Tensor:
    """Average, per entry, the non-zero task vectors whose sign is the elected one.

    kept: (n, *shape); sign: (*shape). Returns (*shape); 0 where none agrees.
    """
    agrees = (kept * sign) > 0
    return (kept * agrees).sum(0) / agrees.sum(0).clamp_(min=1)


def weighted_sum(
    vectors: Tensor, weights: tuple[float, ...] | float, *, reuse: bool = False
) -> Tensor:
    """Sum (n, *shape) vectors, each times its weight, or all times one weight.

    reuse: the vectors are not needed any more, so that the sum may take their place.
    """
    each = (weights,) * len(vectors) if isinstance(weights, int | float) else weights
    total = vectors[0].mul_(each[0]) if reuse else vectors[0] * each[0]
    for vector, weight in zip(vectors[1:], each[1:], strict=True):
        total.add_(vector, alpha=weight)
    return total

"""LoRE-Merging: low-rank task vectors around an approximate base."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

from laconic.merging.apply import TensorInfo
from laconic.merging.blocks import weighted_sum
from laconic.merging.knobs import Count, Scale, Threshold
from laconic.merging.spectrum import MuMode, soft_threshold, threshold_of
from laconic.registry import method


def stays_dense(tensor: TensorInfo, *, embeddings: bool, **_: object) -> bool:
    """Whether a method of low rank leaves a tensor as it is, entry by entry."""
    return len(tensor.shape) < 2 or (not embeddings and tensor.role in ("embedding", "head"))


@method(source="Liu et al. 2025, arXiv:2502.10749", pointwise=False, streams=stays_dense)
def lore(
    experts: Tensor,
    tensor: TensorInfo,
    *,
    mu: Threshold = 0.01,
    mu_mode: MuMode = "absolute",
    lam: Scale = 1.0,
    weights: tuple[Scale, ...] = (0.3, 0.7),
    iters: Count = 20,
    embeddings: bool = False,
) -> Tensor:
    """Find an approximate base and low-rank task vectors around it; add them up, weighted.

    From delta_i = 0, `iters` times: theta_0 = (1/n) sum_i (theta_i - delta_i), then every
    delta_i = SVT(theta_i - theta_0; mu), SVT(X; mu) = U diag(max(sigma - mu, 0)) V^T; at the end
    theta* = theta_0 + lambda sum_i w_i delta_i. For two parents the first sweep is stationary:
    theta* = (theta_1 + theta_2) / 2 + lambda (w_2 - w_1) SVT((theta_2 - theta_1) / 2; mu)

    experts: (n, *shape) float32, quick then slow; the last two dimensions are a matrix.
    mu: threshold of the singular values, at least 0; with mu = 0 this is task arithmetic.
    mu_mode: `absolute`; `fraction` of the largest singular value; `energy`, the share of squared
      singular values that is cut away whole. An absolute 0.01 removes almost nothing of a large
      matrix. Fractions and energies are taken of theta_i - mean(theta), before the first sweep.
    lam: lambda, scale of the task vectors.
    weights: w, one per parent, in the recipe's order.
    iters: sweeps, for three parents and more; theta_0 is refreshed once after the last.
    embeddings: treat embedding and head like other matrices; without it they, like vectors and
      biases, move by the unthresholded weighted difference.
    Equal weights give the plain average of two parents for every mu and lambda, of more parents
    when lambda times the sum of weights is 1: that draws a warning. The update is the one in use;
    the objective as printed, with a squared nuclear norm, has another minimum. Weights (0.3, 0.7)
    are our reading: arXiv 2503.20641 reports no setting, but results that are not the average's.
    """
    _warn_if_average(weights, lam, len(experts))
    mean = experts.mean(0)
    if not has_matrix(tensor, experts[0], embeddings):
        return mean + lam * weighted_sum(experts - mean, weights)
    if len(experts) == 2:
        half = (experts[1] - experts[0]) / 2
        return mean + lam * (weights[1] - weights[0]) * soft_threshold(half, mu, mu_mode)
    cuts = threshold_of(experts - mean, mu, mu_mode)
    approximate_base, deltas = _sweep(experts, cuts, iters)
    return approximate_base + lam * weighted_sum(deltas, weights)


@method(source="after Liu et al. 2025, arXiv:2502.10749", pointwise=False, streams=stays_dense)
def lore_base(
    base: Tensor,
    experts: Tensor,
    tensor: TensorInfo,
    *,
    mu: Threshold = 0.01,
    mu_mode: MuMode = "absolute",
    alpha: Scale | tuple[Scale, ...] = 0.7,
    embeddings: bool = False,
) -> Tensor:
    """Add scaled task vectors with thresholded singular values to the real base.

    theta* = theta_0 + sum_i alpha_i SVT(theta_i - theta_0; mu)

    base: (*shape) float32; experts: (n, *shape) float32, the parents that are not the base; the
    last two dimensions are a matrix. LoRE's step around the base that a pair does have.
    mu: threshold of the singular values, at least 0; with mu = 0 this is task arithmetic.
    mu_mode: `absolute`; `fraction` of the largest singular value; `energy`, the share of squared
      singular values that is cut away whole.
    alpha: one coefficient for the sum of all task vectors, or one per parent.
    embeddings: threshold embedding and head too; without it they, like vectors and biases, follow
      task arithmetic.
    """
    deltas = experts - base
    if has_matrix(tensor, base, embeddings):
        deltas = soft_threshold(deltas, mu, mu_mode)
    return base + weighted_sum(deltas, alpha)


def has_matrix(tensor: TensorInfo, values: Tensor, embeddings: bool) -> bool:
    """Whether a method of low rank applies to this tensor: matrices, and stacks of them."""
    shaped = values.ndim > 1 and values.numel() > 0
    return shaped and (embeddings or tensor.role not in ("embedding", "head"))


def _sweep(experts: Tensor, cuts: Tensor, iters: int) -> tuple[Tensor, Tensor]:
    """Return theta_0 (*shape) and delta (n, *shape) after `iters` Jacobi sweeps and a refresh.

    cuts: a threshold for each matrix of the experts (n, ...).
    """
    deltas = torch.zeros_like(experts)
    for _ in range(iters):
        base = (experts - deltas).mean(0)
        deltas = soft_threshold(experts - base, cuts)
    return (experts - deltas).mean(0), deltas


def _warn_if_average(weights: tuple[float, ...], lam: float, parents: int) -> None:
    equal = len(set(weights)) == 1
    if equal and (parents == 2 or math.isclose(lam * sum(weights), 1)):
        warnings.warn("lore: with equal weights this is plain averaging", stacklevel=3)

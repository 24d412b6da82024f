"""Singular-value steps by the thin route: eigenvectors of the short side's Gram matrix.

X V g(sigma) V^T needs no left singular vectors, and V comes from X^T X, which is small. A float32
Gram matrix squares the condition number: singular values below about 1e-3 of the largest are
noise in it. Where a step depends on such values it is taken by `torch.linalg.svd` in float64.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from fractions import Fraction
from typing import Literal

import torch
from torch import Tensor

MuMode = Literal["absolute", "fraction", "energy"]
# singular values ascending (k,) -> what each is multiplied by, and the smallest that decided it
Gain = Callable[[Tensor], tuple[Tensor, float]]

RELIABLE = 1e-3  # of the largest singular value
_COLUMNS = 256  # of the Gram matrix at a time: the half below the diagonal is never computed
_log = logging.getLogger(__name__)


def soft_threshold(matrix: Tensor, mu: float, mode: MuMode = "absolute") -> Tensor:
    """Return SVT(X; mu) = U diag(max(sigma - mu, 0)) V^T of a matrix, or of each of a stack.

    matrix: (..., m, n) float32. mode: what mu means, see `threshold`.
    """

    def gain(sigma: Tensor) -> tuple[Tensor, float]:
        cut = threshold(sigma, mu, mode)
        return (1 - cut / sigma.clamp(min=1e-30)).clamp(min=0), cut

    return _each(matrix, gain)


def truncate(matrix: Tensor, rank: int) -> Tensor:
    """Return SVD_r(X), the best approximation of rank r, of a matrix or of each of a stack.

    matrix: (..., m, n) float32.
    """

    def gain(sigma: Tensor) -> tuple[Tensor, float]:
        kept = torch.ones_like(sigma)
        kept[: max(len(sigma) - rank, 0)] = 0
        return kept, float(sigma[max(len(sigma) - rank, 0)])

    return _each(matrix, gain)


def threshold(sigma: Tensor, mu: float, mode: MuMode) -> float:
    """Return the absolute threshold that mu stands for.

    sigma: ascending (k,). `absolute`: mu itself; `fraction`: mu times the largest; `energy`: the
    largest singular value whose squares, with all smaller ones, sum to at most mu of the total.
    """
    if mode == "absolute":
        return mu
    if mode == "fraction":
        return mu * float(sigma[-1])
    energy = sigma.double().square().cumsum(0)
    lost = int((energy <= mu * energy[-1]).sum())
    return float(sigma[lost - 1]) if lost else 0.0


def threshold_of(matrix: Tensor, mu: float, mode: MuMode) -> float:
    """Return the absolute threshold that mu stands for in a matrix (m, n)."""
    if mode == "absolute" or not matrix.numel():
        return mu
    return threshold(torch.linalg.svdvals(matrix).flip(0), mu, mode)


def rank_of(ratio: float, shape: torch.Size) -> int:
    """Return max(1, floor(ratio * min(m, n))) of a (..., m, n) matrix, exactly.

    A float product falls short: int((1 - 0.9) * 1000) is 99.
    """
    return max(1, int(Fraction(str(ratio)) * min(shape[-2:])))


def _each(matrix: Tensor, gain: Gain) -> Tensor:
    if matrix.ndim == 2:
        return _scaled(matrix, gain)
    stack = matrix.reshape(-1, *matrix.shape[-2:])
    return torch.stack([_scaled(one, gain) for one in stack]).view(matrix.shape)


def _scaled(matrix: Tensor, gain: Gain) -> Tensor:
    """Multiply each singular value of a matrix (m, n) by its gain."""
    if not matrix.any():
        return matrix.clone()
    if matrix.shape[0] < matrix.shape[1]:
        return _scaled(matrix.T, gain).T
    try:
        squares, vectors = torch.linalg.eigh(_gram(matrix))
    except RuntimeError:  # did not converge
        return _by_svd(matrix, gain)
    sigma = squares.clamp(min=0).sqrt()
    gains, deciding = gain(sigma)
    _tell(sigma, gains)
    if bool((gains == 1).all()):
        return matrix.clone()
    if deciding < RELIABLE * float(sigma[-1]):
        return _by_svd(matrix, gain)
    first = int((gains > 0).float().argmax()) if bool(gains.any()) else len(gains)
    vectors, gains = vectors[:, first:], gains[first:]
    if 2 * len(gains) < len(sigma):
        return torch.mm((matrix @ vectors) * gains, vectors.T)
    return torch.mm(matrix, (vectors * gains) @ vectors.T)


def _gram(tall: Tensor) -> Tensor:
    """Return X^T X of (m, n): its lower triangle, all that `eigh` reads, and the blocks around."""
    columns = tall.shape[1]
    gram = torch.zeros(columns, columns)
    for start in range(0, columns, _COLUMNS):
        block = tall[:, start : start + _COLUMNS]
        torch.mm(tall[:, start:].T, block, out=gram[start:, start : start + block.shape[1]])
    return gram


def _by_svd(matrix: Tensor, gain: Gain) -> Tensor:
    left, sigma, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    gains, _ = gain(sigma.flip(0))
    return torch.mm(left * (sigma * gains.flip(0)), right).to(matrix.dtype)


def _tell(sigma: Tensor, gains: Tensor) -> None:
    if _log.isEnabledFor(logging.DEBUG):
        energy = float((sigma * gains).square().sum() / sigma.square().sum())
        kept = int((gains > 0).sum())
        _log.debug("kept %d of %d singular values, %.4f of the energy", kept, len(sigma), energy)

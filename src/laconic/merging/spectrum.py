"""Singular-value steps by the thin route: eigenvectors of the short side's Gram matrix.

X V g(sigma) V^T needs no left singular vectors, and V comes from X^T X, which is small: all of V
by one decomposition, or, where few columns of it are wanted of a large matrix, those from a random
Krylov space, if they are proven to do. A float32 Gram matrix squares the condition number:
singular values below about 1e-3 of the largest are noise in it. Where a step depends on such
values it is taken by `torch.linalg.svd` in float64.

All of it stays on the matrix's device. On the processor the matrices of a stack are taken one by
one, on others all together.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, Protocol

import torch
from torch import Tensor

from laconic.merging.leading import Leading, affordable, leading

MuMode = Literal["absolute", "fraction", "energy"]

RELIABLE = 1e-3  # of the largest singular value
TRUNCATION = 0.01  # a truncation's largest error is within this share of the best one
SOFTENING = 1e-4  # of the largest singular value: each of the two errors of a soft threshold
_OVERSAMPLED = 8  # columns of a random start beyond the rank
_FEW = 4  # times fewer singular values above a threshold than columns of a random start
_COLUMNS = 128  # of the Gram matrix at a time: what is above the diagonal is copied
_log = logging.getLogger(__name__)


def soft_threshold(matrix: Tensor, mu: float | Tensor, mode: MuMode = "absolute") -> Tensor:
    """Return SVT(X; mu) = U diag(max(sigma - mu, 0)) V^T of a matrix, or of each of a stack.

    matrix: (..., m, n) float32. mu: one for all, or (...); see `threshold`. Where the short side
    is `LEAST_SIDE` or more and few singular values are left, the result may be off by two times
    `SOFTENING` of the largest one, in spectral norm.
    """
    mus = torch.as_tensor(mu, dtype=torch.float64, device=matrix.device)
    return _each(matrix, _Soft(mus.expand(matrix.shape[:-2]).reshape(-1), mode))


def truncate(matrix: Tensor, rank: int) -> Tensor:
    """Return SVD_r(X), the best approximation of rank r, of a matrix or of each of a stack.

    matrix: (..., m, n) float32. Where the short side is `LEAST_SIDE` or more and the rank small
    beside it, the matrix returned may be another one of rank r, whose distance to X in spectral
    norm is at most 1 + `TRUNCATION` times sigma_{r+1}, the least there is.
    """
    return _each(matrix, _First(rank))


def threshold(sigma: Tensor, mu: float | Tensor, mode: MuMode) -> Tensor:
    """Return the absolute threshold (...) that mu stands for.

    sigma: ascending (..., k). `absolute`: mu itself; `fraction`: mu times the largest; `energy`:
    the largest singular value whose squares, with all smaller ones, sum to at most mu of the total.
    """
    mus = torch.as_tensor(mu, dtype=torch.float64, device=sigma.device).expand(sigma.shape[:-1])
    if mode == "absolute":
        return mus.to(sigma.dtype)
    if mode == "fraction":
        return (mus * sigma[..., -1]).to(sigma.dtype)
    energy = sigma.double().square().cumsum(-1)
    lost = (energy <= mus[..., None] * energy[..., -1:]).sum(-1, keepdim=True)
    cut = sigma.gather(-1, (lost - 1).clamp(min=0))
    return torch.where(lost > 0, cut, torch.zeros_like(cut)).squeeze(-1)


def threshold_of(matrix: Tensor, mu: float, mode: MuMode) -> Tensor:
    """Return the absolute thresholds (...) that mu stands for in matrices (..., m, n)."""
    if mode == "absolute" or not matrix.numel():
        return torch.full(matrix.shape[:-2], mu, device=matrix.device)
    return threshold(torch.linalg.svdvals(matrix).flip(-1), mu, mode)


def rank_of(ratio: float, shape: torch.Size) -> int:
    """Return max(1, floor(ratio * min(m, n))) of a (..., m, n) matrix, exactly.

    A float product falls short: int((1 - 0.9) * 1000) is 99.
    """
    return max(1, int(Fraction(str(ratio)) * min(shape[-2:])))


class _Gains(Protocol):
    """What each singular value of a stack is multiplied by."""

    def part(self, rows: slice | Tensor) -> _Gains:
        """Return the same for some matrices of the stack."""

    def of(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gains (b, k) and the smallest value that decided them (b,).

        sigma: ascending (b, k).
        """

    def leading(self, gram: Tensor) -> Leading | None:
        """Return enough of the eigenvectors of X^T X (b, n, n), or None for all of them.

        None where that is not faster, or not proven to be enough.
        """


@dataclass(frozen=True)
class _First:
    """Keep the largest `rank` singular values."""

    rank: int

    def part(self, rows: slice | Tensor) -> _First:
        return self

    def of(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        first = max(sigma.shape[-1] - self.rank, 0)
        kept = torch.ones_like(sigma)
        kept[:, :first] = 0
        return kept, sigma[:, first]

    def leading(self, gram: Tensor) -> Leading | None:
        if not affordable(gram.shape[-1], self.rank + _OVERSAMPLED):
            return None
        found = leading(gram, self.rank + _OVERSAMPLED, depth=8)
        kept = self.of(found.values)[0] > 0
        bound = (1 + TRUNCATION) ** 2 * found.values[:, -self.rank - 1]
        return found if bool(found.proves(gram, kept, bound).all()) else None


@dataclass(frozen=True)
class _Soft:
    """Lower the singular values by mu (b,), see `threshold`."""

    mu: Tensor
    mode: MuMode

    def part(self, rows: slice | Tensor) -> _Soft:
        return _Soft(self.mu[rows], self.mode)

    def of(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        cut = threshold(sigma, self.mu, self.mode)
        return (1 - cut[:, None] / sigma.clamp(min=1e-30)).clamp(min=0), cut

    def leading(self, gram: Tensor) -> Leading | None:
        block = gram.shape[-1] // 24
        if self.mode == "energy" or not affordable(gram.shape[-1], block):
            return None
        if not self._leaves_few(gram, block):
            return None
        found = leading(gram, block, depth=4)
        sigma = found.values.clamp(min=0).sqrt()
        gains, cut = self.of(sigma)
        error = SOFTENING * sigma[:, -1]
        proven = found.proves(gram, gains > 0, (cut + error).square())
        proven &= found.coupling(gains > 0) <= error
        return found if bool(proven.all()) else None

    def _leaves_few(self, gram: Tensor, block: int) -> bool:
        """Guess whether few values stay above the threshold: those of a part of G interlace."""
        part = torch.linalg.eigvalsh(gram[:, :block, :block]).clamp(min=0).sqrt()
        cut = self.mu
        if self.mode == "fraction":
            trace = gram.diagonal(dim1=-2, dim2=-1).sum(-1)
            cut = cut * (gram.square().sum((-2, -1)) / trace.clamp(min=1e-30)).sqrt()
        return bool((_FEW * (part > cut[:, None]).sum(-1) < block).all())


def _each(matrix: Tensor, gains: _Gains) -> Tensor:
    if not matrix.numel():
        return matrix.clone()
    if matrix.shape[-2] < matrix.shape[-1]:
        return _each(matrix.mT, gains).mT
    stack = matrix.reshape(-1, *matrix.shape[-2:])
    if len(stack) == 1 or matrix.device.type != "cpu":
        return _scaled(stack, gains).view(matrix.shape)
    scaled = torch.empty_like(stack)
    for index in range(len(stack)):
        one = slice(index, index + 1)
        scaled[one] = _scaled(stack[one], gains.part(one))
    return scaled.view(matrix.shape)


def _scaled(tall: Tensor, gains: _Gains) -> Tensor:
    """Multiply each singular value of matrices (b, m, n), m at least n, by its gain."""
    gram = _gram(tall)
    try:
        some = gains.leading(gram)
        squares, vectors = (some.values, some.vectors) if some else torch.linalg.eigh(gram)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # did not converge
        return _by_svd(tall, gains)
    sigma = squares.clamp(min=0).sqrt()
    factors, deciding = gains.of(sigma)
    _tell(gram, sigma * factors)
    if bool((factors == 1).all()):
        return tall.clone()
    doubtful = deciding < RELIABLE * sigma[:, -1]
    if bool(doubtful.all()):
        return _by_svd(tall, gains)
    scaled = _times(tall, vectors, factors)
    if bool(doubtful.any()):
        scaled[doubtful] = _by_svd(tall[doubtful], gains.part(doubtful))
    return scaled


def _times(tall: Tensor, vectors: Tensor, factors: Tensor) -> Tensor:
    """Return X V diag(f) V^T: X (b, m, n), V (b, n, k), f (b, k) with its zeros first."""
    first = factors.shape[-1] - int((factors > 0).sum(-1).max())
    vectors, factors = vectors[..., first:], factors[:, None, first:]
    if 2 * factors.shape[-1] < tall.shape[-1]:
        return torch.bmm((tall @ vectors) * factors, vectors.mT)
    return torch.bmm(tall, (vectors * factors) @ vectors.mT)


def _gram(tall: Tensor) -> Tensor:
    """Return X^T X (b, n, n) of (b, m, n); on the processor only half of it is multiplied out."""
    if tall.device.type != "cpu":
        return tall.mT @ tall
    columns = tall.shape[-1]
    gram = tall.new_empty(len(tall), columns, columns)
    for one, out in zip(tall, gram, strict=True):
        for start in range(0, columns, _COLUMNS):
            block, after = slice(start, start + _COLUMNS), slice(start + _COLUMNS, None)
            torch.mm(one[:, start:].T, one[:, block], out=out[start:, block])
            out[block, after] = out[after, block].T
    return gram


def _by_svd(matrix: Tensor, gains: _Gains) -> Tensor:
    left, sigma, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    factors, _ = gains.of(sigma.flip(-1))
    return torch.bmm(left * (sigma * factors.flip(-1))[:, None], right).to(matrix.dtype)


def _tell(gram: Tensor, sigma: Tensor) -> None:
    if _log.isEnabledFor(logging.DEBUG):
        energy = sigma.square().sum(-1) / gram.diagonal(dim1=-2, dim2=-1).sum(-1)
        for kept, share in zip((sigma > 0).sum(-1).tolist(), energy.tolist(), strict=True):
            side = gram.shape[-1]
            _log.debug("kept %d of %d singular values, %.4f of the energy", kept, side, share)

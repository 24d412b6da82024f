"""The largest eigenvalues of Gram matrices from a random block Krylov space, and what proves them.

After Musco and Musco 2015, arXiv:1504.05477, who extend Halko, Martinsson and Tropp 2009,
arXiv:0909.4061. The start is keyed by its shape alone: same matrix, same result.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LEAST_SIDE = 512  # below it a whole decomposition takes no longer
COLUMNS_PER_SIDE = 1 / 20  # the largest block that is faster than a whole decomposition
_ROUNDING = 1e-6  # of the largest eigenvalue: what float32 leaves unproven


@dataclass(frozen=True)
class Leading:
    """Ritz pairs of a stack of symmetric matrices G (b, n, n): G V is nearly V diag(theta).

    values: theta, ascending (b, k), no larger than the eigenvalues they stand for; vectors: V, with
    orthonormal columns (b, n, k); images: G V (b, n, k).
    """

    values: Tensor
    vectors: Tensor
    images: Tensor

    def proves(self, gram: Tensor, kept: Tensor, bound: Tensor) -> Tensor:
        """Return whether all that the kept vectors leave of G lies below a bound (b,), each.

        kept: (b, k) bool, the last ones of each row; bound: (b,), of eigenvalues. The matrix
        bound I - (I - V V^T) G (I - V V^T) has a Cholesky factor if and only if the bound holds;
        with room for the rounding of float32.
        """
        last = slice(kept.shape[-1] - int(kept.sum(-1).max()), None)
        vectors, values = self.vectors[..., last], self.values[:, None, last]
        half = (self.images[..., last] - vectors * values / 2) * kept[:, None, last]
        rest = torch.baddbmm(gram, half, vectors.mT, beta=-1).baddbmm_(vectors, half.mT)
        room = bound - _ROUNDING * self.values[:, -1]
        rest.diagonal(dim1=-2, dim2=-1).add_(room[:, None])
        info: Tensor = torch.linalg.cholesky_ex(rest).info
        return info == 0

    def coupling(self, kept: Tensor) -> Tensor:
        """Return ||diag(theta)^(-1/2) V^T G (I - V V^T)||_F over the kept pairs, (b,).

        For G = X^T X it is how far, in Frobenius norm, X is from a matrix whose singular vectors
        are the kept ones and others orthogonal to them.
        """
        left = (self.images - self.vectors * self.values[:, None]).square().sum(1)
        return (left / self.values.clamp(min=1e-30) * kept).sum(-1).sqrt()


def affordable(side: int, block: int) -> bool:
    """Whether blocks of so many columns are faster than a decomposition of (side, side)."""
    return side >= LEAST_SIDE and block <= COLUMNS_PER_SIDE * side


def leading(gram: Tensor, block: int, depth: int) -> Leading:
    """Return the Ritz pairs of symmetric G (b, n, n) on the span of G W, ..., G^depth W.

    W: random (n, block). About the first `block` pairs are good; see `Leading.proves`.
    """
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(gram.shape[-1], block, generator=generator).to(gram.device)
    blocks = [torch.linalg.qr(gram @ start).Q]
    for _ in range(depth - 1):
        blocks.append(torch.linalg.qr(gram @ blocks[-1]).Q)
    basis = torch.linalg.qr(torch.cat(blocks, -1)).Q
    images = gram @ basis
    values, turn = torch.linalg.eigh(basis.mT @ images)
    return Leading(values, basis @ turn, images @ turn)

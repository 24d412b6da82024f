"""The inner products of a tensor's parents: all that methods on a sphere need to know of it."""

from __future__ import annotations

import threading

import torch
from torch import Tensor

from laconic.merging.survey import Place


class GramSurvey:
    """Sum the inner products of the parents, or of their task vectors, in float64, on the host.

    Angles between parents are small (cosine 0.9996 for a pair of reasoning models), so that
    float32 would lose half of their digits.
    """

    def __init__(self, *, deltas: bool = False) -> None:
        self._deltas = deltas
        self._sum: Tensor | None = None
        self._lock = threading.Lock()

    def see(self, base: Tensor, experts: Tensor, place: Place) -> None:
        """Take in one block: base (m,), experts (n, m), float32."""
        vectors = (experts - base if self._deltas else experts).double()
        products = (vectors @ vectors.T).cpu()
        with self._lock:
            self._sum = products if self._sum is None else self._sum + products

    def turn(self) -> bool:
        """One pass is enough."""
        return False

    def result(self, place: Place) -> Tensor:
        """Return the Gram matrix (n, n), float64, on the host; zero without entries."""
        return self._sum if self._sum is not None else torch.zeros(1, 1, dtype=torch.float64)


def cosines(gram: Tensor) -> Tensor:
    """Return the cosines (n, n) between vectors; 0 with a vector of norm 0."""
    norms = gram.diagonal().sqrt()
    scale = torch.where(norms > 0, 1 / norms, torch.zeros_like(norms))
    return (gram * scale[:, None] * scale).clamp(-1, 1)

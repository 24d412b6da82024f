"""Contiguous blocks of layers in which two models differ alike: BAMBO's partition, without data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from laconic.errors import LaconicError
from laconic.plan import Plan
from laconic.statistics.weights import read_input
from laconic.tensors.names import EMBEDDING_LAYER, layer_of

EVENNESS = 0.005
"""Weight of a block's distance from its even share of the prior (arXiv 2512.09972)."""
LEAST = 0.05
"""Smallest prior of a unit."""


@dataclass(frozen=True)
class Units:
    """What blocks are made of, in the order of depth: the embedding, the layers, what follows.

    prior: how much the slow model differs from the quick one in each, in [0.05, 1].
    """

    layers: int
    prior: tuple[float, ...]

    @property
    def count(self) -> int:
        """The layers and two: the embedding before them, final norm and head after them."""
        return self.layers + 2


def measure_units(plan: Plan) -> Units:
    """Read both parents once: the mean of |slow - quick| / |quick| over each unit's tensors.

    plan: with two experts per step, quick and slow (of interpolation). Then, as in AP-BMM
    (arXiv 2512.09972): sigmoid((x - median) / MAD), smoothed by [1, 2, 1] / 4, at least 0.05.
    """
    layers = 1 + max(layer_of(step.output.name) for step in plan.steps)
    found: list[list[float]] = [[] for _ in range(layers + 2)]
    for step in plan.steps:
        quick, slow = (read_input(tensor) for tensor in step.experts)
        norm = float(torch.linalg.vector_norm(quick))
        if norm > 0:
            change = float(torch.linalg.vector_norm(slow - quick)) / norm
            found[_unit(step.output.name, layers)].append(change)
    means = [float(np.mean(values)) if values else 0.0 for values in found]
    return Units(layers, tuple(float(value) for value in _normalised(np.array(means))))


def partition(prior: Sequence[float], count: int) -> tuple[tuple[int, int], ...]:
    """Cut the units into `count` contiguous blocks, (first, last) each, at the least cost.

    Cost of a block: sum of squared distances from its mean prior, and 0.005 times the squared
    distance of its sum from an even share. Raises LaconicError for more blocks than units.
    """
    if not 1 <= count <= len(prior):
        raise LaconicError(
            f"blocks: {count} blocks of {len(prior)} units (the embedding, the layers, final norm "
            f"with head); expected 1 to {len(prior)}"
        )
    values = np.array(prior)
    share = float(values.sum()) / count

    def cost(first: int, last: int) -> float:
        own = values[first : last + 1]
        spread = float(((own - own.mean()) ** 2).sum())
        return spread + EVENNESS * (float(own.sum()) - share) ** 2

    @cache
    def best(end: int, blocks: int) -> tuple[float, tuple[tuple[int, int], ...]]:
        """The cheapest cut of the units before `end`."""
        if blocks == 1:
            return cost(0, end - 1), ((0, end - 1),)
        options = []
        for start in range(blocks - 1, end):
            before, cuts = best(start, blocks - 1)
            options.append((before + cost(start, end - 1), (*cuts, (start, end - 1))))
        return min(options)

    return best(len(values), count)[1]


def _unit(tensor: str, layers: int) -> int:
    layer = layer_of(tensor)
    if layer >= 0:
        return layer + 1
    return 0 if layer == EMBEDDING_LAYER else layers + 1


def _normalised(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Sequence[float]:
    distance = values - np.median(values)
    spread = float(np.median(np.abs(distance)))
    squashed = 1 / (1 + np.exp(-distance / spread)) if spread > 0 else np.full(len(values), 0.5)
    padded = np.pad(squashed, 1, mode="edge")
    smooth = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
    return [float(value) for value in np.clip(smooth, LEAST, 1.0)]

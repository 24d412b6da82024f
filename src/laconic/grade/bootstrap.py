"""Bootstrap over questions: what a measure would have been on other questions of the same kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

DRAWS = 10_000
SEED = 0
COVERAGE = 0.95
CELLS = 4_000_000
"""Most draws x questions held at once: about 100 MB."""


@dataclass(frozen=True)
class Estimate:
    """A measured value and its 95% interval, in the measure's own unit."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, Any]:
        """The value and its interval as a JSON object."""
        return {"value": self.value, "interval": [self.low, self.high]}


def resampled_sums(columns: Array, seed: int = SEED, draws: int = DRAWS) -> Array:
    """Draw as many questions as there are, with replacement; sum each column over them.

    columns: (questions, columns) -> (draws, columns). One draw resamples all columns together, so
    that columns of two runs on the same questions stay paired.
    """
    rng = np.random.default_rng(seed)
    n = len(columns)
    step = max(1, CELLS // n)
    parts = []
    for start in range(0, draws, step):
        count = min(step, draws - start)
        picks = rng.integers(0, n, (count, n)) + n * np.arange(count)[:, None]
        times = np.bincount(picks.ravel(), minlength=count * n).reshape(count, n)
        parts.append(times @ columns)
    return np.concatenate(parts)


def estimate(statistic: Callable[[Array], Array], columns: Array, sums: Array) -> Estimate | None:
    """A statistic of column sums, (..., columns) -> (...), with its percentile interval.

    None where the statistic is undefined on the data itself. Draws on which it is undefined (no
    graded answer among them, say) are left out.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(statistic(columns.sum(0)))
        drawn = statistic(sums)
    if not np.isfinite(value):
        return None
    tail = (1 - COVERAGE) / 2
    low, high = np.quantile(drawn[np.isfinite(drawn)], [tail, 1 - tail])
    return Estimate(value, float(low), float(high))

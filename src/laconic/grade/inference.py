"""How sure a measured value or difference is: intervals and tests, paired by question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from laconic.grade.bootstrap import COVERAGE, DRAWS, SEED, Array, Estimate, estimate, resampled_sums

CLOSE_TO_NORMAL = 200
"""Questions from which on the clustered interval may be a normal one (arXiv:2503.01747)."""


def wilson(right: int, graded: int) -> Estimate | None:
    """The share right with Wilson's interval: for one greedy run."""
    if graded == 0:
        return None
    interval = stats.binomtest(right, graded).proportion_ci(COVERAGE, method="wilson")
    return Estimate(right / graded, float(interval.low), float(interval.high))


def share(hits: Array, of: Array) -> Estimate | None:
    """The mean of each question's share hits / of, with the interval that fits; both (questions,).

    One response per question: Wilson's interval, which says something where all or none hit too.
    Several: the question is the cluster. Questions with of = 0 are left out; None when all are.
    """
    kept = of > 0
    if not kept.any():
        return None
    if (of[kept] == 1).all():
        return wilson(round(float(hits[kept].sum())), int(kept.sum()))
    return clustered((hits[kept] / of[kept]).tolist())


def clustered(shares: Sequence[float], seed: int = SEED) -> Estimate | None:
    """The mean of each question's share right, with the question as the cluster.

    Standard error sd/sqrt(n) (arXiv:2411.00640) from 200 questions on; below, a bootstrap.
    """
    values = np.asarray(shares, dtype=np.float64)
    if len(values) < CLOSE_TO_NORMAL:
        columns = np.stack([values, np.ones_like(values)], axis=1)
        sums = resampled_sums(columns, seed) if len(values) else columns
        return estimate(lambda t: t[..., 0] / t[..., 1], columns, sums) if len(values) else None
    mean = float(values.mean())
    half = float(stats.norm.ppf((1 + COVERAGE) / 2) * values.std(ddof=1) / np.sqrt(len(values)))
    return Estimate(mean, max(0.0, mean - half), min(1.0, mean + half))


def decoding_error(shares: Sequence[float], k: int) -> float | None:
    """The standard error over new seeds on the same questions; None for fewer than two draws."""
    if k < 2 or not shares:
        return None
    p = np.asarray(shares, dtype=np.float64)
    return float(np.sqrt((p * (1 - p) / (k - 1)).mean() / len(p)))


def mcnemar(only_ours: int, only_theirs: int) -> float:
    """Exact p-value of two single runs: are the questions that only one gets right even?"""
    discordant = only_ours + only_theirs
    return 1.0 if discordant == 0 else float(stats.binomtest(only_ours, discordant).pvalue)


def sign_flip(differences: Sequence[float], seed: int = SEED, draws: int = DRAWS) -> float:
    """p-value of a mean paired difference, by flipping the signs of the questions' differences."""
    values = np.asarray(differences, dtype=np.float64)
    values = values[values != 0]
    if not len(values):
        return 1.0
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), (draws, len(values)))
    extreme = np.abs(signs @ values) >= abs(values.sum()) - 1e-12
    return float((extreme.sum() + 1) / (draws + 1))  # the data itself is one of the draws


def length_ratio(
    ours: Sequence[float] | Array, theirs: Sequence[float] | Array, seed: int = SEED
) -> Estimate | None:
    """Ratio of mean lengths on the same questions, with a bootstrap of its logarithm.

    None where it is not defined: no questions, or a mean length of zero.
    """
    columns = np.stack([np.asarray(ours, float), np.asarray(theirs, float)], axis=1)
    if not len(columns):
        return None

    def log_ratio(table: Array) -> Array:
        return np.asarray(np.log(table[..., 0]) - np.log(table[..., 1]))

    found = estimate(log_ratio, columns, resampled_sums(columns, seed))
    if found is None:
        return None
    return Estimate(*(float(np.exp(x)) for x in (found.value, found.low, found.high)))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p-values of several comparisons with one reference, adjusted together (Holm 1979)."""
    adjusted: dict[str, float] = {}
    highest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda n: p_values[n])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = highest
    return {name: adjusted[name] for name in p_values}

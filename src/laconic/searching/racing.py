"""Racing: merges answer growing, shared blocks of questions and leave when surely dominated."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

from laconic.searching.outcomes import Answer
from laconic.searching.study_file import Racing

Answers = Mapping[str, Answer]


@dataclass(frozen=True)
class Difference:
    """A mean paired difference and its interval."""

    value: float
    low: float
    high: float


def block_ends(total: int, racing: Racing) -> tuple[int, ...]:
    """How many questions have been asked after each block: doubling, the last one all."""
    if not racing.on:
        return (total,)
    ends = []
    end = racing.first
    while end < total:
        ends.append(end)
        end *= 2
    return (*ends, total)


def dominated_by(
    own: Answers, others: Iterable[tuple[str, Answers]], racing: Racing, looks: int
) -> str | None:
    """The name of a merge that surely dominates this one, on the questions both answered.

    looks: how often a merge is judged in all; the confidence is shared between them (Bonferroni).
    """
    tail = (1 - racing.confidence) / (2 * max(looks, 1))
    return next((name for name, other in others if _dominates(other, own, racing, tail)), None)


def accuracy_difference(one: Answers, other: Answers, tail: float) -> Difference:
    """Accuracy of `one` minus that of `other`, on the questions that both answered.

    Agresti and Min's interval (2005): half an observation is added to each cell of the paired
    table, so that it is not empty where the two agree on everything.
    """
    pairs = [(one[id].correct, other[id].correct) for id in one if id in other]
    gaps = [a - b for a, b in pairs if a is not None and b is not None]
    count = len(gaps) + 2
    mean = sum(gaps) / count
    variance = (sum(gap * gap for gap in gaps) + 1) / count - mean * mean
    half = float(stats.norm.isf(tail)) * math.sqrt(max(variance, 0.0) / count)
    return Difference(mean, mean - half, mean + half)


def token_difference(one: Answers, other: Answers, tail: float, slack: float = 0.0) -> Difference:
    """Mean tokens of `one` minus (1 + slack) times those of `other`, on shared questions.

    Student's interval of the paired differences; boundless for fewer than two questions.
    """
    gaps = [one[id].tokens - (1 + slack) * other[id].tokens for id in one if id in other]
    if len(gaps) < 2:
        return Difference(0.0, -math.inf, math.inf)
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / (len(gaps) - 1)
    half = float(stats.t.isf(tail, len(gaps) - 1)) * math.sqrt(variance / len(gaps))
    return Difference(mean, mean - half, mean + half)


def _dominates(other: Answers, own: Answers, racing: Racing, tail: float) -> bool:
    """Whether `other` is surely within the tolerances of `own`, or better, in both objectives."""
    if token_difference(other, own, tail, racing.tokens).high > 0:
        return False
    return accuracy_difference(other, own, tail).low >= -racing.accuracy


def longest(own: Sequence[int], cut: float, most: int) -> int:
    """The token limit of a search: a multiple of the slow parent's longest response.

    A response longer than that is longer than any of the parent it is to shorten: it cannot win.
    """
    return min(most, math.ceil(cut * max(own)))

"""Accuracy and length in one number, and what a change of length is, whichever way it is taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from laconic.grade.draws import average_at_k
from laconic.grade.grades import Grade

AES_WEIGHTS = (1.0, 3.0, 5.0)
"""Of shortening, of accuracy won and of accuracy lost (O1-Pruner, arXiv:2501.12570)."""


@dataclass(frozen=True)
class LengthChange:
    """A relative change of mean length over several sets, taken two ways (-0.5: half as long).

    mean_of_ratios: the mean over sets of their own change, as the paper's tables have it.
    ratio_of_means: the change of the mean of the sets' mean lengths.
    """

    mean_of_ratios: float
    ratio_of_means: float


@dataclass(frozen=True)
class SetMeans:
    """What one set of questions gave: the share right (None: nothing graded) and mean tokens."""

    accuracy: float | None
    tokens: float


@dataclass(frozen=True)
class Across:
    """A run against another over several sets, each set counted once, whatever its size.

    length: the change of length. aes: of the mean accuracies and `length.mean_of_ratios`; None
    where it is not defined.
    """

    length: LengthChange
    aes: float | None


def set_means(grades: Sequence[Grade]) -> dict[str, SetMeans]:
    """The means of each task of some grades."""
    sets: dict[str, list[Grade]] = {}
    for grade in grades:
        sets.setdefault(grade.task, []).append(grade)
    return {
        task: SetMeans(average_at_k(own), sum(one.tokens for one in own) / len(own))
        for task, own in sets.items()
    }


def across_sets(ours: Mapping[str, SetMeans], theirs: Mapping[str, SetMeans]) -> Across | None:
    """Compare the means of the same sets; None when a set of theirs has no tokens."""
    if not all(means.tokens for means in theirs.values()):
        return None
    length = length_change(
        {name: means.tokens for name, means in ours.items()},
        {name: means.tokens for name, means in theirs.items()},
    )
    accuracy, before = (_mean_accuracy(side) for side in (ours, theirs))
    if accuracy is None or not before:
        return Across(length, None)
    return Across(length, accuracy_efficiency(accuracy, before, length.mean_of_ratios))


def _mean_accuracy(sets: Mapping[str, SetMeans]) -> float | None:
    found = [means.accuracy for means in sets.values() if means.accuracy is not None]
    return sum(found) / len(found) if len(found) == len(sets) else None


def length_change(ours: Mapping[str, float], theirs: Mapping[str, float]) -> LengthChange:
    """The change between mean lengths per set. Raises ValueError for different sets."""
    if ours.keys() != theirs.keys() or not ours:
        raise ValueError(f"different sets: {sorted(ours)} and {sorted(theirs)}")
    ratios = [ours[name] / theirs[name] for name in ours]
    return LengthChange(
        sum(ratios) / len(ratios) - 1, sum(ours.values()) / sum(theirs.values()) - 1
    )


def accuracy_efficiency(
    accuracy: float,
    reference_accuracy: float,
    tokens_change: float,
    weights: tuple[float, float, float] = AES_WEIGHTS,
) -> float:
    """AES: shortening, plus accuracy won or minus accuracy lost, each with its weight.

    tokens_change: relative, -0.5 for half as long. Print the weights beside it: papers differ.
    """
    short, won, lost = weights
    gain = (accuracy - reference_accuracy) / reference_accuracy
    return -short * tokens_change + (won * gain if gain >= 0 else lost * gain)


def tokens_per_correct(grades: Sequence[Grade]) -> float | None:
    """All tokens divided by the number of right responses; None when none is right."""
    right = sum(one.correct is True for one in grades)
    return sum(one.tokens for one in grades) / right if right else None


def under_budget(grades: Sequence[Grade], budget: int) -> float | None:
    """The share right among the graded when only responses of at most `budget` tokens count.

    A longer response would have been cut before its answer: it counts as wrong.
    """
    graded = [one for one in grades if one.correct is not None]
    right = sum(one.correct is True and one.tokens <= budget for one in graded)
    return right / len(graded) if graded else None


def budget_curve(grades: Sequence[Grade], points: int = 24) -> list[dict[str, Any]]:
    """Accuracy under budgets that double from 32 tokens up to the longest response."""
    longest = max(one.tokens for one in grades)
    budgets = [32 * 2**n for n in range(points) if 32 * 2 ** (n - 1) < longest]
    return [{"tokens": b, "accuracy": under_budget(grades, b)} for b in budgets or [longest]]

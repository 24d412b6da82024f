"""The Pareto front of accuracy against tokens: who is on it, what it covers, whom to pick."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from laconic.errors import LaconicError


class Scored(Protocol):
    """Anything with an accuracy in [0, 1] and mean tokens."""

    @property
    def accuracy(self) -> float:
        """Share right, up is better."""

    @property
    def tokens(self) -> float:
        """Mean response length, down is better."""


T = TypeVar("T", bound=Scored)


@dataclass(frozen=True)
class Reference:
    """Where the hypervolume begins: the quick parent's accuracy, the slow parent's mean tokens.

    A merge counts for what it is more accurate than quick and shorter than slow.
    """

    accuracy: float
    tokens: float


def pareto(points: Sequence[T]) -> list[T]:
    """The points that none dominates, shortest first; of equal points the first only."""
    kept: list[T] = []
    for point in sorted(points, key=lambda p: (p.tokens, -p.accuracy)):
        if not kept or point.accuracy > kept[-1].accuracy:
            kept.append(point)
    return kept


def hypervolume(points: Sequence[Scored], reference: Reference) -> float:
    """The share of the box from the reference to (accuracy 1, 0 tokens) that points dominate.

    Exact, in two dimensions. Points beyond the reference in either objective cover nothing; 0 when
    the box is empty.
    """
    box = (1 - reference.accuracy) * reference.tokens
    inside = [p for p in points if p.accuracy > reference.accuracy and p.tokens < reference.tokens]
    if box <= 0 or not inside:
        return 0.0
    front = pareto(inside)
    ends = [*(point.tokens for point in front[1:]), reference.tokens]
    covered = sum(
        (point.accuracy - reference.accuracy) * (end - point.tokens)
        for point, end in zip(front, ends, strict=True)
    )
    return covered / box


def knee(front: Sequence[T], quick: Scored, slow: Scored) -> T:
    """The point of a front farthest above the line from quick to slow, both axes scaled to 1.

    Above that line lies what merging gains over answering some questions with either parent. When
    the slow parent is not both longer and more accurate, the most accurate point.
    """
    width, height = slow.tokens - quick.tokens, slow.accuracy - quick.accuracy
    if width <= 0 or height <= 0:
        return max(front, key=lambda p: (p.accuracy, -p.tokens))
    return max(front, key=lambda p: (p.accuracy / height - p.tokens / width, -p.tokens))


def pick(
    points: Sequence[T],
    rule: str,
    quick: Scored,
    slow: Scored,
    *,
    least: float | None = None,
    most: float | None = None,
) -> T:
    """Pick from a front: its `knee`, the highest `accuracy`, or the best within `tokens=N`.

    least: accuracy, and most: mean tokens, that bound what may be picked. Raises LaconicError for
    an unknown rule, or when nothing is within the bounds.
    """
    allowed = [
        point
        for point in points
        if (least is None or round(point.accuracy - least, 9) >= 0)
        and (most is None or point.tokens <= most)
    ]
    match = re.fullmatch(r"tokens=(\d+(?:\.\d+)?)", rule)
    if match:
        allowed = [point for point in allowed if point.tokens <= float(match[1])]
    elif rule not in ("knee", "accuracy"):
        raise LaconicError(f"pick: '{rule}' is not one of knee, accuracy, tokens=N")
    if not allowed:
        raise LaconicError(f"pick {rule}: no merge of the front is within the bounds{_had(points)}")
    if rule == "knee":
        return knee(allowed, quick, slow)
    return max(allowed, key=lambda p: (p.accuracy, -p.tokens))


def _had(points: Sequence[Scored]) -> str:
    if not points:
        return ": it is empty"
    shown = ", ".join(f"{100 * p.accuracy:.1f}% at {p.tokens:.1f} tokens" for p in points)
    return f"; it has {shown}"

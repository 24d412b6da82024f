"""Fronts and hypervolumes small enough to do on paper."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from laconic.errors import LaconicError
from laconic.searching.front import Reference, hypervolume, knee, pareto, pick


@dataclass(frozen=True)
class P:
    accuracy: float
    tokens: float


A, B, C, D = P(0.6, 10.0), P(0.8, 20.0), P(0.7, 30.0), P(0.9, 40.0)
QUICK, SLOW = P(0.5, 5.0), P(0.9, 50.0)


def test_the_front() -> None:
    assert pareto([D, C, B, A]) == [A, B, D]
    assert pareto([A, P(0.6, 10.0), P(0.6, 12.0)]) == [A]
    assert pareto([]) == []


def test_the_hypervolume() -> None:
    # box: (1 - 0.5) * 50 = 25; A: 0.1 * (20 - 10), B: 0.3 * (40 - 20), D: 0.4 * (50 - 40)
    reference = Reference(0.5, 50.0)
    assert hypervolume([A, B, C, D], reference) == pytest.approx((1.0 + 6.0 + 4.0) / 25)
    assert hypervolume([A, B, D], reference) == hypervolume([A, B, C, D], reference)


def test_what_is_beyond_the_reference_covers_nothing() -> None:
    reference = Reference(0.5, 50.0)
    assert hypervolume([P(0.4, 1.0), P(1.0, 60.0)], reference) == 0.0
    assert hypervolume([], reference) == 0.0
    assert hypervolume([B], Reference(1.0, 50.0)) == 0.0
    assert hypervolume([P(1.0, 0.0)], reference) == pytest.approx(1.0)


def test_the_knee_is_farthest_above_the_line_between_the_parents() -> None:
    # height over the line, in units of 0.4 accuracy and 45 tokens: A .25-.11, B .75-.33, D 1-.78
    assert knee([A, B, D], QUICK, SLOW) is B
    assert knee([A, B, D], SLOW, QUICK) is D


def test_picks() -> None:
    front = [A, B, D]
    assert pick(front, "accuracy", QUICK, SLOW) is D
    assert pick(front, "tokens=25", QUICK, SLOW) is B
    assert pick(front, "knee", QUICK, SLOW, least=0.85) is D
    assert pick(front, "accuracy", QUICK, SLOW, most=15) is A
    with pytest.raises(LaconicError, match="tokens=5: no merge .* it has 60.0% at 10.0 tokens"):
        pick(front, "tokens=5", QUICK, SLOW)
    with pytest.raises(LaconicError, match="'best' is not one of knee, accuracy, tokens=N"):
        pick(front, "best", QUICK, SLOW)

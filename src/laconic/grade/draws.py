"""Several responses to each question: average, chance of one right, and majority."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from laconic.grade.extraction import OUTCOMES
from laconic.grade.grades import Grade

Same = Callable[[str, str], bool | None]


def by_question(grades: Sequence[Grade]) -> dict[str, list[Grade]]:
    """The grades of each question, in the order of their draws."""
    found: dict[str, list[Grade]] = {}
    for grade in sorted(grades, key=lambda one: (one.id, one.draw)):
        found.setdefault(grade.id, []).append(grade)
    return found


def average_at_k(grades: Sequence[Grade]) -> float | None:
    """avg@k: the mean over questions of the share right among their graded responses."""
    shares = [
        sum(one.correct is True for one in graded) / len(graded)
        for responses in by_question(grades).values()
        if (graded := [one for one in responses if one.correct is not None])
    ]
    return sum(shares) / len(shares) if shares else None


def pass_at(right: int, drawn: int, m: int) -> float:
    """The chance that one of m of the `drawn` responses is right (Chen et al., arXiv:2107.03374).

    Unbiased: 1 - C(drawn - right, m) / C(drawn, m).
    """
    if not 1 <= m <= drawn:
        raise ValueError(f"pass@{m} of {drawn} responses is not defined")
    return 1.0 - math.prod(1.0 - m / j for j in range(drawn - right + 1, drawn + 1))


def pass_at_k(grades: Sequence[Grade], m: int) -> float | None:
    """pass@m: its mean over the questions with at least m graded responses."""
    chances = []
    for responses in by_question(grades).values():
        graded = [one.correct for one in responses if one.correct is not None]
        if len(graded) >= m:
            chances.append(pass_at(sum(graded), len(graded), m))
    return sum(chances) / len(chances) if chances else None


def majority_at_k(grades: Sequence[Grade], same: Same) -> float | None:
    """maj@k: the share of questions whose most frequent answer is right (arXiv:2203.11171).

    Answers are brought together with `same`. Among several most frequent ones each is as likely:
    a question with such a tie counts with the share of them that is right. A response without an
    answer has no vote; programs, which are not compared with one another, are left out.
    """
    scores = [
        _majority([one for one in responses if one.correct is not None], same)
        for responses in by_question(grades).values()
        if any(one.correct is not None and one.source not in OUTCOMES for one in responses)
    ]
    return sum(scores) / len(scores) if scores else None


def _majority(responses: Sequence[Grade], same: Same) -> float:
    clusters: list[list[Grade]] = []
    for one in responses:
        if one.answer is None:
            continue
        home = next((c for c in clusters if _alike(c[0], one, same)), None)
        if home is None:
            clusters.append([one])
        else:
            home.append(one)
    if not clusters:
        return 0.0
    most = max(len(cluster) for cluster in clusters)
    leading = [cluster for cluster in clusters if len(cluster) == most]
    return sum(cluster[0].correct is True for cluster in leading) / len(leading)


def _alike(left: Grade, right: Grade, same: Same) -> bool:
    if left.correct is not right.correct:
        return False
    if left.correct:  # both equal the gold answer
        return True
    return left.answer == right.answer or same(left.answer or "", right.answer or "") is True

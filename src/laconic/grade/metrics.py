"""Accuracy and length of a run, together: overall, per task and per level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from laconic.grade.bootstrap import Array, Estimate, estimate, resampled_sums
from laconic.grade.grades import Grade
from laconic.grade.inference import share

RIGHT, GRADED, RESPONSES, TOKENS, CUT, REFLECTIVE, REFLECTIONS = range(7)
"""Columns of a table of sums over each question's responses."""


@dataclass(frozen=True, order=True)
class Group:
    """Which questions a measure is over; None means all."""

    task: str | None = None
    level: str | None = None


@dataclass(frozen=True)
class Measures:
    """The measures of one group of questions; shares are in [0, 1].

    questions, responses, ungraded: counts. accuracy: share right among the graded responses,
    None when none could be graded. tokens: mean response length in completion tokens. cut: share
    stopped by a limit. reflection: share with a reflection word. reflections: mean number of
    reflection words per response.
    """

    group: Group
    questions: int
    responses: int
    ungraded: int
    accuracy: Estimate | None
    tokens: Estimate
    cut: Estimate
    reflection: Estimate
    reflections: Estimate

    def to_dict(self) -> dict[str, Any]:
        """These measures as a JSON object."""
        names = ("accuracy", "tokens", "cut", "reflection", "reflections")
        values = {name: getattr(self, name) for name in names}
        return {
            "task": self.group.task,
            "level": self.group.level,
            "questions": self.questions,
            "responses": self.responses,
            "ungraded": self.ungraded,
            **{name: None if v is None else v.to_dict() for name, v in values.items()},
        }


def measure(grades: Sequence[Grade], group: Group | None = None) -> Measures:
    """Measure grades: shares with the interval that fits (`inference.share`), means with a
    bootstrap over questions. Needs at least one grade."""
    sums = question_sums(grades)
    resampled = resampled_sums(sums)

    def mean(column: int) -> Estimate:
        found = estimate(lambda t: t[..., column] / t[..., RESPONSES], sums, resampled)
        return _defined(found)

    def share_of(column: int) -> Estimate:
        return _defined(share(sums[:, column], sums[:, RESPONSES]))

    total = sums.sum(0)
    return Measures(
        group=group or Group(),
        questions=len(sums),
        responses=int(total[RESPONSES]),
        ungraded=int(total[RESPONSES] - total[GRADED]),
        accuracy=share(sums[:, RIGHT], sums[:, GRADED]),
        tokens=mean(TOKENS),
        cut=share_of(CUT),
        reflection=share_of(REFLECTIVE),
        reflections=mean(REFLECTIONS),
    )


def measure_groups(grades: Sequence[Grade]) -> tuple[Measures, ...]:
    """Measure all grades, then each task if there are several, then each level."""
    return tuple(measure(members, group) for group, members in grouped(grades).items())


def grouped(grades: Sequence[Grade]) -> dict[Group, list[Grade]]:
    """The groups of grades that are reported: all, each task if there are several, each level."""
    tasks = sorted({grade.task for grade in grades})
    groups = {Group(): list(grades)}
    if len(tasks) > 1:
        groups |= {Group(t): [g for g in grades if g.task == t] for t in tasks}
    for task in tasks:
        own = [grade for grade in grades if grade.task == task]
        name = task if len(tasks) > 1 else None
        for level in sorted({g.level for g in own if g.level is not None}, key=_level_order):
            groups[Group(name, level)] = [g for g in own if g.level == level]
    return groups


def question_sums(grades: Sequence[Grade]) -> Array:
    """Sum over each question's responses: (questions, 7), questions sorted by sample id."""
    rows: dict[str, Array] = {}
    for grade in grades:
        graded = grade.correct is not None
        row = np.array(
            [
                grade.correct is True,
                graded,
                1,
                grade.tokens,
                grade.cut,
                grade.reflections > 0,
                grade.reflections,
            ],
            dtype=np.float64,
        )
        rows[grade.id] = rows[grade.id] + row if grade.id in rows else row
    return np.stack([rows[id] for id in sorted(rows)])


def _level_order(level: str) -> tuple[bool, float, str]:
    """Numbers by value, before words by spelling."""
    try:
        return (False, float(level), level)
    except ValueError:
        return (True, 0.0, level)


def _defined(value: Estimate | None) -> Estimate:
    if value is None:
        raise ValueError("no responses to measure")
    return value

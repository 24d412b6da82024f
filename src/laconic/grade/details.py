"""Everything measured of one group of responses beyond accuracy and mean length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from laconic.grade.answers import same
from laconic.grade.draws import average_at_k, by_question, majority_at_k, pass_at_k
from laconic.grade.efficiency import budget_curve, tokens_per_correct
from laconic.grade.grades import Grade
from laconic.grade.inference import clustered, decoding_error, wilson
from laconic.grade.thinking import STATES

Test = Callable[[Grade], bool]


def details(grades: Sequence[Grade]) -> dict[str, Any]:
    """The measures of one group as a JSON object; shares in [0, 1]; null is undefined."""
    k = max(len(responses) for responses in by_question(grades).values())
    return {
        "questions": len(by_question(grades)),
        "k": k,
        **accuracies(grades, k),
        "tokens": lengths(grades),
        "think_tokens": _mean(one.think_tokens for one in grades),
        "answer_tokens": _mean(one.tokens - one.think_tokens for one in grades),
        "think_by_ids": _share(grades, lambda one: one.think_split == "ids"),
        "tokens_right": _mean(one.tokens for one in grades if one.correct is True),
        "tokens_wrong": _mean(one.tokens for one in grades if one.correct is False),
        "tokens_finished": _mean(one.tokens for one in grades if not one.cut),
        "tokens_per_correct": tokens_per_correct(grades),
        "cut": _share(grades, lambda one: one.cut),
        "cut_right": _share(grades, lambda one: one.correct is True, lambda one: one.cut),
        "accuracy_finished": _share(
            grades,
            lambda one: one.correct is True,
            lambda one: not one.cut and one.correct is not None,
        ),
        "missing_box": _share(grades, lambda one: not one.boxed),
        "sources": dict(sorted(Counter(one.source for one in grades).items())),
        "think": {s: _share(grades, lambda one, s=s: one.think == s) for s in STATES},  # type: ignore[misc]
        "loops": _share(grades, lambda one: one.loop is True, lambda one: one.loop is not None),
        "reflection": {
            "words": _reflection([one.reflections for one in grades], grades),
            "paper": _reflection([one.paper_reflections for one in grades], grades),
        },
        "budget": budget_curve(grades),
    }


def accuracies(grades: Sequence[Grade], k: int) -> dict[str, Any]:
    """avg@k with the interval that fits, and pass@m and maj@k for several draws."""
    graded = [one for one in grades if one.correct is not None]
    if k == 1:
        found = wilson(sum(one.correct is True for one in graded), len(graded))
        return {"accuracy": None if found is None else {"method": "wilson", **found.to_dict()}}
    shares = [
        share
        for responses in by_question(grades).values()
        if (share := average_at_k(responses)) is not None
    ]
    found = clustered(shares)
    powers = [2**n for n in range(k.bit_length()) if 2**n <= k]
    return {
        "accuracy": None if found is None else {"method": "clustered", **found.to_dict()},
        "decoding_error": decoding_error(shares, k),
        "pass": {str(m): pass_at_k(grades, m) for m in powers},
        "majority": majority_at_k(grades, same),
    }


def lengths(grades: Sequence[Grade]) -> dict[str, float]:
    """Mean, median and 90th percentile of the response length in tokens."""
    counts = np.array([one.tokens for one in grades], dtype=np.float64)
    return {
        "mean": float(counts.mean()),
        "median": float(np.median(counts)),
        "p90": float(np.quantile(counts, 0.9)),
    }


def both_right(ours: Sequence[Grade], theirs: Sequence[Grade]) -> tuple[float, float, int] | None:
    """Mean lengths of two runs on the questions that every response of both gets right, and how
    many these are: the difficulty of the questions is then the same. None when there are none."""
    left, right = by_question(ours), by_question(theirs)
    shared = [
        id
        for id in left.keys() & right.keys()
        if all(one.correct is True for one in (*left[id], *right[id]))
    ]
    if not shared:
        return None
    means = [
        sum(one.tokens for id in shared for one in side[id]) / sum(len(side[id]) for id in shared)
        for side in (left, right)
    ]
    return means[0], means[1], len(shared)


def _reflection(hits: Sequence[int], grades: Sequence[Grade]) -> dict[str, float | None]:
    reflective = [count for count in hits if count]
    tokens = sum(one.tokens for one in grades)
    return {
        "share": len(reflective) / len(hits),
        "per_reflective": _mean(reflective),
        "per_response": _mean(hits),
        "per_1000_tokens": 1000 * sum(hits) / tokens if tokens else None,
    }


def _share(grades: Sequence[Grade], test: Test, among: Test = lambda one: True) -> float | None:
    return _mean(float(test(one)) for one in grades if among(one))


def _mean(values: Any) -> float | None:
    found = list(values)
    return sum(found) / len(found) if found else None

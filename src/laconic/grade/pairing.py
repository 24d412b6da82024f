"""A run against another, the reference, on the same questions: every difference is paired."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from laconic.grade.bootstrap import Array, Estimate, estimate, resampled_sums
from laconic.grade.details import both_right
from laconic.grade.efficiency import AES_WEIGHTS, Across, across_sets, set_means
from laconic.grade.grades import Grade
from laconic.grade.inference import length_ratio, mcnemar, sign_flip
from laconic.grade.metrics import GRADED, RESPONSES, RIGHT, TOKENS, question_sums

Test = Literal["mcnemar", "sign flip"]


@dataclass(frozen=True)
class AccuracyTest:
    """Are two runs equally accurate on the questions graded in both?

    test: exact McNemar for one response per question, else a sign-flip permutation of the
    questions' differences. only_ours, only_theirs: questions that one run gets right (several
    responses: right more often) and the other does not. p_holm: adjusted for all runs compared
    with the same reference; None before that.
    """

    test: Test
    only_ours: int
    only_theirs: int
    p: float
    p_holm: float | None = None


@dataclass(frozen=True)
class BothRight:
    """Mean tokens on the questions that both runs get right, where difficulty is the same."""

    questions: int
    tokens: float
    reference_tokens: float


@dataclass(frozen=True)
class Paired:
    """All that is said of a run against the reference; None where it is not defined.

    accuracy_change: a difference of shares. length_ratio: of mean tokens, its interval from a
    bootstrap of the logarithm. across: each task counted once.
    """

    accuracy_change: Estimate | None
    length_ratio: Estimate | None
    test: AccuracyTest | None
    both_right: BothRight | None
    across: Across | None

    @property
    def tokens_change(self) -> Estimate | None:
        """The relative change of mean tokens (-0.5: half as long)."""
        ratio = self.length_ratio
        return None if ratio is None else Estimate(ratio.value - 1, ratio.low - 1, ratio.high - 1)

    def to_dict(self) -> dict[str, Any]:
        """This pairing as a JSON object."""
        test, both, across = self.test, self.both_right, self.across
        ratio = self.length_ratio
        return {
            "length_ratio": None if ratio is None else ratio.to_dict(),
            "test": None if test is None else asdict(test),
            "both_right": None if both is None else asdict(both),
            "length_change_by_task": None if across is None else asdict(across.length),
            "aes": None if across is None else {"value": across.aes, "weights": list(AES_WEIGHTS)},
        }


def pair(ours: Sequence[Grade], theirs: Sequence[Grade]) -> Paired | None:
    """Compare grades with the reference's on the questions that both answered; None without any."""
    common = {one.id for one in ours} & {one.id for one in theirs}
    if not common:
        return None
    ours, theirs = ([one for one in side if one.id in common] for side in (ours, theirs))
    left, right = question_sums(ours), question_sums(theirs)
    found = both_right(ours, theirs)
    return Paired(
        accuracy_change=_accuracy_change(left, right),
        length_ratio=length_ratio(_lengths(left), _lengths(right)),
        test=_test(left, right),
        both_right=None if found is None else BothRight(found[2], found[0], found[1]),
        across=across_sets(set_means(ours), set_means(theirs)),
    )


def _accuracy_change(left: Array, right: Array) -> Estimate | None:
    """Difference of the mean shares right, over questions graded in both."""
    kept = (left[:, GRADED] > 0) & (right[:, GRADED] > 0)
    if not kept.any():
        return None
    columns = np.stack([_shares(left[kept]) - _shares(right[kept]), np.ones(kept.sum())], axis=1)
    return estimate(lambda t: t[..., 0] / t[..., 1], columns, resampled_sums(columns))


def _test(left: Array, right: Array) -> AccuracyTest | None:
    kept = (left[:, GRADED] > 0) & (right[:, GRADED] > 0)
    if not kept.any():
        return None
    differences = _shares(left[kept]) - _shares(right[kept])
    won, lost = int((differences > 0).sum()), int((differences < 0).sum())
    if max(left[:, RESPONSES].max(), right[:, RESPONSES].max()) == 1:
        return AccuracyTest("mcnemar", won, lost, mcnemar(won, lost))
    return AccuracyTest("sign flip", won, lost, sign_flip(differences.tolist()))


def _lengths(table: Array) -> Array:
    return np.asarray(table[:, TOKENS] / table[:, RESPONSES])


def _shares(table: Array) -> Array:
    return np.asarray(table[:, RIGHT] / table[:, GRADED])

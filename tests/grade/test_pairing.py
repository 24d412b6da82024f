from __future__ import annotations

import pytest

from grade.test_metrics import graded
from laconic.grade.efficiency import AES_WEIGHTS
from laconic.grade.pairing import AccuracyTest, BothRight, Paired, pair


def paired(ours: list[object], theirs: list[object]) -> Paired:
    found = pair(ours, theirs)  # type: ignore[arg-type]
    assert found is not None
    return found


def test_changes_by_hand() -> None:
    slow = [graded("a", True, 100), graded("b", True, 200), graded("c", False, 300)]
    quick = [graded("c", True, 90), graded("a", True, 60), graded("b", False, 90)]
    found = paired(quick, slow)
    assert found.accuracy_change is not None
    assert found.accuracy_change.value == pytest.approx(0)  # one won, one lost
    assert found.tokens_change is not None
    assert found.tokens_change.value == pytest.approx(240 / 600 - 1)  # not the mean of ratios
    assert found.test == AccuracyTest("mcnemar", 1, 1, 1.0)
    assert found.both_right == BothRight(1, 60, 100)


def test_pairing_removes_what_questions_share() -> None:
    # Lengths differ tenfold between questions, but each is halved exactly: no uncertainty left.
    slow = [graded(str(i), True, 20 * (i + 1)) for i in range(30)]
    half = [graded(str(i), True, 10 * (i + 1)) for i in reversed(range(30))]
    change = paired(half, slow).tokens_change
    assert change is not None
    assert (change.low, change.value, change.high) == pytest.approx((-0.5, -0.5, -0.5))


def test_accuracy_is_paired_on_questions_graded_in_both() -> None:
    slow = [graded("a", True, 10), graded("b", None, 10), graded("c", False, 10)]
    quick = [graded("a", False, 5), graded("b", True, 5), graded("c", None, 5)]
    found = paired(quick, slow)
    assert found.accuracy_change is not None
    assert found.accuracy_change.value == -1  # question a alone
    assert found.test == AccuracyTest("mcnemar", 0, 1, 1.0)
    assert found.tokens_change is not None
    assert found.tokens_change.value == pytest.approx(-0.5)  # all three


def test_single_responses_get_the_exact_test() -> None:
    slow = [graded(str(i), i == 0, 10) for i in range(20)]
    merged = [graded(str(i), 1 <= i < 10, 10) for i in range(20)]
    assert paired(merged, slow).test == AccuracyTest("mcnemar", 9, 1, pytest.approx(22 / 1024))


def test_several_draws_get_a_permutation_over_questions() -> None:
    slow = [graded(f"{i}", False, 10, draw=d) for i in range(6) for d in range(4)]
    merged = [graded(f"{i}", d > 0, 10, draw=d) for i in range(6) for d in range(4)]
    found = paired(merged, slow).test
    assert found is not None
    assert (found.test, found.only_ours, found.only_theirs) == ("sign flip", 6, 0)
    assert found.p == pytest.approx(2 / 64, abs=0.01)  # all signs alike: 2 of 2^6 ways


def test_each_task_counts_once_however_many_questions_it_has() -> None:
    slow = [graded(f"a{i}", True, 100, task="a") for i in range(9)]
    slow.append(graded("b", True, 400, task="b"))
    merged = [graded(f"a{i}", True, 50, task="a") for i in range(9)]
    merged.append(graded("b", True, 300, task="b"))
    found = paired(merged, slow)
    assert found.across is not None
    assert found.across.length.mean_of_ratios == pytest.approx((0.5 + 0.75) / 2 - 1)
    assert found.across.length.ratio_of_means == pytest.approx(350 / 500 - 1)
    assert found.tokens_change is not None
    assert found.tokens_change.value == pytest.approx(750 / 1300 - 1)  # questions count alike
    assert found.across.aes == pytest.approx(0.375)  # of the mean of ratios; accuracy is equal
    assert found.to_dict()["aes"] == {"value": found.across.aes, "weights": list(AES_WEIGHTS)}


def test_what_is_not_defined_is_none() -> None:
    assert pair([graded("a", True, 1)], [graded("b", True, 1)]) is None
    nothing = paired([graded("a", None, 5)], [graded("a", None, 0)])
    assert nothing == Paired(None, None, None, None, None)
    never = paired([graded("a", True, 5)], [graded("a", False, 10)])
    assert never.across is not None
    assert never.across.aes is None  # a share of nothing right
    assert never.both_right is None

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from laconic.grade.bootstrap import resampled_sums
from laconic.grade.comparisons import paired_changes
from laconic.grade.grades import Grade
from laconic.grade.metrics import Group, grouped, measure


def graded(
    id: str,
    correct: bool | None,
    tokens: int,
    *,
    draw: int = 0,
    cut: bool = False,
    reflections: int = 0,
    level: str | None = None,
    task: str = "t",
) -> Grade:
    return Grade(id, draw, task, level, correct, None, "box", tokens, cut, reflections)


def test_measures_by_hand() -> None:
    found = measure(
        [
            graded("a", True, 10, reflections=3),
            graded("b", False, 30, cut=True),
            graded("c", None, 50, reflections=1),
            graded("d", True, 110),
        ]
    )
    assert (found.questions, found.responses, found.ungraded) == (4, 4, 1)
    assert found.accuracy is not None
    assert found.accuracy.value == pytest.approx(2 / 3)  # of the graded three
    assert found.tokens.value == 50
    assert found.cut.value == 0.25
    assert found.reflection.value == 0.5
    assert found.reflections.value == 1


def test_interval_of_two_questions_by_hand() -> None:
    # Resampling {10, 30} gives 10, 20, 30 with chances 1/4, 1/2, 1/4: 95% spans all of it.
    found = measure([graded("a", True, 10), graded("b", False, 30)])
    assert (found.tokens.low, found.tokens.high) == (10, 30)
    assert found.accuracy is not None
    assert (found.accuracy.low, found.accuracy.high) == (0, 1)


def test_the_question_is_what_is_resampled() -> None:
    # Ten draws of one question say nothing about other questions: an interval of no width.
    found = measure([graded("a", d < 5, 10 + d, draw=d) for d in range(10)])
    assert (found.questions, found.responses) == (1, 10)
    assert found.accuracy is not None
    assert (found.accuracy.low, found.accuracy.value, found.accuracy.high) == (0.5, 0.5, 0.5)


def test_nothing_graded_is_none_not_zero() -> None:
    found = measure([graded("a", None, 10)])
    assert found.accuracy is None
    assert found.to_dict()["accuracy"] is None
    assert found.ungraded == 1


def test_intervals_agree_with_scipy() -> None:
    tokens = np.random.default_rng(5).integers(20, 400, 120)
    found = measure([graded(str(i), True, int(count)) for i, count in enumerate(tokens)])
    theirs = stats.bootstrap(
        (tokens,), np.mean, n_resamples=10_000, method="percentile", random_state=1
    ).confidence_interval
    width = theirs.high - theirs.low
    assert found.tokens.low == pytest.approx(theirs.low, abs=width / 20)
    assert found.tokens.high == pytest.approx(theirs.high, abs=width / 20)


def test_draws_are_seeded_and_do_not_depend_on_the_block_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    columns = np.arange(12.0).reshape(6, 2)
    whole = resampled_sums(columns, seed=1)
    monkeypatch.setattr("laconic.grade.bootstrap.CELLS", 100)
    assert np.array_equal(resampled_sums(columns, seed=1), whole)
    assert not np.array_equal(resampled_sums(columns, seed=2), whole)
    assert whole.shape == (10_000, 2)
    assert np.array_equal(whole[:, 0] + 6, whole[:, 1])  # six rows each, columns kept together


def test_groups_are_all_then_tasks_then_levels() -> None:
    one = [graded("a", True, 1, level="10"), graded("b", True, 1, level="9")]
    assert list(grouped(one)) == [Group(), Group(level="9"), Group(level="10")]
    two = [*one, graded("c", True, 1, task="u", level="x")]
    assert list(grouped(two)) == [
        Group(),
        Group("t"),
        Group("u"),
        Group("t", "9"),
        Group("t", "10"),
        Group("u", "x"),
    ]
    assert [g.id for g in grouped(two)[Group("t", "10")]] == ["a"]


def test_paired_changes_by_hand() -> None:
    slow = [graded("a", True, 100), graded("b", True, 200), graded("c", False, 300)]
    quick = [graded("c", True, 90), graded("a", True, 60), graded("b", False, 90)]
    accuracy, tokens = paired_changes(quick, slow)
    assert accuracy is not None
    assert accuracy.value == pytest.approx(0)  # one won, one lost
    assert tokens is not None
    assert tokens.value == pytest.approx(240 / 600 - 1)  # ratio of means, not mean of ratios


def test_pairing_removes_what_questions_share() -> None:
    # Lengths differ tenfold between questions, but each is halved exactly: no uncertainty left.
    slow = [graded(str(i), True, 20 * (i + 1)) for i in range(30)]
    half = [graded(str(i), True, 10 * (i + 1)) for i in reversed(range(30))]
    _, tokens = paired_changes(half, slow)
    assert tokens is not None
    assert (tokens.low, tokens.value, tokens.high) == pytest.approx((-0.5, -0.5, -0.5))


def test_accuracy_is_paired_on_questions_graded_in_both() -> None:
    slow = [graded("a", True, 10), graded("b", None, 10), graded("c", False, 10)]
    quick = [graded("a", False, 5), graded("b", True, 5), graded("c", None, 5)]
    accuracy, tokens = paired_changes(quick, slow)
    assert accuracy is not None
    assert accuracy.value == -1  # question a alone
    assert tokens is not None
    assert tokens.value == pytest.approx(-0.5)  # all three


def test_nothing_in_common() -> None:
    assert paired_changes([graded("a", True, 1)], [graded("b", True, 1)]) == (None, None)

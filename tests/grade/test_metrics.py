from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from laconic.grade.bootstrap import resampled_sums
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


def test_shares_of_single_responses_have_wilsons_interval() -> None:
    found = measure([graded(str(i), True, 10) for i in range(30)])
    expected = stats.binomtest(30, 30).proportion_ci(0.95, method="wilson")
    for share, low, high in (
        (found.accuracy, expected.low, 1.0),
        (found.cut, 0.0, 1 - expected.low),  # none of 30 is cut, and yet it is not known to be 0
        (found.reflection, 0.0, 1 - expected.low),
    ):
        assert share is not None
        assert (share.low, share.high) == pytest.approx((low, high), abs=1e-9)


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

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from laconic.grade.answers import same
from laconic.grade.details import both_right, details
from laconic.grade.draws import average_at_k, majority_at_k, pass_at, pass_at_k
from laconic.grade.efficiency import (
    SetMeans,
    accuracy_efficiency,
    across_sets,
    length_change,
    tokens_per_correct,
    under_budget,
)
from laconic.grade.grades import Asked, Grade, grade
from laconic.grade.inference import (
    clustered,
    decoding_error,
    holm,
    length_ratio,
    mcnemar,
    sign_flip,
    wilson,
)
from laconic.grade.reflection import count_paper_reflections
from laconic.grade.thinking import think_state, think_tokens
from laconic.run.completion import Completion


def graded(
    id: str, correct: bool | None, tokens: int = 1, answer: str | None = None, **rest: object
) -> Grade:
    fields = {"draw": 0, "task": "t", "level": None, "source": "box", "cut": False}
    fields |= {"reflections": 0} | rest
    return Grade(id=id, correct=correct, tokens=tokens, answer=answer, **fields)  # type: ignore[arg-type]


def draws(id: str, *answers: tuple[bool | None, str | None]) -> list[Grade]:
    return [graded(id, right, answer=a, draw=n) for n, (right, a) in enumerate(answers)]


def test_pass_at_k_is_unbiased() -> None:
    assert pass_at(3, 16, 4) == pytest.approx(0.607143, abs=1e-6)
    assert pass_at(3, 16, 1) == pytest.approx(3 / 16)
    assert pass_at(13, 16, 4) == 1
    assert pass_at(0, 16, 4) == 0
    grades = [*draws("a", (True, "1"), (False, "2")), *draws("b", (None, None), (False, "2"))]
    assert pass_at_k(grades, 2) == 1  # b has one graded response only
    assert pass_at_k(grades, 1) == average_at_k(grades) == 0.25
    with pytest.raises(ValueError, match="not defined"):
        pass_at(1, 2, 3)


def test_ties_of_a_majority_count_by_expectation() -> None:
    won = draws("a", (True, "1/2"), (True, "0.5"), (False, "3"))
    tied = draws("b", (True, "1"), (False, "2"))
    lost = draws("c", (True, "1"), (False, "0.5"), (False, "1/2"), (False, None))
    assert majority_at_k(won, same) == 1
    assert majority_at_k(tied, same) == 0.5
    assert majority_at_k(lost, same) == 0
    assert majority_at_k([*won, *tied, *lost], same) == 0.5
    assert majority_at_k(draws("d", (False, None)), same) == 0


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [(7, 30, 11.8, 40.9), (12, 30, 24.6, 57.7), (437, 500, 84.2, 90.0), (409, 500, 78.2, 84.9)],
)
def test_wilson_on_the_papers_results(right: int, n: int, low: float, high: float) -> None:
    found = wilson(right, n)
    assert found is not None
    assert (round(100 * found.low, 1), round(100 * found.high, 1)) == (low, high)
    assert wilson(0, 0) is None


def test_clusters_are_questions() -> None:
    found = clustered([0.0, 1.0] * 200)
    assert found is not None
    assert found.high - found.value == pytest.approx(1.96 * 0.5006 / 20, abs=1e-3)
    few = clustered([0.5] * 10)
    assert few is not None
    assert (few.low, few.high) == (0.5, 0.5)
    assert clustered([]) is None
    assert decoding_error([0.5, 0.5], 5) == pytest.approx(np.sqrt(0.25 / 4 / 2))
    assert decoding_error([0.5], 1) is None


def test_paired_tests() -> None:
    assert mcnemar(0, 0) == 1
    assert mcnemar(1, 9) == pytest.approx(22 / 1024)
    assert sign_flip([0.0, 0.0]) == 1
    assert sign_flip([1.0] * 5) == pytest.approx(2 / 32, abs=0.01)  # 2 of 32 ways
    assert sign_flip([1.0, -1.0]) == 1
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06}
    )


def test_ratio_of_lengths_is_paired() -> None:
    theirs = [20.0 * (n + 1) for n in range(30)]
    found = length_ratio([x / 2 for x in theirs], theirs)
    assert found is not None
    assert (found.low, found.value, found.high) == pytest.approx((0.5, 0.5, 0.5))
    assert length_ratio([], []) is None
    assert length_ratio([1.0], [0.0]) is None


SETS = ("gsm8k", "math500", "minerva", "olympiad", "college", "aime24")
R1_TOKENS = (1062, 2826, 3056, 5794, 2462, 8675)
R1_ACCURACY = (89.3, 87.4, 36.4, 51.0, 39.8, 23.3)
PUBLISHED = {  # arXiv:2503.20641, Table 1: tokens, accuracies, mean change of length, AES
    "average": (
        (636, 1417, 2277, 3202, 2066, 5965), (81.6, 78.2, 30.9, 37.9, 36.1, 26.7), -34.6, -0.201
    ),
    "task arithmetic": (
        (618, 1617, 1416, 2651, 1444, 3595), (90.5, 83.4, 41.9, 45.0, 40.3, 20.0), -48.7, 0.394
    ),
    "TIES": (
        (552, 1493, 1349, 2474, 1288, 3302), (90.6, 81.8, 38.2, 43.0, 41.9, 33.3), -53.0, 0.545
    ),
    "AIM": (
        (541, 1375, 1230, 2324, 1250, 3266), (90.8, 83.0, 40.8, 46.4, 42.3, 26.7), -55.3, 0.578
    ),
    "Sens": (
        (601, 1650, 1346, 2673, 1446, 3246), (91.3, 83.0, 41.9, 45.0, 40.3, 36.7), -49.8, 0.599
    ),
    "DPO": (
        (984, 2587, 2305, 4932, 2074, 7029), (89.6, 88.4, 33.8, 48.6, 39.7, 40.0), -15.0, 0.268
    ),
}  # fmt: skip


def sets(tokens: Sequence[float], accuracies: Sequence[float]) -> dict[str, SetMeans]:
    pairs = zip(SETS, accuracies, tokens, strict=True)
    return {name: SetMeans(accuracy / 100, length) for name, accuracy, length in pairs}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_table_is_reproduced_by_what_the_tables_use(name: str) -> None:
    tokens, accuracies, change, aes = PUBLISHED[name]
    found = across_sets(sets(tokens, accuracies), sets(R1_TOKENS, R1_ACCURACY))
    assert found is not None
    assert round(100 * found.length.mean_of_ratios, 1) == change
    assert found.aes is not None
    assert round(found.aes, 3) == aes
    if name == "TIES":
        assert round(100 * found.length.ratio_of_means, 1) == -56.2


def test_both_length_changes_by_hand() -> None:
    found = length_change({"a": 10, "b": 300}, {"a": 20, "b": 400})
    assert found.mean_of_ratios == pytest.approx((0.5 + 0.75) / 2 - 1)
    assert found.ratio_of_means == pytest.approx(310 / 420 - 1)
    with pytest.raises(ValueError, match="different sets"):
        length_change({"a": 1}, {"b": 1})


def test_aes_by_hand() -> None:
    assert accuracy_efficiency(0.5, 0.5, -0.4) == pytest.approx(0.4)
    assert accuracy_efficiency(0.55, 0.5, -0.4) == pytest.approx(0.4 + 3 * 0.1)
    assert accuracy_efficiency(0.45, 0.5, -0.4) == pytest.approx(0.4 - 5 * 0.1)
    assert accuracy_efficiency(0.45, 0.5, -0.4, (1, 5, 10)) == pytest.approx(0.4 - 10 * 0.1)


def test_tokens_per_correct_and_under_a_budget() -> None:
    grades = [graded("a", True, 10), graded("b", True, 50), graded("c", False, 30)]
    assert tokens_per_correct(grades) == 45
    assert tokens_per_correct(grades[2:]) is None
    assert under_budget(grades, 49) == pytest.approx(1 / 3)
    assert under_budget(grades, 50) == pytest.approx(2 / 3)
    assert under_budget([graded("a", None)], 9) is None


def test_details_by_hand() -> None:
    found = details(
        [
            graded("a", True, 10, think="closed", think_tokens=8, loop=False),
            graded("b", False, 90, cut=True, think="open", think_tokens=90, loop=True, boxed=False),
            graded("c", None, 20, source="none", reflections=2, paper_reflections=4),
        ]
    )
    assert found["tokens"] == {"mean": 40, "median": 20, "p90": pytest.approx(76)}
    assert (found["tokens_right"], found["tokens_wrong"], found["tokens_finished"]) == (10, 90, 15)
    assert (found["think_tokens"], found["answer_tokens"]) == (98 / 3, 22 / 3)
    assert (found["accuracy"]["value"], found["accuracy_finished"]) == (0.5, 1)
    assert (found["cut"], found["missing_box"], found["cut_right"]) == (1 / 3, 1 / 3, 0)
    assert found["loops"] == 0.5  # of the two whose tokens are known
    assert found["sources"] == {"box": 2, "none": 1}
    assert found["reflection"]["words"]["per_reflective"] == 2
    assert found["reflection"]["paper"]["per_response"] == pytest.approx(4 / 3)
    assert found["budget"][0] == {"tokens": 32, "accuracy": 0.5}


def test_lengths_where_both_are_right() -> None:
    ours = [graded("a", True, 10), graded("b", True, 20), graded("c", False, 1)]
    theirs = [graded("a", True, 30), graded("b", False, 1), graded("c", True, 1)]
    assert both_right(ours, theirs) == (10, 30, 1)
    assert both_right(ours[2:], theirs) is None


@pytest.mark.parametrize(
    ("text", "state", "tokens"),
    [
        ("<think>aaa</think>bb", "closed", 18),
        ("aaaaaaa</think>" + "b" * 15, "closed", 10),  # the prompt opened it
        ("<think>\n\n</think>b", "empty", 19),
        ("<think>aaa", "open", 20),
        ("aaa", "none", 0),
        ("<think>a</think>b</think>", "repeated", 20),
    ],
)
def test_thoughts(text: str, state: str, tokens: int) -> None:
    assert think_state(text) == state
    one = Completion("a", 0, text, 20, "stop", 1, "")
    assert think_tokens(one) == (tokens, "characters")
    assert think_tokens(replace(one, think_tokens=7)) == (7, "ids")


def test_a_thought_that_the_prompt_opened_and_nothing_closed() -> None:
    cut = Completion("a", 0, "so", 20, "length", 1, "", opened=True)
    assert think_state(cut.text, cut.opened) == "open"
    assert think_tokens(cut) == (20, "characters")
    found = grade(Asked("a", "t", "", "1"), cut)
    assert (found.think, found.think_tokens, found.think_split) == ("open", 20, "characters")
    exact = grade(Asked("a", "t", "", "1"), replace(cut, think_tokens=19))
    assert (exact.think_tokens, exact.think_split) == (19, "ids")
    assert details([found, exact])["think_by_ids"] == 0.5


def test_the_papers_counter_counts_substrings() -> None:
    text = "Waiting for the waitress. Let me verify. Let me just check: recapture"
    assert count_paper_reflections(text) == 4

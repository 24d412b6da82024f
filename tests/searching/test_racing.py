"""Racing: who is dropped, who never is, and what it saves."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from laconic.searching.outcomes import Answer, Outcome, collapse, figures
from laconic.searching.racing import (
    accuracy_difference,
    block_ends,
    dominated_by,
    longest,
    token_difference,
)
from laconic.searching.search import Options, search
from laconic.searching.study_file import Racing
from laconic.searching.subset import fidelity, most_telling
from searching.fakes import Live, study


def answers(right: float, tokens: float, count: int = 256, seed: int = 0) -> dict[str, Answer]:
    rng = random.Random(seed)
    return {
        f"q{i}": Answer(float(i < right * count), tokens + rng.uniform(-3, 3)) for i in range(count)
    }


def test_blocks_double_up_to_all() -> None:
    assert block_ends(100, Racing()) == (16, 32, 64, 100)
    assert block_ends(16, Racing()) == (16,)
    assert block_ends(100, Racing(on=False)) == (100,)


def test_the_paired_interval_by_hand() -> None:
    # 8 questions: one right only here, one only there, six the same: (0 / 10) +- z sqrt(.3 / 10)
    one = {str(i): Answer(float(i != 0), 1.0) for i in range(8)}
    other = {str(i): Answer(float(i != 1), 1.0) for i in range(8)}
    found = accuracy_difference(one, other, 0.025)
    assert found.value == 0.0
    assert found.high == pytest.approx(1.959964 * (0.3 / 10) ** 0.5)
    same = accuracy_difference(one, one, 0.025)
    assert same.high == pytest.approx(1.959964 * (0.1 / 10) ** 0.5)  # agreement is no certainty


def test_the_token_interval() -> None:
    one = {str(i): Answer(1.0, float(i)) for i in range(4)}
    other = {str(i): Answer(1.0, 10.0) for i in range(4)}
    found = token_difference(one, other, 0.025)
    assert found.value == pytest.approx(1.5 - 10)
    assert found.high == pytest.approx(-8.5 + 3.182446 * (5 / 3 / 4) ** 0.5)


def test_a_merge_that_is_worse_in_both_is_dropped() -> None:
    rivals = [("good", answers(0.9, 30)), ("other", answers(0.5, 10))]
    assert dominated_by(answers(0.6, 60, seed=1), rivals, Racing(), 4) == "good"


def test_what_nothing_dominates_is_never_dropped() -> None:
    """Each is better than every other in one objective, by more than the tolerances."""
    front = [answers(0.1 * k, 10.0 * k, seed=k) for k in range(1, 10)]
    for own in front:
        rivals = [(str(i), other) for i, other in enumerate(front) if other is not own]
        for end in (8, 16, 32, 64, 128, 256):
            asked = random.Random(end).sample(sorted(own), end)
            part = {id: own[id] for id in asked}
            assert dominated_by(part, rivals, Racing(), 4) is None


def test_too_few_questions_drop_nobody() -> None:
    own, rival = answers(1.0, 40, 8, seed=1), answers(1.0, 30, 8)
    assert dominated_by(own, [("rival", rival)], Racing(), 4) is None


def test_lengths_that_cannot_be_told_apart_drop_nobody() -> None:
    own = {f"q{i}": Answer(0.0, 40.0 if i % 2 else 20.0) for i in range(64)}
    rival = {f"q{i}": Answer(1.0, 29.0) for i in range(64)}
    assert dominated_by(own, [("rival", rival)], Racing(), 4) is None


def test_the_token_limit_of_a_search() -> None:
    assert longest([10, 155], 1.25, 512) == 194
    assert longest([10, 500], 1.25, 512) == 512


def test_racing_saves_tokens_and_keeps_the_front(tmp_path: Path) -> None:
    found = {}
    for name, racing in (("on", {"first": 8, "accuracy": 0.1}), ("off", False)):
        raw = study(tmp_path, budget={"trials": 11}, racing=racing)
        options = Options(progress=False)
        found[name] = search(
            raw, out=tmp_path / name, options=options, runner=Live(tmp_path)
        ).record
    assert found["off"]["trials"] == {"complete": 11}
    assert found["on"]["trials"]["dropped"] >= 4
    assert found["on"]["generated"] < 0.85 * found["off"]["generated"]
    assert found["on"]["hypervolume"] >= 0.98 * found["off"]["hypervolume"]


def outcome(fault: str | None = None, correct: bool = True) -> Outcome:
    return Outcome("q", 0, correct, 5, False, True, "1", fault)  # type: ignore[arg-type]


def test_collapse_needs_more_than_half() -> None:
    assert collapse([outcome("loop"), outcome()]) is None
    broken = [outcome("loop"), outcome("loop"), outcome("tags"), outcome()]
    assert collapse(broken) == (
        "collapsed: of 4 responses 2 end in a loop, 1 lose their think tags"
    )
    assert collapse([outcome(correct=False)] * 4) is None  # wrong is not broken


def test_what_could_not_be_graded_is_not_wrong() -> None:
    found = figures({"a": Answer(None, 10.0), "b": Answer(1.0, 20.0)})
    assert (found.accuracy, found.tokens, found.questions) == (1.0, 15.0, 2)


def test_the_most_telling_questions() -> None:
    sweep = [
        {id: Answer(float(right), 1.0) for id, right in zip("abcd", row, strict=True)}
        for row in ((1, 0, 1, 0), (1, 0, 0, 0), (1, 0, 1, 1), (1, 0, 0, 0))
    ]
    assert set(most_telling(sweep, 2, seed=0)) == {"c", "d"}
    assert most_telling(sweep, 1, seed=0) == ("c",)


def test_fidelity() -> None:
    merges = [
        {"a": Answer(float(i > 0), 1.0 * i), "b": Answer(float(i > 1), 5.0 - i)} for i in range(3)
    ]
    found = fidelity(merges, ["a", "b"])
    assert (found.questions, found.merges, found.accuracy) == (2, 3, 1.0)
    assert fidelity(merges, ["b"]).tokens is None  # all of them have the same mean, 5 / 2
    assert fidelity(merges[:2], ["a"]).accuracy is None

"""The merges and the rule of selection that the figures of docs/demo.md rest on."""

import pytest
import torch

from laconic.demo.answers import Answer, Score, boxed, score
from laconic.demo.questions import Question
from laconic.demo.seeds import Merge, largest, pick
from laconic.demo.slips import Slips, first_pass, own


def scored(accuracy: float, tokens: float) -> Score:
    return Score(accuracy, tokens, reflection=0.0, cut=0.0)


def test_largest_keeps_the_largest_share() -> None:
    delta = torch.tensor([[0.1, -0.4], [0.3, -0.2]])
    assert largest(delta, 0.5).tolist() == torch.tensor([[0.0, -0.4], [0.3, 0.0]]).tolist()
    assert largest(delta, 1.0).equal(delta)


def test_merge_is_a_point_on_the_line() -> None:
    quick, slow = {"w": torch.tensor([0.0, 2.0])}, {"w": torch.tensor([4.0, 1.0])}
    assert Merge(0.5)(quick, slow)["w"].tolist() == [2.0, 1.5]
    assert Merge(1.0, keep=0.5)(quick, slow)["w"].tolist() == [4.0, 2.0]


def test_pick_takes_the_shortest_within_two_points() -> None:
    merges = {"a": scored(0.94, 10), "b": scored(0.95, 30), "c": scored(0.93, 5)}
    assert pick(scored(0.96, 60), merges) == "a"


def test_pick_falls_back_on_the_most_accurate() -> None:
    assert pick(scored(0.99, 60), {"a": scored(0.5, 10), "b": scored(0.6, 30)}) == "b"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("8, 6.\\boxed{6}", "6"),
        ("<think>\\boxed{1}</think>\\boxed{2} \\boxed{3}", "3"),
        ("<think>\\boxed{1}</think>", None),
        ("6", None),
    ],
)
def test_boxed(text: str, found: str | None) -> None:
    assert boxed(text) == found


def test_score_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no answers to score"):
        score([])


def test_own_slips_by_hand() -> None:
    question = Question(3, (5, -2))
    texts = {
        "<think>b=3+5=7, c=7-2=5. Wait: b=3+5=8, c=8-2=6.</think>\\boxed{6}": True,
        "<think>b=3+5=7, c=7-2=5.</think>\\boxed{5}": False,
        "<think>b=3+5=8, c=8-2=6. Wait: b=3+5=7, c=7-2=5.</think>\\boxed{5}": False,
        "8, 6.\\boxed{6}": True,
    }
    answers = [Answer("id", 1, text, 9, True, right) for text, right in texts.items()]
    assert own(answers, [question] * 4) == Slips(slipped=2, checked=1, corrected=1, spoilt=1)
    assert first_pass(answers[0].text) == "5"

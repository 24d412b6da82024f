from __future__ import annotations

import time

import pytest

from laconic.grade.answers import extract, is_correct, same


@pytest.mark.parametrize(
    ("text", "answer", "source"),
    [
        (r"<think>\boxed{1}</think> so \boxed{2}, no: \boxed{3}.", "3", "box"),
        (r"<think>\boxed{1}</think> so 7", "1", "box in thought"),
        (r"<think> 3+4=7 </think> it is 12, I think", "12", "last number"),
        (r"a </think> \boxed{4} </think> 5", "4", "box in thought"),  # the last </think> counts
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}", "box"),
        (r"\boxed{\{1\}}", r"\{1\}", "box"),
        (r"\boxed{\boxed{5}}", "5", "box"),
        (r"\boxed{8} and \boxed{9", "8", "box"),  # the last one is not balanced
        (r"\boxed{12 and then \boxed{15}", "15", "box"),
        (r"} } \boxed{6}", "6", "box"),
        (r"\boxed{7} \boxed{ }", "7", "box"),
        ("the answer is 1,234.50.", "1,234.50", "last number"),
        ("x = -7", "-7", "last number"),
        ("x = −7", "−7", "last number"),
        ("12-7", "7", "last number"),
        ("so 3/4", "3/4", "last number"),
        ("12,", "12", "last number"),
        ("<think> 3+4=7", None, "none"),  # cut in mid-thought
        ("", None, "none"),
        ("no idea", None, "none"),
        ("<think>7</think>", None, "none"),
    ],
)
def test_where_the_answer_is_found(text: str, answer: str | None, source: str) -> None:
    found = extract(text)
    assert (found.answer, found.source) == (answer, source)


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("1234", "1,234"),
        ("1,234", "1234"),
        ("7", "007"),
        ("0.5", "1/2"),
        ("1/2", r"\frac{1}{2}"),
        ("-1/2", r"-\dfrac{1}{2}"),
        ("-1/2", r"\frac{-1}{2}"),
        ("2.50", "2.5"),
        (".5", "0.5"),
        ("-3", "−3"),
        ("+3", "3"),
        ("12", "$12$."),
        ("1000", "1{,}000"),
        ("1 000", "1000"),
        ("x+1", "x + 1"),
        ("123456789012345678901", "123456789012345678901.0"),
    ],
)
def test_equal_answers(gold: str, answer: str) -> None:
    assert same(gold, answer)


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("1", "2"),
        ("7", "-7"),
        ("12", "1,2"),  # a list, not a number
        ("0.3333", "1/3"),
        ("12345678901", "12345678902"),
        ("12345678901234567890.1", "12345678901234567890.2"),
        ("x", "X"),
        ("1/2", "2/1"),
        ("3", "three"),
        ("1/0", "2/0"),
    ],
)
def test_different_answers(gold: str, answer: str) -> None:
    assert not same(gold, answer)


def test_no_answer_is_wrong_and_no_gold_is_ungraded() -> None:
    assert is_correct("4", r"\boxed{4}") is True
    assert is_correct("4", r"\boxed{5}") is False
    assert is_correct("4", "") is False
    assert is_correct(" $$ ", r"\boxed{4}") is None


@pytest.mark.parametrize(
    "text",
    [
        "\\boxed{" * 15_000,
        "{" * 100_000 + "\\boxed{7}",
        "\\boxed{" + "9" * 100_000 + "}",
        "9" * 100_000,
        "1," * 50_000,
        "\\boxed{1/" + "0" * 90_000 + "}",
    ],
)
def test_huge_and_deep_answers_are_graded_quickly(text: str) -> None:
    start = time.process_time()
    assert is_correct("7", text) is text.endswith("{7}")
    assert time.process_time() - start < 2

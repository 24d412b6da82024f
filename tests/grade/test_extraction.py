from __future__ import annotations

import pytest

from laconic.grade.extraction import extract


@pytest.mark.parametrize(
    ("text", "answer", "source"),
    [
        (r"<think>\boxed{1}</think> so \boxed{2}, no: \boxed{3}.", "3", "box"),
        (r"<think>\boxed{1}</think> so 7", "1", "box in thought"),
        (r"<think>\boxed{1}</think> The answer is 7.", "7", "marker"),
        (r"<think> 3+4=7 </think> it is 12, I think", "12", "last number"),
        (r"a </think> \boxed{4} </think> and then 5", "4", "box in thought"),  # the last </think>
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}", "box"),
        (r"\boxed{\{1\}}", r"\{1\}", "box"),
        (r"\boxed{\boxed{5}}", "5", "box"),
        (r"\fbox{5}", "5", "box"),
        (r"\boxed{8} and \boxed{9", "8", "box"),  # the last one is not balanced
        (r"\boxed{12 and then \boxed{15}", "15", "box"),
        (r"} } \boxed{6}", "6", "box"),
        (r"\boxed{7} \boxed{ }", "7", "box"),
        (r"\boxed{7}. The final answer is $8$. I hope it is correct.", "$8$", "marker"),
        (r"The final answer is $[2,5)$. I hope it is correct.", "$[2,5)$", "marker"),
        (r"The final answer is $[2,5)$.<|im_end|> 17", "$[2,5)$", "marker"),
        ("the answer is 1,234.50.", "1,234.50", "marker"),
        ("Answer: (C)", "(C)", "marker"),
        ("**Answer:** 42", "42", "marker"),
        ("She sold 72 clips.\n#### 72", "72", "marker"),
        ("Final Answer: The largest number of points of $f(x)$ is 19.", "19", "marker"),
        ("x = -7", "x = -7", "expression"),
        ("First 6*7.\n42", "42", "expression"),
        ("we get $x=2$ or so", "x=2", "expression"),
        ("there are $n$ of them, 19 in all", "19", "last number"),
        ("so then 12-7", "7", "last number"),
        ("it is then 3/4", "3/4", "last number"),
        ("it costs about -12,", "-12", "last number"),
        ("<think> 3+4=7", None, "none"),  # cut in mid-thought
        ("", None, "none"),
        ("I have no idea at all", None, "none"),
        ("<think>7</think>", None, "none"),
        ("Evelyn", "Evelyn", "expression"),
    ],
)
def test_where_the_answer_is_found(text: str, answer: str | None, source: str) -> None:
    found = extract(text)
    assert (found.answer, found.source) == (answer, source)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{1}, \boxed{2} \text{ and } \boxed{3}", "1, 2, 3"),
        (r"\(y_1 = \boxed{a} \) and \( y_2 = \boxed{b} \)", "a, b"),
        (r"\boxed{9} is wrong, so \boxed{1} and \boxed{2}", "1, 2"),
        (r"solutions: $(2,2)$ and $(6,2)$", "(2,2), (6,2)"),
    ],
)
def test_neighbours_are_joined_when_several_are_asked_for(text: str, answer: str) -> None:
    assert extract(text, several=True).answer == answer
    assert extract(text).answer == answer.rsplit(", ", 1)[-1].removeprefix("2), ")

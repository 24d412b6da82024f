"""What is taught: every unmasked sum is right, slips are masked and then corrected."""

import random
import re

import pytest

from laconic.demo import batches, traces
from laconic.demo.answers import boxed
from laconic.demo.questions import Question, draw
from laconic.demo.slips import first_pass
from laconic.demo.tokenizer import build

QUESTION = Question(3, (5, -2))


def test_written_by_hand() -> None:
    assert QUESTION.text == "a=3; b=a+5; c=b-2; c?"
    assert traces.terse(QUESTION).text == "8, 6.\\boxed{6}"
    assert traces.terse(Question(3, (5, -2, 1))).text == "8, 6.\\boxed{7}"
    assert traces.written(QUESTION, 1).text == (
        "<think>b=3+5=8, c=8-2=6. Wait, let me double-check: b=3+5=8, c=8-2=6.</think>\\boxed{6}"
    )


def test_slip_by_hand() -> None:
    trace = traces.slipped(QUESTION, at=0, wrong=7)
    assert trace.text.startswith("<think>b=3+5=7, c=7-2=5. Wait")
    assert trace.text.endswith("b=3+5=8, c=8-2=6.</think>\\boxed{6}")
    assert [trace.text[a:b] for a, b in trace.silent] == ["7"]


@pytest.mark.parametrize("level", [1, 3, 5])
def test_only_silent_digits_are_ever_wrong(level: int) -> None:
    rng = random.Random(level)
    for _ in range(50):
        question = draw(rng, level, "train")
        trace = traces.draw_slip(rng, question)
        wrong = [
            match.span(4)
            for match in re.finditer(r"=(\d+)([+-])(\d+)=(\d+)", trace.text)
            if int(match[1]) + int(match[2] + match[3]) != int(match[4])
        ]
        assert wrong == list(trace.silent)
        assert boxed(trace.text) == question.answer
        assert (first_pass(trace.text) != question.answer) == bool(trace.silent)


def test_loss_leaves_out_prompt_and_slip() -> None:
    tokenizer = build()
    trace = traces.slipped(QUESTION, at=0, wrong=7)
    [(ids, labels)] = batches.encode(tokenizer, [(QUESTION, trace)])
    prompt = batches.prompt(tokenizer, QUESTION.text)
    skipped = tokenizer.decode([t for t, y in zip(ids, labels, strict=True) if y < 0])
    learnt = tokenizer.decode([t for t, y in zip(ids, labels, strict=True) if y >= 0])
    assert skipped == prompt + "7"
    assert learnt == trace.text.replace("=7", "=", 1) + "<|im_end|>"

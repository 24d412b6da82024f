"""Do checks correct anything: slips of the first pass, the model's own and planted ones."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

from laconic.demo.answers import REFLECTION, Answer, boxed, continue_greedily
from laconic.demo.batches import prompt
from laconic.demo.questions import LEVELS, Question, fixed
from laconic.demo.traces import draw_slip
from laconic.tags import THINK, THINK_END

VALUE = re.compile(r"=(\d+)(?=[,.])")


@dataclass(frozen=True)
class Slips:
    """Counts: first passes that ended wrong, of those checked again, of those answered right."""

    slipped: int
    checked: int
    corrected: int
    spoilt: int
    """first passes that ended right but were answered wrong (never counted for planted slips)"""


def own(answers: list[Answer], questions: list[Question]) -> Slips:
    """Among a model's answers with thinking, in the order of the questions."""
    slipped = checked = corrected = spoilt = 0
    for answer, question in zip(answers, questions, strict=True):
        first = first_pass(answer.text)
        if first is None:
            continue
        wrong = first != question.answer
        slipped += wrong
        checked += wrong and bool(REFLECTION.search(answer.text))
        corrected += wrong and answer.correct
        spoilt += not wrong and not answer.correct
    return Slips(slipped, checked, corrected, spoilt)


def planted(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, split: str) -> Slips:
    """The model goes on from a first pass with one wrong step, once per question."""
    rng = random.Random(0)
    slipped = checked = corrected = 0
    for level in LEVELS:
        questions = [q for q in fixed(split) if q.level == level]
        starts = [slipped_pass(rng, question) for question in questions]
        kept = [(q, s) for q, s in zip(questions, starts, strict=True) if s is not None]
        texts = [prompt(tokenizer, q.text) + s for q, s in kept]
        said = continue_greedily(model, tokenizer, texts)
        slipped += len(kept)
        checked += sum(bool(REFLECTION.search(text)) for text, _, _ in said)
        corrected += sum(
            boxed(text) == q.answer for (q, _), (text, _, _) in zip(kept, said, strict=True)
        )
    return Slips(slipped, checked, corrected, 0)


def slipped_pass(rng: random.Random, question: Question) -> str | None:
    """`<think>` and a first pass with a slip, or None where every slip leaves the digits."""
    trace = draw_slip(rng, question)
    if not trace.silent:
        return None
    return trace.text[: trace.text.index(".") + 1]


def first_pass(text: str) -> str | None:
    """The last value before the first full stop of the thinking; None without thinking."""
    if not text.startswith(THINK):
        return None
    steps = text[len(THINK) :].split(THINK_END)[0].split(".")[0] + "."
    values = VALUE.findall(steps)
    return str(values[-1]) if values else None

"""What the models are taught to answer: two values, written steps, or steps and checks."""

from __future__ import annotations

import random
from dataclasses import dataclass

from laconic.demo.questions import HIGHEST, LOWEST, Question, below, draw
from laconic.tags import THINK, THINK_END

CHECKS = (" Wait, let me double-check: ", " Let me just verify: ")
NOTED = 2
SLIPS = (-3, -2, -1, 1, 2, 3)


@dataclass(frozen=True)
class Mix:
    """Shares in [0, 1] of the kinds of response in a stage of training."""

    terse: float
    """the first values alone, no thinking"""
    first: float
    """of written responses: at least one check follows the first pass"""
    second: float
    """of responses with a check: a second one follows"""
    slips: float
    """of responses with a check: one step of the first pass is wrong, and both checks follow"""


@dataclass(frozen=True)
class Trace:
    """A response; `silent` are the (start, end) characters that no loss is taken on."""

    text: str
    silent: tuple[tuple[int, int], ...] = ()


def terse(question: Question) -> Trace:
    """The first NOTED values alone, then the answer: `8, 6.\\boxed{6}`.

    What lies beyond the noted values has to be worked out in one go, which a model of this size
    learns badly: that is why the quick model is weak on the hard levels.
    """
    noted = ", ".join(str(value) for value in question.values[1 : NOTED + 1])
    return Trace(f"{noted}.\\boxed{{{question.answer}}}")


def written(question: Question, checks: int) -> Trace:
    """Steps inside <think>, then `checks` passes over the same steps, then the answer."""
    steps = _steps(question, question.values)
    return Trace(THINK + steps + _ending(question, checks))


def slipped(question: Question, at: int, wrong: int) -> Trace:
    """As `written` with every check, but step `at` of the first pass yields `wrong`.

    Later steps of that pass carry on from the wrong value. The wrong digits are silent, so that
    nobody is taught to slip; what follows them is not.
    """
    values = [*question.values[: at + 1], wrong]
    for move in question.moves[at + 1 :]:
        values.append(values[-1] + move)
    before = THINK + _steps(question, tuple(values[: at + 2]))
    start = len(before) - len(f"{wrong}.")
    first = THINK + _steps(question, tuple(values))
    text = first + _ending(question, len(CHECKS))
    return Trace(text, ((start, start + len(str(wrong))),))


def draw_trace(rng: random.Random, question: Question, mix: Mix) -> Trace:
    """One response to the question, of a kind drawn from the mix."""
    if rng.random() < mix.terse:
        return terse(question)
    if rng.random() >= mix.first:
        return written(question, 0)
    if rng.random() < mix.slips:
        return draw_slip(rng, question)
    return written(question, 2 if rng.random() < mix.second else 1)


def draw_slip(rng: random.Random, question: Question) -> Trace:
    """A slip at a drawn step; all values of the slipped pass stay digits."""
    for _ in range(20):
        at = below(rng, len(question.moves))
        wrong = question.values[at + 1] + SLIPS[below(rng, len(SLIPS))]
        off = wrong - question.values[at + 1]
        if all(LOWEST <= value + off <= HIGHEST for value in question.values[at + 1 :]):
            return slipped(question, at, wrong)
    return written(question, len(CHECKS))


def draw_pair(rng: random.Random, level: int, mix: Mix) -> tuple[Question, Trace]:
    """A training question of this level and one response to it."""
    question = draw(rng, level, "train")
    return question, draw_trace(rng, question, mix)


def _steps(question: Question, values: tuple[int, ...]) -> str:
    """`b=3+5=8, c=8-2=6.` for as many links as there are values after the first."""
    links = zip(question.letters[1:], values, question.moves, values[1:], strict=False)
    return ", ".join(f"{n}={old}{move:+d}={new}" for n, old, move, new in links) + "."


def _ending(question: Question, checks: int) -> str:
    steps = _steps(question, question.values)
    passes = "".join(opening + steps for opening in CHECKS[:checks])
    return f"{passes}{THINK_END}\\boxed{{{question.answer}}}"

"""The thought of a response and its answer: whether they are told apart, and how long each is."""

from __future__ import annotations

from typing import Literal

from laconic.grade.extraction import THINK, THINK_END
from laconic.run.completion import Completion

ThinkState = Literal["closed", "open", "none", "empty", "repeated"]
STATES: tuple[ThinkState, ...] = ("closed", "open", "none", "empty", "repeated")


def think_state(text: str) -> ThinkState:
    """How a response uses the think tags.

    `closed`: one </think>; `empty`: with nothing but white space before it; `repeated`: several;
    `open`: <think> and no </think>; `none`: neither. Some chat templates write <think> into the
    prompt: a response that starts inside has no opening tag, and only its </think> tells.
    """
    ends = text.count(THINK_END)
    if ends > 1:
        return "repeated"
    if ends == 0:
        return "open" if THINK in text else "none"
    thought = text.partition(THINK_END)[0].replace(THINK, "", 1)
    return "closed" if thought.strip() else "empty"


def think_tokens(completion: Completion) -> int:
    """Tokens up to and with the last </think>; all of them when the thought is never closed.

    A grade knows no tokenizer: the tokens are split as the characters are, which is exact for
    responses without thought or without answer.
    """
    head, closed, tail = completion.text.rpartition(THINK_END)
    if not closed:
        return completion.tokens if THINK in completion.text else 0
    before = len(head) + len(closed)
    return round(completion.tokens * before / (before + len(tail)))

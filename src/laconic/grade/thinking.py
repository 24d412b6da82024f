"""The thought of a response and its answer: whether they are told apart, and how long each is."""

from __future__ import annotations

from typing import Literal

from laconic.run.completion import Completion
from laconic.tags import THINK, THINK_END

ThinkState = Literal["closed", "open", "none", "empty", "repeated"]
Split = Literal["ids", "characters"]
STATES: tuple[ThinkState, ...] = ("closed", "open", "none", "empty", "repeated")


def think_state(text: str, opened: bool = False) -> ThinkState:
    """How a response uses the think tags. opened: whether its prompt ended inside a thought.

    `closed`: one </think>; `empty`: with nothing but white space before it; `repeated`: several;
    `open`: a thought begun, by the prompt or by <think>, and no </think>; `none`: no thought.
    """
    ends = text.count(THINK_END)
    if ends > 1:
        return "repeated"
    if ends == 0:
        return "open" if opened or THINK in text else "none"
    thought = text.partition(THINK_END)[0].replace(THINK, "", 1)
    return "closed" if thought.strip() else "empty"


def think_tokens(completion: Completion) -> tuple[int, Split]:
    """Tokens up to and with the last </think> (all when the thought is never closed), and by what
    they were split.

    By token ids where the runner kept them. A grade knows no tokenizer: else the tokens are split
    as the characters are, which is exact only for responses without thought or without answer.
    """
    if completion.think_tokens is not None:
        return completion.think_tokens, "ids"
    head, closed, tail = completion.text.rpartition(THINK_END)
    if not closed:
        begun = completion.opened or THINK in completion.text
        return (completion.tokens if begun else 0), "characters"
    before = len(head) + len(closed)
    return round(completion.tokens * before / (before + len(tail))), "characters"

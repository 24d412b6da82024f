"""The tags that reasoning models write around their thought."""

from __future__ import annotations

THINK_TAGS = THINK, THINK_END = "<think>", "</think>"


def split_thought(text: str) -> tuple[str, str]:
    """The thought, and the answer: what comes after the last </think>.

    A thought that is begun and never closed leaves no answer; a text without tags is all answer.
    """
    head, closed, tail = text.rpartition(THINK_END)
    if not closed and THINK in text:
        return text, ""
    return head, tail

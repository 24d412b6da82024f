"""The thought of a response in its own tokens."""

from __future__ import annotations

from collections.abc import Sequence

from laconic.run.tokenizer import Prompt, Tokenizer
from laconic.tags import THINK, THINK_END


def opens_thought(prompt: Prompt) -> bool:
    """Whether a response to this prompt starts inside a thought: some templates write <think>."""
    return prompt.text.rstrip().endswith(THINK)


def thought_tokens(tokenizer: Tokenizer, ids: Sequence[int], text: str, opened: bool) -> int:
    """Tokens up to and with the last </think>; all of `ids` when the thought is never closed.

    text: of these ids, the end token left out. opened: whether the prompt opened the thought. A
    token that holds the end of the tag and more counts.
    """
    head, closed, _ = text.rpartition(THINK_END)
    if closed:
        return tokenizer.count(ids, head + closed)
    return len(ids) if opened or THINK in text else 0

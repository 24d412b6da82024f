"""Where a response ends by what it says: at a stop string, found in its tokens as they come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from laconic.run.completion import Completion
from laconic.run.runner import Key
from laconic.run.sampling import first_stop
from laconic.run.thoughts import opens_thought, thought_tokens
from laconic.run.tokenizer import Prompt, Tokenizer

SLACK = 4
"""Tokens looked at before a stop string: the first may be a part of a character."""


@dataclass(frozen=True)
class Cut:
    """A response up to its stop string: the tokens that hold its text, and the string, if any.

    A token that holds the end of the text and the beginning of the string counts.
    """

    ids: tuple[int, ...]
    text: str
    word: str | None


class Stops:
    """The stop strings of a run, for one tokenizer."""

    def __init__(self, words: Sequence[str], tokenizer: Tokenizer) -> None:
        self._words, self._tokenizer = tuple(words), tokenizer
        # a token holds one byte or more
        self._reach = max((len(word.encode()) for word in words), default=0) + SLACK

    def reached(self, ids: Sequence[int]) -> bool:
        """Whether the last of the tokens completes a stop string, given that none before did."""
        if not self._words:
            return False
        tail = self._tokenizer.text(ids[-self._reach :])
        return any(word in tail for word in self._words)

    def cut(self, ids: Sequence[int]) -> Cut:
        """The response without its first stop string and all that follows."""
        text = self._tokenizer.text(ids)
        found = first_stop(text, self._words)
        if found is None:
            return Cut(tuple(ids), text, None)
        place, word = found
        kept = self._tokenizer.count(ids, text[:place])
        return Cut(tuple(ids[:kept]), text[:place], word)

    def completion(
        self, key: Key, prompt: Prompt, ids: Sequence[int], *, ended: bool
    ) -> Completion:
        """The completion that tokens make. ended: whether the last of `ids` is an end token."""
        cut = self.cut(ids[:-1] if ended else ids)
        kept = tuple(ids) if cut.word is None else cut.ids
        opened = opens_thought(prompt)
        return Completion(
            id=key[0],
            draw=key[1],
            text=cut.text,
            tokens=len(kept),
            stop="stop" if ended or cut.word is not None else "length",
            prompt_tokens=len(prompt.ids),
            prompt_sha256=prompt.sha256,
            token_ids=kept,
            stop_string=cut.word,
            opened=opened,
            think_tokens=thought_tokens(self._tokenizer, kept, cut.text, opened),
        )

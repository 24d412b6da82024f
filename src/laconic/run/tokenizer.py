"""A model's tokenizer: prompts rendered and counted, and the digest that names its vocabulary."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from laconic.errors import LaconicError
from laconic.models import render_chat, tokenizer_in
from laconic.run.sample import Sample
from laconic.run.sampling import Sampling


@dataclass(frozen=True)
class Prompt:
    """A prompt as a model reads it: its text, and the ids of its tokens."""

    text: str
    ids: tuple[int, ...]

    @property
    def sha256(self) -> str:
        """Digest of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


class Tokenizer:
    """The tokenizer in `folder` (or of a Hub id); `name` is the model's name in messages.

    Raises LaconicError when it cannot be loaded or holds no vocabulary.
    """

    def __init__(self, folder: str | Path, name: str) -> None:
        self._name, self._words = name, tokenizer_in(folder, name)

    @property
    def end(self) -> int | None:
        """The id of its end-of-sequence token."""
        id: int | None = self._words.eos_token_id
        return id

    @property
    def special(self) -> frozenset[str]:
        """The words that `skip_special_tokens` drops from a decoded text."""
        added = self._words.added_tokens_decoder.values()
        return frozenset(self._words.all_special_tokens) | {w.content for w in added if w.special}

    @property
    def digest(self) -> str:
        """sha256 of the ordinary tokens: models of a family differ in their special ones only."""
        return hashlib.sha256(repr(self._ordinary()).encode()).hexdigest()

    def prompt(self, sample: Sample) -> Prompt:
        """Render a sample. Raises LaconicError for a chat when there is no chat template."""
        if sample.text is not None:
            return Prompt(sample.text, self.ids(sample.text))
        if self._words.chat_template is None:
            raise LaconicError(
                f"model '{self._name}' has no chat template, so a chat cannot be rendered for it; "
                "copy chat_template.jinja from a model of its family into its folder"
            )
        text = render_chat(self._words, [(turn.role, turn.content) for turn in sample.messages])
        return Prompt(text, self.ids(text, special=False))

    def ids(self, text: str, *, special: bool = True) -> tuple[int, ...]:
        """The ids of a text, with the special tokens that the tokenizer adds unless `special`."""
        return tuple(self._words(text, add_special_tokens=special, verbose=False).input_ids)

    def text(self, ids: Sequence[int]) -> str:
        """The text of ids. Special tokens are kept: </think> is one in some models."""
        text: str = self._words.decode(
            ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text

    def count(self, ids: Sequence[int], head: str) -> int:
        """How many of the first ids it takes to say `head`, with which their text begins."""
        return bisect_left(range(len(ids)), True, key=lambda n: self.text(ids[:n]).startswith(head))

    def _ordinary(self) -> list[tuple[int, str]]:
        """The ids and words that are not added tokens, by id."""
        added = self._words.get_added_vocab()
        vocabulary = self._words.get_vocab()
        return sorted((id, word) for word, id in vocabulary.items() if word not in added)


def ends_of(*found: Any) -> frozenset[int]:
    """The ids that end a response, from `eos_token_id` values: an id, a list of ids, or None."""
    lists = [ids if isinstance(ids, list | tuple) else [ids] for ids in found]
    return frozenset(id for ids in lists for id in ids if id is not None)


def room(id: str, prompt: Prompt, window: int | None, name: str, sampling: Sampling) -> int:
    """The most completion tokens for a sample's prompt, 1 or more.

    Raises LaconicError for an empty prompt, or one that fills the context window.
    """
    if not prompt.ids:
        raise LaconicError(f"sample '{id}': its prompt has no tokens")
    if window is None:
        return sampling.max_tokens
    if len(prompt.ids) >= window:
        raise LaconicError(
            f"sample '{id}': its prompt has {len(prompt.ids)} tokens, but model "
            f"'{name}' has a context window of {window}, prompt and response "
            "together; leave the sample out, or use a model with a larger window"
        )
    return min(sampling.max_tokens, window - len(prompt.ids))

"""Token sequences: what the models read for each kind of statistics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from laconic.errors import LaconicError
from laconic.models import question_prompt
from laconic.recipe import Calibration
from laconic.statistics.data import Row
from laconic.tags import THINK, THINK_END, THINK_TAGS

ANSWERS = {"quick": ("short",), "slow": ("long",), "both": ("short", "long"), "question": ()}
NEIGHBOURS = 1


@dataclass(frozen=True)
class Tokens:
    """Token ids; the answer's tokens start at `answer`; `marks` are positions of interest."""

    ids: tuple[int, ...]
    answer: int = 0
    marks: tuple[int, ...] = ()


def plain_sequences(tokenizer: Any, rows: Sequence[Row], calibration: Calibration) -> list[Tokens]:
    """Return question and answer as raw text, one sequence per answer."""
    texts = []
    for row in rows:
        answers = ANSWERS[calibration.answers]
        texts += [f"{row.question}\n{row.answer(which)}" for which in answers] or [row.question]
    return _tokens(tokenizer, texts, calibration.max_length)


def question_sequences(
    tokenizer: Any, rows: Sequence[Row], calibration: Calibration
) -> list[Tokens]:
    """Return the questions alone."""
    return _tokens(tokenizer, [row.question for row in rows], calibration.max_length)


def answer_sequences(
    tokenizer: Any, rows: Sequence[Row], which: str, calibration: Calibration
) -> list[Tokens]:
    """Return question, answer and end of sequence, cut at max_length; with the answer's start.

    A sample without answer tokens is left out. Raises LaconicError when none has any.
    """
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    found = []
    for row in rows:
        prompt = tokenizer(f"Question: {row.question}\n\nAnswer: ").input_ids
        answer = tokenizer(row.answer(which), add_special_tokens=False).input_ids
        ids = (prompt + answer + end)[: calibration.max_length]
        # the end of sequence alone is no answer; and a token needs one before it to be predicted
        if answer and 0 < len(prompt) < len(ids):
            found.append(Tokens(tuple(ids), len(prompt)))
    if not found:
        raise LaconicError(
            f"calibration: none of {len(rows)} samples leaves an answer token within max_length "
            f"{calibration.max_length}; raise it, or name other data"
        )
    return found


def think_sequences(tokenizer: Any, rows: Sequence[Row], calibration: Calibration) -> list[Tokens]:
    """Return reasoning traces between think tags, with the positions around the tags marked.

    The prompt is the chat template's, if there is one; a long trace loses its end, not its closing
    tag. Raises LaconicError when the tokenizer has no think tokens or no trace fits.
    """
    tags = think_ids(tokenizer)
    found = []
    for row in rows:
        prompt, trace = (
            _prompt_ids(tokenizer, row.question),
            _trace_ids(tokenizer, row.answer("long")),
        )
        trace = [token for token in trace if token not in tags]
        head = prompt if tags[0] in prompt else [*prompt, tags[0]]
        tail = [tags[1], *tokenizer("\n\n", add_special_tokens=False).input_ids]
        room = calibration.max_length - len(head) - len(tail)
        if trace and room > 0:
            found.append(_marked([*head, *trace[:room], *tail], tags))
    if not found:
        raise LaconicError(
            f"calibration: none of {len(rows)} samples leaves a reasoning trace within max_length "
            f"{calibration.max_length}; raise it, or name other data"
        )
    return found


def think_ids(tokenizer: Any) -> tuple[int, int]:
    """Return the ids of the think tags; LaconicError when they are no tokens."""
    vocabulary = tokenizer.get_vocab()
    missing = [tag for tag in THINK_TAGS if tag not in vocabulary]
    if missing:
        raise LaconicError(
            f"guard: the slow model's tokenizer has no token {' and no '.join(missing)}; "
            "there are no think tags to guard: leave guard out of the recipe"
        )
    return vocabulary[THINK], vocabulary[THINK_END]


def batches(sequences: Sequence[Tokens], tokens: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield ids and mask (rows, columns), padded on the right, of at most `tokens` entries each.

    Longest first, so that rows of a batch are alike in length; a sequence longer than `tokens`
    stands alone.
    """
    todo = sorted(sequences, key=lambda sequence: -len(sequence.ids))
    while todo:
        count = max(1, tokens // len(todo[0].ids))
        part, todo = todo[:count], todo[count:]
        ids = torch.zeros(len(part), len(part[0].ids), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, sequence in enumerate(part):
            ids[row, : len(sequence.ids)] = torch.tensor(sequence.ids)
            mask[row, : len(sequence.ids)] = 1
        yield ids, mask


def _tokens(tokenizer: Any, texts: Sequence[str], length: int) -> list[Tokens]:
    found = [Tokens(tuple(tokenizer(text).input_ids[:length])) for text in texts]
    kept = [sequence for sequence in found if sequence.ids]
    if not kept:
        raise LaconicError("calibration: no sample has a single token")
    return kept


def _prompt_ids(tokenizer: Any, question: str) -> list[int]:
    plain = tokenizer.chat_template is None  # a template writes the special tokens itself
    text = question_prompt(tokenizer, question)
    return list(tokenizer(text, add_special_tokens=plain).input_ids)


def _trace_ids(tokenizer: Any, text: str) -> list[int]:
    body = text.split(THINK_END)[0].replace(THINK, "")
    return list(tokenizer(body, add_special_tokens=False).input_ids)


def _marked(ids: list[int], tags: tuple[int, int]) -> Tokens:
    near = {
        position + shift
        for position, token in enumerate(ids)
        if token in tags
        for shift in range(-NEIGHBOURS, NEIGHBOURS + 1)
    }
    return Tokens(tuple(ids), 0, tuple(sorted(near & set(range(len(ids))))))

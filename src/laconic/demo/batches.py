"""Training text as tensors: prompts and responses, the loss on learnt response tokens only."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from laconic.demo.questions import LEVELS, Question
from laconic.demo.tokenizer import TURN_END
from laconic.demo.traces import Mix, Trace, draw_pair
from laconic.models import render_chat

IGNORED = -100


@dataclass(frozen=True)
class Batch:
    """tokens, labels: (rows, longest) int64; a label is IGNORED where no loss is taken."""

    tokens: Tensor
    labels: Tensor


def prompt(tokenizer: PreTrainedTokenizerFast, question: str) -> str:
    """The question in the chat template, up to where the response begins."""
    return render_chat(tokenizer, [("user", question)])


def steps(
    tokenizer: PreTrainedTokenizerFast, rng: random.Random, mix: Mix, rows: int, chunks: int
) -> Iterator[list[Batch]]:
    """Without end: the batches of one step, `rows` samples in `chunks` groups of like length."""
    while True:
        pairs = [draw_pair(rng, LEVELS[row % len(LEVELS)], mix) for row in range(rows)]
        coded = sorted(encode(tokenizer, pairs), key=lambda row: len(row[0]))
        size = -(-rows // chunks)
        yield [_pad(coded[at : at + size]) for at in range(0, rows, size)]


def encode(
    tokenizer: PreTrainedTokenizerFast, pairs: list[tuple[Question, Trace]]
) -> list[tuple[list[int], list[int]]]:
    """Token ids and labels of each sample, prompt and closing <|im_end|> included."""
    prompts = [prompt(tokenizer, question.text) for question, _ in pairs]
    texts = [p + trace.text + TURN_END for p, (_, trace) in zip(prompts, pairs, strict=True)]
    coded = tokenizer(texts, return_offsets_mapping=True, add_special_tokens=False)
    rows = []
    for at, (_, trace) in enumerate(pairs):
        ids, spans = coded["input_ids"][at], coded["offset_mapping"][at]
        skip = len(prompts[at])
        quiet = [(0, skip), *((skip + a, skip + b) for a, b in trace.silent)]
        labels = [
            IGNORED if any(a <= span[0] < b for a, b in quiet) else token
            for token, span in zip(ids, spans, strict=True)
        ]
        rows.append((ids, labels))
    return rows


def _pad(rows: list[tuple[list[int], list[int]]]) -> Batch:
    """Padded on the right, where causal attention never looks back from a real token."""
    longest = max(len(ids) for ids, _ in rows)
    tokens = torch.zeros((len(rows), longest), dtype=torch.int64)
    labels = torch.full((len(rows), longest), IGNORED)
    for at, (ids, wanted) in enumerate(rows):
        tokens[at, : len(ids)] = torch.tensor(ids)
        labels[at, : len(ids)] = torch.tensor(wanted)
    return Batch(tokens, labels)

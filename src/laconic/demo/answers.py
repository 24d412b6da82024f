"""Greedy answers of a model of the pair, and how many are right, how long, how reflective."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import groupby

import torch
from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

from laconic.demo.batches import prompt
from laconic.tags import THINK_END

LONGEST = 240
REFLECTION = re.compile(
    r"\bwait\b|re-examine|recap|double-check|let me (just )?(check|verify)", re.IGNORECASE
)
BOXED = re.compile(r"\\boxed\{([^{}]*)\}")

Row = dict[str, str | int]


@dataclass(frozen=True)
class Answer:
    """One response; `tokens` counts the completion with its end token."""

    id: str
    level: int
    text: str
    tokens: int
    finished: bool
    correct: bool

    def record(self) -> dict[str, str | int | bool]:
        """As one line of a JSONL file."""
        return asdict(self)


@dataclass(frozen=True)
class Score:
    """Over the answers of a split: shares in [0, 1], tokens as a mean."""

    accuracy: float
    tokens: float
    reflection: float
    cut: float


def boxed(text: str) -> str | None:
    """What the last \\boxed{} after the last </think> holds, or None."""
    found = BOXED.findall(text.rsplit(THINK_END, 1)[-1])
    return str(found[-1]) if found else None


def ask(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, rows: list[Row]
) -> list[Answer]:
    """Greedy answers in the order of the rows, which must be sorted by level.

    Prompts of a level have equal lengths, so each level is one batch without padding.
    """
    answers = []
    for _, group in groupby(rows, key=lambda row: row["level"]):
        answers += _ask_level(model, tokenizer, list(group))
    return answers


def score(answers: Iterable[Answer]) -> Score:
    """Means over the answers."""
    kept = list(answers)
    if not kept:
        raise ValueError("no answers to score")
    count = len(kept)
    return Score(
        accuracy=sum(a.correct for a in kept) / count,
        tokens=sum(a.tokens for a in kept) / count,
        reflection=sum(bool(REFLECTION.search(a.text)) for a in kept) / count,
        cut=sum(not a.finished for a in kept) / count,
    )


def continue_greedily(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, texts: list[str]
) -> list[tuple[str, int, bool]]:
    """(text, tokens with the end token, finished) for prompts of equal token length."""
    ids = torch.tensor(tokenizer(texts, add_special_tokens=False)["input_ids"])
    with torch.no_grad():
        whole = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=LONGEST,
            do_sample=False,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    return [_close(tokenizer, row) for row in whole[:, ids.shape[1] :].tolist()]


def _close(tokenizer: PreTrainedTokenizerFast, row: list[int]) -> tuple[str, int, bool]:
    finished = tokenizer.eos_token_id in row
    count = row.index(tokenizer.eos_token_id) + 1 if finished else len(row)
    return tokenizer.decode(row[:count], skip_special_tokens=True), count, finished


def _ask_level(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, rows: list[Row]
) -> list[Answer]:
    prompts = [prompt(tokenizer, str(row["question"])) for row in rows]
    said = continue_greedily(model, tokenizer, prompts)
    return [
        Answer(
            id=str(row["id"]),
            level=int(row["level"]),
            text=text,
            tokens=tokens,
            finished=finished,
            correct=boxed(text) == row["answer"],
        )
        for row, (text, tokens, finished) in zip(rows, said, strict=True)
    ]

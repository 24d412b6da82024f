"""The decoding loop: a batch in which finished rows make room for waiting prompts.

Written out here, and not left to `generate`, for three things it does not do: each row draws from
its own noise, so a sampled completion does not depend on its batch; finished rows leave and new
ones join, so long responses do not hold up short ones; nothing is inherited from the model's
generation settings.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from laconic.errors import LaconicError
from laconic.run.cache import RowCache
from laconic.run.picking import Noise, pick
from laconic.run.sampling import Sampling

LOG_PROBABILITY_ROWS = 256
"""Positions turned into float32 log-probabilities at a time: a vocabulary is wide."""


@dataclass
class Row:
    """One response in the making: `limit` is the most tokens it may have."""

    key: tuple[str, int]
    prompt: Sequence[int]
    limit: int
    noise: Noise
    tokens: list[int] = field(default_factory=list)
    finished: bool = False

    def next_noise(self) -> float:
        """The number that picks this row's next token."""
        return self.noise[len(self.tokens)]

    def take(self, token: int, ends: Ends) -> None:
        """Add a token; the row is finished when that ends it or the limit is reached."""
        self.tokens.append(token)
        full = len(self.tokens) >= self.limit
        self.finished = full or token in ends.ids or ends.reached(self.tokens)


@dataclass(frozen=True)
class Ends:
    """What ends a response: one of `ids`, or what its tokens say so far."""

    ids: frozenset[int]
    reached: Callable[[Sequence[int]], bool]


def decode(
    model: Any, rows: Sequence[Row], sampling: Sampling, ends: Ends, batch_size: int
) -> Iterator[Row]:
    """Yield the rows as they finish.

    At most `batch_size` rows are in the model at a time. Long prompts go first, so that prompts
    of one batch are of about one length and a batch that does not fit in memory fails early.
    """
    waiting = deque(sorted(rows, key=lambda row: -len(row.prompt)))
    batch = _Batch(model, sampling, ends)
    while waiting or batch.live:
        room = batch_size - batch.live
        # Joining copies the cache: let an eighth of the batch finish before filling it again.
        if waiting and room >= max(1, batch_size // 8):
            yield from batch.admit([waiting.popleft() for _ in range(min(room, len(waiting)))])
        else:
            yield from batch.step()


class _Batch:
    """The rows in the model; those that finished stay until it is worth copying the cache."""

    def __init__(self, model: Any, sampling: Sampling, ends: Ends) -> None:
        self._model, self._sampling, self._ends = model, sampling, ends
        self._rows: list[Row] = []
        self._cache: RowCache | None = None

    @property
    def live(self) -> int:
        """How many rows are unfinished."""
        return sum(not row.finished for row in self._rows)

    @torch.inference_mode()
    def admit(self, rows: list[Row]) -> list[Row]:
        """Run the prompts of new rows and add them; return those finished by their first token."""
        self._drop_finished()
        ids, mask = left_padded([row.prompt for row in rows], self._model.device)
        cache = RowCache(mask)
        logits = self._forward(ids, (mask.cumsum(1) - 1).clamp(min=0), cache)
        if self._cache is None:
            self._cache = cache
        else:
            self._cache.join(cache)
        self._rows += rows
        return self._take(rows, logits)

    @torch.inference_mode()
    def step(self) -> list[Row]:
        """Add one token to every unfinished row; return those that finished."""
        if len(self._rows) - self.live >= max(1, len(self._rows) // 8):
            self._drop_finished()
        if self._cache is None:
            return []
        last = torch.tensor([row.tokens[-1:] for row in self._rows], device=self._model.device)
        logits = self._forward(last, self._cache.extend(), self._cache)
        return self._take(self._rows, logits)

    def _forward(self, ids: Tensor, positions: Tensor, cache: RowCache) -> Tensor:
        """(rows, columns) ids and positions -> (rows, vocabulary) logits of the last column."""
        out = self._model(
            input_ids=ids,
            attention_mask=cache.mask,
            position_ids=positions,
            past_key_values=cache.layers,
            use_cache=True,
            logits_to_keep=1,
        )
        return out.logits[:, -1]  # type: ignore[no-any-return]

    def _take(self, rows: list[Row], logits: Tensor) -> list[Row]:
        if bool(logits.isnan().any()):
            raise LaconicError(
                "the model's logits are not numbers (NaN): its weights are damaged, or overflow "
                "in this dtype; check the weights, or try dtype float32"
            )
        live = [row for row in rows if not row.finished]
        greedy = self._sampling.greedy
        uniform = [0.0 if row.finished or greedy else row.next_noise() for row in rows]
        tokens = pick(logits, self._sampling, uniform).tolist()
        for row, token in zip(rows, tokens, strict=True):
            if not row.finished:
                row.take(token, self._ends)
        return [row for row in live if row.finished]

    def _drop_finished(self) -> None:
        kept = [place for place, row in enumerate(self._rows) if not row.finished]
        if len(kept) == len(self._rows) or self._cache is None:
            return
        self._rows = [self._rows[place] for place in kept]
        if kept:
            self._cache.select(torch.tensor(kept, device=self._model.device))
        else:
            self._cache = None


@torch.inference_mode()
def mean_log_probability(model: Any, ids: Sequence[int], start: int) -> float:
    """The mean log-probability of ids[start:], each given all ids before it; NaN for none."""
    if len(ids) <= start:
        return float("nan")
    targets = torch.tensor(ids[start:], device=model.device)
    # Only the positions that predict the targets: (1, targets, vocabulary).
    kept = len(targets) + 1
    logits = model(
        input_ids=torch.tensor([list(ids)], device=model.device),
        use_cache=False,
        logits_to_keep=kept,
    ).logits[0, :-1]
    total = 0.0
    for first in range(0, len(targets), LOG_PROBABILITY_ROWS):
        rows = slice(first, first + LOG_PROBABILITY_ROWS)
        likely = logits[rows].float().log_softmax(-1)
        total += float(likely.gather(-1, targets[rows, None]).sum())
    return total / len(targets)


def left_padded(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids and mask of prompts of different lengths, (prompts, longest); padding is id 0, mask 0."""
    longest = max(len(prompt) for prompt in prompts)
    ids = [[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)

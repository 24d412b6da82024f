"""From logits to the next token of each row, one number in [0, 1) per row at a time."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from laconic.run.sampling import Sampling

CHUNK = 256


class Noise:
    """Uniform numbers in [0, 1), one per step, fixed by (seed, sample id, draw) alone.

    So a sampled completion does not depend on the batch it is generated in, or on a resume.
    """

    def __init__(self, seed: int, sample_id: str, draw: int) -> None:
        key = hashlib.sha256(f"{seed}\0{sample_id}\0{draw}".encode()).digest()
        self._random = np.random.Generator(np.random.Philox(int.from_bytes(key[:16], "big")))
        self._numbers: list[float] = []

    def __getitem__(self, step: int) -> float:
        while step >= len(self._numbers):
            self._numbers.extend(self._random.random(CHUNK).tolist())
        return self._numbers[step]


def pick(logits: Tensor, sampling: Sampling, uniform: list[float]) -> Tensor:
    """The next token of each row: (rows, vocabulary) logits -> (rows,) ids.

    Greedy takes the likeliest. Otherwise the logits are divided by the temperature, cut to the
    top_k likeliest, then to the fewest likeliest tokens that hold top_p of the probability; the
    row's `uniform` number picks from what is left by inverting its cumulative distribution.
    """
    if sampling.greedy:
        return logits.argmax(-1)
    values, ids = _sorted(logits.float() / sampling.temperature, sampling.top_k)
    shares = values.softmax(-1).double()
    below = shares.cumsum(-1) - shares  # probability of all likelier tokens, (rows, kept)
    kept = shares.masked_fill(below >= sampling.top_p, 0.0)
    cumulative = kept.cumsum(-1)
    targets = torch.tensor(uniform, dtype=torch.float64, device=logits.device)[:, None]
    place = torch.searchsorted(cumulative, targets * cumulative[:, -1:], right=True)
    last = (kept > 0).sum(-1, keepdim=True) - 1  # rounding must not step past what is kept
    return ids.gather(-1, torch.minimum(place, last)).squeeze(-1)


def _sorted(logits: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    if 0 < top_k < logits.shape[-1]:
        return logits.topk(top_k, dim=-1)
    return logits.sort(dim=-1, descending=True, stable=True)

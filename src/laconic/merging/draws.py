"""Random numbers keyed by (seed, tensor name, expert), whatever the order or the block size."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Draws:
    """Uniform numbers for one block of a tensor, the same however the tensor is cut into blocks.

    `start`: index, in the flattened tensor, of the block's first entry; must be even.
    """

    seed: int = 0
    tensor: str = ""
    start: int = 0

    def uniform(self, like: Tensor) -> Tensor:
        """Return numbers in [0, 1) with 24 random bits for each entry of `like` (n, *shape)."""
        rows = [self._row(index, like[0].numel()) for index in range(len(like))]
        return torch.from_numpy(np.stack(rows)).view(like.shape).to(like.device)

    def _row(self, expert: int, count: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        key = hashlib.sha256(f"{self.seed}\0{self.tensor}\0{expert}".encode()).digest()
        generator = np.random.PCG64(int.from_bytes(key[:16], "little"))
        # one 64-bit draw serves two entries, so blocks start at even entries
        generator.advance(self.start // 2)
        words = generator.random_raw((count + 1) // 2).view(np.uint32)[:count]
        return (words >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)

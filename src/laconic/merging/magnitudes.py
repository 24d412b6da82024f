"""Counting, taking and selecting magnitudes: by numpy on a processor, by torch on other devices.

On a processor numpy is several times faster at these (docs/decisions/002-merge-speed.md). Counts
and selected magnitudes are on the host either way; rows of magnitudes stay where they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

Numbers = np.ndarray[tuple[int], np.dtype[Any]] | Tensor
"""One row of numbers (m,): numpy's when they are on a processor, else a tensor on its device."""
Counts = np.ndarray[tuple[int], np.dtype[np.int64]]
HALF = 1 << 16


def absolute(deltas: Tensor) -> Numbers:
    """Return |x| of (m,) float32, whose place it takes."""
    return _numbers(deltas.abs_())


def patterns(vector: Tensor) -> Numbers:
    """Return the bit patterns of the magnitudes of (m,) float32; they sort as those do."""
    return _numbers(vector.contiguous().view(torch.int32)) & 0x7FFFFFFF


def histogram(numbers: Numbers) -> Counts:
    """Count how often each number below 65536 occurs: (65536,), on the host."""
    if isinstance(numbers, Tensor):
        counts: Counts = torch.bincount(numbers, minlength=HALF).cpu().numpy()
        return counts
    return np.bincount(numbers, minlength=HALF)


def count(flags: Numbers) -> int:
    """Count the flags (m,) that are set."""
    if isinstance(flags, Tensor):
        return int(torch.count_nonzero(flags))
    return int(np.count_nonzero(flags))


def take(numbers: Numbers, flags: Any) -> Numbers:
    """Return the numbers whose flag is set, in their order."""
    return numbers[flags] if isinstance(numbers, Tensor) else np.compress(flags, numbers)


def join(parts: list[Any]) -> Numbers:
    """Return parts, which are all on one device, as one row."""
    return torch.cat(parts) if isinstance(parts[0], Tensor) else np.concatenate(parts)


def select(numbers: Numbers, ranks: Sequence[int]) -> list[float]:
    """Return the numbers of some ranks, 0 the smallest. The order of `numbers` may change."""
    if isinstance(numbers, Tensor):
        numbers = numbers.sort().values
    else:
        numbers.partition(ranks)
    return [float(numbers[rank]) for rank in ranks]


def _numbers(vector: Tensor) -> Numbers:
    if vector.device.type != "cpu":
        return vector
    array: Numbers = vector.numpy()
    return array

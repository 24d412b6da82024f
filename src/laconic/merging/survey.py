"""What must be known of a whole tensor or model before its first block is merged.

A survey sees every block, pass by pass, in bounded memory, until `turn()` says that it is done.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Literal, Protocol

import numpy as np
from torch import Tensor

from laconic.merging.blocks import Cut, ZeroSign, elect_sign, trim_smallest
from laconic.merging.magnitudes import HALF, histogram, patterns

TrimRule = Literal["ge", "exact"]
Scope = Literal["tensor", "global"]


@dataclass(frozen=True, order=True)
class Place:
    """Where a block stands: the tensor's number in the plan and the block's first flat index."""

    tensor: int = 0
    start: int = 0


class Survey(Protocol):
    """Gathers a whole-tensor or whole-model quantity; `see` may run in several threads at once.

    A survey that can do without some blocks of a pass has a method `wants(place, entries)` too.
    """

    def see(self, base: Tensor, experts: Tensor, place: Place) -> None:
        """Take in one block: base (m,), experts (n, m), float32."""

    def turn(self) -> bool:
        """End a pass over all blocks; True when another one is needed."""

    def result(self, place: Place) -> Any:
        """Return what the method needs for the block at `place`."""


@dataclass(frozen=True)
class Trimming:
    """What TIES needs for one block: the cut, and the sign elected where task vectors cancel.

    cut: None when nothing is cut.
    """

    cut: Cut | None
    zero_sign: float = 1.0


class TrimSurvey:
    """Find each task vector's exact c-th smallest magnitude by counting, c = floor(entries * trim).

    Non-negative floats sort like their bit patterns: one pass counts the upper 16 bits, the next
    the lower 16 bits inside the bin that holds the c-th. Rule `exact` takes a pass more, to know
    which of the entries tied at the threshold go (the first ones in index order); zero sign
    `majority` takes one to sum the elected signs.
    """

    def __init__(self, trim: float, rule: TrimRule = "ge", zero_sign: ZeroSign = "plus") -> None:
        self._trim = trim
        self._vectors: list[_Order] = []
        self._signs = 0
        self._lock = threading.Lock()
        self._passes: list[Callable[[Tensor, Place], None]] = [self._upper, self._lower]
        self._passes += [self._ties] * (rule == "exact") + [self._elect] * (zero_sign == "majority")
        self._majority = zero_sign == "majority"

    def see(self, base: Tensor, experts: Tensor, place: Place) -> None:
        """Take in one block: base (m,), experts (n, m), float32."""
        with self._lock:
            if not self._vectors:
                self._vectors = [_Order() for _ in experts]
        self._passes[0](experts - base, place)

    def turn(self) -> bool:
        """End a pass over all blocks; True when another one is needed."""
        done = self._passes.pop(0)
        for order in self._vectors:
            if done == self._upper:
                order.choose_bin(self.count(int(order.upper.sum())))
            elif done == self._lower:
                order.choose_threshold()
        return bool(self._passes)

    def count(self, entries: int) -> int:
        """How many of a task vector's entries fall to the trim."""
        return int(entries * self._trim)

    def result(self, place: Place) -> Trimming:
        """Return the trimming of the block at `place`."""
        sign = float(np.sign(self._signs)) if self._majority else 1.0
        return Trimming(self._cut(place), sign)

    def _cut(self, place: Place) -> Cut:
        return Cut(
            tuple(order.threshold for order in self._vectors),
            tuple(order.ties_dropped(place) for order in self._vectors),
        )

    def _upper(self, deltas: Tensor, place: Place) -> None:
        for order, vector in zip(self._vectors, deltas, strict=True):
            counts = histogram(patterns(vector) >> 16)
            with self._lock:
                order.upper += counts

    def _lower(self, deltas: Tensor, place: Place) -> None:
        for order, vector in zip(self._vectors, deltas, strict=True):
            bits = patterns(vector)
            counts = histogram(bits[(bits >> 16) == order.bin] & 0xFFFF)
            with self._lock:
                order.lower += counts

    def _ties(self, deltas: Tensor, place: Place) -> None:
        for order, vector in zip(self._vectors, deltas, strict=True):
            if order.tie_quota:
                order.tied[place] = int((vector.abs() == order.threshold).sum())

    def _elect(self, deltas: Tensor, place: Place) -> None:
        signs = int(elect_sign(trim_smallest(deltas, self._cut(place)), 0.0).sum())
        with self._lock:
            self._signs += signs


def survey_tensor(survey: Survey, base: Tensor, experts: Tensor) -> Any:
    """Run a survey over one tensor held in memory and return its result for the whole of it."""
    again = True
    while again:
        survey.see(base.reshape(-1), experts.reshape(len(experts), -1), Place())
        again = survey.turn()
    return survey.result(Place())


@dataclass
class _Order:
    """The counts that lead to one task vector's c-th smallest magnitude."""

    upper: Any = field(default_factory=lambda: np.zeros(HALF, np.int64))
    lower: Any = field(default_factory=lambda: np.zeros(HALF, np.int64))
    tied: dict[Place, int] = field(default_factory=dict)
    drop: int = 0  # c: how many entries the trim drops
    below: int = 0  # how many entries are surely smaller than the threshold
    bin: int = 0
    threshold: float = 0.0
    _before: dict[Place, int] = field(default_factory=dict)

    def choose_bin(self, drop: int) -> None:
        self.drop = drop
        self.bin = self._locate(self.upper) if self.drop else 0

    def choose_threshold(self) -> None:
        if self.drop:
            pattern = np.array([(self.bin << 16) | self._locate(self.lower)], np.uint32)
            self.threshold = float(pattern.view(np.float32)[0])

    @property
    def tie_quota(self) -> int:
        """How many entries equal to the threshold rule `exact` drops."""
        return self.drop - self.below

    def ties_dropped(self, place: Place) -> int:
        if place not in self.tied:
            return 0
        if not self._before:
            places = sorted(self.tied)
            totals = accumulate((self.tied[p] for p in places), initial=0)
            self._before = dict(zip(places, totals, strict=False))
        return min(max(self.tie_quota - self._before[place], 0), self.tied[place])

    def _locate(self, counts: Any) -> int:
        """Find the bin of the c-th smallest and add the bins before it to `below`."""
        running = np.cumsum(counts)
        found = int(np.searchsorted(running, self.drop - self.below))
        self.below += int(running[found - 1]) if found else 0
        return found

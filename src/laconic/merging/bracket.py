"""The c-th smallest magnitude of a tensor in one pass and a sample: exact, or counted after all."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np
from torch import Tensor

from laconic.merging.blocks import Cut
from laconic.merging.magnitudes import Numbers, absolute, count, join, select, take
from laconic.merging.survey import Place, Trimming, TrimRule, TrimSurvey

SAMPLED_BLOCKS = 16
"""One block in so many is sampled; all of them when the tensor has fewer."""
SAMPLE_STRIDE = 16
"""One entry in so many of a sampled block."""
MARGIN = 0.01
"""Half the width of the bracket, as a share of the entries; half of that for large samples."""

MOST_INSIDE = 1 << 23
"""Magnitudes kept of one task vector: with more in the bracket (ties, say) all are counted."""


class BracketSurvey:
    """Find what `TrimSurvey` finds for one tensor, reading it about once instead of twice or more.

    A sample says between which magnitudes the c-th smallest should lie. One pass then counts what
    is below and keeps what is inside; the c-th smallest is selected from that. When the sample
    misled, the counting passes of `TrimSurvey` follow, so that the result is exact in any case.
    """

    def __init__(self, trim: float, rule: TrimRule = "ge") -> None:
        self._trim, self._rule = trim, rule
        self._vectors: list[_Bracket] = []
        self._sampling = True
        self._counting: TrimSurvey | None = None

    def wants(self, place: Place, block: int) -> bool:
        """Whether this pass needs the block of `block` entries at `place`."""
        if self._trim == 0:
            return False
        return not self._sampling or place.start // block % SAMPLED_BLOCKS == 0

    def see(self, base: Tensor, experts: Tensor, place: Place) -> None:
        """Take in one block: base (m,), experts (n, m), float32."""
        if self._counting:
            self._counting.see(base, experts, place)
            return
        if not self._vectors:
            self._vectors = [_Bracket() for _ in experts]
        for bracket, expert in zip(self._vectors, experts, strict=True):
            if self._sampling:
                shared = base[::SAMPLE_STRIDE] if len(base) == len(expert) else base
                bracket.sample.append(absolute(expert[::SAMPLE_STRIDE] - shared))
            else:
                bracket.collect(absolute(expert - base), place)

    def turn(self) -> bool:
        """End a pass over all blocks; True when another one is needed."""
        if self._counting:
            return self._counting.turn()
        if self._sampling:
            self._sampling = False
            for bracket in self._vectors:
                bracket.open(self._trim)
            return bool(self._vectors)
        if not all(bracket.close(self._trim) for bracket in self._vectors):
            self._counting = TrimSurvey(self._trim, self._rule)
        return self._counting is not None

    def result(self, place: Place) -> Trimming:
        """Return the trimming of the block at `place`."""
        if self._counting:
            return self._counting.result(place)
        if not self._vectors:
            return Trimming(None)
        if self._rule == "exact":
            cuts = [bracket.cut(place) for bracket in self._vectors]
        else:
            cuts = [(bracket.threshold, 0) for bracket in self._vectors]
        thresholds, ties = zip(*cuts, strict=True)
        return Trimming(Cut(thresholds, ties))


@dataclass
class _Bracket:
    """The search for one task vector's c-th smallest magnitude."""

    sample: list[Numbers] = field(default_factory=list)
    threshold: float = 0.0
    _low: float = 0.0
    _high: float = float("inf")
    _below: int = 0
    _kept: int = 0
    _total: int = 0
    _inside: dict[Place, Numbers] = field(default_factory=dict)
    _ties: dict[Place, tuple[int, int]] = field(default_factory=dict)

    def open(self, trim: float) -> None:
        """Choose the bracket from the sample; everything when the sample is small."""
        sample = join(self.sample)
        self.sample.clear()
        margin = max(MARGIN / 2, min(MARGIN, 4 / max(len(sample), 1) ** 0.5))
        ranks = [round((trim + side * margin) * len(sample)) for side in (-1, 1)]
        if len(sample) >= 1 / MARGIN:
            low, high = select(sample, [min(max(r, 0), len(sample) - 1) for r in ranks])
            self._low = low if ranks[0] > 0 else 0.0
            self._high = high if ranks[1] < len(sample) else float("inf")

    def collect(self, magnitudes: Numbers, place: Place) -> None:
        if self._kept > MOST_INSIDE:
            self._inside.clear()
            return
        above = magnitudes >= self._low
        self._total += len(magnitudes)
        self._below += len(magnitudes) - count(above)
        above &= magnitudes <= self._high
        self._inside[place] = inside = take(magnitudes, above)
        self._kept += len(inside)

    def close(self, trim: float) -> bool:
        """Select the threshold; False when it does not lie inside the bracket."""
        drop = int(self._total * trim)
        if self._kept > MOST_INSIDE:
            return False
        if not drop:
            return True
        inside = join(list(self._inside.values()))
        rank = drop - self._below
        if not 1 <= rank <= len(inside):
            return False
        (self.threshold,) = select(inside, [rank - 1])
        self._drop_ties(rank - count(inside < self.threshold))
        self._inside.clear()
        return True

    def _drop_ties(self, quota: int) -> None:
        """Share the tied entries that go among the blocks, the first ones in index order."""
        places = sorted(self._inside)
        tied = [count(self._inside[p] == self.threshold) for p in places]
        before = accumulate(tied, initial=0)
        for place, equal, earlier in zip(places, tied, before, strict=False):
            self._ties[place] = equal, min(max(quota - earlier, 0), equal)

    def cut(self, place: Place) -> tuple[float, int]:
        """Return the block's threshold and how many of the entries equal to it go."""
        tied, dropped = self._ties.get(place, (0, 0))
        if dropped and dropped == tied:  # all go, as with the next larger threshold
            return float(np.nextafter(np.float32(self.threshold), np.float32("inf"))), 0
        return self.threshold, dropped

"""Where the tails of a task vector's magnitudes begin: exact, by counting, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from laconic.merging.blocks import Cut, trim_smallest
from laconic.merging.survey import Place, TrimSurvey


@dataclass(frozen=True)
class Body:
    """What lies between the tails, for one block: not below `small`, but below `large`."""

    small: Cut | None
    large: Cut | None


class BodySurvey:
    """Find both tails of each task vector: floor(entries * share) of the smallest and largest.

    Of entries tied at a tail's edge the earliest count as smaller.
    """

    def __init__(self, smallest: float, largest: float) -> None:
        self._small = TrimSurvey(smallest, "exact")
        self._large = _AllButLargest(largest, "exact")

    def see(self, base: Tensor, experts: Tensor, place: Place) -> None:
        """Take in one block: base (m,), experts (n, m), float32."""
        self._small.see(base, experts, place)
        self._large.see(base, experts, place)

    def turn(self) -> bool:
        """End a pass; both counts take as many."""
        return self._small.turn() & self._large.turn()

    def result(self, place: Place) -> Body:
        """Return the body of the block at `place`."""
        return Body(self._small.result(place).cut, self._large.result(place).cut)


class _AllButLargest(TrimSurvey):
    """Trims all entries but the floor(entries * share) largest."""

    def count(self, entries: int) -> int:
        return entries - super().count(entries)


def in_body(deltas: Tensor, body: Body) -> Tensor:
    """Tell which entries of the task vectors lie between the tails. deltas: (n, *shape)."""
    above, largest = trim_smallest(deltas, body.small), trim_smallest(deltas, body.large)
    return torch.ne(above, 0) & torch.eq(largest, 0)

"""The key-value cache of a batch whose rows come and go.

Rows are aligned on their right: column j of every row is written in the same step, and a row that
is shorter has padding on its left, where `mask` is 0. So a step appends one column, a finished
row is left out by selection, and new rows join after padding the shorter side on its left.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

SLACK = 64


class GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer, (rows, heads, columns, head size), with room to grow.

    The stock layer copies everything in every step; this one writes the new column in place and
    copies once in `SLACK` steps.
    """

    keys: Tensor
    values: Tensor
    _room: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append columns; return all keys and values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.hold(key_states, value_states)
            return self.keys, self.values
        old, new = self.keys.shape[-2], self.keys.shape[-2] + key_states.shape[-2]
        if self._room is None or new > self._room[0].shape[-2]:
            self._room = (_widen(self.keys, new), _widen(self.values, new))
        for room, states in zip(self._room, (key_states, value_states), strict=True):
            room[:, :, old:new] = states
        self.keys, self.values = (room[:, :, :new] for room in self._room)
        return self.keys, self.values

    def hold(self, keys: Tensor, values: Tensor) -> None:
        """Replace what the layer holds."""
        self.keys, self.values, self._room = keys, values, None


class RowCache:
    """A cache and its attention mask, (rows, columns): 1 for a token, 0 for padding."""

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask
        self.layers = Cache(layer_class_to_replicate=GrowingLayer)

    def extend(self) -> Tensor:
        """Add a column of tokens to the mask; return their positions, (rows, 1)."""
        ones = self.mask.new_ones((self.mask.shape[0], 1))
        self.mask = torch.cat([self.mask, ones], dim=1)
        return self.mask.sum(1, keepdim=True) - 1

    def select(self, rows: Tensor) -> None:
        """Keep only these rows, (kept,) indices, and the columns that one of them uses."""
        mask = self.mask[rows]
        start = int(mask.any(0).int().argmax())  # the first column that is not all padding
        self.mask = mask[:, start:]
        for layer in self.layers.layers:
            layer.hold(layer.keys[rows][:, :, start:], layer.values[rows][:, :, start:])

    def join(self, other: RowCache) -> None:
        """Add the rows of another cache below these."""
        columns = max(self.mask.shape[1], other.mask.shape[1])
        self.mask = torch.cat([_pad(self.mask, columns), _pad(other.mask, columns)])
        for mine, theirs in zip(self.layers.layers, other.layers.layers, strict=True):
            pairs = ((mine.keys, theirs.keys), (mine.values, theirs.values))
            mine.hold(
                *(torch.cat([_pad_states(a, columns), _pad_states(b, columns)]) for a, b in pairs)
            )


def _widen(states: Tensor, columns: int) -> Tensor:
    rows, heads, old, size = states.shape
    room = states.new_empty((rows, heads, columns + SLACK, size))
    room[:, :, :old] = states
    return room


def _pad(mask: Tensor, columns: int) -> Tensor:
    return torch.nn.functional.pad(mask, (columns - mask.shape[1], 0))


def _pad_states(states: Tensor, columns: int) -> Tensor:
    return torch.nn.functional.pad(states, (0, 0, columns - states.shape[2], 0))

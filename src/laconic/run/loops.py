"""Loops: responses that end in one block of tokens over and over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

COPIES = 3
SPAN = 64
LOOKED_AT = 4096
"""How many tokens at the end of a response are searched."""


@dataclass(frozen=True)
class Loop:
    """The end of a response repeats a block of `period` tokens over its last `span` tokens."""

    period: int
    span: int


def find_loop(tokens: Sequence[int]) -> Loop | None:
    """The longest end of at least 64 tokens that is at least 3 copies of one block, or None.

    The last copy may be cut. Looks at the last 4,096 tokens, in linear time.
    """
    tail = list(reversed(tokens[-LOOKED_AT:]))
    borders = _borders(tail)
    for span in range(len(tail), SPAN - 1, -1):
        period = span - borders[span - 1]
        if span >= COPIES * period:
            return Loop(period, span)
    return None


def _borders(tokens: Sequence[int]) -> list[int]:
    """For each prefix, the length of its longest border: a proper prefix that also ends it."""
    borders = [0] * len(tokens)
    length = 0
    for place in range(1, len(tokens)):
        while length and tokens[place] != tokens[length]:
            length = borders[length - 1]
        if tokens[place] == tokens[length]:
            length += 1
        borders[place] = length
    return borders

"""Words with which a model goes back over its own steps."""

from __future__ import annotations

import re

WORDS = re.compile(
    r"\b(?:wait|re-examine|recap|double-check|let\s+me\s+(?:just\s+)?(?:check|verify))\b",
    re.IGNORECASE,
)


PAPER = re.compile(
    r"wait|re-examine|double-check|let me check|recap|let me just verify|let me just check",
    re.IGNORECASE,
)
"""The substrings that the long-to-short merging paper's script counts: `waiting` is one too."""


def count_paper_reflections(text: str) -> int:
    """How often `text` has one of the paper's substrings, for comparison with its tables."""
    return sum(1 for _ in PAPER.finditer(text))


def count_reflections(text: str) -> int:
    """How often `text` says one of the reflection words, as whole words in any case."""
    return sum(1 for _ in WORDS.finditer(text))

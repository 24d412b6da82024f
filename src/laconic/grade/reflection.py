"""Words with which a model goes back over its own steps."""

from __future__ import annotations

import re

WORDS = re.compile(
    r"\b(?:wait|re-examine|recap|double-check|let\s+me\s+(?:just\s+)?(?:check|verify))\b",
    re.IGNORECASE,
)


def count_reflections(text: str) -> int:
    """How often `text` says one of the reflection words, as whole words in any case."""
    return sum(1 for _ in WORDS.finditer(text))

"""Errors a user can cause: one message, no traceback, exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class LaconicError(Exception):
    """An expected error. Its text says what, where, expected and got, and what to do."""


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the closest option, or an empty string."""
    near = difflib.get_close_matches(word, list(options), n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else ""


def refusal(where: str, problems: Sequence[str]) -> LaconicError:
    """Build the error that lists all problems of a file or an input."""
    return LaconicError("\n".join([f"{where}: {len(problems)} problem(s)", *problems]))


def unknown(kind: str, word: str, options: Iterable[str]) -> LaconicError:
    """Build the error for a name that is not one of `options`."""
    known = sorted(options)
    hint = did_you_mean(word, known)
    return LaconicError(f"unknown {kind} '{word}'{hint} (known: {', '.join(known)})")

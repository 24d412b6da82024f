"""Whether a response is right: find its answer, bring it and the gold to one form, compare.

Text, exact numbers and parts are compared here; algebra by math-verify in a process of its own.
Nothing a model wrote is ever evaluated as code.
"""

from __future__ import annotations

import re

from laconic.grade.equality import Comparison, UndecidedError
from laconic.grade.extraction import MATHS, Extracted, extract
from laconic.grade.latex import LONGEST, tidy, too_large
from laconic.grade.shapes import shape

VERSION = "2"
"""Raised whenever a verdict may change; recorded with every run."""


def judge(gold: str, text: str) -> tuple[bool | None, Extracted]:
    """Grade one response, and say which answer was found in it and where.

    A response that gives no answer is wrong (False). None is for a failure of grading itself: an
    empty gold answer, or a comparison that took more time or memory than it may.
    """
    expected = read_gold(gold)
    found = find_answer(expected, text)
    if not tidy(expected[:LONGEST]):
        return None, found
    if len(text) < LONGEST and tidy(text) == tidy(expected):
        return True, found
    return False if found.answer is None else same(expected, found.answer), found


def find_answer(gold: str, text: str) -> Extracted:
    """The answer of a response; several boxes are one answer only when the gold is a list."""
    several = not too_large(gold) and shape(tidy(gold)).kind in ("list", "set")
    return extract(text, several=several)


def same(gold: str, answer: str) -> bool | None:
    """Whether an answer equals the gold one; None when that could not be decided in time."""
    try:
        return Comparison().same(gold, answer)
    except UndecidedError:
        return None


def read_gold(gold: str) -> str:
    r"""The bare answer of a gold text, which may be in \boxed or a sentence with one."""
    if r"\boxed" in gold:
        return extract(gold, several=True).answer or gold
    formulas = MATHS.findall(gold)
    if len(formulas) == 1 and re.search(r"\bis\s*[:=]?\s*\$[^$]+\$\s*\.?$", gold):
        return str(next(part for part in formulas[0] if part))
    return gold

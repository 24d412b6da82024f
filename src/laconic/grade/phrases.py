"""What is said in other words: angles in degrees, all real numbers, "where k is an integer"."""

from __future__ import annotations

import re

from laconic.grade.latex import tidy
from laconic.grade.numbers import read_number

DEGREES = re.compile(
    r"(?:\^\s*\{?\s*\\(?:circ|degree)\s*\}?|\\degree|°|(?<![A-Za-z])degrees?\s*\}?)[\s$.)\\]*$"
)
PI = re.compile(r"\\pi(?![A-Za-z])|π")
REALS = re.compile(
    r"(?:[A-Za-z]\s*\\in\s*)?\\mathbb\s*(?:\{\s*R\s*\}|R)|\\R(?![A-Za-z])"
    r"|(?:\\text\s*\{\s*)?[Aa]ll\s+real\s+numbers?\s*\}?"
)
MACRO = re.compile(r"\\[A-Za-z]+")
LINE = r"(-\infty,\infty)"
START = r"\s*[,;]?\s*(?:\\text\s*\{\s*)?[,;]?\s*(?:(?:where|with|for)(?![A-Za-z])\s*\}?\s*)?"
INTEGER = tuple(
    re.compile(START + tail)
    for tail in (
        r"(?:(?:any|all|every)\s+)?(?P<name>[A-Za-z])\s*\\in\s*\\mathbb\s*(?:\{\s*Z\s*\}|Z)$",
        r"(?P<name>[A-Za-z])\s*(?:\\text\s*\{\s*)?(?:(?:is|be|being)\s+)?(?:an?\s+|any\s+)*integer\s*\}?$",
        r"(?:an|any|all|every)\s+integers?\s*\}?\s*(?P<name>[A-Za-z])$",
    )
)


def in_radians(gold: str, answer: str) -> tuple[str, str]:
    r"""Both as they are; or, where one is a number of degrees and the other has \pi, in radians."""
    marked = [DEGREES.search(text) is not None for text in (gold, answer)]
    if marked == [True, False] and PI.search(answer):
        return _radians(gold), answer
    if marked == [False, True] and PI.search(gold):
        return gold, _radians(answer)
    return gold, answer


def plain(text: str) -> str:
    r"""A tidied answer; \mathbb{R} as an interval, and no tail that calls a letter an integer."""
    if REALS.fullmatch(text):
        return LINE
    for tail in INTEGER:
        if found := tail.search(text):
            body = text[: found.start()].strip()
            return body if found["name"] in MACRO.sub("", body) else text
    return text


def _radians(text: str) -> str:
    number = read_number(tidy(DEGREES.sub("", text)))
    if number is None:
        return text
    part = number.value / 180
    return rf"\frac{{{part.numerator}\pi}}{{{part.denominator}}}"

"""Whether a response is right: find its answer, bring it and the gold to one form, compare.

Plain text and rational numbers only; nothing a model wrote is ever evaluated.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

AnswerSource = Literal["box", "box in thought", "last number", "none"]

THINK, THINK_END = "<think>", "</think>"
BRACES = re.compile(r"\\boxed\s*\{|\\[{}]|[{}]")
NUMBER = re.compile(r"(?:(?<![\w.)\]}])[-−])?(?:\d[\d,]*\d|\d)(?:\.\d+)?(?:/\d+)?")
PLAIN = re.compile(r"([+-]?)(\d*)(?:\.(\d*))?(?:/(\d+))?")
LATEX_FRACTION = re.compile(r"([+-]?)\\[dt]?frac\{(-?\d+)\}\{(\d+)\}")
GROUPED = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
LONGEST_NUMBER = 4000
"""In characters: Python refuses to read integers of more than 4300 digits."""


@dataclass(frozen=True)
class Extracted:
    """The answer found in a response and where: None and `none` when it gives no answer."""

    answer: str | None
    source: AnswerSource


def extract(text: str) -> Extracted:
    r"""Find the answer of a response.

    The last balanced \boxed{...} after the last </think>; else the last box anywhere; else the
    last number after the last </think>. A response that opens <think> and never closes it has no
    part after it; one without either tag is all answer.
    """
    head, closed, tail = text.rpartition(THINK_END)
    if not closed and THINK in text:
        head, tail = text, ""
    if (answer := _last_box(tail)) is not None:
        return Extracted(answer, "box")
    if (answer := _last_box(head)) is not None:
        return Extracted(answer, "box in thought")
    numbers = NUMBER.findall(tail)
    return Extracted(numbers[-1], "last number") if numbers else Extracted(None, "none")


def is_correct(gold: str, text: str) -> bool | None:
    """Grade one response: True or False; None when it could not be graded.

    A response that gives no answer is wrong (False). None is for a failure of grading itself: a
    gold answer that is empty.
    """
    if not _normalise(gold):
        return None
    answer = extract(text).answer
    return answer is not None and same(gold, answer)


def same(gold: str, answer: str) -> bool:
    """Whether two answers are equal as exact numbers, or else as text without white space."""
    left, right = _normalise(gold), _normalise(answer)
    numbers = _number(left), _number(right)
    if None not in numbers:
        return numbers[0] == numbers[1]
    return left == right


def _last_box(text: str) -> str | None:
    r"""What the last balanced, non-empty \boxed{...} holds, in one pass over the text."""
    stack: list[int | None] = []  # where an open brace's content starts, if it is a box's
    last: tuple[int, int] | None = None
    for brace in BRACES.finditer(text):
        mark = brace.group()
        if mark in (r"\{", r"\}"):
            continue
        if mark != "}":
            stack.append(brace.end() if mark.startswith("\\boxed") else None)
        elif stack and (start := stack.pop()) is not None:
            filled = text[start : brace.start()].strip()
            if filled and (last is None or start > last[0]):
                last = (start, brace.start())
    return None if last is None else text[last[0] : last[1]].strip()


def _normalise(text: str) -> str:
    short = text.replace("−", "-").replace(r"\!", "").replace(r"\,", "").replace("{,}", ",")
    short = re.sub(r"\s+", "", short.replace("$", "")).rstrip(".")
    return short.replace(",", "") if GROUPED.fullmatch(short) else short


def _number(text: str) -> Fraction | None:
    """The exact value of an integer, decimal or fraction; None for anything else."""
    if len(text) > LONGEST_NUMBER:
        return None
    if latex := LATEX_FRACTION.fullmatch(text):
        sign, top, bottom = latex.groups()
        return _ratio(sign, Fraction(int(top)), int(bottom))
    plain = PLAIN.fullmatch(text)
    if plain is None or not (plain[2] or plain[3]):
        return None
    sign, whole, decimals, bottom = plain.groups()
    digits = (whole or "") + (decimals or "")
    value = Fraction(int(digits), 10 ** len(decimals or ""))
    return _ratio(sign, value, int(bottom or 1))


def _ratio(sign: str, top: Fraction, bottom: int) -> Fraction | None:
    if bottom == 0:
        return None
    return (-top if sign == "-" else top) / bottom

"""Plain numbers: how they are written, and when two of them are the same."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

TOLERANCE = Fraction(1, 10_000)
"""Relative, for numbers that are not written exactly."""
LONGEST = 4000
"""In characters: Python refuses to read integers of more than 4300 digits."""
LARGEST_EXPONENT = 4000

DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?: \d{3})+|\d+)"
DECIMAL = rf"(?:{DIGITS}(?:\.\d*)?|\.\d+)"
SIGN = r"(?P<sign>[+-]?)\s*"
TIMES = r"\s*(?:\\times|\\cdot|\*|x)\s*"
POWER = r"10\s*\^\s*(?:\{\s*(?P<power>[+-]?\s*\d+)\s*\}|(?P<bare>[+-]?\d+))"
FORMS = tuple(
    re.compile(SIGN + form + r"\s*(?P<percent>%?)")
    for form in (
        rf"(?P<top>{DECIMAL})",
        rf"(?P<top>{DECIMAL})\s*[eE]\s*(?P<power>[+-]?\d+)",
        rf"(?P<top>{DECIMAL}){TIMES}{POWER}",
        POWER,
        rf"\(?(?P<top>[+-]?{DECIMAL})\)?\s*/\s*\(?(?P<bottom>{DECIMAL})\)?",
        rf"\\frac\s*\{{\s*(?P<top>[+-]?\s*{DECIMAL})\s*\}}\s*\{{\s*(?P<bottom>{DECIMAL})\s*\}}",
        r"(?P<whole>\d+)\s*\\frac\s*\{\s*(?P<top>\d+)\s*\}\s*\{\s*(?P<bottom>\d+)\s*\}",
        r"(?P<whole>\d+) (?P<top>\d+)\s*/\s*(?P<bottom>\d+)",
        r"(?P<top>\d*\.\d*)\\overline\s*\{\s*(?P<cycle>\d+)\s*\}",
    )
)
DECIMAL_COMMA = re.compile(r"([+-]?\d+),(\d{2}|\d{4,})")


@dataclass(frozen=True)
class Number:
    """An exact value and how it was written.

    exact: written as an integer or as a fraction of integers, so that no rounding is meant.
    """

    value: Fraction
    exact: bool
    percent: bool = False


def read_number(text: str) -> Number | None:
    """The number that a tidied text is, or None when it is something else."""
    if len(text) > LONGEST or not re.search(r"\d", text):
        return None
    for form in FORMS:
        if found := form.fullmatch(text):
            return _built(found.groupdict())
    return None


def read_decimal_comma(text: str) -> Number | None:
    """A number with a comma for its decimal point, which `1,22` may or may not be."""
    found = DECIMAL_COMMA.fullmatch(text)
    return None if found is None else read_number(f"{found[1]}.{found[2]}")


def equal_numbers(gold: Number, answer: Number) -> bool:
    """Whether an answer is the gold number.

    Integers and fractions must be met exactly; a number written with a decimal point or a power of
    ten within a relative 1e-4, with the same sign. Where one side alone has a percent sign, it may
    mean a hundredth or be left out.
    """
    if gold.percent == answer.percent:
        return _close(gold, gold.value, answer.value, answer.exact)
    factors = (Fraction(1), Fraction(1, 100) if answer.percent else Fraction(100))
    return any(_close(gold, gold.value, answer.value * f, answer.exact) for f in factors)


def _close(gold: Number, expected: Fraction, got: Fraction, exact: bool) -> bool:
    if expected == got:
        return True
    if gold.exact and (exact or expected.denominator == 1):
        return False
    return abs(got - expected) < TOLERANCE * abs(expected)


def _built(parts: dict[str, str | None]) -> Number | None:
    power = int((parts.get("power") or parts.get("bare") or "0").replace(" ", ""))
    if abs(power) > LARGEST_EXPONENT:
        return None
    top, bottom = parts.get("top") or "1", parts.get("bottom")
    cycle = parts.get("cycle")
    value = _cyclic(top, cycle) if cycle else _decimal(top)
    if bottom is not None and (divisor := _decimal(bottom)) == 0:
        return None
    value = value / divisor if bottom is not None else value * Fraction(10) ** power
    value += int(parts.get("whole") or 0)
    written = top + (bottom or "")
    exact = not (parts.get("power") or parts.get("bare")) and ("." not in written or bool(cycle))
    return Number(-value if parts["sign"] == "-" else value, exact, bool(parts["percent"]))


def _decimal(text: str) -> Fraction:
    return Fraction(re.sub(r"[, +]", "", text).rstrip("."))


def _cyclic(top: str, cycle: str) -> Fraction:
    """A decimal whose last digits repeat for ever."""
    places = len(top.partition(".")[2])
    repeated = Fraction(int(cycle), (10 ** len(cycle) - 1) * 10**places)
    return Fraction(int(top.replace(".", "") or "0"), 10**places) + repeated

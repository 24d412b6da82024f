"""Units and words behind an answer: what may be left out, and what must not differ."""

from __future__ import annotations

import re

from laconic.grade.latex import WRAPPED_TEXT
from laconic.grade.numbers import read_number

LONGEST = 120
"""In characters, of a unit."""
POWER = r"(?:\s*\^\s*(?:\{\s*-?\d\s*\}|-?\d))?"
UPRIGHT = rf"\\text\s*\{{[^{{}}]*\}}{POWER}"
MARKED = re.compile(
    rf"(?P<unit>(?:\s*(?:(?:[/*]|\\cdot)\s*)?{UPRIGHT}(?:\s*/\s*[A-Za-z]{{1,2}}{POWER})?)+)\s*$"
)
NAMES = (
    "mm|cm|dm|km|nm|ft|feet|foot|inch|inches|in|yd|yard|mile|mph|kmh|kph|kg|mg|lb|lbs|pound|oz"
    "|(?:centi|milli|kilo)?met(?:er|re)|(?:milli|kilo)?gram|lit(?:er|re)|gallon|quart|pint|cup"
    "|second|sec|minute|min|hour|hr|day|week|month|year|yr|dollar|cent|buck|degree|deg|radian|rad"
    "|unit|square|sq|cubic|cu|k?hz|mhz|[km]?ev|joule|watt|newton|volt|mole|mol|k?cal|ohm|erg|pc"
)
SPELT = re.compile(
    rf"(?<=[\d}}) ])\s*(?P<unit>(?:(?:{NAMES})(?:s|es)?\b{POWER}\s*(?:/\s*)?)+)$", re.IGNORECASE
)
LETTER = re.compile(r"(?<=[\d}])\s*(?P<unit>[msghLJNWVK])$")
BEHIND = re.compile(r"(?P<number>[^A-Za-z]*[\d}%])\s+(?P<unit>[A-Za-z]{3,}(?:[ -][A-Za-z]+)*)")
OPERATORS = frozenset(
    ("and", "or", "mod", "choose", "times", "sin", "cos", "tan", "log", "exp", "where", "for")
)
SIZES = {
    name: size
    for size, names in enumerate(
        (
            "mm millimeter millimetre",
            "cm centimeter centimetre",
            "m meter metre",
            "km kilometer kilometre",
            "in inch inche",
            "ft foot feet",
            "yd yard",
            "mile mi",
            "g gram",
            "kg kilogram",
            "mg milligram",
            "lb pound",
            "s sec second",
            "min minute",
            "h hr hour",
            "day",
            "week",
            "month",
            "year yr",
            "cent",
            "dollar",
            "l liter litre",
            "gallon",
        )
    )
    for name in names.split()
}


def without_unit(text: str, *, letters: bool = False) -> tuple[str, str]:
    r"""An answer without the unit behind it, and the unit; an empty unit when it has none.

    A unit is in \text, or a known name behind a value, or words behind a number. `letters`: also
    a single letter behind a number, such as the `m` of `5m`, which might as well be a variable.
    """
    for pattern in (MARKED, SPELT):
        near = max(0, len(text) - LONGEST)
        if (found := pattern.search(text, near)) and text[: found.start()].strip():
            return text[: found.start()].strip(), found["unit"].strip()
    behind = BEHIND.fullmatch(text)
    if behind and not OPERATORS & set(behind["unit"].lower().split()):
        return behind["number"].strip(), behind["unit"]
    if letters and (found := LETTER.search(text)) and read_number(text[: found.start()].strip()):
        return text[: found.start()].strip(), found["unit"]
    return text, ""


def other_size(gold: str, answer: str) -> bool:
    """Whether two units are known and different, as metres and centimetres are, or m/s and m/h."""
    ours, theirs = (_sizes(unit) for unit in (gold, answer))
    return len(ours) == len(theirs) and any(
        a is not None and b is not None and a != b for a, b in zip(ours, theirs, strict=True)
    )


def _sizes(unit: str) -> list[int | None]:
    """What is known of the parts of a unit such as `m/s`."""
    plain = WRAPPED_TEXT.sub(r"\1", unit).lower()
    return [SIZES.get(_name(part)) for part in re.split(r"/|\bper\b", plain)]


def _name(part: str) -> str:
    plain = part.strip()
    return plain[:-1] if len(plain) > 3 and plain.endswith("s") else plain

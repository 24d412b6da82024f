r"""The rules of the papers' toolkit (QwenLM/Qwen2.5-Math, evaluation), to compare with its tables.

Written anew from a description of its rules, of which it keeps the generous ones: numbers within a
relative 1e-4, also a hundred times or a hundredth of the gold one; intervals whatever their
brackets; of a list the first element where it comes to algebra; an answer from anywhere in a
response, the thought and a last number included. Unlike there, no text is ever evaluated: algebra
is compared in laconic's worker, so verdicts on what only SymPy's own parsers read may differ.
"""

from __future__ import annotations

import math
import re

from laconic.grade.answers import read_gold
from laconic.grade.extraction import AnswerSource, Extracted
from laconic.grade.judge import symbolically_equal
from laconic.grade.latex import split, too_large
from laconic.grade.units import NAMES

VERSION = "1"
SECONDS = 3.0
"""For algebra; what takes longer counts as wrong, as it does there."""
TOLERANCE = 1e-4
LONGEST = 4096

MARKERS = ("he answer is", "final answer is", "答案是")
NUMBER = re.compile(r"-?\d*\.?\d+")
CHOICES = "ABCDE"
NUMBER_WORDS = re.findall(
    r"\w+",
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty",
)
UNIT = re.compile(rf"(?<![\\A-Za-z])(?:{NAMES}|points?|miles?)(?:e?s)?(?![A-Za-z])", re.IGNORECASE)
BRACKETED = re.compile(r"[(\[](.+)[)\]]", re.DOTALL)
MATRIX = re.compile(r"\\begin\{[pb]matrix\}(.*)\\end\{[pb]matrix\}", re.DOTALL)
REWRITES = tuple(
    (re.compile(pattern), new)
    for pattern, new in (
        (r"\n", ""),
        (r"\\!", ""),
        (r"\\begin\{(?:array|bmatrix)\}(?:\{[lcr|]*\})?", r"\\begin{pmatrix}"),
        (r"\\end\{(?:array|bmatrix)\}", r"\\end{pmatrix}"),
        (r"\\[td]frac", r"\\frac"),
        (r"\\neq", r"\\ne"),
        (r"\\leq", r"\\le"),
        (r"\\geq", r"\\ge"),
        (r"\\left|\\right", ""),
        (r"\\\{", "{"),
        (r"\\\}", "}"),
        (r"(?<=.)\\text\{[^{}]*\}\s*$", ""),
        (r"\\text\{([^{}]*)\}|\\mathrm\{([^{}]*)\}|\\mbox\{[^{}]*\}", r"\1\2"),
        (r"\^\{?\\circ\}?", ""),
        (r"\\?\$|\\\(|\\\)", ""),
        (r"\\?%", ""),
        (r"(?<![\\A-Za-z])and(?![A-Za-z])", ""),
        (r"(?<![A-Za-z])x\s*\\in(?![A-Za-z])", ""),
        (r"(\d)\.0+(?=\D|$)", r"\1"),
        (r"(?<!\d)\.(?=\d)", "0."),
        (r"(?<![\\A-Za-z])(?:infinity|inf)(?![A-Za-z])", r"\\infty"),
        (r"\s+", ""),
        (r"\\frac(\d)(\d)", r"\\frac{\1}{\2}"),
        (r"\\frac(\d)\{", r"\\frac{\1}{"),
        (r"\\sqrt(\w)", r"\\sqrt{\1}"),
        (r"^(-?\d+)/(\d+)$", r"\\frac{\1}{\2}"),
        (r"^[A-Za-z]{1,2}=", ""),
    )
)


def judge(gold: str, text: str) -> tuple[bool | None, Extracted]:
    """Grade one response; None only for an empty gold answer."""
    found = extract(text)
    expected = strip(strip(read_gold(gold)))
    if not expected:
        return None, found
    return found.answer is not None and equal(expected, found.answer), found


def extract(text: str) -> Extracted:
    """The answer of a response, wherever in it, without what surrounds answers."""
    answer, source = _found(text)
    if answer is None:
        return Extracted(None, "none")
    answer = re.sub(r"\n\s*", "", answer).strip().removeprefix(":")
    answer = answer.removesuffix(".").removesuffix("/")
    return Extracted(strip(strip(answer[:LONGEST])), source)


def strip(text: str) -> str:
    """An answer without units, signs of formulas, names, words and spaces; fractions as one form.

    Applied twice there, and so here: the first pass can lay open what the second takes away.
    """
    text = text.strip().rstrip(".")
    if text.lower() in NUMBER_WORDS:
        return str(NUMBER_WORDS.index(text.lower()))
    text = UNIT.sub("", text)
    for pattern, new in REWRITES:
        text = pattern.sub(new, text)
    return text


def equal(gold: str, answer: str) -> bool:
    """Whether an answer equals the gold one, both stripped."""
    if gold.lower() == answer.lower():
        return True
    if len(gold) == 1 and gold in CHOICES:
        return _choice(answer) == gold
    numbers = _number(gold), _number(answer)
    if numbers[0] is not None and numbers[1] is not None:
        return _near(numbers[0], numbers[1])
    if not gold or not answer or too_large(gold) or too_large(answer):
        return False
    if _bare(gold) == _bare(answer):
        return True
    ours, theirs = _parts(gold), _parts(answer)
    if ours is not None and theirs is not None:
        return len(ours) == len(theirs) and all(map(equal, ours, theirs))
    return _equations(gold, answer)


def _found(text: str) -> tuple[str | None, AnswerSource]:
    if "final answer is $" in text and "$. I hope" in text:
        return text.split("final answer is $", 1)[1].split("$. I hope", 1)[0], "marker"
    if "boxed" in text:
        return _boxed(text.rpartition("boxed")[2]), "box"
    for marker in MARKERS:
        if marker in text:
            return text.rpartition(marker)[2], "marker"
    numbers = NUMBER.findall(text.replace(",", ""))
    return (numbers[-1], "last number") if numbers else (None, "none")


def _boxed(rest: str) -> str:
    """What a box holds: up to its closing brace, or to a dollar sign where none opens."""
    if not rest.startswith("{"):
        return rest.partition("$")[0].strip()
    depth = 0
    for place, sign in enumerate(rest):
        depth += (sign == "{") - (sign == "}")
        if depth == 0:
            return rest[1:place]
    return rest[1:]


def _choice(answer: str) -> str:
    letters = re.findall(rf"\b[{CHOICES}]\b", answer.upper())
    return letters[-1] if letters else answer.strip(" .:()").upper()


def _number(text: str) -> float | None:
    """A number as Python reads it, without commas; a percentage is a hundredth."""
    plain = text.replace(",", "")
    percent = plain.endswith("%")
    try:
        value = float(plain.rstrip("%").rstrip("\\"))
    except ValueError:
        return None
    return value / 100 if percent else value


def _near(gold: float, answer: float) -> bool:
    variants = (gold / 100, gold, gold * 100)
    return any(math.isclose(one, answer, rel_tol=TOLERANCE) for one in variants)


def _bare(text: str) -> str:
    """A text without braces and round brackets, and without square ones around the whole."""
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    return re.sub(r"[{}()]", "", text).lower()


def _parts(text: str) -> list[str] | None:
    """The parts of a list or an interval in brackets, or the cells of a matrix, in order."""
    if found := MATRIX.fullmatch(text):
        rows = [row for row in found[1].split(r"\\") if row]
        return [cell for row in rows for cell in row.split("&")]
    if found := BRACKETED.fullmatch(text):
        parts = split(found[1], re.compile(","))
        return parts if len(parts) > 1 else None
    return None


def _equations(gold: str, answer: str) -> bool:
    """Equations by the difference of their sides, up to its sign; `name = value` by its value."""
    ours, theirs = gold.split("="), answer.split("=")
    if len(ours) == len(theirs) == 2:
        left, right = (f"{a}-({b})" for a, b in (ours, theirs))
        return any(_algebra(left, one) for one in (right, f"-({right})"))
    if len(ours) == 2 and len(theirs) == 1 and len(ours[0]) <= 2:
        return equal(ours[1], answer)
    if len(theirs) == 2 and len(ours) == 1 and len(theirs[0]) <= 2:
        return equal(gold, theirs[1])
    return _algebra(gold, answer)


def _algebra(gold: str, answer: str) -> bool:
    return symbolically_equal(_first(gold), _first(answer), SECONDS) is True


def _first(text: str) -> str:
    """What stands before the first comma outside brackets: all that is read there."""
    return split(text, re.compile(","))[0] or text

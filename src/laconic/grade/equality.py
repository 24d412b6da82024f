"""Whether two answers are the same: as text, as numbers, part by part, and only then as algebra."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from laconic.grade.judge import SECONDS, symbolically_equal
from laconic.grade.latex import WRAPPED_TEXT, joined, tidy, too_large, words
from laconic.grade.numbers import Number, equal_numbers, read_decimal_comma, read_number
from laconic.grade.phrases import in_radians, plain
from laconic.grade.shapes import UNION, Shape, equation, is_name, shape, value_of
from laconic.grade.units import other_size, without_unit

LONGEST_LIST = 100
CHOICES = ("A", "B", "C", "D", "E")
LARGEST_POWER = 10_000
POWER = re.compile(r"(\d+)\s*(?:\^|\*\*)\s*(?:\{\s*(\d+)\s*\}|(\d+))")
PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")
FUNCTIONS = frozenset(
    re.split(" ", "sin cos tan cot sec csc log exp arcsin arccos arctan sqrt max min")
)
NUMBER_WORDS = {
    word: Number(Fraction(value), exact=True)
    for value, word in enumerate(
        re.split(" ", "zero one two three four five six seven eight nine ten eleven twelve")
    )
}
NOT_LETTERS = re.compile(r"\\(?:text|begin|end)\s*\{[^{}]*\}|_\s*(?:\{[^{}]*\}|\\?\w)|\\[A-Za-z]+")
BASE = re.compile(r"(?<![A-Za-z}])\d_\s*\{?\s*\d")
RELATION = re.compile(r"\\(?:le|ge|cup|cap|in)(?![A-Za-z])|[<>]")


class UndecidedError(Exception):
    """Two answers could not be compared within the limits of time and memory."""


@dataclass
class Comparison:
    """One comparison of a gold answer with another, within `seconds` for all of its parts."""

    seconds: float = SECONDS

    def __post_init__(self) -> None:
        self._deadline = time.monotonic() + self.seconds

    def same(self, gold: str, answer: str) -> bool:
        """Whether an answer is the gold one. Raises UndecidedError when time does not suffice."""
        if joined(gold) == joined(answer):
            return True
        if too_large(gold) or too_large(answer):
            return False
        gold, answer = in_radians(gold, answer)
        return self._equal(plain(tidy(gold)), plain(tidy(answer)))

    def _equal(self, gold: str, answer: str) -> bool:
        if not gold or not answer:
            return False
        if joined(gold) in (joined(answer), joined("=".join(reversed(answer.split("="))))):
            return True
        if (verdict := _numeric(gold, answer)) is not None:
            return verdict
        if (verdict := _spoken(gold, answer)) is not None:
            return verdict
        return self._by_parts(gold, answer)

    def _by_parts(self, gold: str, answer: str) -> bool:
        left, right = shape(gold), shape(answer)
        ours, theirs = gold, answer
        if {left.kind, right.kind} <= {"one", "brackets"}:
            ours, theirs = _named_alike(gold, answer)
        elif "one" in (left.kind, right.kind):
            ours, theirs = (
                value_of(text) if one.kind == "one" else text
                for text, one in ((gold, left), (answer, right))
            )
        if (ours, theirs) != (gold, answer):
            left, right = shape(ours), shape(theirs)
        if left.kind != "one" or right.kind != "one":
            verdict = self._shapes(left, right)
            return self._algebra(ours, theirs) if verdict is None else verdict
        if (ours, theirs) != (gold, answer) or left.parts[0] != gold or right.parts[0] != answer:
            return self._equal(left.parts[0], right.parts[0])
        return self._measured(gold, answer)

    def _measured(self, gold: str, answer: str) -> bool:
        """Compare single values with their units taken off."""
        ours, our_unit = without_unit(gold)
        theirs, their_unit = without_unit(answer, letters=read_number(ours) is not None)
        if our_unit and their_unit and other_size(our_unit, their_unit):
            return False
        if their_unit and not our_unit:
            ours = _without(ours, their_unit)
        elif our_unit and not their_unit:
            theirs = _without(theirs, our_unit)
        if (ours, theirs) != (gold, answer):
            return self._equal(ours, theirs)
        unions = [[part.strip() for part in UNION.split(text)] for text in (gold, answer)]
        if all(len(union) > 1 for union in unions) and self._matched(*unions):
            return True
        return self._algebra(gold, answer)

    def _shapes(self, gold: Shape, answer: Shape) -> bool | None:
        """Compare by kind and parts; None to have it compared as algebra."""
        kinds = {gold.kind, answer.kind}
        if kinds <= {"list", "set"}:
            return self._matched(gold.parts, answer.parts)
        if kinds == {"matrix"} or kinds == {"brackets"}:
            return gold.brackets == answer.brackets and self._ordered(gold.parts, answer.parts)
        if kinds == {"list", "brackets"}:
            round_one = "()" in (gold.brackets, answer.brackets)
            return round_one and self._ordered(gold.parts, answer.parts)
        if kinds & {"list", "set"} and "one" in kinds:
            one = gold if gold.kind == "one" else answer
            many = answer if gold.kind == "one" else gold
            if any(RELATION.search(part) for part in (*one.parts, *many.parts)):
                return None
            return many.kind == "set" and self._matched(gold.parts, answer.parts)
        return None if any(RELATION.search(p) for p in (*gold.parts, *answer.parts)) else False

    def _ordered(self, gold: Sequence[str], answer: Sequence[str]) -> bool:
        return len(gold) == len(answer) and all(map(self._equal, gold, answer))

    def _matched(self, gold: Sequence[str], answer: Sequence[str]) -> bool:
        """Whether each part of one list has its own equal in the other."""
        left = list(answer)
        if len(left) > len(gold):  # a solution may be said twice
            left = list({joined(part): part for part in answer}.values())
        if len(gold) != len(left) or len(gold) > LONGEST_LIST:
            return False
        for part in gold:
            texts = [joined(other) for other in left]
            if (text := joined(part)) in texts:
                del left[texts.index(text)]
                continue
            found = next((i for i, other in enumerate(left) if self._equal(part, other)), None)
            if found is None:
                return False
            del left[found]
        return True

    def _algebra(self, gold: str, answer: str) -> bool:
        sides = equation(gold), equation(answer)
        if bool(BASE.search(gold)) != bool(BASE.search(answer)):
            return False
        if (sides[0] is None) != (sides[1] is None):
            return False  # an equation between expressions is not one of its sides
        related = RELATION.search(gold) or RELATION.search(answer)
        if not related and _variables(gold) != _variables(answer):
            return False
        if _explodes(answer) or _explodes(gold):
            return False
        rest = self._deadline - time.monotonic()
        verdict = symbolically_equal(gold, answer, rest) if rest > 0 else None
        if verdict is None:
            raise UndecidedError
        return verdict


def _numeric(gold: str, answer: str) -> bool | None:
    """The verdict when both are plain numbers, else None."""
    ours, theirs = (NUMBER_WORDS.get(t.lower()) or read_number(t) for t in (gold, answer))
    if ours and theirs:
        return equal_numbers(ours, theirs)
    if ours and (theirs := read_decimal_comma(answer)):
        return equal_numbers(ours, theirs)
    if theirs and (ours := read_decimal_comma(gold)):
        return equal_numbers(ours, theirs)
    return None


def _spoken(gold: str, answer: str) -> bool | None:
    """The verdict when one of them is words: equal as words or not at all."""
    letters = [_letters(text) for text in (gold, answer)]
    if letters[0] and letters[0] == letters[1]:
        return True
    if letters[0] in CHOICES and letters[0].lower() == letters[1]:
        return True  # a choice; of names, which may mean two things, the case counts
    if all(letters):
        return False
    if (r"\text" in gold) != (r"\text" in answer):
        whole = gold if r"\text" in gold else answer
        if WRAPPED_TEXT.fullmatch(whole) and words(gold) == words(answer):
            return True
    if _is_prose(gold) or _is_prose(answer):
        return words(gold) == words(answer)
    return None


def _letters(text: str) -> str:
    r"""The word or choice that a text is: `odd`, `\text{(C)}`, `(C)`; empty when it is none."""
    inside = whole[1] if (whole := WRAPPED_TEXT.fullmatch(text)) else text
    inside = re.sub(r"^\(\s*([A-Za-e])\s*\)$", r"\1", inside.strip())
    if len(inside) == 1 and inside.isalpha():
        return inside
    if inside.lower() in FUNCTIONS or not re.fullmatch(r"[A-Za-z]{2}[A-Za-z' -]*", inside):
        return ""
    return words(inside) if whole or len(inside) > 2 else ""


def _is_prose(text: str) -> bool:
    """Whether a text has several words; units and names of functions are none."""
    found = [word for word in PROSE.findall(without_unit(text)[0]) if word not in FUNCTIONS]
    return len([word for word in found if word not in ("begin", "end")]) > 2


def _named_alike(gold: str, answer: str) -> tuple[str, str]:
    """Both as values, unless both are equations that name different things."""
    left, right = equation(gold), equation(answer)
    if left and right:
        names = [{joined(side) for side in sides if is_name(side)} for sides in (left, right)]
        letters = all(re.fullmatch(r"\w(?:_\{?\w+\}?)?", joined(side[0])) for side in (left, right))
        if not names[0] & names[1] and (letters or not all(names)):
            return gold, answer
    return value_of(gold), value_of(answer)


def _without(text: str, unit: str) -> str:
    """Take off a unit that the other answer has in upright letters and this one has not."""
    letters = joined(WRAPPED_TEXT.sub(r"\1", unit))
    spaced = r"\s*".join(map(re.escape, letters))
    return re.sub(rf"(?<=[\d}} ]){spaced}$", "", text).strip() or text


def _variables(text: str) -> set[str]:
    """The letters of a formula, in lower case, without what may be a constant: d, e and i."""
    plain = NOT_LETTERS.sub(" ", text)
    return {letter.lower() for letter in re.findall(r"[A-Za-z]", plain)} - set("dei")


def _explodes(text: str) -> bool:
    """Whether a number in a text is too large to be written down, as 2^{2^{2^{49}}} is."""
    for _ in range(8):
        found = POWER.search(text)
        if found is None:
            break
        base, exponent = found[1], found[2] or found[3]
        if len(exponent) > 5 or int(exponent) > LARGEST_POWER:
            return True
        nested = text[: found.start()].rstrip().endswith(("^", "^{"))
        if nested and int(exponent) * len(base) > 5:
            return True
        value = str(int(base) ** int(exponent)) if nested else "x"
        text = text[: found.start()] + value + text[found.end() :]
    return re.search(r"\d{5,}\s*!|!\s*!\s*!", text) is not None

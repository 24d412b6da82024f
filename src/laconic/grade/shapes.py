"""The parts of an answer: lists, sets, pairs, intervals, matrices and equations."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from laconic.grade.latex import enclosed, split
from laconic.grade.numbers import read_number

Kind = Literal["list", "set", "brackets", "matrix", "one"]

AND_OR = r"\\text\s*\{\s*,?\s*(?:and|or)\s*,?\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])"
SEPARATOR = re.compile(rf"\s*[,;]?\s*(?:{AND_OR})\s*|\s*[,;]\s*")
COMMA = re.compile(r"[,;]")
UNION = re.compile(r"\\cup(?![A-Za-z])")
EQUALS = re.compile(r"(?<![<>!\\:])=(?!=)")
APPROX = re.compile(r"\\approx(?![A-Za-z])")
MEMBER = re.compile(r"[A-Za-z]\s*\\in(?![A-Za-z])\s*")
MATRIX = re.compile(
    r"[(\[|]?\s*\\begin\s*\{(?:[pbBvV]?matrix|smallmatrix|array)\}\s*(?:\{[lcr|\s]*\})?"
    r"(?P<cells>.*?)\\end\s*\{(?:[pbBvV]?matrix|smallmatrix|array)\}\s*[)\]|]?",
    re.DOTALL,
)
ROW, CELL = re.compile(r"\\\\(?:\s*\[[^\]]*\])?"), re.compile(r"(?<!\\)&")
ARGUMENT = re.compile(r"(?<=[A-Za-z}'])\s*\((?:[^()]|\([^()]*\))*\)")
SUBSCRIPT = re.compile(r"_\s*(?:\{[^{}]*\}|\\?\w)|\^\s*\{\s*(?:-1|\\prime)\s*\}|'")
NAME = re.compile(
    r"(?:\\frac\s*\{\s*\\?[A-Za-z]+\s*\}\s*\{\s*\\?[A-Za-z ]+\}|\\text\s*\{[^{}]*\}"
    r"|\\(?!text|frac)[A-Za-z]+(?![A-Za-z])(?:\s*\{[A-Za-z]+\})?|[A-Za-z]|[|:(),\s])+"
)
VALUE = re.compile(r"\\(?:sqrt|pi|infty|log|ln|exp|sin|cos|tan|cot|arc[a-z]+|lim)(?![A-Za-z])")
PLUS_MINUS = re.compile(r"\\pm(?![A-Za-z])")


@dataclass(frozen=True)
class Shape:
    """An answer taken apart: its kind, its parts, and its brackets if it is in brackets.

    Parts of a matrix are its cells, row by row; `brackets` is then its size.
    """

    kind: Kind
    parts: tuple[str, ...]
    brackets: str = ""


def shape(text: str) -> Shape:
    """Take a tidied answer apart. A number is one part, whatever commas it has."""
    text = MEMBER.sub("", text, count=1) if MEMBER.match(text) else text
    if read_number(text):
        return Shape("one", (text,))
    if (matrix := MATRIX.fullmatch(_stripped(text))) is not None:
        return _matrix(matrix["cells"])
    if text.startswith(r"\{") and text.endswith(r"\}") and enclosed(text[1:-2] + "}"):
        return Shape("set", _expanded(split(text[2:-2], SEPARATOR)))
    if enclosed(text):
        inside = split(text[1:-1], COMMA)
        brackets = text[0] + text[-1]
        if len(inside) > 1:
            return Shape("brackets", tuple(inside), _open_at_infinity(inside, brackets))
        return shape(inside[0]) if brackets == "()" else Shape("one", (text,))
    parts = _expanded([part for part in split(text, SEPARATOR) if part])
    return Shape("list" if len(parts) > 1 else "one", parts)


def equation(text: str) -> tuple[str, str] | None:
    """The two sides of an equation; of a chain the first and the last. None for no equation."""
    sides = split(text, EQUALS)
    return (sides[0], sides[-1]) if len(sides) > 1 and sides[0] and sides[-1] else None


def value_of(text: str) -> str:
    """What an answer gives as a value: without the name it is given to and its rounded form.

    `x = 5`, `5 = x`, `f(2) = 5`, `2 + 3 = 5` and `5 \\approx 5.0` all give 5. An equation between
    expressions stays whole.
    """
    exact = [side for side in split(text, APPROX) if side]
    if len(exact) > 1:
        text = exact[1] if is_name(exact[0]) else exact[0]
    if (sides := equation(text)) is None:
        return text
    left, right = sides
    if is_name(left) or not (_has_letters(left) or _has_letters(right)):
        return right
    return left if is_name(right) and read_number(left) else text


def is_name(text: str) -> bool:
    r"""Whether a text can name a quantity: `x`, `a_{3}`, `f(2)`, `|AB|`, `\frac{dy}{dx}`, ..."""
    plain = SUBSCRIPT.sub("", ARGUMENT.sub("", SUBSCRIPT.sub("", text))).strip()
    if not plain or not re.search(r"[A-Za-z]", plain):
        return False
    if VALUE.search(plain) and not _has_letters(text):
        return False
    return NAME.fullmatch(plain) is not None


def _open_at_infinity(ends: list[str], brackets: str) -> str:
    """The brackets of an interval: an end that no number reaches is open, however it is written."""
    if len(ends) != 2:
        return brackets
    left = "(" if re.fullmatch(r"-\s*\\infty", ends[0]) else brackets[0]
    right = ")" if re.fullmatch(r"\+?\s*\\infty", ends[1]) else brackets[1]
    return left + right


def _stripped(text: str) -> str:
    """Without round brackets around the whole."""
    while text.startswith("(") and enclosed(text):
        text = text[1:-1].strip()
    return text


def _matrix(cells: str) -> Shape:
    rows = [row for row in ROW.split(cells) if row.strip()]
    table = [[cell.strip() for cell in CELL.split(row)] for row in rows]
    size = f"{len(table)}x{len(table[0]) if table else 0}"
    return Shape("matrix", tuple(cell for row in table for cell in row), size)


def _expanded(parts: list[str]) -> tuple[str, ...]:
    r"""Each `a \pm b` as two parts."""
    found = []
    for part in parts:
        if len(PLUS_MINUS.findall(part)) == 1:
            found += [PLUS_MINUS.sub(sign, part).replace("=+", "=").strip() for sign in "+-"]
        else:
            found.append(part)
    return tuple(found)


def _has_letters(text: str) -> bool:
    return re.search(r"(?<![\\A-Za-z])[A-Za-z]", text) is not None

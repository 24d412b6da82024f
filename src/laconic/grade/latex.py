"""The text of an answer in one spelling, however it was typed: LaTeX, Unicode or plain."""

from __future__ import annotations

import re

LONGEST = 4096
"""Most characters of an answer that is looked into; a longer one is compared as text only."""
DEEPEST = 60
"""Most open brackets at one place of an answer that is looked into."""

UNICODE = str.maketrans(
    {
        "−": "-",
        "–": "-",
        "×": r"\times ",
        "⋅": r"\cdot ",
        "·": r"\cdot ",
        "÷": "/",
        "≤": r"\le ",
        "≥": r"\ge ",
        "≠": r"\ne ",
        "≈": r"\approx ",
        "∞": r"\infty ",
        "π": r"\pi ",
        "√": r"\sqrt ",
        "∪": r"\cup ",
        "∈": r"\in ",
        "°": r"^\circ ",
        "²": "^2",
        "³": "^3",
        "½": r"\frac{1}{2}",
        "\u00a0": " ",
        "\u2009": " ",
        "\u202f": " ",
        "，": ",",
        "；": ";",
        "：": ":",
        "（": "(",
        "）": ")",
    }
)
CURRENCY = r"\\\$|\\pounds|\\euro|[£€¥₹]"
PERCENT = r"\\?%|\b(?:percent|percentage|pct)\b|\\text\{\s*(?:percent|percentage|pct)\s*\}"
REWRITES = tuple(
    (re.compile(pattern), new)
    for pattern, new in (
        (
            r"\\(?:displaystyle|textstyle|limits|nolimits|hfill|par)(?![A-Za-z])|\\[hv]space\*?\s*\{[^{}]*\}",
            " ",
        ),
        (r"\\boxed(?![A-Za-z])|\\fbox(?![A-Za-z])", ""),
        (r"\\[mM]?left\s*\.|\\[mM]?right\s*\.", ""),
        (r"\\m?(?:left|right)(?![A-Za-z])|\\[bB]igg?[lrm]?(?![A-Za-z])", ""),
        (CURRENCY, ""),
        (r"(?<!\\)\\[()\[\]]", " "),
        (r"\$", " "),
        (r",\s*\\!\s*|\s*\{\s*,\s*\}\s*", ","),
        (r"\\!", ""),
        (r"(?<!\\)\\[,;:> ]|\\quad(?![A-Za-z])|\\qquad(?![A-Za-z])|(?<!\\)~", " "),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\(?:text(?:bf|it|rm|sf|tt|normal|up)|mbox|hbox)\s*\{", r"\\text{"),
        (r"\\(?:leq|leqslant|leqq)(?![A-Za-z])|<=", r"\\le "),
        (r"\\(?:geq|geqslant|geqq)(?![A-Za-z])|>=", r"\\ge "),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"\\neq(?![A-Za-z])|!=", r"\\ne "),
        (r"\\(?:simeq|approxeq)(?![A-Za-z])|~=", r"\\approx "),
        (r"\*\*", "^"),
        (r"\\varnothing(?![A-Za-z])", r"\\emptyset "),
        (r"\\lbrace(?![A-Za-z])", r"\\{"),
        (r"\\rbrace(?![A-Za-z])", r"\\}"),
        (r"\\lvert(?![A-Za-z])|\\rvert(?![A-Za-z])|\\vert(?![A-Za-z])", "|"),
        (r"\{?\s*\^\s*\{?\s*\\(?:circ|degree)\s*\}?|\\degree(?![A-Za-z])", " "),
        (PERCENT, "%"),
        (r"(?<![A-Za-z\\])(?:infinity|inf|oo)(?![A-Za-z])", r"\\infty "),
        (r"(?<![A-Za-z\\])pi(?![A-Za-z])", r"\\pi "),
        (r"(?<![A-Za-z\\])(sin|cos|tan|cot|sec|csc|log|ln|exp)(?![A-Za-z])", r"\\\1 "),
        (r"(?<![A-Za-z\\])sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"\\(?:operatorname|mathop)\*?\s*\{\s*([A-Za-z]+)\s*\}", r"\\\1 "),
        (r"\\dots(?![A-Za-z])|\\cdots(?![A-Za-z])|\.\.\.", r"\\ldots "),
        (r"\s+", " "),
        (r"\\sqrt\s*(\d|[A-Za-z](?![A-Za-z]))", r"\\sqrt{\1}"),
        (r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}"),
        (r"\\frac\s*(\d)\s*\{", r"\\frac{\1}{"),
        (r"\\frac\s*(\{[^{}]*\})\s*(\d)", r"\\frac\1{\2}"),
    )
)
FONT = re.compile(r"\\(?:mathrm|mathbf|mathit|mathsf|mathtt|boldsymbol|bm|rm|bf)\s*\{([^{}]*)\}")
OPEN, CLOSE = "([{", ")]}"
WRAPPED_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")


def tidy(text: str) -> str:
    """One spelling for what means the same: delimiters, spaces, fractions, signs and units."""
    text = _fonts(text.translate(UNICODE))
    for pattern, new in REWRITES:
        text = pattern.sub(new, text)
    return _unwrapped(_trimmed(text))


def too_large(text: str) -> bool:
    """Whether an answer is beyond what is looked into: too long or too deep."""
    if len(text) > LONGEST:
        return True
    depth = deepest = 0
    for sign in text:
        depth += (sign in OPEN) - (sign in CLOSE)
        deepest = max(deepest, depth)
    return deepest > DEEPEST


def split(text: str, separators: re.Pattern[str]) -> list[str]:
    """Cut a text at the separators that stand outside all brackets."""
    parts, start, seen, depth = [], 0, 0, 0
    for found in separators.finditer(text):
        depth, seen = depth + level(text[seen : found.start()]), found.start()
        if depth == 0:
            parts.append(text[start : found.start()])
            start = found.end()
    return [part.strip() for part in (*parts, text[start:])]


def level(text: str) -> int:
    """How many brackets a text leaves open; an interval such as [0,1) closes what it opened."""
    return sum(text.count(sign) for sign in OPEN) - sum(text.count(sign) for sign in CLOSE)


def enclosed(text: str) -> bool:
    """Whether the first sign's bracket is closed by the last sign, and by none before."""
    if len(text) < 2 or text[0] not in OPEN or text[-1] not in CLOSE:
        return False
    depth = 0
    for place, sign in enumerate(text):
        depth += (sign in OPEN) - (sign in CLOSE)
        if depth == 0:
            return place == len(text) - 1
    return False


def joined(text: str) -> str:
    """A text without spaces, but for those that keep two numbers apart."""
    return re.sub(r"\s+", "", re.sub(r"(?<=\d)\s+(?=\d)", "&", text))


def words(text: str) -> str:
    r"""A text in lower case without \text wrappers, quotes and spaces."""
    return re.sub(r"[\s\"'`.]+", "", WRAPPED_TEXT.sub(r"\1", text)).lower()


def _trimmed(text: str) -> str:
    """Without punctuation at either end; a point before a digit is the number's."""
    return re.sub(r"^(?:[\s,;:*]|\.(?!\d))+|[\s.,;:*]+$", "", text)


def _fonts(text: str) -> str:
    r"""Upright letters are \text at the top level, where units stand, and plain letters inside."""

    def replace(found: re.Match[str]) -> str:
        inside = found[1].replace("~", " ")
        if len(inside.strip()) < 2 and not inside.startswith(" "):
            return inside
        return rf"\text{{{inside}}}" if level(text[: found.start()]) == 0 else inside

    return FONT.sub(replace, text)


def _unwrapped(text: str) -> str:
    r"""Without braces or \text around the whole, which say nothing."""
    while True:
        inner = text
        whole = WRAPPED_TEXT.fullmatch(text)
        if whole and not re.search(r"[A-Za-z]{2}", whole[1]):
            inner = whole[1]
        elif text.startswith("{") and enclosed(text):
            inner = text[1:-1]
        inner = _trimmed(inner)
        if inner == text:
            return text
        text = inner

"""Where a response gives its answer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from laconic.tags import split_thought

AnswerSource = Literal[
    "box",
    "marker",
    "box in thought",
    "expression",
    "last number",
    "none",
    "passed",
    "failed",
    "timed out",
    "not run",
    "no code",
]
OUTCOMES = ("passed", "failed", "timed out", "not run", "no code")
"""The sources of answers that are programs: what came of running them."""

TURN_END = re.compile(
    r"<\|(?:im_start|im_end|endoftext|eot_id|end_of_text)\|>|<｜end▁of▁sentence｜>"
)
BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\[{}]|[{}]")
BARE_BOX = re.compile(r"\\boxed\s+(-?[\w.]+)")
BETWEEN = re.compile(
    r"(?:\\[()\[\],;:!]|\\q?quad|\\text\s*\{[^{}]*\}|[\s$,;.&]|\band\b|\bor\b|[a-zA-Z]\w*(?:_\{?\w+\}?)?\s*=)*"
)
MARKER = re.compile(
    r"(?:final\s+answer|answer)\b[*_]*\s*(?:(?:is|are)\b\s*:?|[:=])[*_]*\s*:?|^\s*####",
    re.IGNORECASE | re.MULTILINE,
)
FINAL_MARKER = re.compile(r"final\s+answer\s+is\b[*_]*\s*:?", re.IGNORECASE)
SENTENCE_END = re.compile(r"\.\s*(?:I hope|$)|[.!?]\s+(?=[A-Z])|\n\s*\n")
HOPE = re.compile(r"\bI hope (?:it|this|that)\b.*", re.DOTALL)
MATHS = re.compile(
    r"\$\$(?P<a>(?:[^$]|\$(?!\$)){1,2000}?)\$\$|(?<!\\)\\\[(?P<b>.{1,2000}?)(?<!\\)\\\]"
    r"|(?<![\\])\$(?!\$)(?P<c>(?:\\\$|[^$]){1,2000}?)(?<!\\)\$|(?<!\\)\\\((?P<d>.{1,2000}?)(?<!\\)\\\)",
    re.DOTALL,
)
NUMBER = re.compile(
    r"(?:(?<![\w.)\]}])[-−+])?(?:\d[\d,]*\d|\d)(?:\.\d+)?(?:/\d+)?(?:\s*(?:\\?%|percent\b|pct\b))?"
    r"|(?<![\w.])[-−+]?\.\d+"
)
WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
KNOWN_WORDS = re.compile(
    r"sqrt|sin|cos|tan|cot|sec|csc|log|ln|exp|pi|inf|oo|mod|percent|percentage|pct|and|or|min|max",
    re.IGNORECASE,
)
FEW_WORDS = 2
"""A response, or what follows "answer is", of so few words is the answer, whatever it says."""
LONGEST_BARE = 200
LONGEST_GAP = 80
LONGEST_TAIL = 20_000
"""In characters: expressions and markers are looked for in the end of a response only."""


@dataclass(frozen=True)
class Extracted:
    """The answer found in a response and where: None and `none` when it gives no answer."""

    answer: str | None
    source: AnswerSource


def extract(text: str, *, several: bool = False) -> Extracted:
    r"""Find the answer of a response.

    In this order: the last balanced \boxed{...} after the last </think>, unless "the final answer
    is" comes after it; what follows the last "answer is" there; the last box anywhere; the last
    expression or number after the last </think>. A response that opens <think> and never closes it
    has no part after it; one without either tag is all answer. several: join neighbouring boxes or
    expressions into a list.
    """
    head, tail = _parts(text)
    end = tail[-LONGEST_TAIL:]
    if (answer := _last_boxes(tail, several)) is not None:
        corrected = _marked(tail[tail.rfind("boxed") :], several, FINAL_MARKER)
        return Extracted(corrected, "marker") if corrected else Extracted(answer, "box")
    if (answer := _marked(end, several)) is not None:
        return Extracted(answer, "marker")
    if (answer := _last_boxes(head, several)) is not None:
        return Extracted(answer, "box in thought")
    return _from_tail(end, several)


def _parts(text: str) -> tuple[str, str]:
    """The thought, and what comes after it up to the end of the model's turn."""
    if turn := TURN_END.search(text, len(text) - len(text.lstrip())):
        text = text[: turn.start()] if text[: turn.start()].strip() else text
    return split_thought(text)


def _last_boxes(text: str, several: bool) -> str | None:
    r"""What the last balanced, non-empty \boxed{...} holds; with its neighbours if `several`."""
    if not (boxes := _boxes(text)):
        bare = BARE_BOX.findall(text)
        return bare[-1] if bare else None
    last = boxes[-1]
    found = [text[last[1] : last[2]].strip()]
    if several:
        for box in reversed(boxes[:-1]):
            if not _joins(text, box[2] + 1, last[0]):
                break
            found.insert(0, text[box[1] : box[2]].strip())
            last = box
    return ", ".join(found)


def _boxes(text: str) -> list[tuple[int, int, int]]:
    r"""Where each balanced, non-empty \boxed{...} starts and its content starts and ends."""
    stack: list[tuple[int, int] | None] = []
    found = []
    for brace in BRACES.finditer(text):
        mark = brace.group()
        if mark in (r"\{", r"\}"):
            continue
        if mark != "}":
            stack.append(brace.span() if mark.startswith("\\") else None)
        elif stack and (start := stack.pop()) and text[start[1] : brace.start()].strip():
            found.append((*start, brace.start()))
    return sorted(found, key=lambda box: box[0])


def _marked(text: str, several: bool, marker: re.Pattern[str] | None = None) -> str | None:
    """What follows the last "answer is" or "answer:", up to the end of its sentence."""
    markers = [*(marker or FINAL_MARKER).finditer(text)]
    if not markers and marker is None:
        markers = [*MARKER.finditer(text)]
    if not markers:
        return None
    rest = text[markers[-1].end() :].strip(" *_\n")
    said = rest[: _sentence_end(rest)].strip(" *_.")
    if is_bare(said) or 0 < len(said.split()) <= FEW_WORDS:
        return said
    return _from_tail(said, several).answer


def _sentence_end(text: str) -> int:
    """Where the first sentence ends: a full stop within a formula ends nothing."""
    formulas = [found.span() for found in MATHS.finditer(text)]
    for stop in SENTENCE_END.finditer(text):
        if not any(start <= stop.start() < end for start, end in formulas):
            return stop.start()
    return len(text)


def _from_tail(text: str, several: bool) -> Extracted:
    """The whole text or its last line if that is a formula, else its last formula or number."""
    text = HOPE.sub("", text).strip()
    lines = text.splitlines()
    if 0 < len(text.split()) <= FEW_WORDS and "\n" not in text and not MATHS.search(text):
        return Extracted(text, "expression")
    for candidate in (text, lines[-1].strip() if lines else ""):
        if is_bare(candidate):
            return Extracted(candidate, "expression")
    formulas = [*MATHS.finditer(text)]
    outside = MATHS.sub(lambda found: " " * len(found.group()), text)
    numbers = [*NUMBER.finditer(outside)]
    if formulas and (not numbers or numbers[-1].start() < formulas[-1].start()):
        return Extracted(_joined(text, formulas, several), "expression")
    return Extracted(numbers[-1].group(), "last number") if numbers else Extracted(None, "none")


def is_bare(text: str) -> bool:
    """Whether a text is an expression and nothing else: no words but those of formulas."""
    if not 0 < len(text) <= LONGEST_BARE or text.count("$") > 4:
        return False
    if not re.search(r"\w", text) or re.search(r"\.\s+\S|\n\s*\n", text):
        return False
    plain = re.sub(r"\\(?:text|mathrm|mbox|begin|end)\s*\{[^{}]*\}", "", text)
    return all(KNOWN_WORDS.fullmatch(word) for word in WORD.findall(plain))


def _joined(text: str, formulas: list[re.Match[str]], several: bool) -> str:
    last = formulas[-1]
    found = [_inside(last)]
    if several:
        for formula in reversed(formulas[:-1]):
            if not _joins(text, formula.end(), last.start()):
                break
            found.insert(0, _inside(formula))
            last = formula
    return ", ".join(found)


def _joins(text: str, start: int, end: int) -> bool:
    """Whether what stands between two answers only joins them into a list."""
    return end - start <= LONGEST_GAP and BETWEEN.fullmatch(text, start, end) is not None


def _inside(formula: re.Match[str]) -> str:
    return next(part for part in formula.groups() if part is not None).strip()

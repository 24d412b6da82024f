"""The responses of all runs side by side, made small enough to be part of a page."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from laconic.grade.folder import RunFolder
from laconic.grade.grades import Asked, Grade
from laconic.run.runner import Key

CELLS = 60_000
"""Most verdicts (questions times draws times runs) on a page."""
TEXT_CHARACTERS = 6_000
PROMPT_CHARACTERS = 2_000
PAGE_CHARACTERS = 16_000_000
"""Of all responses on a page together."""


@dataclass(frozen=True)
class Responses:
    """What the page's script browses: plain lists and strings, and a note of what was left out."""

    data: dict[str, Any]
    note: str


def collect(
    names: Sequence[str], folders: Sequence[RunFolder], verdicts: Sequence[Sequence[Grade]]
) -> Responses:
    """The responses of complete runs over the same questions, with each run's verdicts.

    Verdicts of all questions are kept as far as CELLS goes; texts as far as PAGE_CHARACTERS goes,
    first of questions where the runs differ, then where one is wrong or cut.
    """
    questions = folders[0].read_questions()
    grades = [{(g.id, g.draw): g for g in own} for own in verdicts]
    keys = _keys(questions, grades)
    chosen = keys[: max(1, CELLS // len(folders))]
    texts, kept = _texts(folders, _by_interest(chosen, grades))
    place = {question.id: number for number, question in enumerate(questions)}
    data = {
        "runs": list(names),
        "questions": [_question(question) for question in questions],
        "items": [[place[id], draw] for id, draw in chosen],
        "cells": [[_cell(run.get(key)) for key in chosen] for run in grades],
        "texts": [[run.get(key) for key in chosen] for run in texts],
    }
    return Responses(data, _note(len(keys), len(chosen), kept))


def clip(text: str, most: int) -> str:
    """A text of at most about `most` characters: its middle is left out, and that is said."""
    if len(text) <= most:
        return text
    head, tail = most * 2 // 3, most // 3
    left_out = len(text) - head - tail
    return f"{text[:head]}\n[... {left_out:,} characters left out ...]\n{text[-tail:]}"


def _keys(questions: Sequence[Asked], grades: Sequence[dict[Key, Grade]]) -> list[Key]:
    """Question by question, then draw by draw."""
    found = {key for run in grades for key in run}
    draws = sorted({draw for _, draw in found})
    # All first draws come before all second ones, so that a cap takes later draws away first.
    return [(q.id, draw) for draw in draws for q in questions if (q.id, draw) in found]


def _by_interest(keys: Sequence[Key], grades: Sequence[dict[Key, Grade]]) -> list[Key]:
    """Where runs differ first, then where one is wrong or cut; evenly mixed otherwise."""

    def rank(key: Key) -> tuple[int, bytes]:
        found = [run[key] for run in grades if key in run]
        differ = len({one.correct for one in found}) > 1
        worth = any(one.correct is not True or one.cut for one in found)
        digest = hashlib.sha256(f"{key[0]}\0{key[1]}".encode()).digest()
        return (0 if differ else 1 if worth else 2), digest

    return sorted(keys, key=rank)


def _texts(folders: Sequence[RunFolder], order: Sequence[Key]) -> tuple[list[dict[Key, str]], int]:
    """Each run's clipped texts for as many keys as fit on a page, and how many those are."""
    wanted = set(order)
    texts: list[dict[Key, str]] = []
    for folder in folders:  # one at a time: whole completions of many runs need not fit in memory
        own = folder.read_completions()
        texts.append({c.key: clip(c.text, TEXT_CHARACTERS) for c in own if c.key in wanted})
        del own
    total, kept = 0, 0
    for key in order:
        total += sum(len(run.get(key, "")) for run in texts)
        if total > PAGE_CHARACTERS:
            break
        kept += 1
    inside = set(order[:kept])
    return [{key: text for key, text in run.items() if key in inside} for run in texts], kept


def _question(asked: Asked) -> list[str]:
    group = f"level {asked.level}" if asked.level is not None else asked.subject or ""
    return [asked.id, group, clip(asked.prompt, PROMPT_CHARACTERS), asked.answer]


def _cell(grade: Grade | None) -> list[Any] | None:
    """Verdict (1, 0, or null for not graded), tokens, cut (1 or 0), answer."""
    if grade is None:
        return None
    verdict = None if grade.correct is None else int(grade.correct)
    answer = None if grade.answer is None else clip(grade.answer, 200)
    return [verdict, grade.tokens, int(grade.cut), answer]


def _note(all_: int, shown: int, kept: int) -> str:
    notes = []
    if shown < all_:
        notes.append(f"{shown:,} of {all_:,} answered questions are listed")
    if kept < shown:
        notes.append(
            f"the text is kept for {kept:,} of {shown:,}, first where the models differ, then "
            "where one is wrong or cut"
        )
    if not notes:
        return ""
    return f"To keep this page small, {'; '.join(notes)}. The run folders hold everything."

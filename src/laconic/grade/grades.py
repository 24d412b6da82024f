"""A grade: one completion judged, with all that the measures need."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from laconic.grade.answers import extract, is_correct
from laconic.grade.reflection import count_reflections
from laconic.records import Record
from laconic.run.completion import Completion


@dataclass(frozen=True)
class Asked:
    """A question as it was put to a model: its sample id, task, gold answer, prompt and groups."""

    id: str
    task: str
    prompt: str
    answer: str
    level: str | None = None
    subject: str | None = None

    def to_record(self) -> Record:
        """This question as a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class Grade:
    """One completion judged. correct is None where grading failed: never counted as wrong."""

    id: str
    draw: int
    task: str
    level: str | None
    correct: bool | None
    answer: str | None
    source: str
    tokens: int
    cut: bool
    reflections: int

    def to_record(self) -> dict[str, Any]:
        """This grade as a JSON object."""
        return asdict(self)


def grade(asked: Asked, completion: Completion) -> Grade:
    """Judge one completion of a question."""
    found = extract(completion.text)
    return Grade(
        id=completion.id,
        draw=completion.draw,
        task=asked.task,
        level=asked.level,
        correct=is_correct(asked.answer, completion.text),
        answer=found.answer,
        source=found.source,
        tokens=completion.tokens,
        cut=completion.stop == "length",
        reflections=count_reflections(completion.text),
    )

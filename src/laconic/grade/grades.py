"""A grade: one completion judged, with all that the measures need."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from laconic.grade.answers import judge
from laconic.grade.extraction import OUTCOMES
from laconic.grade.graders import Judge
from laconic.grade.reflection import count_paper_reflections, count_reflections
from laconic.grade.thinking import Split, ThinkState, think_state, think_tokens
from laconic.records import Record
from laconic.run.completion import Completion
from laconic.run.loops import find_loop
from laconic.tags import THINK_END


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
    """One completion judged. correct is None where grading failed: never counted as wrong.

    source: where the answer was found; of code, what came of running it. think_tokens: of `tokens`,
    those of the thought; think_split: whether they were told apart by token ids, or by the share of
    characters. boxed: whether the part after the thought has a box, or code was asked for. loop:
    whether it ends in a loop; None when the runner kept no token ids. reflections: counted as whole
    words; paper_reflections: as the paper's script counts them.
    """

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
    subject: str | None = None
    paper_reflections: int = 0
    think: ThinkState = "none"
    think_tokens: int = 0
    think_split: Split = "characters"
    boxed: bool = True
    loop: bool | None = None

    def to_record(self) -> dict[str, Any]:
        """This grade as a JSON object."""
        return asdict(self)


def grade(asked: Asked, completion: Completion, by: Judge = judge) -> Grade:
    """Judge one completion of a question."""
    correct, found = by(asked.answer, completion.text)
    ids = completion.token_ids
    thought, split = think_tokens(completion)
    return Grade(
        id=completion.id,
        draw=completion.draw,
        task=asked.task,
        level=asked.level,
        correct=correct,
        answer=found.answer,
        source=found.source,
        tokens=completion.tokens,
        cut=completion.stop == "length",
        reflections=count_reflections(completion.text),
        subject=asked.subject,
        paper_reflections=count_paper_reflections(completion.text),
        think=think_state(completion.text, completion.opened),
        think_tokens=thought,
        think_split=split,
        boxed=found.source in OUTCOMES or r"\boxed" in completion.text.rpartition(THINK_END)[2],
        loop=None if ids is None else find_loop(ids) is not None,
    )

"""What merges answered: outcomes of single responses, and the figures of a merge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from laconic.grade.grades import Grade
from laconic.run.completion import Completion
from laconic.tags import THINK_END

Fault = Literal["loop", "empty", "tags"]
FAULTS: dict[Fault, str] = {
    "loop": "end in a loop",
    "empty": "give no answer",
    "tags": "lose their think tags",
}
COLLAPSED = 0.5
"""Share of broken responses above which a merge counts as collapsed."""


@dataclass(frozen=True)
class Outcome:
    """One response, judged. answer: what was extracted. fault: why it is no proper response."""

    id: str
    draw: int
    correct: bool | None
    tokens: int
    cut: bool
    closed: bool
    answer: str | None = None
    fault: Fault | None = None

    def to_record(self) -> dict[str, Any]:
        """This outcome as a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class Answer:
    """All draws of one question: the share right (None: none could be graded), mean tokens."""

    correct: float | None
    tokens: float


@dataclass(frozen=True)
class Figures:
    """Of one merge: accuracy in [0, 1], mean tokens per response, questions they are over."""

    accuracy: float
    tokens: float
    questions: int


def outcome_of(grade: Grade, completion: Completion) -> Outcome:
    """Judge whether a graded response is one at all."""
    return Outcome(
        grade.id,
        grade.draw,
        grade.correct,
        grade.tokens,
        grade.cut,
        grade.think == "closed",
        grade.answer,
        _fault(grade, completion),
    )


def _fault(grade: Grade, completion: Completion) -> Fault | None:
    if grade.loop:
        return "loop"
    if grade.think == "repeated" or (grade.think == "open" and not grade.cut):
        return "tags"
    rest = completion.text.rpartition(THINK_END)[2]
    return "empty" if not rest.strip() and not grade.cut else None


def answers(outcomes: Iterable[Outcome]) -> dict[str, Answer]:
    """Outcomes by question, their draws averaged."""
    rows: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        rows.setdefault(outcome.id, []).append(outcome)
    return {id: _answer(own) for id, own in rows.items()}


def figures(found: Mapping[str, Answer]) -> Figures:
    """Accuracy over the graded questions, 0 when there is none; tokens over all of them."""
    graded = [one.correct for one in found.values() if one.correct is not None]
    accuracy = sum(graded) / len(graded) if graded else 0.0
    tokens = sum(one.tokens for one in found.values()) / len(found)
    return Figures(accuracy, tokens, len(found))


def collapse(outcomes: Sequence[Outcome]) -> str | None:
    """Say how a merge collapsed, when more than half of its responses are none; None otherwise."""
    faults = Counter(outcome.fault for outcome in outcomes if outcome.fault)
    if sum(faults.values()) <= COLLAPSED * len(outcomes):
        return None
    parts = ", ".join(f"{count} {FAULTS[fault]}" for fault, count in faults.most_common())
    return f"collapsed: of {len(outcomes)} responses {parts}"


def _answer(draws: Sequence[Outcome]) -> Answer:
    graded = [bool(one.correct) for one in draws if one.correct is not None]
    share = sum(graded) / len(graded) if graded else None
    return Answer(share, sum(one.tokens for one in draws) / len(draws))

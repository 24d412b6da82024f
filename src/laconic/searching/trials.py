"""Trials: what one merge of a study came to, kept in the storage with everything a front needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState

from laconic.recipe import Recipe, parse_recipe
from laconic.searching.outcomes import Answer

Status = Literal["complete", "dropped", "collapsed", "failed"]
RESULT = "result"
"""The attribute of a trial that holds its result."""


@dataclass(frozen=True)
class Result:
    """What a trial found.

    status: `complete` answered every question it was to; `dropped` left the race, `reason` says
    whom it lost to; `collapsed` gave no proper responses; `failed` could not be asked. accuracy,
    tokens: over the `answered` questions, None when failed. generated: tokens that were generated
    for this trial. bounds: how far it is beyond the study's bounds, 0 or less when within.
    answers: [share right, mean tokens] per question id.
    """

    recipe: dict[str, Any]
    merge: str
    status: Status
    reason: str = ""
    accuracy: float | None = None
    tokens: float | None = None
    answered: int = 0
    generated: int = 0
    seconds: float = 0.0
    bounds: tuple[float, ...] = ()
    answers: dict[str, Answer] = field(default_factory=dict)

    def to_record(self) -> dict[str, Any]:
        """This result as a JSON object."""
        pairs = {id: [one.correct, one.tokens] for id, one in self.answers.items()}
        return {**asdict(self), "bounds": list(self.bounds), "answers": pairs}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Result:
        """Read a result back."""
        answers = {id: Answer(*pair) for id, pair in record["answers"].items()}
        return cls(**{**record, "bounds": tuple(record["bounds"]), "answers": answers})


@dataclass(frozen=True)
class Trial:
    """A finished trial: which it was, what it chose, what came of it."""

    phase: str
    number: int
    params: Mapping[str, Any]
    result: Result

    @property
    def name(self) -> str:
        """Its phase and number, unique within a study."""
        return f"{self.phase}/{self.number}"

    @property
    def recipe(self) -> Recipe:
        """The merge's plain recipe."""
        return parse_recipe(self.result.recipe, where=f"trial {self.name}")

    @property
    def accuracy(self) -> float:
        """Share right; 0 when it could not be asked."""
        return self.result.accuracy or 0.0

    @property
    def tokens(self) -> float:
        """Mean tokens; infinite when it could not be asked."""
        return float("inf") if self.result.tokens is None else self.result.tokens

    def to_record(self) -> dict[str, Any]:
        """A line of trials.jsonl: without its answers and its time, which no two runs share."""
        record = self.result.to_record()
        kept = {key: record[key] for key in record if key not in ("answers", "seconds")}
        return {"trial": self.name, "params": dict(self.params), **kept}


def tell(study: optuna.Study, trial: optuna.Trial, result: Result, limit: int) -> None:
    """Keep a result and let the sampler learn from it.

    A dropped merge tells what it had so far; a collapsed one the worst there is, accuracy 0 at the
    token limit; one that could not be asked tells nothing.
    """
    trial.set_user_attr(RESULT, result.to_record())
    if result.status == "failed":
        study.tell(trial, state=TrialState.FAIL)
    elif result.status == "collapsed":
        study.tell(trial, [0.0, float(limit)])
    else:
        study.tell(trial, [result.accuracy or 0.0, result.tokens or 0.0])


def finished(study: optuna.Study, phase: str) -> Iterator[Trial]:
    """Yield the finished trials of a phase, in order."""
    for trial in study.get_trials(deepcopy=False):
        if trial.state.is_finished() and RESULT in trial.user_attrs:
            result = Result.from_record(trial.user_attrs[RESULT])
            yield Trial(phase, trial.number, trial.params, result)


def beyond(trial: FrozenTrial) -> Sequence[float]:
    """How far a trial is beyond the study's bounds, for samplers that heed them."""
    bounds: Sequence[float] = trial.user_attrs[RESULT]["bounds"]
    return bounds

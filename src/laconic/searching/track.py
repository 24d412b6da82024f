"""The track: trials of one phase, asked block by block until they lose, break or finish."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna

from laconic.errors import LaconicError
from laconic.recipe import Recipe
from laconic.searching.examiner import Examiner
from laconic.searching.outcomes import answers, collapse, figures
from laconic.searching.phases import Phase
from laconic.searching.racing import Answers, block_ends, dominated_by
from laconic.searching.responses import Responses
from laconic.searching.samplers import ask
from laconic.searching.storage import OWNER
from laconic.searching.study_file import Racing
from laconic.searching.trials import Result, Trial, finished, tell

RETRIES = 1
"""How often a trial whose worker was lost is given to another worker."""


class WorkerLostError(LaconicError):
    """A worker ended in the middle of a trial: killed, out of memory, its machine gone."""


@dataclass
class Race:
    """What all trials of a search share.

    order: ids of the questions, in the order asked. limit: tokens per response. bounds: least
    accuracy and most mean tokens, where the study has them. rivals: what the parents and the merges
    that finished answered, by name. spent: whether the budget, in tokens or hours, is used up.
    """

    order: Sequence[str]
    limit: int
    racing: Racing
    responses: Responses
    spent: Callable[[], bool]
    least: float | None = None
    most: float | None = None
    rivals: dict[str, Answers] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def beyond(self, accuracy: float, tokens: float) -> tuple[float, ...]:
        """How far figures are beyond each of the study's bounds."""
        found = []
        if self.least is not None:
            found.append(self.least - accuracy)
        if self.most is not None:
            found.append(tokens - self.most)
        return tuple(found)


@dataclass
class Track:
    """Runs the trials of one phase. left: those that a killed run was in the middle of."""

    phase: Phase
    study: optuna.Study
    race: Race
    owner: str
    left: list[optuna.Trial]
    told: Callable[[Trial], None]

    def run(self, examiner: Examiner, replace: Callable[[], Examiner]) -> None:
        """Run trials until the budget is spent. replace: opens an examiner for a lost one."""
        while (drawn := self._next()) is not None:
            trial, params, recipe = drawn
            name = f"{self.phase.name}/{trial.number}"
            for attempt in range(RETRIES + 1):
                try:
                    result = self.judge(recipe, name, examiner)
                    break
                except WorkerLostError as error:
                    examiner = replace()
                    reason = f"{error} ({attempt + 1} of {RETRIES + 1} attempts)"
                    result = _failed(recipe, reason)
            self._finish(trial, params, result)

    def judge(self, recipe: Recipe, name: str, examiner: Examiner) -> Result:
        """Ask a merge block after block until it finishes, loses, or breaks."""
        began = time.monotonic()
        try:
            result = self._asked(recipe, name, examiner)
        except WorkerLostError:
            raise
        except (LaconicError, RuntimeError, MemoryError) as error:  # torch raises RuntimeError
            result = _failed(recipe, str(error).strip() or type(error).__name__)
        seconds = round(time.monotonic() - began, 3)
        return Result(**{**result.__dict__, "seconds": seconds})

    def _asked(self, recipe: Recipe, name: str, examiner: Examiner) -> Result:
        race, ends = self.race, block_ends(len(self.race.order), self.race.racing)
        for end in ends:
            ids = race.order[:end]
            with race.lock:
                done = set(race.responses.done(recipe.hash))
            new = examiner.ask(recipe.to_dict(), ids, race.limit, done)
            with race.lock:
                race.responses.add(recipe.hash, name, new)
                found = race.responses.of(recipe.hash, name, ids)
                rivals = list(race.rivals.items())
            own = answers(found.outcomes)
            if broken := collapse(found.outcomes):
                return self._result(recipe, "collapsed", broken, own, found.generated)
            lost = dominated_by(own, rivals, race.racing, len(ends) - 1) if end < ends[-1] else None
            if lost is not None:
                return self._result(recipe, "dropped", f"lost to {lost}", own, found.generated)
        return self._result(recipe, "complete", "", own, found.generated)

    def _result(
        self, recipe: Recipe, status: Any, reason: str, own: Answers, generated: int
    ) -> Result:
        found = figures(own)
        return Result(
            recipe.to_dict(),
            recipe.hash,
            status,
            reason,
            found.accuracy,
            found.tokens,
            found.questions,
            generated,
            bounds=self.race.beyond(found.accuracy, found.tokens),
            answers=dict(own),
        )

    def _next(self) -> tuple[optuna.Trial, Mapping[str, Any], Recipe] | None:
        with self.race.lock:
            begun = len(self.study.get_trials(deepcopy=False))
            if self.left:
                trial = self.left.pop(0)
            elif begun >= self.phase.trials or self.race.spent():
                return None
            else:
                trial = self.study.ask()
                trial.set_user_attr(OWNER, self.owner)
            params = ask(self.phase.space, trial)
            return trial, params, self.phase.space.recipe(params)

    def _finish(self, trial: optuna.Trial, params: Mapping[str, Any], result: Result) -> None:
        with self.race.lock:
            tell(self.study, trial, result, self.race.limit)
            done = Trial(self.phase.name, trial.number, params, result)
            if result.status == "complete":
                self.race.rivals[done.name] = result.answers
            self.told(done)

    def done(self) -> list[Trial]:
        """The finished trials of this phase."""
        return list(finished(self.study, self.phase.name))


def _failed(recipe: Recipe, reason: str) -> Result:
    return Result(recipe.to_dict(), recipe.hash, "failed", reason)

"""The end of a search: the front on all deciding questions, its test, and what is written."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from laconic.errors import LaconicError
from laconic.grade.bootstrap import Estimate, estimate, resampled_sums
from laconic.grade.evaluation import RunSummary, evaluate
from laconic.grade.inference import clustered, wilson
from laconic.recipe import Recipe, parse_recipe
from laconic.records import write_json, write_records
from laconic.searching.examiner import LiveExaminer
from laconic.searching.folder import StudyFolder
from laconic.searching.front import Reference, hypervolume, knee
from laconic.searching.outcomes import Answer, Figures, figures
from laconic.searching.questions import Splits
from laconic.searching.space import Space
from laconic.searching.study_file import Study
from laconic.searching.trials import Trial

Answers = Mapping[str, Answer]
PARENTS = ("slow", "quick")


@dataclass(frozen=True)
class Merge:
    """A merge of the front: its trial, and what it answered to all deciding questions."""

    trial: Trial
    answers: Answers

    @property
    def accuracy(self) -> float:
        """Share right."""
        return figures(self.answers).accuracy

    @property
    def tokens(self) -> float:
        """Mean tokens per response."""
        return figures(self.answers).tokens


@dataclass(frozen=True)
class Search:
    """A finished search: `front`, rows shortest first, and everything front.json holds."""

    folder: StudyFolder
    front: tuple[Mapping[str, Any], ...]
    record: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """What front.json holds."""
        return dict(self.record)


def intervals(own: Answers, draws: int) -> dict[str, Any]:
    """Accuracy and tokens with 95% intervals over questions, as front.json has them."""
    found = figures(own)
    shares = [one.correct for one in own.values() if one.correct is not None]
    right = wilson(round(sum(shares)), len(shares)) if draws == 1 else clustered(shares)
    lengths = _mean([one.tokens for one in own.values()])
    return {
        "accuracy": found.accuracy,
        "accuracy_interval": _pair(right),
        "tokens": found.tokens,
        "tokens_interval": _pair(lengths),
        "questions": found.questions,
    }


def reference(slow: Figures, quick: Figures) -> Reference:
    """Where the hypervolume of a search begins."""
    return Reference(quick.accuracy, slow.tokens)


def curve(trials: Sequence[Trial], start: Reference, paid: int) -> list[dict[str, Any]]:
    """The hypervolume after each trial against the tokens generated so far, parents included."""
    rows, complete = [], list[Trial]()
    for trial in trials:
        paid += trial.result.generated
        if trial.result.status == "complete":
            complete.append(trial)
        covered = hypervolume(complete, start)
        rows.append({"trial": trial.name, "generated": paid, "hypervolume": covered})
    return rows


def rows(
    front: Sequence[Merge],
    parents: Mapping[str, Figures],
    draws: int,
    tests: Mapping[str, Any],
    beyond: Callable[[float, float], Sequence[float]],
) -> list[dict[str, Any]]:
    """A row of front.json for each merge of the front."""
    best = knee(front, parents["quick"], parents["slow"])
    return [
        {
            "trial": merge.trial.name,
            "params": dict(merge.trial.params),
            "recipe": merge.trial.result.recipe,
            "merge": merge.trial.result.merge,
            **intervals(merge.answers, draws),
            "knee": merge is best,
            "within": all(gap <= 1e-9 for gap in beyond(merge.accuracy, merge.tokens)),
            "test": tests.get(merge.trial.name),
        }
        for merge in front
    ]


def counted(trials: Sequence[Trial]) -> dict[str, int]:
    """How many trials came to what."""
    return dict(Counter(trial.result.status for trial in trials))


def write(folder: StudyFolder, record: dict[str, Any], trials: Sequence[Trial]) -> Search:
    """Write trials.jsonl and front.json."""
    write_records(folder.trials, [trial.to_record() for trial in trials])
    write_json(folder.front, record)
    return Search(folder, tuple(record["front"]), record)


def test(
    folder: StudyFolder,
    study: Study,
    splits: Splits,
    examiner: LiveExaminer,
    merges: Mapping[str, Recipe],
) -> dict[str, dict[str, Any]]:
    """Ask the reporting questions of merges, by name; leaves a run folder for each.

    A run that is there already is not asked again.
    """
    found = {}
    for name, recipe in merges.items():
        examiner.load(recipe)
        summary = evaluate(
            name,
            splits.test,
            out=folder.tests / recipe.hash,
            sampling=examiner.sampling,
            protocol=study.protocol,
            runner=examiner.runner,
            name=name,
            method="parent" if name in PARENTS else "+".join(s.method for s in recipe.merge),
            progress=False,
        )
        found[name] = _measured(summary)
    return found


def importances(study: optuna.Study, space: Space) -> dict[str, dict[str, float]]:
    """How much each parameter of a phase decides either objective (PED-ANOVA, arXiv 2304.10255).

    Empty for a single parameter, or where too few trials let it be said.
    """
    if not space.alone or len(space.options[0].dials) < 2:
        return {}
    try:
        return {"accuracy": _importance(study, 0, -1), "tokens": _importance(study, 1, 1)}
    except (ValueError, RuntimeError, optuna.exceptions.OptunaError):
        return {}


def _importance(study: optuna.Study, place: int, sign: int) -> dict[str, float]:
    """Of one objective. sign: 1 when low is good, for that is what the evaluator explains."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says so of every target
        return get_param_importances(
            study,
            evaluator=PedAnovaImportanceEvaluator(),
            target=lambda trial: sign * trial.values[place],
        )


def recipe_of(row: Mapping[str, Any]) -> Recipe:
    """The recipe of a row of the front."""
    return parse_recipe(row["recipe"], where=f"trial {row['trial']}")


def refuse_empty(complete: Sequence[Trial], trials: Sequence[Trial]) -> None:
    """Say why there is no front, when no trial finished."""
    if complete:
        return
    reasons = Counter(trial.result.reason for trial in trials if trial.result.reason)
    shown = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common(3))
    raise LaconicError(f"no merge finished: {shown or 'the budget ended before the first trial'}")


def _measured(summary: RunSummary) -> dict[str, Any]:
    overall = summary.overall
    right = overall.accuracy
    return {
        "accuracy": None if right is None else right.value,
        "accuracy_interval": _pair(right),
        "tokens": overall.tokens.value,
        "tokens_interval": _pair(overall.tokens),
        "questions": overall.questions,
        "cut": overall.cut.value,
        "run": summary.folder.name,
    }


def _mean(values: Sequence[float]) -> Estimate | None:
    columns = np.array([[value, 1.0] for value in values])
    return estimate(lambda t: t[..., 0] / t[..., 1], columns, resampled_sums(columns))


def _pair(found: Estimate | None) -> list[float] | None:
    return None if found is None else [found.low, found.high]

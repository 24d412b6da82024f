"""Choosing a merge without right answers: where neighbouring merges agree (AdaMMS)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from laconic.grade.answers import same
from laconic.recipe import parse_recipe
from laconic.records import write_json
from laconic.run.runner import Key, Runner
from laconic.searching.examiner import LiveExaminer, Setting, make_shell, shared
from laconic.searching.folder import StudyFolder
from laconic.searching.outcomes import Outcome, collapse
from laconic.searching.questions import in_turn, load_splits, make_exam
from laconic.searching.responses import Responses
from laconic.searching.search import Options
from laconic.searching.study_file import Study

STEPS = 10
"""Intervals of the sweep from quick to slow."""
ASKED = 100
"""Questions, unless the study says: 50 to 200 are enough (arXiv 2503.23733)."""
SLACK = 0.02
"""Disagreement above the least that a shorter merge may have."""


@dataclass(frozen=True)
class Candidate:
    """One merge of the sweep.

    disagreement: share of questions on which its answer differs from a neighbour's, the mean over
    its neighbours. tokens: median length of its responses. broken: how it collapsed, or nothing.
    """

    weight: float
    disagreement: float
    tokens: float
    broken: str = ""


@dataclass(frozen=True)
class Choice:
    """The sweep and the weight that was chosen; `recipe` is the merge's dictionary form."""

    weight: float
    candidates: tuple[Candidate, ...]
    questions: int
    recipe: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The choice as data."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """Yield a table for a terminal."""
        yield f"{'weight':>7}{'disagreement':>14}{'median tokens':>15}"
        for one in self.candidates:
            mark = "  <- chosen" if one.weight == self.weight else f"  {one.broken}"
            yield f"{one.weight:>7.2f}{one.disagreement:>14.3f}{one.tokens:>15.1f}{mark}".rstrip()
        yield f"{self.questions} questions, no right answer was looked at"


def auto(
    study: Study, *, out: str | Path, options: Options, runner: Runner | None = None
) -> Choice:
    """Choose an interpolation by agreement, without looking at a right answer.

    The merges at weight 0, 0.1 ... 1 answer the deciding questions. Of those whose answers differ
    from their neighbours' hardly more than the least (by 0.02 at most), the one with the shortest
    median response is taken; parents and collapsed merges are not. Leaves OUT/auto.json.
    """
    common = shared(study)
    exam = make_exam(load_splits(study).validation, study)
    ids = in_turn(exam, study.seed)[: study.questions.count or ASKED]
    folder = StudyFolder(Path(out))
    folder.begin(study, "none", extend=False)
    with Responses(folder.responses) as responses:
        shell = str(make_shell(common, folder.shell))
        setting = Setting(shell, common, exam, options.device, options.dtype, options.batch_size)
        examiner = LiveExaminer(setting, runner)
        swept = [_asked(examiner, responses, common, step / STEPS, ids) for step in _steps()]
    choice = choose(swept, len(ids), common)
    write_json(folder.path / "auto.json", choice.to_dict())
    return choice


def choose(swept: Sequence[Sequence[Outcome]], questions: int, common: Mapping[str, Any]) -> Choice:
    """Choose from the outcomes of an even sweep, quick first and slow last."""
    apart = [disagreement(one, other) for one, other in pairwise(swept)]
    candidates = tuple(
        Candidate(
            step / STEPS,
            sum(near) / len(near),
            float(median(outcome.tokens for outcome in outcomes)),
            collapse(outcomes) or "",
        )
        for step, outcomes in enumerate(swept)
        if (near := apart[max(step - 1, 0) : step + 1])
    )
    inner = [one for one in candidates[1:-1] if not one.broken] or list(candidates[1:-1])
    least = min(one.disagreement for one in inner)
    steady = [one for one in inner if one.disagreement <= least + SLACK]
    best = min(steady, key=lambda one: (one.tokens, one.disagreement))
    return Choice(best.weight, candidates, questions, _raw(common, best.weight))


def disagreement(one: Sequence[Outcome], other: Sequence[Outcome]) -> float:
    """The share of questions and draws on which two merges' answers differ.

    Answers that cannot be compared differ, and so do two missing ones.
    """
    theirs = {(o.id, o.draw): o.answer for o in other}
    pairs = [(o.answer, theirs[o.id, o.draw]) for o in one if (o.id, o.draw) in theirs]
    return sum(not _agree(a, b) for a, b in pairs) / len(pairs)


def _agree(one: str | None, other: str | None) -> bool:
    if one is None or other is None:
        return False
    return one == other or same(one, other) is True


def _steps() -> range:
    return range(STEPS + 1)


def _asked(
    examiner: LiveExaminer,
    responses: Responses,
    common: Mapping[str, Any],
    weight: float,
    ids: Sequence[str],
) -> Sequence[Outcome]:
    recipe = parse_recipe(_raw(common, weight))
    done: set[Key] = set(responses.done(recipe.hash))
    limit = examiner.sampling.max_tokens
    responses.add(recipe.hash, f"auto/{weight}", examiner.ask(recipe.to_dict(), ids, limit, done))
    return responses.of(recipe.hash, "", ids).outcomes


def _raw(common: Mapping[str, Any], weight: float) -> dict[str, Any]:
    plain = {key: value for key, value in common.items() if key != "rules"}
    return {**plain, "merge": [{"interpolation": {"weight": weight}}]}

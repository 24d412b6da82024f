"""The questions of a study: those that decide, those that report, and in which order to ask."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from laconic.errors import LaconicError
from laconic.grade.grades import Asked
from laconic.grade.protocols import get_protocol
from laconic.grade.tasks import Task, load_task, subset
from laconic.run.sample import Sample
from laconic.run.sampling import Sampling
from laconic.searching.study_file import SplitFiles, Study


@dataclass(frozen=True)
class Splits:
    """A study's tasks, twice: the questions that decide, and those that only report."""

    validation: tuple[Task, ...]
    test: tuple[Task, ...]


@dataclass(frozen=True)
class Exam:
    """Questions ready to be asked: the prompts, what is known of each, how responses are drawn.

    stops: texts that end an answer, cut off before it is graded.
    """

    samples: tuple[Sample, ...]
    asked: tuple[Asked, ...]
    sampling: Sampling
    stops: tuple[str, ...] = ()

    @property
    def ids(self) -> tuple[str, ...]:
        """The samples' ids, in order."""
        return tuple(sample.id for sample in self.samples)


def load_splits(study: Study) -> Splits:
    """Load a study's tasks. Raises LaconicError for a task with one split and no holdout."""
    pairs = [_pair(task, study) for task in study.tasks]
    if coding := [deciding.name for deciding, _ in pairs if deciding.code]:
        raise LaconicError(
            f"task '{coding[0]}': is graded by running what a model wrote, which a search does not "
            "do; choose another task to decide, and `laconic eval` the front on this one"
        )
    names = [deciding.name for deciding, _ in pairs]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise LaconicError(f"tasks: '{min(repeated)}' is given twice; tasks need different names")
    return Splits(tuple(one for one, _ in pairs), tuple(other for _, other in pairs))


def make_exam(tasks: Sequence[Task], study: Study) -> Exam:
    """Put the questions of tasks as the study's protocol does."""
    way = get_protocol(study.protocol) if study.protocol else None
    given = study.sampling.model_dump(exclude_none=True)
    sampling = replace(way.sampling if way else Sampling(), **given, seed=study.seed)
    pairs = [(task, question) for task in tasks for question in task.questions]
    samples = tuple(task.sample(question, way) for task, question in pairs)
    asked = tuple(
        Asked(sample.id, task.name, "", question.answer, question.level, question.subject)
        for sample, (task, question) in zip(samples, pairs, strict=True)
    )
    return Exam(samples, asked, sampling, way.stop if way else ())


def in_turn(exam: Exam, seed: int) -> tuple[str, ...]:
    """The questions' ids, shuffled, each task and level spread evenly over the whole order.

    Any beginning of it holds about the same share of every task and level.
    """
    strata: dict[tuple[str, str | None], list[str]] = {}
    for asked in exam.asked:
        strata.setdefault((asked.task, asked.level), []).append(asked.id)
    placed: list[tuple[float, str, str]] = []
    for own in strata.values():
        ordered = sorted(own, key=lambda id: _digest(seed, id))
        placed += [((i + 0.5) / len(own), _digest(seed, id), id) for i, id in enumerate(ordered)]
    return tuple(id for _, _, id in sorted(placed))


def shuffled(ids: Sequence[str], seed: int) -> tuple[str, ...]:
    """Ids in an order of the seed's own, the same on every machine."""
    return tuple(sorted(ids, key=lambda id: _digest(seed, id)))


def _pair(named: str | SplitFiles, study: Study) -> tuple[Task, Task]:
    if isinstance(named, SplitFiles):
        deciding, reporting = load_task(named.validation), load_task(named.test)
        return deciding, replace(reporting, name=deciding.name)
    test = load_task(named, "test")
    if test.split == "test":
        own = _validation(named)
        if own is not None:
            return own, test
    if study.holdout is None:
        raise LaconicError(
            f"task '{named}': has no validation split, and a search must not decide on the "
            "questions it reports; give `holdout: 0.5` to keep that share of them for deciding, or "
            "`{validation: FILE.jsonl, test: FILE.jsonl}`"
        )
    return _held_out(test, study.holdout, study.seed)


def _validation(name: str) -> Task | None:
    try:
        return load_task(name, "validation")
    except LaconicError as error:
        if "unknown split" in str(error):
            return None
        raise


def _held_out(task: Task, share: float, seed: int) -> tuple[Task, Task]:
    count = round(share * len(task.questions))
    if not 0 < count < len(task.questions):
        raise LaconicError(
            f"task '{task.name}': a holdout of {share} of {len(task.questions)} questions leaves "
            "one of the two parts empty"
        )
    chosen = subset(task.questions, count, seed)
    ids = {question.id for question in chosen}
    rest = tuple(question for question in task.questions if question.id not in ids)
    return replace(task, questions=chosen, split="holdout"), replace(task, questions=rest)


def _digest(seed: int, id: str) -> str:
    return hashlib.sha256(f"{seed}\0{id}".encode()).hexdigest()


def facts(splits: Splits) -> Mapping[str, Mapping[str, int]]:
    """How many questions decide and report, by task."""
    return {
        one.name: {"decide": len(one.questions), "report": len(other.questions)}
        for one, other in zip(splits.validation, splits.test, strict=True)
    }

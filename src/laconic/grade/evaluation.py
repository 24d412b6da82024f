"""Evaluate a model: ask the questions, keep every completion, grade, measure."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from laconic.errors import LaconicError
from laconic.grade.bootstrap import COVERAGE, DRAWS, SEED
from laconic.grade.details import details
from laconic.grade.folder import RunFolder, digest
from laconic.grade.grades import Asked, Grade, grade
from laconic.grade.judge import WORKERS
from laconic.grade.metrics import Measures, grouped, measure_groups
from laconic.grade.protocols import Protocol, cut_at, get_protocol
from laconic.grade.tasks import Question, Task, load_task, subset
from laconic.records import Journal, write_json, write_records
from laconic.run.runner import Identity, Key, Runner
from laconic.run.sample import Sample
from laconic.run.sampling import Sampling


@dataclass(frozen=True)
class RunSummary:
    """The measures of a complete run: over all questions first, then per task and level."""

    name: str
    method: str | None
    folder: Path
    measures: tuple[Measures, ...]
    details: tuple[dict[str, Any], ...] = ()

    @property
    def overall(self) -> Measures:
        """Over all questions of all tasks, each question counted once."""
        return self.measures[0]

    def to_dict(self) -> dict[str, Any]:
        """What summary.json holds: no path, no time, so that equal runs give equal files."""
        return {
            "name": self.name,
            "method": self.method,
            "bootstrap": {"draws": DRAWS, "seed": SEED, "coverage": COVERAGE, "unit": "question"},
            "measures": [measures.to_dict() for measures in self.measures],
            "details": list(self.details),
        }


def evaluate(
    model: str | Path,
    tasks: str | Path | Task | Sequence[str | Path | Task],
    *,
    out: str | Path,
    split: str = "test",
    protocol: str | None = None,
    sampling: Sampling | None = None,
    limit: int | None = None,
    seed: int = 0,
    device: str | None = None,
    batch_size: int | None = None,
    dtype: str | None = None,
    runner: Runner | None = None,
    name: str | None = None,
    method: str | None = None,
    progress: bool = True,
) -> RunSummary:
    """Ask a model the questions of tasks and measure accuracy and length together.

    model: local folder or Hub id (with a `runner`, only a name). tasks: names, .jsonl paths or
    Tasks. out: the run folder. limit: questions per task, each level in proportion, chosen by
    `seed`. protocol: how questions are put, by name; its sampling holds unless `sampling` is
    given. name, method: labels for tables (default: the model's last path part, none).

    Run again on the same folder, it goes on where it was stopped: no finished response is
    generated twice. Raises LaconicError for bad input, or for a folder that holds a run with other
    settings, naming what differs.
    """
    way = None if protocol is None else get_protocol(protocol)
    sampling = sampling or (way.sampling if way else Sampling())
    loaded = _load_tasks(tasks, split, limit, seed)
    label = name or Path(str(model)).name
    samples = [_sample(way, task, question) for task in loaded for question in task.questions]
    runner = runner or _open_runner(model, device=device, dtype=dtype, batch_size=batch_size)
    asked = _asked(loaded, samples)
    identity = runner.identity(samples[0])
    folder = RunFolder(Path(out))
    folder.begin(
        _settings(loaded, asked, sampling, identity, limit, seed, protocol),
        _facts(label, method, identity),
        asked,
    )
    _complete(folder, runner, samples, sampling, label, progress)
    return grade_run(folder.path)


def grade_run(folder: str | Path) -> RunSummary:
    """Grade a run's completions, again if need be, and write grades.jsonl and summary.json.

    Generates nothing. Raises LaconicError for a folder that is not a run, or a run that lacks
    completions.
    """
    run = RunFolder(Path(folder))
    record = run.read_run()
    settings = record["settings"]
    named = settings.get("protocol")
    stops = get_protocol(named).stop if named else ()
    grades = _grade_all(run, settings["sampling"]["n"], stops)
    write_records(run.grades, [one.to_record() for one in grades])
    summary = RunSummary(
        record["name"], record["method"], run.path, measure_groups(grades), _details(grades)
    )
    write_json(run.summary, summary.to_dict())
    return summary


def _details(grades: Sequence[Grade]) -> tuple[dict[str, Any], ...]:
    groups = grouped(grades)
    subjects = sorted({(one.task, one.subject) for one in grades if one.subject is not None})
    found = [
        {"task": g.task, "level": g.level, "subject": None} | details(members)
        for g, members in groups.items()
    ]
    for task, subject in subjects:
        members = [one for one in grades if (one.task, one.subject) == (task, subject)]
        found.append({"task": task, "level": None, "subject": subject} | details(members))
    return tuple(found)


def _load_tasks(
    tasks: str | Path | Task | Sequence[str | Path | Task], split: str, limit: int | None, seed: int
) -> list[Task]:
    names = [tasks] if isinstance(tasks, str | Path | Task) else list(tasks)
    if not names:
        raise LaconicError("no task given; expected at least one, such as arithmetic")
    loaded = [
        _limited(one, limit, seed)
        if isinstance(one, Task)
        else load_task(one, split, limit=limit, seed=seed)
        for one in names
    ]
    repeated = {task.name for task in loaded if sum(t.name == task.name for t in loaded) > 1}
    if repeated:
        raise LaconicError(f"tasks: '{min(repeated)}' is given twice; tasks need different names")
    return loaded


def _limited(task: Task, limit: int | None, seed: int) -> Task:
    if not task.questions:
        raise LaconicError(f"task '{task.name}' holds no questions; a task needs at least one")
    return task if limit is None else replace(task, questions=subset(task.questions, limit, seed))


def _open_runner(model: str | Path, **options: Any) -> Runner:
    from laconic.run.transformers import TransformersRunner  # imports torch

    return TransformersRunner(model, **options)


def _sample(protocol: Protocol | None, task: Task, question: Question) -> Sample:
    sample = task.sample(question)
    if protocol is None:
        return sample
    return protocol.sample(sample.id, question.question, question.level)


def _asked(tasks: Iterable[Task], samples: Iterable[Sample]) -> list[Asked]:
    questions = [(task, question) for task in tasks for question in task.questions]
    return [
        Asked(
            sample.id,
            task.name,
            sample.text or "\n".join(message.content for message in sample.messages),
            question.answer,
            question.level,
            question.subject,
        )
        for (task, question), sample in zip(questions, samples, strict=True)
    ]


def _settings(
    tasks: Sequence[Task],
    asked: Sequence[Asked],
    sampling: Sampling,
    identity: Identity,
    limit: int | None,
    seed: int,
    protocol: str | None,
) -> dict[str, Any]:
    """What decides the completions: a run goes on only under the same."""
    return {
        "tasks": {task.name: task.split for task in tasks},
        **({} if protocol is None else {"protocol": protocol}),
        "limit": limit,
        "subset_seed": None if limit is None else seed,
        "questions": digest([question.to_record() for question in asked]),
        "sampling": sampling.to_dict(),
        "weights": identity.weights,
        "tokenizer": identity.tokenizer,
        "dtype": identity.dtype,
        "context_window": identity.context_window,
        "first_prompt": list(identity.first_prompt),
    }


def _facts(name: str, method: str | None, identity: Identity) -> Mapping[str, Any]:
    return {
        "name": name,
        "method": method,
        "model": identity.model,
        "device": identity.device,
        "versions": identity.versions,
    }


def _complete(
    folder: RunFolder,
    runner: Runner,
    samples: Sequence[Sample],
    sampling: Sampling,
    label: str,
    progress: bool,
) -> None:
    """Generate what is missing, appending each completion as it comes."""
    with Journal(folder.completions) as journal:
        done = {completion.key for completion in folder.parse_completions(journal.records)}
        total = len(samples) * sampling.n
        if len(done) >= total:
            return
        with tqdm(
            total=total,
            initial=len(done),
            desc=label,
            unit="response",
            file=sys.stderr,
            disable=not progress,
            dynamic_ncols=True,
        ) as bar:
            _append_all(journal, runner, samples, sampling, done, bar)


def _append_all(
    journal: Journal,
    runner: Runner,
    samples: Sequence[Sample],
    sampling: Sampling,
    done: set[Key],
    bar: Any,
) -> None:
    tokens, start = 0, time.monotonic()
    for completion in runner.generate(samples, sampling, done):
        journal.append(completion.to_record())
        tokens += completion.tokens
        rate = tokens / max(time.monotonic() - start, 1e-9)
        bar.set_postfix_str(f"{rate:.0f} tokens/s", refresh=False)
        bar.update()


def _grade_all(run: RunFolder, draws: int, stops: tuple[str, ...]) -> list[Grade]:
    """Every completion graded, in the order of the questions and draws."""
    by_key = {
        completion.key: replace(completion, text=cut_at(completion.text, stops))
        for completion in run.read_completions()
    }
    asked = run.read_questions()
    missing = [(a.id, draw) for a in asked for draw in range(draws) if (a.id, draw) not in by_key]
    if missing:
        raise LaconicError(
            f"{run.path}: the run is not complete: {len(missing)} of {len(asked) * draws} "
            f"responses are missing, first '{missing[0][0]}'; give the same `laconic eval` command "
            "again, and it goes on where it stopped"
        )
    pairs = [(a, by_key[a.id, draw]) for a in asked for draw in range(draws)]
    with ThreadPoolExecutor(WORKERS) as pool:  # threads wait for the processes that compare
        return list(pool.map(lambda pair: grade(*pair), pairs))

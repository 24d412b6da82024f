"""Evaluate a model: ask the questions, keep every completion, grade, measure."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from laconic.errors import LaconicError
from laconic.grade.bootstrap import COVERAGE, DRAWS, SEED
from laconic.grade.code import CodeJudge, allowed_sandbox
from laconic.grade.details import details
from laconic.grade.folder import RunFolder, digest
from laconic.grade.graders import DEFAULT, Grader, Judge, get_grader
from laconic.grade.grades import Asked, Grade, grade
from laconic.grade.judge import WORKERS
from laconic.grade.metrics import Measures, grouped, measure_groups
from laconic.grade.protocols import Protocol, cut_at, get_protocol, refuse_mismatch
from laconic.grade.tasks import Task, load_task, subset
from laconic.records import Journal, write_json, write_records
from laconic.run.completion import Completion
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
    grader: Mapping[str, str] = field(default_factory=get_grader(DEFAULT).to_dict)
    code_execution: Mapping[str, Any] | None = None

    @property
    def overall(self) -> Measures:
        """Over all questions of all tasks, each question counted once."""
        return self.measures[0]

    def to_dict(self) -> dict[str, Any]:
        """What summary.json holds: no path, no time, so that equal runs give equal files."""
        return {
            "name": self.name,
            "method": self.method,
            "grader": dict(self.grader),
            "code_execution": self.code_execution,
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
    allow_code_execution: bool = False,
) -> RunSummary:
    """Ask a model the questions of tasks and measure accuracy and length together.

    model: local folder or Hub id (with a `runner`, only a name). tasks: names, .jsonl paths or
    Tasks. out: the run folder. limit: questions per task, each level in proportion, chosen by
    `seed`. protocol: how questions are put, by name; its sampling holds unless `sampling` is
    given. name, method: labels for tables (default: the model's last path part, none).
    allow_code_execution: let tasks that need it run what the model wrote, in a sandbox.

    Run again on the same folder, it goes on where it was stopped: no finished response is
    generated twice. Raises LaconicError for bad input, or for a folder that holds a run with other
    settings, naming what differs.
    """
    way = None if protocol is None else get_protocol(protocol)
    sampling = _sampling(way, sampling)
    loaded = _load_tasks(tasks, split, limit, seed)
    check_tasks(loaded, protocol, allow_code_execution)
    label = name or Path(str(model)).name
    samples = [task.sample(question, way) for task in loaded for question in task.questions]
    runner = runner or _open_runner(model, device=device, dtype=dtype, batch_size=batch_size)
    asked = _asked(loaded, samples)
    identity = runner.identity(samples[0])
    _refuse_small_window(way, sampling, identity)
    folder = RunFolder(Path(out))
    folder.begin(
        _settings(loaded, asked, sampling, identity, limit, seed, protocol),
        _facts(label, method, identity)
        | {"notes": _told(loaded), "code_execution": allow_code_execution},
        asked,
    )
    _complete(folder, runner, samples, sampling, label, progress)
    return grade_run(folder.path, allow_code_execution=allow_code_execution)


def check_tasks(tasks: Sequence[Task], protocol: str | None, allow_code_execution: bool) -> None:
    """Raise LaconicError, before a model is opened, for tasks that could not be graded."""
    refuse_mismatch(protocol, {task.name: task.code for task in tasks})
    allowed_sandbox([task.name for task in tasks if task.code], allow_code_execution)


def grade_run(
    folder: str | Path, *, grader: str = DEFAULT, allow_code_execution: bool = False
) -> RunSummary:
    """Grade a run's completions, again if need be, and write grades.jsonl and summary.json.

    grader: the rules for answers, by name; it is recorded. allow_code_execution: for tasks whose
    answers are programs. Generates nothing. Raises LaconicError for a folder that is not a run, a
    run that lacks completions, or programs that may not be run.
    """
    rules = get_grader(grader)
    run = RunFolder(Path(folder))
    record = run.read_run()
    settings = record["settings"]
    named = settings.get("protocol")
    stops = get_protocol(named).stop if named else ()
    code = settings.get("code", [])
    sandbox = allowed_sandbox(code, allow_code_execution)
    judges = {} if sandbox is None else dict.fromkeys(code, CodeJudge(sandbox))
    grades = _grade_all(run, settings["sampling"]["n"], stops, rules, judges)
    write_records(run.grades, [one.to_record() for one in grades])
    summary = RunSummary(
        record["name"],
        record["method"],
        run.path,
        measure_groups(grades),
        _details(grades),
        rules.to_dict(),
        None if sandbox is None else sandbox.to_dict(),
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


def _sampling(protocol: Protocol | None, given: Sampling | None) -> Sampling:
    """What is given, or the protocol's own; its stop texts in either case."""
    if protocol is None:
        return given or Sampling()
    found = given or protocol.sampling
    return replace(found, stop=tuple(dict.fromkeys((*found.stop, *protocol.stop))))


def _refuse_small_window(protocol: Protocol | None, sampling: Sampling, identity: Identity) -> None:
    """Refuse a context window that would cut responses before the protocol's own limit does."""
    window = identity.context_window
    if protocol is None or protocol.window is None or window is None:
        return
    prompt, needed = len(identity.first_prompt), min(protocol.window, sampling.max_tokens)
    if window < prompt + needed:
        raise LaconicError(
            f"protocol '{protocol.name}' needs a context window of {needed} tokens beyond the "
            f"prompt ({prompt} or more), but model '{identity.model}' has {window} together, and "
            "longer responses would be cut: raise max_position_embeddings in its config.json (vLLM:"
            f" --max-model-len), or measure it under a limit of its own, --max-tokens "
            f"{max(1, window - prompt)} or less"
        )


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
        **({"code": code} if (code := [task.name for task in tasks if task.code]) else {}),
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


def _facts(name: str, method: str | None, identity: Identity) -> dict[str, Any]:
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


def _told(tasks: Sequence[Task]) -> list[str]:
    """The notes on the tasks, which are also said aloud."""
    notes = [note for task in tasks for note in task.notes]
    for note in notes:
        print(f"laconic: {note}", file=sys.stderr)
    return notes


def _cut(completion: Completion, stops: tuple[str, ...]) -> Completion:
    """The completion up to the first stop text, for engines that know none."""
    text = cut_at(completion.text, stops)
    if text == completion.text:
        return completion
    return replace(completion, text=text, think_tokens=None)


def _grade_all(
    run: RunFolder, draws: int, stops: tuple[str, ...], rules: Grader, judges: Mapping[str, Judge]
) -> list[Grade]:
    """Every completion graded, in the order of the questions and draws; `judges`: by task."""
    by_key = {one.key: _cut(one, stops) for one in run.read_completions()}
    asked = run.read_questions()
    missing = [(a.id, draw) for a in asked for draw in range(draws) if (a.id, draw) not in by_key]
    if missing:
        raise LaconicError(
            f"{run.path}: the run is not complete: {len(missing)} of {len(asked) * draws} "
            f"responses are missing, first '{missing[0][0]}'; give the same `laconic eval` command "
            "again, and it goes on where it stopped"
        )
    pairs = [(a, by_key[a.id, draw]) for a in asked for draw in range(draws)]

    def judged(pair: tuple[Asked, Completion]) -> Grade:
        return grade(*pair, by=judges.get(pair[0].task, rules.judge))

    with ThreadPoolExecutor(WORKERS) as pool:  # threads wait for the processes that compare
        return list(pool.map(judged, pairs))

"""Tasks: questions with their right answers, built in or from a user's JSONL file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from laconic.errors import LaconicError, unknown
from laconic.grade import protocols
from laconic.grade.benchmarks import BENCHMARKS, Benchmark
from laconic.grade.problems import is_human_eval, is_live_code_bench
from laconic.records import Record, read_records
from laconic.run.sample import Message, Sample

DEMO_DATA = Path(__file__).parent.parent / "demo" / "data"


@dataclass(frozen=True)
class Question:
    """A question and its right answer; `level` and `subject` are what results are split by."""

    id: str
    question: str
    answer: str
    level: str | None = None
    subject: str | None = None


@dataclass(frozen=True)
class Task:
    """A set of questions, and the `instruction` put after each one in the prompt.

    code: answers are programs, and are graded by running them. notes: what a reader of results
    should know about where the questions came from.
    """

    name: str
    split: str
    questions: tuple[Question, ...]
    source: str
    licence: str
    instruction: str = ""
    code: bool = False
    notes: tuple[str, ...] = ()

    def sample(self, question: Question, protocol: protocols.Protocol | None = None) -> Sample:
        """The prompt of a question: as the protocol puts it, or one user turn without one.

        Its id starts with the task's name.
        """
        id = f"{self.name}/{question.id}"
        if protocol is not None:
            return protocol.sample(id, question.question, question.level)
        content = "\n".join(part for part in (question.question, self.instruction) if part)
        return Sample(id, (Message("user", content),), None, question.level)


def load_task(
    name: str | Path, split: str = "test", *, limit: int | None = None, seed: int = 0
) -> Task:
    """Load a task by name, or from the path of a JSONL file (which has one split, `file`).

    A line of the file is an object with `question` and `answer`, and optionally `id`, `level`,
    `subject`; or a row of HumanEval or LiveCodeBench in its own layout. `limit` keeps that many
    questions, each level in proportion, chosen by `seed`.
    A published benchmark is its name, or `gsm8k=PATH.jsonl` for a file in its published layout.
    Raises LaconicError for an unknown task or split, a missing field, an empty data set, or a
    limit below 1.
    """
    path = Path(name)
    benchmark, _, given = str(name).partition("=")
    if benchmark in BENCHMARKS:
        task = _benchmark(BENCHMARKS[benchmark], split, Path(given) if given else None)
    elif path.suffix == ".jsonl" or path.exists():
        task = _from_file(path)
    elif str(name) in TASKS:
        task = TASKS[str(name)](split)
    else:
        error = unknown("task", str(name), (*TASKS, *BENCHMARKS))
        raise LaconicError(f"{error}, or the path of a .jsonl file with `question` and `answer`")
    return task if limit is None else replace(task, questions=subset(task.questions, limit, seed))


def subset(questions: Sequence[Question], limit: int, seed: int) -> tuple[Question, ...]:
    """`limit` questions, each level in proportion (largest remainder), in their given order."""
    if limit < 1:
        raise LaconicError(f"limit is {limit}; expected 1 or more questions")
    if limit >= len(questions):
        return tuple(questions)
    strata: dict[str | None, list[Question]] = {}
    for question in questions:
        strata.setdefault(question.level, []).append(question)
    shares = _apportion({level: len(members) for level, members in strata.items()}, limit)
    chosen: set[str] = set()
    for level, members in strata.items():
        # Ordered by a digest: a larger limit keeps the smaller one's questions, whatever Python.
        drawn = sorted(members, key=lambda q: hashlib.sha256(f"{seed}\0{q.id}".encode()).digest())
        chosen.update(question.id for question in drawn[: shares[level]])
    return tuple(question for question in questions if question.id in chosen)


def _apportion(sizes: dict[str | None, int], total: int) -> dict[str | None, int]:
    """Split `total` in proportion to sizes: round down, then serve the largest remainders."""
    whole = sum(sizes.values())
    shares = {level: total * size // whole for level, size in sizes.items()}
    rest = total - sum(shares.values())
    order = sorted(sizes, key=lambda level: (-(total * sizes[level] % whole), str(level)))
    for level in order[:rest]:
        shares[level] += 1
    return shares


def _arithmetic(split: str) -> Task:
    splits = ("validation", "test")
    if split not in splits:
        raise unknown("split of task 'arithmetic'", split, splits)
    questions = _read_questions(DEMO_DATA / f"{split}.jsonl")
    return Task("arithmetic", split, questions, source="laconic's own", licence="Apache-2.0")


TASKS: dict[str, Callable[[str], Task]] = {"arithmetic": _arithmetic}
"""The built-in tasks: from a split's name to the task."""


@dataclass(frozen=True)
class TaskInfo:
    """A line of the list of tasks. questions: how many; None for the splits of a built-in one."""

    name: str
    questions: int | None
    source: str
    licence: str


def tasks() -> list[TaskInfo]:
    """Every task that has a name, with its source and licence."""
    own = TaskInfo("arithmetic", None, "laconic's own, bundled", "Apache-2.0")
    return [own, *(TaskInfo(b.name, b.rows, b.source, b.licence) for b in BENCHMARKS.values())]


def _benchmark(benchmark: Benchmark, split: str, path: Path | None) -> Task:
    if split != "test":
        raise unknown(f"split of task '{benchmark.name}'", split, ("test",))
    rows, notes = benchmark.read(path or benchmark.find())
    return Task(
        benchmark.name,
        split,
        tuple(Question(**row) for row in rows),
        benchmark.source,
        benchmark.licence,
        "" if benchmark.code else protocols.INSTRUCTION,
        benchmark.code,
        tuple(notes),
    )


def _from_file(path: Path) -> Task:
    if not path.is_file():
        raise LaconicError(f"task file {path}: no such file")
    records = _read_rows(path)
    for fits, name in ((is_human_eval, "humaneval"), (is_live_code_bench, "livecodebench")):
        if fits(records[0]):
            questions = tuple(Question(**row) for row in BENCHMARKS[name].questions(records))
            _refuse_duplicates(path, questions)
            return Task(path.stem, "file", questions, path.name, "unknown", code=True)
    return Task(path.stem, "file", _questions(path, records), path.name, "unknown")


def _read_questions(path: Path) -> tuple[Question, ...]:
    if not path.is_file():
        raise LaconicError(f"task file {path}: not found; install laconic again")
    return _questions(path, _read_rows(path))


def _read_rows(path: Path) -> list[Record]:
    text = path.read_bytes()
    records = read_records(path)
    if text and not text.endswith(b"\n"):
        raise LaconicError(f"task file {path}: its last line has no line end: is it whole?")
    if not records:
        raise LaconicError(f"task file {path}: holds no questions; a task needs at least one")
    return records


def _questions(path: Path, records: Sequence[Record]) -> tuple[Question, ...]:
    questions = tuple(_question(path, n, record) for n, record in enumerate(records, start=1))
    _refuse_duplicates(path, questions)
    return questions


def _question(path: Path, line: int, record: Record) -> Question:
    for name in ("question", "answer"):
        value = record.get(name)
        if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
            got = f"got {value!r}" if name in record else f"got {', '.join(record) or 'nothing'}"
            raise LaconicError(
                f"task file {path}, line {line}: expected field '{name}' (text or a number), {got}"
            )
    return Question(
        id=str(record.get("id", line)),
        question=str(record["question"]),
        answer=str(record["answer"]),
        level=_optional(record.get("level")),
        subject=_optional(record.get("subject")),
    )


def _optional(value: object) -> str | None:
    return None if value is None else str(value)


def _refuse_duplicates(path: Path, questions: Sequence[Question]) -> None:
    seen: dict[str, int] = {}
    for line, question in enumerate(questions, start=1):
        if question.id in seen:
            raise LaconicError(
                f"task file {path}, line {line}: id '{question.id}' was used on line "
                f"{seen[question.id]} already; give every question an id of its own"
            )
        seen[question.id] = line

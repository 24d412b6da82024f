"""A task of eight sums, and scripted runs of it."""

from __future__ import annotations

from pathlib import Path

from laconic.grade.answers import judge
from laconic.grade.evaluation import RunSummary, evaluate
from laconic.grade.tasks import Question, Task
from laconic.run.sample import Sample
from laconic.run.scripted import ScriptedRunner

TASK = Task(
    "sums",
    "test",
    tuple(Question(str(i), f"{i}+1?", str(i + 1), level=str(i % 2)) for i in range(8)),
    source="",
    licence="",
)


def is_correct(gold: str, text: str) -> bool | None:
    return judge(gold, text)[0]


def answer(sample: Sample, draw: int) -> str:
    number = int(sample.id.split("/")[1])
    return "Wait. " * (number % 3) + f"\\boxed{{{number + 1 + (number == 5)}}}"


def run(out: Path, runner: ScriptedRunner | None = None, **options: object) -> RunSummary:
    settings = {"runner": runner or ScriptedRunner(answer), "progress": False} | options
    return evaluate("model", TASK, out=out, **settings)  # type: ignore[arg-type]

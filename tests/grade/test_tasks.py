from __future__ import annotations

import json
from pathlib import Path

import pytest

from laconic.errors import LaconicError
from laconic.grade import tasks
from laconic.grade.tasks import Question, Task, load_task, subset
from laconic.run.sample import Message


def write(path: Path, *rows: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_task_from_a_file(tmp_path: Path) -> None:
    path = write(
        tmp_path / "mine.jsonl",
        {"id": "a", "question": "1+1?", "answer": 2, "level": 3, "subject": "sums"},
        {"question": "2+2?", "answer": "4"},
    )
    task = load_task(path, split="whatever")
    assert (task.name, task.split) == ("mine", "file")
    assert task.questions == (
        Question("a", "1+1?", "2", "3", "sums"),
        Question("2", "2+2?", "4"),
    )


def test_prompt_is_the_question_then_the_instruction() -> None:
    question = Question("7", "1+1?", "2", "1")
    bare = Task("t", "test", (question,), "", "").sample(question)
    assert (bare.id, bare.messages, bare.level) == ("t/7", (Message("user", "1+1?"),), "1")
    told = Task("t", "test", (question,), "", "", "Think.").sample(question)
    assert told.messages == (Message("user", "1+1?\nThink."),)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_arithmetic_reads_the_bundled_split(
    split: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "DEMO_DATA", tmp_path)
    write(tmp_path / f"{split}.jsonl", {"id": "x", "level": 1, "question": "q", "answer": "1"})
    task = load_task("arithmetic", split)
    assert (task.name, task.split, task.questions[0].level) == ("arithmetic", split, "1")


def test_arithmetic_splits_are_in_the_package() -> None:
    validation, test = load_task("arithmetic", "validation"), load_task("arithmetic", "test")
    asked = [{question.question for question in task.questions} for task in (validation, test)]
    assert all(asked)
    assert not asked[0] & asked[1]


ROW = {"question": "q", "answer": "1"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no questions"),
        ([{"question": "q"}], r"line 1: expected field 'answer' .*, got question"),
        ([ROW, {"question": "", "answer": "1"}], "line 2: expected field 'question' .*, got ''"),
        ([{"question": "q", "answer": None}], "got None"),
        ([{"question": "q", "answer": True}], "got True"),
        ([{**ROW, "id": 5}, {**ROW, "id": "5"}], "line 2: id '5' was used on line 1"),
    ],
)
def test_bad_files(tmp_path: Path, rows: list[dict[str, object]], message: str) -> None:
    with pytest.raises(LaconicError, match=message):
        load_task(write(tmp_path / "mine.jsonl", *rows))


def test_torn_and_corrupted_files(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", ROW)
    path.write_text(path.read_text() + '{"question": "q", "ans')
    with pytest.raises(LaconicError, match="last line has no line end"):
        load_task(path)
    path.write_text("not json\n")
    with pytest.raises(LaconicError, match="line 1: corrupted"):
        load_task(path)


def test_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(LaconicError, match="unknown task 'arithmetics'; did you mean 'arithmetic'"):
        load_task("arithmetics")
    with pytest.raises(LaconicError, match=r"unknown split .* 'tset'; did you mean 'test'"):
        load_task("arithmetic", "tset")
    with pytest.raises(LaconicError, match="no such file"):
        load_task(tmp_path / "none.jsonl")


QUESTIONS = [Question(str(i), "q", "1", level="hard" if i % 10 == 0 else "easy") for i in range(50)]


def test_subset_keeps_each_level_in_proportion() -> None:
    chosen = subset(QUESTIONS, 20, seed=0)
    assert [q.level for q in chosen].count("hard") == 2  # 5 of 50 are
    assert len(chosen) == 20
    assert list(chosen) == [q for q in QUESTIONS if q in chosen]


def test_subset_depends_on_the_seed_and_nests() -> None:
    assert subset(QUESTIONS, 20, seed=0) == subset(QUESTIONS, 20, seed=0)
    assert subset(QUESTIONS, 20, seed=0) != subset(QUESTIONS, 20, seed=1)
    assert set(subset(QUESTIONS, 20, seed=0)) <= set(subset(QUESTIONS, 30, seed=0))


def test_subset_serves_the_largest_remainders() -> None:
    levels = "aaabbbbcc"  # 4 of 9: 1.33, 1.78, 0.89
    questions = [Question(str(i), "q", "1", level) for i, level in enumerate(levels)]
    assert [q.level for q in subset(questions, 4, 0)] == ["a", "b", "b", "c"]


def test_subset_limits() -> None:
    assert subset(QUESTIONS, 500, 0) == tuple(QUESTIONS)
    with pytest.raises(LaconicError, match="limit is 0; expected 1 or more"):
        subset(QUESTIONS, 0, 0)

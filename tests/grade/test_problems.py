from __future__ import annotations

import base64
import json
import os
import pickle
import zlib
from pathlib import Path

import pytest

from laconic.errors import LaconicError
from laconic.grade.problems import Case, Problem, read_problem
from laconic.grade.tasks import load_task

CASES = json.dumps([{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}])
HUMAN = {
    "task_id": "mini/0",
    "prompt": 'def one():\n    """One."""\n',
    "canonical_solution": "    return 1\n",
    "test": "def check(candidate):\n    assert candidate() == 1\n",
    "entry_point": "one",
}
LIVE = {
    "question_title": "Sum",
    "question_content": "Add two numbers.",
    "platform": "atcoder",
    "question_id": "abc_1",
    "contest_date": "2024-08-17T00:00:00",
    "starter_code": "",
    "difficulty": "easy",
    "public_test_cases": CASES,
    "private_test_cases": "[]",
    "metadata": "{}",
}


def packed(value: object) -> str:
    """As the published file packs its private tests."""
    return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()


def write(path: Path, *rows: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_file_in_humanevals_layout_is_a_task_of_code(tmp_path: Path) -> None:
    task = load_task(write(tmp_path / "mine.jsonl", HUMAN))
    assert (task.name, task.code, task.questions[0].id) == ("mine", True, "mini/0")
    assert '```python\ndef one():\n    """One."""\n```' in task.questions[0].question
    assert "return 1" not in task.questions[0].question
    assert read_problem(task.questions[0].answer) == Problem("one", HUMAN["prompt"], HUMAN["test"])


def test_a_file_in_livecodebenchs_layout_is_a_task_of_code(tmp_path: Path) -> None:
    more = json.dumps([{"input": "5 5\n", "output": "10\n"}])
    starter = {"starter_code": "class Solution:\n    def add(self, a, b):", "question_id": "lc"}
    rows = [
        LIVE | {"private_test_cases": packed(more)},
        LIVE | starter | {"metadata": '{"func_name": "add"}'},
    ]
    task = load_task(write(tmp_path / "mine.jsonl", *rows))
    script, method = task.questions
    assert (script.id, script.level, script.subject) == ("abc_1", "easy", "2024-08")
    assert "from stdin" in script.question
    assert read_problem(script.answer).cases == (Case("1 2\n", "3\n"), Case("5 5\n", "10\n"))
    assert "from stdin" not in method.question
    assert starter["starter_code"] in method.question
    assert read_problem(method.answer).name == "add"


class Trap:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    ("private", "message"),
    [
        (packed(["a"]), "a pickle with EMPTY_LIST; expected one text"),
        (base64.b64encode(zlib.compress(b"\x80\x04.")).decode(), "a pickle of 0 texts"),
        (base64.b64encode(zlib.compress(b"junk")).decode(), "question 1: not in the published"),
        (packed(CASES)[:-8], "cannot be unpacked|are torn"),
        ("%%%", "cannot be unpacked"),
        (packed("[1]"), "question 1: not in the published layout"),
    ],
)
def test_bad_private_tests_are_refused(tmp_path: Path, private: str, message: str) -> None:
    row = LIVE | {"private_test_cases": private}
    with pytest.raises(LaconicError, match=message):
        load_task(write(tmp_path / "mine.jsonl", row))


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    row = LIVE | {"private_test_cases": packed(Trap(tmp_path / "made"))}
    with pytest.raises(LaconicError, match="a pickle with STACK_GLOBAL|a pickle with REDUCE"):
        load_task(write(tmp_path / "mine.jsonl", row))
    assert not (tmp_path / "made").exists()


def test_large_tests_are_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    from laconic.grade import problems

    monkeypatch.setattr(problems, "LARGEST", 1000)
    answer = json.dumps({"packed": [packed(" " * 100_000)]})
    with pytest.raises(ValueError, match="larger than 1000 bytes"):
        read_problem(answer)


def test_whole_benchmarks_have_their_number_of_rows(tmp_path: Path) -> None:
    rows = [HUMAN | {"task_id": f"HumanEval/{n}"} for n in range(164)]
    task = load_task(f"humaneval={write(tmp_path / 'h.jsonl', *rows)}")
    assert (task.name, len(task.questions), task.code) == ("humaneval", 164, True)
    assert task.sample(task.questions[3]).id == "humaneval/HumanEval/3"
    with pytest.raises(LaconicError, match="expected 164 questions, got 163"):
        load_task(f"humaneval={write(tmp_path / 'h.jsonl', *rows[1:])}")
    live = [LIVE | {"question_id": str(n)} for n in range(511)]
    assert len(load_task(f"livecodebench={write(tmp_path / 'l.jsonl', *live)}").questions) == 511
    with pytest.raises(LaconicError, match="expected 400 or 511 or .* or 1055 questions, got 510"):
        load_task(f"livecodebench={write(tmp_path / 'l.jsonl', *live[1:])}")


def test_rows_without_tests_are_refused(tmp_path: Path) -> None:
    row = LIVE | {"public_test_cases": "[]"}
    with pytest.raises(LaconicError, match="question 1: .*it has no test cases"):
        load_task(write(tmp_path / "mine.jsonl", row))
    with pytest.raises(LaconicError, match="id 'mini/0' was used on line 1"):
        load_task(write(tmp_path / "mine.jsonl", HUMAN, HUMAN))

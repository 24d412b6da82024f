from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from laconic.errors import LaconicError
from laconic.grade.benchmarks import BENCHMARKS
from laconic.grade.comparisons import compare
from laconic.grade.evaluation import evaluate
from laconic.grade.tasks import load_task, tasks
from laconic.records import read_json
from laconic.run.scripted import ScriptedRunner

DATA = Path(__file__).parents[3] / "shared" / "reference" / "benchmarks"


@pytest.mark.parametrize("name", ["gsm8k", "math500", "minerva_math", "olympiadbench", "aime24"])
def test_published_files(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not DATA.is_dir():
        pytest.skip(f"needs {DATA}, which is not part of the project")
    monkeypatch.setenv("LACONIC_DATA", str(DATA))
    task = load_task(name)
    assert len(task.questions) == BENCHMARKS[name].rows
    assert all(question.answer and question.question for question in task.questions)
    assert task.notes == ()  # the published sha256
    if name == "math500":
        assert {question.level for question in task.questions} == set("12345")


def aime(path: Path, count: int = 30, **row: object) -> Path:
    rows = [{"problem": f"{n}?", "answer": f"{n:03}"} | row for n in range(count)]
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def test_a_file_in_the_published_layout(tmp_path: Path) -> None:
    task = load_task(f"aime24={aime(tmp_path / 'mine.jsonl')}", limit=3)
    assert (task.name, len(task.questions)) == ("aime24", 3)
    assert task.sample(task.questions[0]).messages[0].content.endswith(r"within \boxed{}.")


def test_a_file_that_is_not_the_published_one_is_noted_with_the_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = aime(tmp_path / "mine.jsonl")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (note,) = load_task(f"aime24={path}").notes
    assert f"mine.jsonl is not the file that was published: sha256 {digest}, expected af2b8" in note
    assert replace(BENCHMARKS["aime24"], sha256=digest).read(path)[1] == []
    runner = ScriptedRunner(lambda sample, draw: r"\boxed{7}")
    evaluate("m", f"aime24={path}", out=tmp_path / "run", runner=runner, progress=False)
    assert note in capsys.readouterr().err
    assert read_json(tmp_path / "run/run.json")["notes"] == [note]
    assert compare([tmp_path / "run"]).notes == (f"'m': {note}",)


def test_closed_questions_name_their_answers(tmp_path: Path) -> None:
    task = load_task(f"aime24={aime(tmp_path / 'a.jsonl', answer='True')}")
    assert task.questions[0].question == "0? (True or False)"


def test_bad_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LaconicError, match="expected 30 questions, got 29"):
        load_task(f"aime24={aime(tmp_path / 'a.jsonl', 29)}")
    with pytest.raises(LaconicError, match="question 1: not in the published layout"):
        load_task(f"gsm8k={aime(tmp_path / 'b.jsonl', 1319)}")
    with pytest.raises(LaconicError, match="no such file"):
        load_task("gsm8k=none.jsonl")
    with pytest.raises(LaconicError, match="unknown split of task 'gsm8k' 'train'"):
        load_task("gsm8k=none.jsonl", "train")
    monkeypatch.setenv("LACONIC_DATA", str(tmp_path))
    with pytest.raises(LaconicError, match=r"neither gsm8k\.jsonl nor gsm8k/test\.jsonl"):
        load_task("gsm8k")


def test_without_file_and_library_both_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LACONIC_DATA", raising=False)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(LaconicError, match=r"gsm8k=PATH\.jsonl.*pip install 'laconic\[datasets\]'"):
        load_task("gsm8k")


def test_the_list_names_source_and_licence() -> None:
    found = {one.name: one for one in tasks()}
    assert set(BENCHMARKS) < set(found)
    assert all(one.source and one.licence for one in found.values())

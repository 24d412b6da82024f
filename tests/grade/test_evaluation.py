from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import pytest

from grade.scripts import TASK, answer, run
from laconic.errors import LaconicError
from laconic.grade.comparisons import compare
from laconic.grade.evaluation import evaluate, grade_run
from laconic.grade.tasks import Task
from laconic.records import read_json, read_records
from laconic.run.completion import Completion
from laconic.run.runner import Key
from laconic.run.sample import Sample
from laconic.run.sampling import Sampling
from laconic.run.scripted import ScriptedRunner
from run.tiny import write_checkpoint


def contents(folder: Path) -> dict[str, object]:
    """Every file of a run; completions in order of their keys."""
    found: dict[str, object] = {path.name: path.read_bytes() for path in folder.iterdir()}
    records = read_records(folder / "completions.jsonl")
    found["completions.jsonl"] = sorted(records, key=lambda r: (r["id"], r["draw"]))
    return found


class Dying(ScriptedRunner):
    """Stops with an error after some completions."""

    def __init__(self, after: int, error: BaseException) -> None:
        super().__init__(answer)
        self._after, self._error = after, error

    def generate(
        self, samples: Sequence[Sample], sampling: Sampling, done: Collection[Key] = ()
    ) -> Iterator[Completion]:
        for count, completion in enumerate(super().generate(samples, sampling, done)):
            if count == self._after:
                raise self._error
            yield completion


def test_run_folder(tmp_path: Path) -> None:
    summary = run(tmp_path / "run", name="mine", method="ties")
    assert summary.overall.accuracy is not None
    assert summary.overall.accuracy.value == 7 / 8
    assert summary.overall.tokens.value == 2 + 7 / 8  # words, box, end: 0+1+2+0+1+2+0+1 words
    assert summary.overall.reflection.value == 5 / 8
    assert [m.group.level for m in summary.measures] == [None, "0", "1"]
    assert read_json(tmp_path / "run/summary.json") == summary.to_dict()
    record = read_json(tmp_path / "run/run.json")
    assert (record["name"], record["method"], record["model"]) == ("mine", "ties", "scripted")
    assert record["settings"]["sampling"]["max_tokens"] == Sampling().max_tokens
    assert [g["correct"] for g in read_records(tmp_path / "run/grades.jsonl")].count(True) == 7


@pytest.mark.parametrize("error", [KeyboardInterrupt(), LaconicError("gone")])
def test_a_stopped_run_goes_on_and_ends_like_an_unbroken_one(
    tmp_path: Path, error: BaseException
) -> None:
    sampling = Sampling(temperature=1.0, n=2)
    run(tmp_path / "unbroken", sampling=sampling)
    with pytest.raises(type(error)):
        run(tmp_path / "broken", Dying(5, error), sampling=sampling)
    assert len(read_records(tmp_path / "broken/completions.jsonl")) == 5
    assert not (tmp_path / "broken/summary.json").exists()
    rest = ScriptedRunner(answer)
    run(tmp_path / "broken", rest, sampling=sampling)
    assert len(rest.generated) == 16 - 5
    assert contents(tmp_path / "broken") == contents(tmp_path / "unbroken")


def test_a_complete_run_generates_nothing(tmp_path: Path) -> None:
    run(tmp_path / "run")
    again = ScriptedRunner(answer)
    run(tmp_path / "run", again)
    assert again.generated == []


def test_labels_may_change(tmp_path: Path) -> None:
    run(tmp_path / "run", name="before")
    assert run(tmp_path / "run", name="after", method="ties").name == "after"
    record = read_json(tmp_path / "run/run.json")
    assert (record["name"], record["method"]) == ("after", "ties")
    assert record["settings"]["tasks"] == {"sums": "test"}


def test_a_torn_completion_is_generated_again(tmp_path: Path) -> None:
    run(tmp_path / "run")
    whole = contents(tmp_path / "run")
    path = tmp_path / "run/completions.jsonl"
    path.write_bytes(path.read_bytes()[:-10])
    again = ScriptedRunner(answer)
    run(tmp_path / "run", again)
    assert again.generated == [("sums/7", 0)]
    assert contents(tmp_path / "run") == whole


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from grade.scripts import answer, run
from laconic.run.scripted import ScriptedRunner
def slowly(sample, draw):
    time.sleep(0.2)
    return answer(sample, draw)
run(Path(sys.argv[2]), ScriptedRunner(slowly))
"""


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "killed"
    here = str(Path(__file__).parent.parent)
    process = subprocess.Popen([sys.executable, "-c", KILLED, here, str(out)])
    journal = out / "completions.jsonl"
    deadline = time.monotonic() + 60
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= 3):
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = len(read_records(journal))
    assert 3 <= kept < 8
    rest = ScriptedRunner(answer)
    run(out, rest)
    assert len(rest.generated) == 8 - kept
    run(tmp_path / "unbroken")
    assert contents(out) == contents(tmp_path / "unbroken")


def test_a_real_model_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "tiny")
    options = {
        "sampling": Sampling(max_tokens=20, temperature=1.0, n=2),
        "device": "cpu",
        "progress": False,
    }
    evaluate(model, TASK, out=tmp_path / "unbroken", batch_size=4, **options)  # type: ignore[arg-type]
    shutil.copytree(tmp_path / "unbroken", tmp_path / "broken")
    for name in ("summary.json", "grades.jsonl"):
        (tmp_path / "broken" / name).unlink()
    path = tmp_path / "broken/completions.jsonl"
    path.write_bytes(path.read_bytes()[:1500])  # as a kill leaves it: some records, one torn
    assert 0 < path.read_bytes().count(b"\n") < 16
    evaluate(model, TASK, out=tmp_path / "broken", batch_size=16, **options)  # type: ignore[arg-type]
    assert contents(tmp_path / "broken") == contents(tmp_path / "unbroken")
    assert read_json(tmp_path / "broken/run.json")["model"] == str(model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampling": Sampling(max_tokens=9)}, r"sampling\.max_tokens: 4096, 9 \(there, then"),
        ({"limit": 4}, "limit: null, 4; questions: "),
        ({"runner": ScriptedRunner(answer, "b")}, 'weights: "scripted", "b"'),
    ],
)
def test_a_folder_with_other_settings_is_refused(
    tmp_path: Path, options: dict[str, object], message: str
) -> None:
    run(tmp_path / "run")
    before = contents(tmp_path / "run")
    with pytest.raises(LaconicError, match=message):
        run(tmp_path / "run", **options)
    assert contents(tmp_path / "run") == before


def test_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("")
    with pytest.raises(LaconicError, match=r"holds 'thesis\.txt' and is not a run folder"):
        run(tmp_path)
    with pytest.raises(LaconicError, match="is a file"):
        run(tmp_path / "thesis.txt")


def test_grading_again_needs_no_generation(tmp_path: Path) -> None:
    run(tmp_path / "run")
    whole = contents(tmp_path / "run")
    (tmp_path / "run/grades.jsonl").unlink()
    (tmp_path / "run/summary.json").write_text("{}")
    grade_run(tmp_path / "run")
    assert contents(tmp_path / "run") == whole


def test_an_incomplete_run_is_neither_graded_nor_compared(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", Dying(5, KeyboardInterrupt()))
    with pytest.raises(LaconicError, match="3 of 8 responses are missing, first 'sums/5'"):
        grade_run(tmp_path / "run")
    with pytest.raises(LaconicError, match="not complete"):
        compare([tmp_path / "run"])
    with pytest.raises(LaconicError, match="not a run folder"):
        grade_run(tmp_path)


def test_a_corrupted_completion_is_named(tmp_path: Path) -> None:
    run(tmp_path / "run")
    path = tmp_path / "run/completions.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1][:20], *lines[2:]]) + "\n")
    with pytest.raises(LaconicError, match=r"completions\.jsonl, line 2: corrupted"):
        run(tmp_path / "run")
    path.write_text("\n".join([lines[0], json.dumps({"id": "sums/1"}), *lines[2:]]) + "\n")
    with pytest.raises(LaconicError, match=r"completions\.jsonl: .*expected field 'draw'"):
        run(tmp_path / "run")


def test_bad_tasks(tmp_path: Path) -> None:
    runner = ScriptedRunner(answer)
    for tasks, message in (
        ([], "no task given"),
        ([TASK, TASK], "'sums' is given twice"),
        (Task("none", "test", (), "", ""), "holds no questions"),
    ):
        with pytest.raises(LaconicError, match=message):
            evaluate("m", tasks, out=tmp_path / "run", runner=runner)  # type: ignore[arg-type]


def test_progress_is_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "run", progress=True, name="mine")
    shown = capsys.readouterr()
    assert "mine: 100%" in shown.err
    assert shown.out == ""

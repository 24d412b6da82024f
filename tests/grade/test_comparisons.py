from __future__ import annotations

import json
from pathlib import Path

import pytest

from grade.scripts import TASK
from laconic.errors import LaconicError
from laconic.grade.comparisons import compare
from laconic.grade.evaluation import evaluate
from laconic.grade.tasks import Task
from laconic.run.sample import Sample
from laconic.run.sampling import Sampling
from laconic.run.scripted import ScriptedRunner


def script(words: int, wrong: int) -> ScriptedRunner:
    def answer(sample: Sample, draw: int) -> str:
        number = int(sample.id.split("/")[1])
        return "so " * words + f"\\boxed{{{number + 1 + (number < wrong)}}}"

    return ScriptedRunner(answer)


def run(out: Path, words: int, wrong: int, **options: object) -> Path:
    settings = {"runner": script(words, wrong), "progress": False} | options
    evaluate(out.name, TASK, out=out, **settings)  # type: ignore[arg-type]
    return out


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    return run(tmp_path / "slow", words=8, wrong=2)  # 10 tokens, 6 of 8 right


@pytest.fixture
def merged(tmp_path: Path) -> Path:
    return run(tmp_path / "merged", words=3, wrong=4, method="ties")  # 5 tokens, 4 of 8 right


def test_differences_are_against_the_reference(slow: Path, merged: Path) -> None:
    found = compare([merged], against=slow)
    assert found.reference == "slow"
    first, second = found.rows
    assert (first.name, first.tokens_change, first.accuracy_change) == ("slow", None, None)
    assert (second.name, second.method, second.questions) == ("merged", "ties", 8)
    assert (second.accuracy, second.tokens) == (0.5, 5)
    assert second.accuracy_change == pytest.approx(-0.25)
    assert second.accuracy_change_interval == pytest.approx((-0.625, 0.0))
    assert second.tokens_change == pytest.approx(-0.5)
    assert second.tokens_change_interval == pytest.approx((-0.5, -0.5))


def test_levels_are_compared_apart(slow: Path, merged: Path) -> None:
    found = compare([slow, merged], against=slow)
    assert [(row.name, row.level, row.questions) for row in found.groups] == [
        ("slow", "0", 4),
        ("slow", "1", 4),
        ("merged", "0", 4),
        ("merged", "1", 4),
    ]
    assert found.groups[2].accuracy == 0.5
    assert found.groups[2].tokens_change == pytest.approx(-0.5)
    json.dumps(found.to_dict(), allow_nan=False)


def test_p_values_are_adjusted_over_the_runs_compared(slow: Path, tmp_path: Path) -> None:
    worse = [run(tmp_path / f"worse{n}", words=3, wrong=n) for n in (8, 7)]
    found = compare(worse, against=slow)
    tests = [row.paired.test for row in found.rows[1:] if row.paired]
    assert [(t.only_ours, t.only_theirs, t.p) for t in tests if t] == [
        (0, 6, pytest.approx(2 / 64)),
        (0, 5, pytest.approx(2 / 32)),
    ]
    assert [t.p_holm for t in tests if t] == pytest.approx([2 * 2 / 64, 2 / 32])
    assert found.rows[0].paired is None
    by_level = [row.paired.test for row in found.groups if row.paired and row.level == "0"]
    assert [t.p_holm for t in by_level if t] == pytest.approx([2 * 2 / 8, 2 * 2 / 8])


def test_two_tasks_are_compared_task_by_task_too(tmp_path: Path) -> None:
    few = Task("few", "test", TASK.questions[:2], "", "")
    for name, words in (("slow", 8), ("merged", 3)):
        out = tmp_path / name
        evaluate(name, [TASK, few], out=out, runner=script(words, 0), progress=False)
    row = compare([tmp_path / "merged"], against=tmp_path / "slow").rows[1]
    assert row.paired is not None
    assert row.paired.across is not None
    assert row.paired.across.length.mean_of_ratios == pytest.approx(-0.5)
    assert row.paired.across.aes == pytest.approx(0.5)
    assert row.details["tokens_per_correct"] == 5
    assert row.to_dict()["paired"]["length_ratio"]["value"] == pytest.approx(0.5)


def test_a_summary_without_details_is_graded_again(slow: Path) -> None:
    summary = json.loads((slow / "summary.json").read_text())
    (slow / "summary.json").write_text(json.dumps(summary | {"details": None}))
    with pytest.raises(LaconicError, match=r"summary\.json: holds no list 'details'; grade"):
        compare([slow])


def test_without_a_reference_there_are_no_differences(slow: Path, merged: Path) -> None:
    found = compare([merged, slow])
    assert found.reference is None
    assert [row.name for row in found.rows] == ["merged", "slow"]
    assert {row.tokens_change for row in found.rows} == {None}


def test_same_name_and_same_run(slow: Path, tmp_path: Path) -> None:
    twin = run(tmp_path / "twin", 3, 4, name="slow")
    found = compare([slow, twin, slow], against=slow)
    assert [row.name for row in found.rows] == [f"slow ({slow})", f"slow ({twin})"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampling": Sampling(max_tokens=77)}, r"cannot be compared: sampling\.max_tokens: 4096"),
        ({"limit": 4}, r"questions: .*; limit: null, 4"),
    ],
)
def test_runs_that_measured_different_things_are_refused(
    slow: Path, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    other = run(tmp_path / "other", 3, 4, **options)
    with pytest.raises(LaconicError, match=message):
        compare([other], against=slow)
    with pytest.raises(LaconicError, match=message):
        compare([slow, other])
    forced = compare([other], against=slow, force=True)
    assert any("differ in" in note for note in forced.notes)


def test_other_windows_are_noted_and_other_tokenizers_refused(slow: Path, merged: Path) -> None:
    record = json.loads((merged / "run.json").read_text())
    record["settings"]["context_window"] = 4096
    (merged / "run.json").write_text(json.dumps(record))
    notes = compare([merged], against=slow).notes
    assert notes == ("'slow' and 'merged' differ in context_window: null, 4096",)
    record["settings"]["tokenizer"] = "letters"
    (merged / "run.json").write_text(json.dumps(record))
    with pytest.raises(LaconicError, match='tokenizer: "words", "letters"'):
        compare([merged], against=slow)


def test_no_runs() -> None:
    with pytest.raises(LaconicError, match="no run given"):
        compare([])

from __future__ import annotations

import json
from pathlib import Path

import pytest

from grade.scripts import is_correct, run
from laconic.errors import LaconicError
from laconic.grade import qwen
from laconic.grade.comparisons import compare
from laconic.grade.evaluation import grade_run
from laconic.grade.qwen import equal, extract, judge
from laconic.records import read_json
from laconic.run.sample import Sample
from laconic.run.scripted import ScriptedRunner

CASES = Path(__file__).parents[3] / "shared" / "reference" / "grader-dev.jsonl"


@pytest.mark.parametrize(
    ("text", "answer", "source"),
    [
        ("The final answer is $7$. I hope \\boxed{8} final answer is $9$. I hope", "7", "marker"),
        (r"\boxed{1} and \boxed{\frac{1}{2}}", r"\frac{1}{2}", "box"),
        (r"\boxed{1}</think> 2", "1", "box"),  # wherever it stands
        ("$\\boxed 5$ or 6", "5", "box"),
        ("The answer is 3. The answer is: 4.", "4", "marker"),
        ("the final answer is 5 apples", "5apples", "marker"),
        ("答案是 12", "12", "marker"),
        ("first 1,000 and then -2.5 of them", "-2.5", "last number"),
        ("<think> 12, no, 1,234", "1234", "last number"),  # cut in mid-thought, and graded
        ("no idea", None, "none"),
    ],
)
def test_where_the_answer_is_found(text: str, answer: str | None, source: str) -> None:
    found = extract(text)
    assert (found.answer, found.source) == (answer, source)


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("100", "1"),  # a hundredth, and a hundred times
        ("1", "100"),
        ("0.5", r"50\%"),
        ("10000", "10000.9"),  # relative 1e-4
        ("12345678901", "12345678902"),
        ("1112112_3", "1112122_3"),  # Python reads an underscore as nothing
        ("[0,1)", "(0,1)"),
        (r"\sqrt{67},-\sqrt{85}", r"\sqrt{67}"),
        ("1", "1,-2"),
        ("B", "(B) because of A"),
        ("yes", "Yes"),
        ("seven", "7"),
        (r"\frac12", "1/2"),
        ("5", r"x=5\text{ cm}"),
        ("12", "12 inches"),
        ("17", r"17^\circ"),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{bmatrix}1\\2.0\end{bmatrix}"),
        ("x+y=3", "3=x+y"),
        ("x^2=y-1", "y-1=x^2"),
        ("(x+1)^2", "x^2+2x+1"),
        (r"\sqrt{2}", "1.41421"),
    ],
)  # fmt: skip
def test_accepted_as_the_toolkit_does(gold: str, answer: str) -> None:
    assert judge(gold, f"\\boxed{{{answer}}}")[0] is True


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("1", "2"),
        ("10000", "10002"),
        ("7", "-7"),
        ("4.5e33", r"4.5 \times 10^{33}"),
        ("(1,2)", "(2,1)"),
        ("(1,2)", "(1,2,3)"),
        ("1,2", "2,1"),
        ("B", "C"),
        ("x=1", "y=2"),
        ("x+y=3", "x+y=4"),
        ("x^2", "x^3"),
    ],
)  # fmt: skip
def test_refused_as_the_toolkit_does(gold: str, answer: str) -> None:
    assert judge(gold, f"\\boxed{{{answer}}}")[0] is False


def test_algebra_without_end_counts_as_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qwen, "symbolically_equal", lambda *_: None)
    assert judge("x+1", r"\boxed{1+x}")[0] is False
    assert judge("", r"\boxed{1}")[0] is None


@pytest.mark.parametrize("wrap", ["\\boxed{%s}", "The answer is %s", "%s"])
def test_nothing_that_is_graded_is_run(wrap: str, tmp_path: Path) -> None:
    payload = f"__import__('os').mkdir('{tmp_path}/made')"
    judge("x+1", wrap % payload)
    equal(payload, "x+1")
    assert not (tmp_path / "made").exists()


def test_agreement_with_the_toolkits_own_scores() -> None:
    """Its rules were run on all cases: 72.6% right of them, and of real responses all but one."""
    if not CASES.is_file():
        pytest.skip(f"needs {CASES}, which is not part of the project")
    rows = [json.loads(line) for line in CASES.read_text().splitlines()]
    rows = [one for one in rows if not one["contested"]]
    right = [judge(r["gold"], r["prediction_text"])[0] is r["expected"] for r in rows]
    assert 0.70 < sum(right) / len(right) < 0.80
    real = [ok for ok, r in zip(right, rows, strict=True) if r["kind"] == "model_output"]
    assert len(real) - sum(real) <= 1


def generous(sample: Sample, draw: int) -> str:
    number = int(sample.id.split("/")[1])
    return f"\\boxed{{{100 * (number + 1)}}}"


def test_a_run_graded_by_other_rules_says_so(tmp_path: Path) -> None:
    for name in ("a", "b"):
        run(tmp_path / name, ScriptedRunner(generous))
    first = (tmp_path / "a/summary.json").read_bytes()
    assert read_json(tmp_path / "a/summary.json")["grader"]["name"] == "laconic"
    found = grade_run(tmp_path / "a", grader="qwen_compat")
    assert found.overall.accuracy is not None
    assert found.overall.accuracy.value == 1
    assert read_json(tmp_path / "a/summary.json")["grader"] == {
        "name": "qwen_compat",
        "version": qwen.VERSION,
    }
    with pytest.raises(LaconicError, match=r'grader: "qwen_compat 1", "laconic \d+"'):
        compare([tmp_path / "a", tmp_path / "b"])
    assert any(
        "grader" in note for note in compare([tmp_path / "a", tmp_path / "b"], force=True).notes
    )
    grade_run(tmp_path / "a")
    assert (tmp_path / "a/summary.json").read_bytes() == first
    with pytest.raises(LaconicError, match="unknown grader 'qwen'; did you mean 'qwen_compat'"):
        grade_run(tmp_path / "a", grader="qwen")


def test_the_rules_differ_from_laconics() -> None:
    assert is_correct("1", r"\boxed{100}") is False
    assert judge("1", r"\boxed{100}")[0] is True

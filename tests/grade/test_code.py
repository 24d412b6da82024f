from __future__ import annotations

import json
from pathlib import Path

import pytest

from grade.sandboxes import sandbox_or_skip
from laconic.cli import main
from laconic.errors import LaconicError
from laconic.grade import code as module
from laconic.grade import evaluation
from laconic.grade.answers import VERSION
from laconic.grade.cell import Opaque, decode, encode
from laconic.grade.code import CodeJudge, find_code, same_output
from laconic.grade.comparisons import compare
from laconic.grade.evaluation import evaluate, grade_run
from laconic.grade.sandbox import NotRunError, Sandbox
from laconic.grade.tasks import load_task
from laconic.records import read_json, read_records
from laconic.run import engines
from laconic.run.sample import Sample
from laconic.run.sampling import Sampling
from laconic.run.scripted import ScriptedRunner

PROMPT = '''from typing import List


def half(x):
    """A helper that is given."""
    return x // 2


def twice(numbers: List[int]) -> List[int]:
    """Each number, doubled."""
'''
TEST = """
def check(candidate):
    assert candidate([1, 2]) == [2, 4]
    assert twice([]) == []
    assert [half(x) for x in candidate([3])] == [3]
    try:
        candidate(None)
    except TypeError:
        pass
"""
TWICE = json.dumps({"name": "twice", "prompt": PROMPT, "check": TEST})


def cases(name: str | None, *pairs: tuple[str, str]) -> str:
    rows = [{"input": given, "output": wanted} for given, wanted in pairs]
    return json.dumps({"name": name, "packed": [json.dumps(rows)]})


SUM = cases(None, ("3\n1 2 3\n", "6\n"), ("1\n5", "5"))
PAIR = cases("pair", ("1\n[2, 3]", "[1, 2, 3]"), ('"a"\n[]', '["a"]'))


def fenced(code: str) -> str:
    return f"<think>\n```python\n1/0\n```\n</think>\nHere it is:\n```python\n{code}\n```\nDone."


@pytest.fixture(scope="module")
def judge() -> CodeJudge:
    return CodeJudge(sandbox_or_skip())


@pytest.mark.parametrize(
    ("gold", "code", "outcome"),
    [
        (TWICE, "def twice(numbers):\n    return [2 * x for x in numbers]", "passed"),
        (TWICE, "def twice(n: List[int]):\n    return [x + half(2 * x) for x in n]", "passed"),
        (TWICE, "    return [2 * x for x in numbers]", "passed"),  # goes on from the prompt
        (TWICE, "def twice(numbers):\n    return numbers", "failed"),
        (TWICE, "def twice(numbers):\n    return tuple(2 * x for x in numbers)", "failed"),
        (TWICE, "def twice(numbers: return 1", "failed"),
        (TWICE, "def other(): pass", "failed"),
        (TWICE, "def twice(n):\n    raise ValueError", "failed"),
        (TWICE, "def twice(n):\n    return twice(n)", "failed"),
        (SUM, "input()\nprint(sum(map(int, input().split())))", "passed"),
        (SUM, "if __name__ == '__main__':\n    a = [*map(int, open(0).read().split())]\n"
         "    print(sum(a[1:]) + 0.0)\n    sys.exit()", "passed"),
        (SUM, "print(6)", "failed"),
        (SUM, "input()\nprint(sum(map(int, input().split())))\n1/0", "failed"),
        (PAIR, "class Solution:\n    def pair(self, a, b):\n        return (a, *b)", "passed"),
        (PAIR, "def pair(a, b):\n    return [a] + b", "passed"),
        (PAIR, "class Solution:\n    def pair(self, a, b):\n        return b", "failed"),
        (PAIR, "class Solution:\n    pass", "failed"),
    ],
)  # fmt: skip
def test_solutions(judge: CodeJudge, gold: str, code: str, outcome: str) -> None:
    correct, found = judge(gold, fenced(code))
    assert (correct, found.answer, found.source) == (outcome == "passed", None, outcome)


@pytest.mark.parametrize(
    "prompt", ["def one():\n", "def one():\n\t'''One.'''\n", "def one():\n  # one\n"]
)
def test_prompts_are_programs_whatever_they_end_with(judge: CodeJudge, prompt: str) -> None:
    check = "def check(candidate):\n    assert candidate() == 1\n"
    gold = json.dumps({"name": "one", "prompt": prompt, "check": check})
    assert judge(gold, fenced("def one():\n    return 1"))[1].source == "passed"
    assert judge(gold, fenced("def one():\n    return 2"))[1].source == "failed"


FAKES = [
    "import os\nprint('passed')\nos._exit(0)",
    "import sys\nsys.exit(0)",
    "def {name}(*a):\n    import os; os._exit(0)",
    "def {name}(*a):\n    import sys; sys.exit(0)",
    "class Same(list):\n    def __eq__(self, other): return True\n"
    "def {name}(*a):\n    return Same()",
    "import builtins\nbuiltins.AssertionError = ValueError\n"
    "def {name}(*a):\n    return 0",
    # writes a verdict, and a reply, to whatever is open
    "import os\nfor fd in range(64):\n    try: os.write(fd, b'{{\"verdict\": true}}\\n')\n"
    "    except OSError: pass\ndef {name}(*a): return 0",
    "import os\nfor fd in range(64):\n"
    "    try: os.write(fd, b'{{\"ready\": 1}}\\n{{\"value\": 6}}\\n')\n"
    "    except OSError: pass\nos._exit(0)",
    "import gc, sys\nfor one in gc.get_objects():\n"
    "    if isinstance(one, dict) and 'verdict' in one: one['verdict'] = True\n"
    "sys.modules['__main__']._passes = lambda *a: True\n"
    "def {name}(*a): return 0",
]  # fmt: skip


@pytest.mark.parametrize("fake", FAKES)
@pytest.mark.parametrize(("gold", "name"), [(TWICE, "twice"), (SUM, "main"), (PAIR, "pair")])
def test_ending_early_and_claiming_success_gain_nothing(
    judge: CodeJudge, gold: str, name: str, fake: str
) -> None:
    assert judge(gold, fenced(fake.format(name=name)))[0] is False


def test_endless_solutions_time_out(judge: CodeJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECK_SECONDS", 1.0)
    monkeypatch.setattr(module, "CASE_SECONDS", 1.0)
    for gold, code in (
        (TWICE, "while True: pass"),
        (TWICE, "def twice(n):\n    while True: pass"),
        (SUM, "while True: pass"),
        (PAIR, "def pair(a, b):\n    while True: pass"),
    ):
        correct, found = judge(gold, fenced(code))
        assert (correct, found.source) == (False, "timed out")


def test_what_could_not_be_run_is_not_wrong(judge: CodeJudge) -> None:
    broken = json.dumps({"name": "f", "prompt": "def f():\n    pass\n", "check": "1/0"})
    correct, found = judge(broken, fenced("def f(): return 1"))
    assert (correct, found.source) == (None, "not run")

    class Refused(Sandbox):
        def start(self, code: str):  # type: ignore[no-untyped-def]
            raise NotRunError("no namespaces")

    correct, found = CodeJudge(Refused(True))(SUM, fenced("print(1)"))
    assert (correct, found.source) == (None, "not run")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("```python\na\n```\nbetter:\n```py\nb\n```", "b"),
        ("<think>```\na\n```</think>\n```\nb\n```", "b"),
        ("<think>\n```python\na\n```", None),  # the thought never ends
        ("</think>\n```python\na\n", None),  # cut
        ("  ```python\n  a\n    b\n  ```", "a\n  b"),
        ("````\n```\na\n```\n````", "```\na\n```"),
        ("just words", None),
        ("", None),
    ],
)
def test_code_is_the_last_whole_block_after_the_thought(text: str, code: str | None) -> None:
    assert find_code(text) == code


def test_a_bare_completion_is_code_only_where_a_prompt_is_completed() -> None:
    assert find_code("    return 1\n", whole=True) == "    return 1\n"
    assert find_code("<think>\n    return 1\n", whole=True) is None
    assert find_code("\n", whole=True) is None


@pytest.mark.parametrize(
    ("output", "expected", "same"),
    [
        ("1 2\n", "1 2", True),
        (" a \n b\n\n", "a\nb", True),
        ("1.0 2.50", "1 2.5", True),
        ("1  2", "1 2", True),  # numbers, whatever stands between
        ("a  b", "a b", False),
        ("50000000000000001", "50000000000000000", False),
        ("0.3333333", "0.33333333", False),  # exactly, as upstream does
        ("1\n2", "1 2", False),
        ("1", "1\n\n2", False),
        ("yes", "Yes", False),
    ],
)
def test_outputs_are_compared_line_by_line(output: str, expected: str, same: bool) -> None:
    assert same_output(output, expected) is same


def test_values_keep_their_types_between_processes() -> None:
    value = [None, True, 1, 1.5, float("inf"), 2j, "é", b"\x00", (1, [2]), {1, 2}, {(1,): {"a": 0}}]
    back = decode(json.loads(json.dumps(encode(value))))
    assert back == value
    assert [type(one) for one in back] == [type(one) for one in value]
    assert isinstance(decode(encode(iter([]))), Opaque)
    assert decode(encode(iter([]))) != []


def row(id: int) -> dict[str, str]:
    prompt = f'def add_{id}(x):\n    """x + {id}"""\n'
    test = f"def check(candidate):\n    assert candidate(1) == {id + 1}\n"
    return {"task_id": f"mini/{id}", "prompt": prompt, "test": test, "entry_point": f"add_{id}"}


def write_task(folder: Path) -> Path:
    path = folder / "mini.jsonl"
    path.write_text("".join(json.dumps(row(n)) + "\n" for n in range(2)))
    return path


def answer(sample: Sample, draw: int) -> str:
    number = int(sample.id.rpartition("/")[2])
    return f"```python\ndef add_{number}(x):\n    return x + {number - draw}\n```"


def test_a_run_needs_leave_before_anything_is_generated(tmp_path: Path) -> None:
    runner = ScriptedRunner(answer)
    with pytest.raises(LaconicError, match=r"wrote: mini; give --allow-code-execution .*container"):
        evaluate("m", write_task(tmp_path), out=tmp_path / "run", runner=runner)
    assert runner.generated == []
    assert not (tmp_path / "run").exists()


def test_the_command_refuses_before_it_opens_a_model_and_reads_tasks_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    task, out = str(write_task(tmp_path)), str(tmp_path / "run")
    with pytest.raises(SystemExit, match="2"):
        main(["eval", "no-such-model", "--tasks", task, "--out", out])
    assert "mini; give --allow-code-execution" in capsys.readouterr().err
    sandbox_or_skip()
    monkeypatch.setattr(engines, "make_runner", lambda *_, **__: ScriptedRunner(answer))
    monkeypatch.setattr(evaluation, "load_task", None)
    allow = ["--allow-code-execution", "--json"]
    for command in (["eval", "m", "--tasks", task, "--out", out], ["regrade", out]):
        with pytest.raises(SystemExit, match="0"):
            main([*command, *allow])
        said = capsys.readouterr()
        assert json.loads(said.out)["measures"][0]["accuracy"]["value"] == 1
    assert f"graded by the rules of laconic {VERSION}" in said.err


def test_a_run_of_a_task_of_code(tmp_path: Path) -> None:
    sandbox = sandbox_or_skip()
    summary = evaluate(
        "m",
        load_task(write_task(tmp_path)),
        out=tmp_path / "run",
        runner=ScriptedRunner(answer),
        protocol="code",
        sampling=Sampling(temperature=0.2, n=2),
        progress=False,
        allow_code_execution=True,
    )
    assert summary.overall.accuracy is not None
    assert summary.overall.accuracy.value == 0.5
    details = summary.details[0]
    assert details["sources"] == {"failed": 2, "passed": 2}
    assert (details["pass"]["2"], details["majority"], details["missing_box"]) == (1.0, None, 0.0)
    assert read_json(tmp_path / "run/run.json")["code_execution"] is True
    assert read_json(tmp_path / "run/summary.json")["code_execution"] == sandbox.to_dict()
    with pytest.raises(LaconicError, match="give --allow-code-execution"):
        grade_run(tmp_path / "run")
    before = read_records(tmp_path / "run/grades.jsonl")
    grade_run(tmp_path / "run", allow_code_execution=True)
    assert read_records(tmp_path / "run/grades.jsonl") == before
    assert compare([tmp_path / "run"]).rows[0].accuracy == 0.5


def test_protocols_that_ask_for_something_else_are_refused(tmp_path: Path) -> None:
    for task, protocol, message in (
        (write_task(tmp_path), "r1-official", r"a box, and task 'mini' .* \(code, code-10\)"),
        ("arithmetic", "code", "a program, and task 'arithmetic' for an answer in a box"),
    ):
        with pytest.raises(LaconicError, match=message):
            evaluate(
                "m", task, out=tmp_path / "run", runner=ScriptedRunner(answer), protocol=protocol
            )

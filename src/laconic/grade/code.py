"""Whether code that a model wrote passes its tests. Runs it, and so only where that was allowed.

The verdict never comes from the process that runs the solution. Scripts are judged by what they
print and functions by what they return, here, where the expected values are; tests that are
written in Python run in a sandbox of their own and call the solution in the other. A solution that
prints "passed", ends its process or rewrites the machinery around it gains nothing by it. What is
left to it is to give the right values by other means than asked, such as a table of them.
"""

from __future__ import annotations

import ast
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Literal

from laconic.errors import LaconicError
from laconic.grade.cell import decode, encode
from laconic.grade.extraction import Extracted
from laconic.grade.problems import Case, Problem, read_problem
from laconic.grade.sandbox import (
    FLAG,
    RECIPE,
    NotRunError,
    Program,
    Sandbox,
    StoppedError,
    open_sandbox,
)
from laconic.tags import split_thought

CELL = Path(__file__).with_name("cell.py").read_text()
CHECK_SECONDS = 10.0
"""Wall clock for all of a Python test, as HumanEval's."""
CASE_SECONDS = 6.0
"""Wall clock for one test case, as LiveCodeBench has it."""
LOAD_SECONDS = 30.0
MODULES = re.findall(
    r"\w+",
    "string re datetime collections heapq bisect copy math random statistics itertools functools "
    "operator io sys json builtins typing",
)
"""Imported, with all their names, before a solution of a contest problem, as upstream does."""
PRELUDE = "".join(
    [
        *(f"from {name} import *\n" for name in MODULES),
        *(f"import {name}\n" for name in MODULES if name not in ("builtins", "typing")),
        "sys.setrecursionlimit(50000)\n",
    ]
)
FENCE = re.compile(r"(?P<indent>[ \t]*)(?P<fence>`{3,}|~{3,})(?P<rest>.*)")

Outcome = Literal["passed", "failed", "timed out", "not run", "no code"]
VERDICTS: dict[Outcome, bool | None] = {
    "passed": True,
    "failed": False,
    "timed out": False,
    "not run": None,
    "no code": False,
}


def allowed_sandbox(tasks: Sequence[str], allowed: bool) -> Sandbox | None:
    """The sandbox for tasks whose answers are run; None when there is no such task.

    Raises LaconicError when that was not allowed, or when nothing here can lock a program up.
    """
    if not tasks:
        return None
    if not allowed:
        raise LaconicError(
            f"tasks that are graded by running what a model wrote: {', '.join(tasks)}; give {FLAG} "
            f"to have it run in laconic's sandbox, best inside a container: {RECIPE}"
        )
    return open_sandbox()


@dataclass(frozen=True)
class CodeJudge:
    """Judges responses by running the code in them. A source says what came of it."""

    sandbox: Sandbox

    def __call__(self, gold: str, text: str) -> tuple[bool | None, Extracted]:
        """Grade one response against the tests that its gold answer holds."""
        outcome = self._outcome(read_problem(gold), text)
        return VERDICTS[outcome], Extracted(None, outcome)

    def _outcome(self, problem: Problem, text: str) -> Outcome:
        source = find_code(text, whole=bool(problem.check))
        if source is None:
            return "no code"
        try:
            passed = self._tested(problem, source)
        except NotRunError:
            return "not run"
        except StoppedError as error:
            return "timed out" if str(error) == "timed out" else "failed"
        return "not run" if passed is None else "passed" if passed else "failed"

    def _tested(self, problem: Problem, source: str) -> bool | None:
        if problem.check:
            return self._checked(problem, completed(problem, source))
        if problem.name is not None:
            return self._called(problem.name, problem.cases, PRELUDE + source)
        return all(self._printed(case, PRELUDE + source) for case in problem.cases)

    def _checked(self, problem: Problem, source: str) -> bool | None:
        """Run Python tests in one sandbox, and what they call in another."""
        solution = {"role": "serve", "source": source, "name": problem.name, "method": False}
        tests = {
            "role": "check",
            "prompt": stub(problem),
            "test": problem.check,
            "name": problem.name,
        }
        with self.sandbox.start(CELL) as solver, self.sandbox.start(CELL) as checker:
            if not _loaded(solver, solution, CHECK_SECONDS):
                return False
            left = _clock(CHECK_SECONDS)
            message = checker.ask(_order(tests), LOAD_SECONDS)
            while message.startswith(b'{"call"'):
                message = checker.ask(solver.ask(message, left()), left())
        verdict = json.loads(message)["verdict"]
        return None if verdict is None else bool(verdict)

    def _called(self, name: str, cases: Sequence[Case], source: str) -> bool:
        """Call a function, or a method of `Solution`, once per case."""
        order = {"role": "serve", "source": source, "name": name}
        order["method"] = "class Solution" in source  # type: ignore[assignment]
        with self.sandbox.start(CELL) as solver:
            return _loaded(solver, order, CASE_SECONDS) and all(
                _returns(solver, case) for case in cases
            )

    def _printed(self, case: Case, source: str) -> bool:
        with self.sandbox.start(CELL) as program:
            data = _order({"role": "run", "source": source}) + case.input.encode()
            output = program.finish(data, CASE_SECONDS)
        return same_output(output.decode(errors="replace"), case.output)


def find_code(text: str, *, whole: bool = False) -> str | None:
    """The last fenced block after the last </think>.

    whole: where there is none, all of that part, which a model that only goes on writes. None when
    there is neither, or when the thought never ends.
    """
    answer = split_thought(text)[1]
    if blocks := _blocks(answer):
        return blocks[-1]
    return answer if whole and answer.strip() else None


def completed(problem: Problem, source: str) -> str:
    """A prompt and its completion; or, when the code defines the function itself, both in turn.

    The prompt comes first either way, for what it imports and defines besides.
    """
    if re.search(rf"^(?:async\s+)?def\s+{re.escape(problem.name or '')}\b", source, re.MULTILINE):
        return f"{stub(problem)}\n{source}"
    return problem.prompt + source


def stub(problem: Problem) -> str:
    """A prompt as a whole program: its last function does nothing."""
    try:
        ast.parse(problem.prompt)  # a docstring is body enough
    except SyntaxError:
        return f"{problem.prompt.rstrip()}\n    pass\n"
    return problem.prompt


def same_output(output: str, expected: str) -> bool:
    """Whether a program printed what it should: line by line, as text or as exact decimals.

    White space around lines and around the whole does not count.
    """
    ours, theirs = (
        [line.strip() for line in text.strip().split("\n")] for text in (output, expected)
    )
    return len(ours) == len(theirs) and all(map(_same_line, ours, theirs))


def _same_line(output: str, expected: str) -> bool:
    if output == expected:
        return True
    try:
        left, right = ([Decimal(part) for part in text.split()] for text in (output, expected))
    except InvalidOperation:
        return False
    return left == right


def _blocks(text: str) -> list[str]:
    """What stands between the fences of each closed block, without the fences' indentation."""
    found: list[str] = []
    opened: re.Match[str] | None = None
    lines: list[str] = []
    for line in text.splitlines():
        mark = FENCE.fullmatch(line)
        if opened is None:
            opened, lines = mark, []
        elif mark and mark["fence"].startswith(opened["fence"]) and not mark["rest"].strip():
            found.append("\n".join(lines))
            opened = None
        else:
            lines.append(line.removeprefix(opened["indent"]))
    return found


def _loaded(solver: Program, order: dict[str, Any], seconds: float) -> bool:
    return b'"ready"' in solver.ask(_order(order), seconds)


def _returns(solver: Program, case: Case) -> bool:
    """Whether the function gives a case's value; a tuple is as good as a list."""
    arguments = [json.loads(line) for line in case.input.split("\n")]
    call = json.dumps({"call": encode(arguments)}).encode() + b"\n"
    reply = solver.ask(call, CASE_SECONDS)
    try:
        value = decode(json.loads(reply)["value"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return False  # it raised, or wrote its reply itself
    return bool((list(value) if isinstance(value, tuple) else value) == json.loads(case.output))


def _clock(seconds: float) -> Callable[[], float]:
    """A function that says how many seconds are left."""
    end = time.monotonic() + seconds
    return lambda: max(0.0, end - time.monotonic())


def _order(order: dict[str, Any]) -> bytes:
    data = json.dumps(order).encode()
    return f"{len(data):08}".encode() + data

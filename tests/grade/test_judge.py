from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from laconic.errors import LaconicError
from laconic.grade import equality, judge
from laconic.grade.answers import same
from laconic.grade.judge import Judge

pytestmark = pytest.mark.timeout(60)  # a process that is not killed would hold the test for ever


@pytest.fixture
def one() -> Iterator[Judge]:
    found = Judge()
    yield found
    found.close()


def test_one_process_answers_many(one: Judge) -> None:
    assert one.equal("x+1", "1+x") is True
    process = one._process
    assert process is not None
    assert one.equal("x+1", "x+2") is False
    assert one.equal(r"\notlatex{{{", "1") is False
    assert one._process is process


def test_a_comparison_that_takes_too_long_has_no_verdict_and_is_killed(one: Judge) -> None:
    assert one.equal("x+1", "1+x") is True
    process = one._process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)  # stands for an endless simplification
    start = time.monotonic()
    assert one.equal("x+1", "1+x", seconds=0.5) is None
    assert time.monotonic() - start < 5
    assert process.poll() == -signal.SIGKILL
    assert one.equal("x+1", "1+x") is True  # a new process


def test_a_process_that_dies_is_started_again(one: Judge) -> None:
    assert one.equal("x+1", "1+x") is True
    assert one._process is not None
    os.kill(one._process.pid, signal.SIGKILL)
    assert one.equal("x+1", "1+x") is None
    assert one.equal("x+1", "1+x") is True


def test_memory_is_limited() -> None:
    small = Judge(memory=400 * 2**20)
    try:
        assert small.equal("x+1", "1+x") is True
        assert small.equal("x", r"10^{3000000000}x") is not True
        assert small.equal("x+1", "1+x") is True
    finally:
        small.close()


def test_a_process_that_does_not_start_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge.sys, "executable", "/bin/false")
    with pytest.raises(LaconicError, match="does not start; is math-verify"):
        Judge().equal("x", "y")


def test_a_module_in_the_working_folder_is_not_taken(
    one: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sympy.py").write_text("raise SystemExit")
    monkeypatch.chdir(tmp_path)
    assert one.equal("x+1", "1+x") is True


def test_undecided_is_none_not_false(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(equality, "symbolically_equal", lambda *_: None)
    assert same("x+1", "x+1+0") is None
    assert same("1,x+1", "x+1+0,1") is None
    assert same("1", "2") is False  # needs no algebra

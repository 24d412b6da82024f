"""Killed at any moment, a search ends with the trials of an unbroken one."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from laconic.searching import track
from laconic.searching.search import Options, search
from searching.fakes import Live, study

QUIET = Options(progress=False)
SPACES: dict[str, dict[str, Any]] = {
    "grid": {"recipes": [{"interpolation": {"weight": [0.0, 1.0]}}]},
    "tpe": {
        "recipes": [
            {"ties": {"trim": [0.0, 0.8], "alpha": [0.1, 1.0]}},
            {"interpolation": {"weight": [0.2, 0.9]}},
        ],
    },
    "gp": {"recipes": [{"interpolation": {"weight": [0.1, 0.9]}, "modules": True}]},
    "nsga2": {"recipes": [{"ties": {"trim": [0.0, 0.8], "alpha": [0.1, 1.0]}}]},
}


class Doomed(Live):
    """Kills its own process before the n-th response."""

    def __init__(self, pair: Path, responses: int) -> None:
        super().__init__(pair)
        self._left = responses

    def _text(self, sample: Any, draw: int) -> str:
        self._left -= 1
        if self._left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._text(sample, draw)


def in_child(work: Callable[[], object]) -> int:
    """Run work in a process of its own; returns the signal that ended it, 0 when it finished."""
    torch.set_num_threads(1)  # a forked process must not wait for threads it does not have
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            os._exit(99)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def doomed_tell(after: int, *, before: bool) -> Callable[..., None]:
    """A `tell` that kills its process at its n-th call, before or after it has told."""
    left, told = [after], track.tell

    def tell(*arguments: Any) -> None:
        left[0] -= 1
        if left[0] < 0 and before:
            os.kill(os.getpid(), signal.SIGKILL)
        told(*arguments)
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return tell


def files(folder: Path) -> tuple[str, str]:
    return (folder / "trials.jsonl").read_text(), (folder / "front.json").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SPACES)
def test_ten_kills_change_nothing(tmp_path: Path, sampler: str) -> None:
    raw = study(tmp_path, **SPACES[sampler], sampler=sampler, budget={"trials": 14})
    search(raw, out=tmp_path / "unbroken", options=QUIET, runner=Live(tmp_path))
    out = tmp_path / "killed"
    kills = 0
    for responses in (5, 60, 130, 17, 33, 80, 3, 41):
        doomed = Doomed(tmp_path, responses)
        kills += in_child(lambda d=doomed: search(raw, out=out, options=QUIET, runner=d)) == 9
    for place in range(2):

        def killed(first: bool = place == 0) -> None:
            track.tell = doomed_tell(1, before=first)
            search(raw, out=out, options=QUIET, runner=Live(tmp_path))

        kills += in_child(killed) == 9
    search(raw, out=out, options=QUIET, runner=Live(tmp_path))
    assert kills == 10
    assert files(out) == files(tmp_path / "unbroken")


@pytest.mark.slow
def test_a_database_file_survives_too(tmp_path: Path) -> None:
    raw = study(tmp_path, budget={"trials": 6})
    options = Options(storage="sqlite", progress=False)
    search(raw, out=tmp_path / "unbroken", options=options, runner=Live(tmp_path))
    for responses in (60, 150):
        doomed = Doomed(tmp_path, responses)
        killed = lambda d=doomed: search(raw, out=tmp_path / "out", options=options, runner=d)  # noqa: E731
        assert in_child(killed) == 9
    search(raw, out=tmp_path / "out", options=options, runner=Live(tmp_path))
    assert files(tmp_path / "out") == files(tmp_path / "unbroken")

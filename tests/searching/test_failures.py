"""Failed trials: recorded with their reason, never on the front, never fatal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from laconic.errors import LaconicError
from laconic.records import read_records
from laconic.searching import search as searching
from laconic.searching.search import Options, search
from laconic.searching.track import WorkerLostError
from searching.fakes import Live, study

QUIET = Options(progress=False)
WEIGHTS = {"recipes": [{"interpolation": {"weight": [0.0, 1.0]}}], "budget": {"trials": 11}}


class Frail(Live):
    """Between 0.35 and 0.65 it does what `how` says."""

    def __init__(self, pair: Path, how: Any) -> None:
        super().__init__(pair)
        self._how = how

    def _text(self, sample: Any, draw: int) -> str:
        return str(self._how(sample)) if 0.35 < self.weight < 0.65 else super()._text(sample, draw)


def failing(error: BaseException) -> Any:
    def fail(_: Any) -> str:
        raise error

    return fail


def run(folder: Path, how: Any, out: str = "out") -> tuple[Any, list[dict[str, Any]]]:
    raw = study(folder, **WEIGHTS)
    found = search(raw, out=folder / out, options=QUIET, runner=Frail(folder, how))
    return found, read_records(folder / out / "trials.jsonl")


@pytest.mark.parametrize(
    ("how", "status", "reason"),
    [
        (lambda _: "", "collapsed", "collapsed: of 16 responses 16 give no answer"),
        (lambda _: "<think> a b", "collapsed", "16 lose their think tags"),
        (lambda _: "a </think> b </think> c", "collapsed", "16 lose their think tags"),
        (failing(LaconicError("the device ran out of memory")), "failed", "ran out of memory"),
        (failing(torch.OutOfMemoryError("CUDA out of memory")), "failed", "CUDA out of memory"),
        (failing(RuntimeError("shape mismatch")), "failed", "shape mismatch"),
    ],
)
def test_what_fails_is_recorded(tmp_path: Path, how: Any, status: str, reason: str) -> None:
    found, trials = run(tmp_path, how)
    broken = [t for t in trials if t["status"] == status]
    assert sorted(t["params"]["interpolation.weight"] for t in broken) == [0.4, 0.5, 0.6]
    assert all(reason in t["reason"] for t in broken)
    weights = {row["params"]["interpolation.weight"] for row in found.front}
    assert weights
    assert not weights & {0.4, 0.5, 0.6}
    if status == "failed":
        assert all(t["accuracy"] is t["tokens"] is None for t in broken)


def test_a_search_in_which_everything_fails_says_why(tmp_path: Path) -> None:
    class Broken(Live):
        def _text(self, sample: Any, draw: int) -> str:
            return "" if 0.05 < self.weight < 0.95 else super()._text(sample, draw)

    raw = study(tmp_path, recipes=[{"interpolation": {"weight": [0.2, 0.8]}}])
    with pytest.raises(LaconicError, match="no merge finished: 6 x collapsed: of 16 responses 16"):
        search(raw, out=tmp_path / "out", options=QUIET, runner=Broken(tmp_path))


class Losing:
    """An examiner whose worker is lost when it is asked the n-th time, and its replacements."""

    def __init__(self, inner: Any, losses: list[int]) -> None:
        self._inner, self._losses = inner, losses

    def ask(self, *arguments: Any) -> Any:
        self._losses[0] -= 1
        if self._losses[0] == 0:
            self._losses.pop(0)
            raise WorkerLostError("worker lost: its process ended with code -9")
        return self._inner.ask(*arguments)

    def close(self) -> None:
        pass


@pytest.mark.parametrize(("losses", "failed"), [([3, 99], 0), ([3, 1, 99], 1)])
def test_a_lost_worker_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, losses: list[int], failed: int
) -> None:
    from contextlib import contextmanager

    from laconic.searching.workers import Crew

    opened = []

    @contextmanager
    def crew(_: Any, __: Any, own: Any) -> Any:
        def another(place: int) -> Any:
            opened.append(place)
            return Losing(own, losses)

        yield Crew([Losing(own, losses)], another)

    monkeypatch.setattr(searching, "open_crew", crew)
    raw = study(tmp_path, **WEIGHTS)
    search(raw, out=tmp_path / "out", options=QUIET, runner=Live(tmp_path))
    trials = read_records(tmp_path / "out" / "trials.jsonl")
    lost = [t for t in trials if t["status"] == "failed"]
    assert len(trials) == 11
    assert len(lost) == failed
    assert opened == [0] * (1 + failed)
    assert all("worker lost: its process ended with code -9 (2 of 2" in t["reason"] for t in lost)

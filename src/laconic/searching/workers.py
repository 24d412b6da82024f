"""Workers: who asks the merges; this process, several processes, or a Ray cluster."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from laconic.errors import LaconicError
from laconic.run.runner import Key
from laconic.searching.examiner import Examiner, LiveExaminer, Setting
from laconic.searching.outcomes import Outcome
from laconic.searching.track import WorkerLostError

Work = Callable[[Examiner, Callable[[], Examiner]], None]


class Crew:
    """Examiners that work side by side, each on trials of its own."""

    def __init__(self, examiners: Sequence[Examiner], open_one: Callable[[int], Examiner]) -> None:
        self._examiners, self._open_one = list(examiners), open_one

    def run(self, work: Work) -> None:
        """Run `work` once per examiner, at the same time; raise the first error."""
        if len(self._examiners) == 1:
            self._one(work, 0)
            return
        errors: list[BaseException] = []

        def guarded(place: int) -> None:
            try:
                self._one(work, place)
            except BaseException as error:
                errors.append(error)

        threads = [
            threading.Thread(target=guarded, args=(place,), daemon=True)
            for place in range(len(self._examiners))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]

    def close(self) -> None:
        """End them all."""
        for examiner in self._examiners:
            examiner.close()

    def _one(self, work: Work, place: int) -> None:
        def another() -> Examiner:
            self._examiners[place].close()
            self._examiners[place] = self._open_one(place)
            return self._examiners[place]

        work(self._examiners[place], another)


@contextmanager
def open_crew(workers: int | str, setting: Setting, own: LiveExaminer) -> Iterator[Crew]:
    """Open workers: 1 is `own`, in this process; N are processes; `ray` is the cluster's GPUs.

    Raises LaconicError for another word, or a cluster that cannot be reached.
    """
    if workers == 1:
        yield Crew([own], lambda _: own)
        return
    if isinstance(workers, int):
        if workers < 1:
            raise LaconicError(f"workers: {workers}; expected 1 or more, or ray")
        count = workers
        shared = _shared(setting, workers)
        open_one: Callable[[int], Examiner] = lambda place: ProcessExaminer(shared(place))  # noqa: E731
    elif workers == "ray" or workers.startswith("ray:"):
        from laconic.searching.cluster import open_cluster

        count, open_one = open_cluster(workers, setting)
    else:
        raise LaconicError(f"workers: '{workers}'; expected a number, ray, or ray:NUMBER")
    crew = Crew([open_one(place) for place in range(count)], open_one)
    try:
        yield crew
    finally:
        crew.close()


def _shared(setting: Setting, workers: int) -> Callable[[int], Setting]:
    """Share the machine's GPUs and processors between processes."""
    import torch

    gpus = torch.cuda.device_count() if setting.device is None else 0
    threads = max((os.cpu_count() or 1) // workers, 1)

    def of(place: int) -> Setting:
        device = f"cuda:{place % gpus}" if gpus else setting.device
        return replace(setting, device=device, threads=threads)

    return of


class ProcessExaminer:
    """An examiner in a process of its own."""

    def __init__(self, setting: Setting) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(setting, theirs), daemon=True)
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int | None:
        """The process's number."""
        return self._process.pid

    def ask(
        self, recipe: Mapping[str, Any], ids: Sequence[str], limit: int, done: Collection[Key] = ()
    ) -> list[Outcome]:
        """Ask there. Raises WorkerLostError when the process ends, LaconicError as it does."""
        try:
            self._pipe.send((dict(recipe), list(ids), limit, set(done)))
            answer = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(5)
            code = self._process.exitcode
            raise WorkerLostError(f"worker lost: its process ended with code {code}") from None
        if isinstance(answer, str):
            raise LaconicError(answer)
        found: list[Outcome] = answer
        return found

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        if self._process.is_alive():
            self._process.terminate()
        self._process.join()


def _serve(setting: Setting, pipe: Any) -> None:
    """Answer requests until the other end closes."""
    import torch

    torch.set_num_threads(setting.threads or 1)
    examiner = LiveExaminer(setting)
    while True:
        try:
            recipe, ids, limit, done = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(examiner.ask(recipe, ids, limit, done))
        except (LaconicError, RuntimeError, MemoryError) as error:
            pipe.send(str(error) or type(error).__name__)

"""Work that waits for others, on several threads at a time, and tried again when it fails."""

from __future__ import annotations

import queue
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from laconic.run.wire import FailedError

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Patience:
    """How often a failed request is repeated, and the seconds waited before.

    The wait doubles from `first` up to `longest`, and is shortened by chance so that a crowd does
    not come back all at once. A server that says when to come back is believed, up to `trusted`.
    """

    retries: int = 6
    first: float = 0.5
    longest: float = 30.0
    trusted: float = 300.0

    def pause(self, attempt: int, wanted: float | None) -> float:
        """Seconds to wait after the failed attempt number `attempt`, counted from 0."""
        if wanted is not None:
            return min(wanted, self.trusted)
        return float(min(self.longest, self.first * 2**attempt) * random.uniform(0.5, 1.0))

    def persist(self, action: Callable[[], Result], stop: threading.Event) -> Result:
        """Do an action, again after a FailedError; raise the last one. `stop` ends the waiting."""
        for attempt in range(self.retries):
            try:
                return action()
            except FailedError as error:
                if stop.wait(self.pause(attempt, error.wait)):
                    raise
        return action()


def spread(
    work: Callable[[Item], Result], items: Sequence[Item], threads: int, stop: threading.Event
) -> Iterator[Result]:
    """Do the work of each item on `threads` threads; yield results as they finish.

    After an error nothing new is begun: what is under way is finished and yielded, then the first
    error is raised. `stop` is set then, and when the caller stops early.
    """
    waiting: queue.SimpleQueue[Item] = queue.SimpleQueue()
    for item in items:
        waiting.put(item)
    finished: queue.SimpleQueue[tuple[str, object]] = queue.SimpleQueue()
    count = min(threads, len(items))
    for _ in range(count):
        # Daemons: an interrupted command must not wait for a response that takes minutes.
        threading.Thread(target=_labour, args=(work, waiting, finished, stop), daemon=True).start()
    error: BaseException | None = None
    try:
        while count:
            kind, value = finished.get()
            if kind == "result":
                yield value  # type: ignore[misc]
            elif kind == "error":
                error = error or value  # type: ignore[assignment]
            else:
                count -= 1
        if error is not None:
            raise error
    finally:
        stop.set()


def _labour(
    work: Callable[[Item], Result],
    waiting: queue.SimpleQueue[Item],
    finished: queue.SimpleQueue[tuple[str, object]],
    stop: threading.Event,
) -> None:
    while not stop.is_set():
        try:
            item = waiting.get_nowait()
        except queue.Empty:
            break
        try:
            finished.put(("result", work(item)))
        except BaseException as error:  # raised again where the results are read
            stop.set()
            finished.put(("error", error))
    finished.put(("end", None))

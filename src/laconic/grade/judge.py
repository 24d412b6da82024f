"""Symbolic comparisons in a process of their own, which can be killed."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import selectors
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import IO

from laconic.errors import LaconicError

SECONDS = 10.0
"""Most time for one comparison; after it the process is killed and there is no verdict."""
START_SECONDS = 120.0
MEMORY = 2 * 2**30
WORKERS = 2
"""Processes at most, each started when first needed."""


class Judge:
    """One worker process, started on the first question and again after it had to be killed."""

    def __init__(self, seconds: float = SECONDS, memory: int = MEMORY) -> None:
        self._seconds, self._memory = seconds, memory
        self._process: subprocess.Popen[bytes] | None = None

    def equal(self, gold: str, answer: str, seconds: float | None = None) -> bool | None:
        """Whether two LaTeX expressions are equal; None when time or memory did not suffice."""
        process = self._running()
        limit = self._seconds if seconds is None else min(seconds, self._seconds)
        line = json.dumps([gold, answer]).encode() + b"\n"
        try:
            _pipe(process.stdin).write(line)
            _pipe(process.stdin).flush()
            reply = _read_line(process, limit)
        except OSError:  # it died of what it was asked
            reply = None
        if reply is None:
            self.close()
            return None
        verdict = json.loads(reply)
        return None if verdict is None else bool(verdict)

    def close(self) -> None:
        """End the process, at once."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            # -P: a folder that happens to hold a `sympy.py` is not where to import from
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "laconic.grade.worker", str(self._memory)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # the terminal's interrupt is for the parent
            )
            if _read_line(self._process, START_SECONDS) != b"ready":
                self.close()
                raise LaconicError(
                    "grading: the process that compares expressions does not start; is "
                    "math-verify[antlr4_13_2] installed? try: python -m laconic.grade.worker "
                    f"{self._memory}"
                )
        return self._process


class _Bench:
    """The judges of this process: taken for one comparison, then put back."""

    def __init__(self) -> None:
        self._fill()
        atexit.register(self.close)

    def _fill(self) -> None:
        self._pid = os.getpid()
        self._all = [Judge() for _ in range(WORKERS)]
        self._free: queue.LifoQueue[Judge] = queue.LifoQueue()
        for judge in reversed(self._all):
            self._free.put(judge)

    @contextlib.contextmanager
    def judge(self) -> Iterator[Judge]:
        if os.getpid() != self._pid:  # forked: the pipes belong to the parent
            self._fill()
        judge = self._free.get()
        try:
            yield judge
        except BaseException:
            judge.close()  # an interrupted question would answer the next one
            raise
        finally:
            self._free.put(judge)

    def close(self) -> None:
        if os.getpid() == self._pid:
            for judge in self._all:
                judge.close()


_bench = _Bench()


def symbolically_equal(gold: str, answer: str, seconds: float = SECONDS) -> bool | None:
    """Whether two LaTeX expressions are equal, decided in a worker; None: not decided in time."""
    with _bench.judge() as judge:
        return judge.equal(gold, answer, seconds)


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise OSError("the process has no pipe")
    return stream


def _read_line(process: subprocess.Popen[bytes], seconds: float) -> bytes | None:
    """A line of the process's output; None when it ends or does not come in time."""
    stream = _pipe(process.stdout)
    deadline = time.monotonic() + seconds
    data = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while not data.endswith(b"\n"):
            if not selector.select(max(0.0, deadline - time.monotonic())):
                return None
            part = os.read(stream.fileno(), 4096)
            if not part:
                return None
            data += part
    return data.strip()

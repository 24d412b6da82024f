"""Worker threads: the first error stops them all."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager

import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


class Stopped(Exception):  # noqa: N818 - not an error: another worker's error is the one to report
    """Raised inside a worker when another one failed or the user interrupted."""


class Workers:
    """Runs jobs on threads. Jobs call `check()` between blocks so that an error ends them soon."""

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count)
        self._stop = threading.Event()

    def check(self) -> None:
        """Raise Stopped once another job has failed or the run was interrupted."""
        if self._stop.is_set():
            raise Stopped

    def run(self, jobs: Iterable[Callable[[], object]]) -> None:
        """Run all jobs to their end; raise the first error after stopping the others."""
        futures = [self._pool.submit(job) for job in jobs]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
            failed = [f for f in futures if f.done() and not f.cancelled() and f.exception()]
            if failed:
                failed[0].result()
        except BaseException:
            self._stop.set()
            self._pool.shutdown(cancel_futures=True)
            raise

    def close(self) -> None:
        """Wait for the threads to end."""
        self._pool.shutdown()


@contextmanager
def workers(count: int) -> Iterator[Workers]:
    """Open a pool whose threads each run torch single-threaded: the parallelism is over tensors."""
    _keep_freed_memory()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    pool = Workers(count)
    try:
        yield pool
    finally:
        pool.close()
        torch.set_num_threads(before)


def _keep_freed_memory() -> None:
    """Tell glibc to keep freed blocks for the next block's temporaries.

    It would give each of them back to the system, which clears every page of the next one: a third
    of a merge's time in the system. Elsewhere there is nothing to tell.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(_M_MMAP_THRESHOLD, 1 << 26)
        mallopt(_M_TRIM_THRESHOLD, 1 << 29)

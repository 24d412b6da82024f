"""A server process that this one starts, waits for and ends."""

from __future__ import annotations

import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from laconic.errors import LaconicError
from laconic.run.guard import GRACE
from laconic.run.wire import Address, FailedError, RefusedError, ask

POLL = 0.2
SHOWN_LINES = 15


class Serving:
    """A command that serves the OpenAI interface at `url` until `close`, or this process ends.

    Raises LaconicError with the last lines of its log when it ends before it answers, or does not
    answer within `timeout` seconds.
    """

    def __init__(self, command: Sequence[str], url: str, timeout: float) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="laconic-serve-")
        self._log = Path(self._folder.name) / "log"
        self._command = command
        guarded = [sys.executable, "-m", "laconic.run.guard", *command]
        with open(self._log, "wb") as log:
            self._guard = subprocess.Popen(guarded, stdin=subprocess.PIPE, stdout=log, stderr=log)
        self._finalizer = weakref.finalize(self, _end, self._guard, self._folder)
        try:
            self._wait(Address.parse(url), time.monotonic() + timeout, timeout)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the server and all its processes."""
        self._finalizer()

    def _wait(self, address: Address, deadline: float, timeout: float) -> None:
        while True:
            if (status := self._guard.poll()) is not None:
                raise LaconicError(f"{self._named()} ended with status {status}{self._last()}")
            try:
                ask(address, "/v1/models", timeout=5.0)
                return
            except RefusedError:
                return
            except FailedError as error:
                if time.monotonic() > deadline:
                    raise LaconicError(
                        f"{self._named()} did not answer within {timeout:g} s ({error})"
                        f"{self._last()}"
                    ) from None
            time.sleep(POLL)

    def _named(self) -> str:
        return f"the server started with `{shlex.join(self._command)}`"

    def _last(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()[-SHOWN_LINES:]
        return "; it wrote nothing" if not lines else "; its last lines:\n" + "\n".join(lines)


def free_port() -> int:
    """A port of the loopback interface that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def find_command(given: str | None, default: str) -> list[str] | None:
    """The words of a command, None when there is none. Raises LaconicError when `given` is bad."""
    words = shlex.split(given or default)
    if words and shutil.which(words[0]):
        return words
    if given is not None:
        raise LaconicError(f"command '{given}': no such program; expected a path, or one on PATH")
    return None


def _end(guard: subprocess.Popen[bytes], folder: tempfile.TemporaryDirectory[str]) -> None:
    _close(guard.stdin)  # the guard ends the server when its input ends
    try:
        guard.wait(2 * GRACE)
    except subprocess.TimeoutExpired:
        guard.kill()
        guard.wait()
    folder.cleanup()


def _close(pipe: IO[bytes] | None) -> None:
    if pipe is not None:
        pipe.close()

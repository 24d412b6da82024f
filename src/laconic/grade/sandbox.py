"""Programs of models, run under lock: no network, no files but their own, no time without end.

What holds a program: namespaces of the Linux kernel (network, processes, mounts, IPC), a root
folder with Python and the system's libraries read-only and an empty /tmp, resource limits, an
empty environment, a user who owns nothing when laconic runs as root, and a kill that takes every
process along. What does not hold it: an error in the kernel itself; and it may read /usr. Where
the kernel gives no namespaces, programs run only in a container without network, which is then
what guards: see docs/code-execution.md.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from laconic.errors import LaconicError

FLAG = "--allow-code-execution"
RECIPE = "docs/code-execution.md has a container recipe"
JAIL = Path(__file__).with_name("jail.py")
ROUTES = ("/proc/net/route", "/proc/net/ipv6_route")
START_SECONDS = 60.0
DISK = 64 * 2**20
OUTPUT = 16 * 2**20
"""Most bytes of output; a program that writes more is stopped."""
LIMITS = {
    "RLIMIT_CPU": 600,
    "RLIMIT_AS": 2 * 2**30,
    "RLIMIT_FSIZE": DISK,
    "RLIMIT_NPROC": 32,
    "RLIMIT_NOFILE": 64,
    "RLIMIT_CORE": 0,
}
"""Per process, but for the number of processes; bytes and seconds."""
NOBODY = 60_000
"""The first of 5,000 user ids for programs that root starts: none of them owns anything."""
_users = itertools.cycle(range(NOBODY, NOBODY + 5000))


class StoppedError(Exception):
    """A program gave no answer: its text is `timed out` or `failed` (ended, or wrote too much)."""


class NotRunError(Exception):
    """A program could not be locked up, and so it was not run."""


class Program:
    """A program under way. Its output is what it says, never what it is worth."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._stdin, self._stdout = _pipe(process.stdin), _pipe(process.stdout)
        os.set_blocking(self._stdin.fileno(), False)

    def ask(self, question: bytes, seconds: float) -> bytes:
        """Write a text and read one line. Raises StoppedError when none comes."""
        line = self._exchange(question, seconds, whole=False)
        if not line.endswith(b"\n"):
            raise StoppedError("failed")
        return line

    def finish(self, data: bytes, seconds: float) -> bytes:
        """Write all input, read all output up to a good end. Raises StoppedError for a bad one."""
        start = time.monotonic()
        output = self._exchange(data, seconds, whole=True)
        try:
            status = self._process.wait(max(0.0, start + seconds - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise StoppedError("timed out") from None
        if status != 0:
            raise StoppedError("failed")
        return output

    def _exchange(self, data: bytes, seconds: float, *, whole: bool) -> bytes:
        """Write while there is something to write, and read to the end or to the end of a line."""
        deadline = time.monotonic() + seconds
        received = bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(self._stdout, selectors.EVENT_READ)
            selector.register(self._stdin, selectors.EVENT_WRITE)
            while whole or not received.endswith(b"\n"):
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                if not ready:
                    raise StoppedError("timed out")
                if any(key.fileobj is self._stdin for key, _ in ready):
                    data = self._written(data, last=whole)
                    if not data:
                        selector.unregister(self._stdin)
                if any(key.fileobj is self._stdout for key, _ in ready):
                    part = os.read(self._stdout.fileno(), 65536)
                    if not part:
                        break
                    received += part
                    if len(received) > OUTPUT:
                        raise StoppedError("failed")
        return bytes(received)

    def _written(self, data: bytes, *, last: bool) -> bytes:
        """Write what the pipe takes, and return the rest; `last`: nothing comes after it."""
        try:
            data = data[os.write(self._stdin.fileno(), data[:65536]) :]
        except BlockingIOError:
            return data
        except BrokenPipeError:  # it reads no more, and may yet answer
            data = b""
        if last and not data:
            self._stdin.close()
        return data


@dataclass(frozen=True)
class Sandbox:
    """How programs are locked up here. namespaces: by the kernel; else by the container around."""

    namespaces: bool

    @contextlib.contextmanager
    def start(self, code: str) -> Iterator[Program]:
        """Run Python code in a process of its own; at the end nothing of it is left.

        Raises NotRunError when it cannot be locked up.
        """
        with contextlib.ExitStack() as stack:
            folder = None
            if not self.namespaces:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="laconic-"))
            process = stack.enter_context(_process(self._order(code, folder)))
            stack.callback(_kill, process)
            if message := _messages(process):
                raise NotRunError(message)
            yield Program(process)

    def to_dict(self) -> dict[str, Any]:
        """What a run records about how code was run."""
        guard = "namespaces" if self.namespaces else "container"
        return {"guard": guard, "limits": LIMITS, "disk": DISK, "output": OUTPUT}

    def _order(self, code: str, folder: str | None) -> dict[str, Any]:
        return {
            "namespaces": self.namespaces,
            "folder": folder,
            "prefix": sys.base_prefix,
            "python": os.path.realpath(sys.executable),
            "arguments": ["-c", code],
            "limits": LIMITS,
            "disk": DISK,
            "user": next(_users),
        }


def open_sandbox() -> Sandbox:
    """The way programs are locked up on this machine, tried with a program that does nothing.

    Raises LaconicError where there is none: a program is never run with a network in reach.
    """
    if sys.platform != "linux":
        raise LaconicError(f"code is run on Linux only, and this is {sys.platform}; {RECIPE}")
    try:
        _try(sandbox := Sandbox(namespaces=True))
        return sandbox
    except NotRunError as error:
        reason = str(error)
    if networks := _networks():
        raise LaconicError(
            f"code cannot be locked up here: {reason} (needs Linux 5.14 or newer, and namespaces "
            f"for ordinary users), and there is a network ({', '.join(networks)}); {RECIPE}"
        )
    _try_in_container(sandbox := Sandbox(namespaces=False))
    return sandbox


def _try(sandbox: Sandbox) -> None:
    with sandbox.start("print('ready')") as program:
        try:
            said = program.finish(b"", START_SECONDS)
        except StoppedError as error:
            raise NotRunError(f"Python {error} in the sandbox") from None
    if said.strip() != b"ready":
        raise NotRunError(f"Python said {said[:80]!r} in the sandbox")


def _try_in_container(sandbox: Sandbox) -> None:
    try:
        _try(sandbox)
    except NotRunError as error:
        raise LaconicError(f"code cannot be run in this container: {error}; {RECIPE}") from None


def _networks(tables: Sequence[str] = ROUTES) -> list[str]:
    """The interfaces that have a route to somewhere else, IPv4 and IPv6."""
    rows: list[list[str]] = []
    for table in tables:
        with contextlib.suppress(FileNotFoundError), open(table) as file:
            rows += [line.split() for line in file]
    names = {row[-1] if len(row[0]) == 32 else row[0] for row in rows if row}
    return sorted(names - {"lo", "Iface"})


def _process(order: dict[str, Any]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", JAIL.read_text(), json.dumps(order)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def _messages(process: subprocess.Popen[bytes]) -> str:
    """What the jail says went wrong; empty once the program runs."""
    stream = _pipe(process.stderr)
    deadline = time.monotonic() + START_SECONDS
    said = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline - time.monotonic())):
            part = os.read(stream.fileno(), 4096)
            if not part:
                return said.decode(errors="replace").strip()
            said += part
    return f"it did not start within {START_SECONDS:.0f} s"


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a program: with process 1 of its namespace, every process in it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise OSError("the process has no pipe")
    return stream

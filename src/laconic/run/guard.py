"""Run a command that must not outlive the process that asked for it, however that one ends.

`python -m laconic.run.guard COMMAND...`: the command runs in a process group of its own; when
standard input comes to its end, which it does even when its writer is killed, the group is ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

GRACE = 10.0
"""Seconds between asking a command to end and ending it."""


def guard(command: Sequence[str]) -> int:
    """Run a command until it ends or standard input does; return its exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is for the asking process
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    threading.Thread(target=_end_with_input, args=(child,), daemon=True).start()
    status = child.wait()
    _signal(child, signal.SIGKILL)  # what the command left behind
    return status


def _end_with_input(child: subprocess.Popen[bytes]) -> None:
    # Not through sys.stdin: a thread that waits in its buffer cannot be left at the end.
    while os.read(0, 4096):
        pass
    _signal(child, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(GRACE)
    _signal(child, signal.SIGKILL)


def _signal(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to the whole group; the group may be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, number)


if __name__ == "__main__":
    sys.exit(guard(sys.argv[1:]))

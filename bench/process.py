"""Run a command as a whole process and read what the operating system says it cost."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Seconds of processor and wall-clock time, and MB (10^6 bytes) of peak resident memory."""

    cpu_s: float
    wall_s: float
    peak_mb: float


def measure(command: Sequence[str]) -> Cost:
    """Run a command to its end. Raises RuntimeError with its last words when it fails."""
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        words = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: {words.decode(errors='replace')[-2000:]}")
    cpu = usage.ru_utime + usage.ru_stime
    return Cost(round(cpu, 2), round(time.monotonic() - began, 2), round(usage.ru_maxrss / 976.6))

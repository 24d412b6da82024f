"""The process that does symbolic comparisons: one JSON line in, one out, until its input ends.

`python -P -m laconic.grade.worker BYTES`, with BYTES the most memory it may take.
"""

from __future__ import annotations

import json
import logging
import resource
import sys
from typing import IO


def serve(requests: IO[str], answers: IO[str], memory: int) -> None:
    """Answer each `[gold, answer]` with true, false or null (out of memory)."""
    from laconic.grade.symbolic import equal

    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print("ready", file=answers, flush=True)
    for line in requests:
        try:
            verdict: bool | None = equal(*json.loads(line))
        except (MemoryError, RecursionError):
            verdict = None
        print(json.dumps(verdict), file=answers, flush=True)


if __name__ == "__main__":
    serve(sys.stdin, sys.stdout, int(sys.argv[1]))

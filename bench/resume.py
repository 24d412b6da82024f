"""Kill an evaluation again and again, and compare its records with those of an unbroken one.

`python -m bench.resume --folder FOLDER --times 10` asks the bundled slow model the validation
split. Each attempt is a process of its own, ended with SIGKILL after a few more responses; the
last one is left to finish. Exit code 1 when a record was lost, changed or made twice.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import torch

import laconic.demo
from laconic.grade.evaluation import evaluate
from laconic.records import Record, read_records
from laconic.run.sampling import Sampling
from laconic.run.transformers import TransformersRunner

SLOW = Path(laconic.demo.__file__).parent / "pair" / "slow"
BATCH = 16
"""Small, so that responses come one after the other."""
PATIENCE = 60.0


def answer(out: Path) -> None:
    """Run the evaluation under test."""
    torch.set_num_threads(1)
    evaluate(
        SLOW,
        "arithmetic",
        split="validation",
        out=out,
        sampling=Sampling(max_tokens=512),
        runner=TransformersRunner(SLOW, device="cpu", batch_size=BATCH),
        progress=False,
    )


def start(out: Path) -> int:
    """Run the evaluation in a process of its own, forked: importing torch ten times takes long."""
    process = os.fork()
    if process == 0:
        status = 1
        try:
            answer(out)
            status = 0
        finally:
            os._exit(status)
    return process


def killed_after(out: Path, more: int) -> bool:
    """Start the evaluation and kill it once it has `more` new records; False when it finished."""
    journal = out / "completions.jsonl"
    before = _lines(journal)
    process = start(out)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if os.waitpid(process, os.WNOHANG)[0]:
            return False
        if _lines(journal) >= before + more:
            break
        time.sleep(0.002)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return True


def differences(unbroken: Path, broken: Path, kept: list[bytes]) -> list[str]:
    """What is wrong with the records of the broken run, in words."""
    final = (broken / "completions.jsonl").read_bytes()
    found = [
        f"what was written before kill {number} was changed"
        for number, lines in enumerate(kept, start=1)
        if not final.startswith(lines[: lines.rfind(b"\n") + 1])
    ]
    ours, theirs = (_by_key(folder / "completions.jsonl") for folder in (broken, unbroken))
    if ours != theirs:
        found.append(f"completions differ: {len(ours)} and {len(theirs)}")
    for name in ("questions.jsonl", "run.json", "grades.jsonl", "summary.json"):
        if (broken / name).read_bytes() != (unbroken / name).read_bytes():
            found.append(f"{name} differs")
    return found


def _by_key(path: Path) -> dict[tuple[str, int], Record]:
    records = read_records(path)
    found = {(record["id"], record["draw"]): record for record in records}
    if len(found) != len(records):
        raise SystemExit(f"{path}: {len(records) - len(found)} responses were made twice")
    return found


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def main() -> int:
    """Run the trial."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    unbroken, broken = (arguments.folder / name for name in ("unbroken", "broken"))
    for folder in (unbroken, broken):
        shutil.rmtree(folder, ignore_errors=True)
    if os.waitpid(start(unbroken), 0)[1] != 0:
        raise SystemExit("the unbroken run failed")
    chance = random.Random(arguments.seed)
    kept = []
    for number in range(1, arguments.times + 1):
        if not killed_after(broken, chance.randrange(1, 20)):
            raise SystemExit(f"the run finished before kill {number}; nothing was tried")
        kept.append((broken / "completions.jsonl").read_bytes())
        print(f"kill {number}: {kept[-1].count(10)} records", flush=True)
    if os.waitpid(start(broken), 0)[1] != 0:
        raise SystemExit("the resumed run failed")
    wrong = differences(unbroken, broken, kept)
    print("\n".join(wrong) or f"{arguments.times} kills: the records of the unbroken run")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

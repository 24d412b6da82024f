"""Kill a merge at random moments, resume it, and compare every byte with an unbroken run.

`python -m bench.kill --folder FOLDER --times 10` makes (or reuses) FOLDER/quick and FOLDER/slow.
Exit code 1 when a killed merge left a folder that looks finished, or a resumed one differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

from bench.shapes import SIZES, write_pair


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file by name."""
    found = {}
    for path in sorted(folder.rglob("*")):
        with path.open("rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def command(folder: Path, out: Path) -> list[str]:
    """The merge under test: DARE and global TIES, so that surveys are killed too."""
    recipe = folder / "kill.yml"
    chain = [{"dare": {"drop": 0.3}}, {"ties": {"trim": 0.5, "scope": "global"}}]
    pair = {"quick": str(folder / "quick"), "slow": str(folder / "slow")}
    recipe.write_text(json.dumps({**pair, "merge": chain, "output": {"shard_size": "200MB"}}))
    return [sys.executable, "-m", "laconic", "merge", str(recipe), str(out), "--json"]


def killed(merge: list[str], after: float) -> bool:
    """Run a merge and kill it after some seconds; False when it had finished by then."""
    process = subprocess.Popen(merge, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
    return False


def trial(number: int, merge: list[str], out: Path, after: float, expected: object) -> bool:
    """Kill one merge, resume it, and say whether everything was as it should be."""
    shutil.rmtree(out, ignore_errors=True)
    broken = killed(merge, after)
    looked_finished = broken and out.exists() and digests(out) != expected
    done = subprocess.run(merge, check=True, capture_output=True, text=True)
    same = digests(out) == expected
    resumed = json.loads(done.stdout)["resumed"]
    print(
        f"{number}: killed after {after:.2f} s: {broken}, resumed {resumed} tensors, "
        f"looked finished: {looked_finished}, same bytes: {same}",
        flush=True,
    )
    return same and not looked_finished


def main() -> int:
    """Run the trials."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--size", choices=SIZES, default="0.5B")
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    if not (folder / "slow" / "config.json").is_file():
        write_pair(folder, SIZES[arguments.size])
    shutil.rmtree(folder / "unbroken", ignore_errors=True)
    began = time.monotonic()
    subprocess.run(command(folder, folder / "unbroken"), check=True, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - began
    expected = digests(folder / "unbroken")
    merge = command(folder, folder / "killed")
    chance = random.Random(arguments.seed)
    good = [
        trial(number, merge, folder / "killed", chance.uniform(0.3, 1.0) * seconds, expected)
        for number in range(1, arguments.times + 1)
    ]
    print(f"{sum(good)} of {len(good)} resumed to the bytes of the unbroken run")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())

"""What a merge does when everything goes wrong: `python -m bench.torture` or `make torture`.

Disk full and read errors at every position, mutated safetensors files, two processes in one folder,
a parent changed during the merge, and kills at random moments (`bench.kill`). Exit code 1 when one
trial did not end as it should; every bad trial is printed.
"""

from __future__ import annotations

import argparse
import errno
import io
import json
import os
import random
import resource
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from bench.kill import digests
from bench.shapes import SIZES, write_pair
from laconic.errors import LaconicError
from laconic.merging.engine import merge
from laconic.recipe import Recipe, parse_recipe

TINY = replace(SIZES["tiny"], layers=1, vocab=40)
HEADROOM = 512 << 20  # bytes of address space beyond what the process has when mutations begin
KINDS = ("header bits", "any bits", "cut", "length", "offsets", "garbage", "extra")
NEVER_VALID = ("cut", "length", "extra")
JUNK = (b"[" * 5000, b"\xff\xfe", b'"\\ud800"', b"1e999", b"9" * 5000, b"NaN")
PLAIN_OPEN, PLAIN_PWRITE, PLAIN_PREADV = io.open, os.pwrite, os.preadv


class Faults:
    """Makes the n-th operation on files fail, and counts them all."""

    def __init__(self, number: int, code: int) -> None:
        self.number, self.code, self.seen = number, code, 0

    def step(self, path: object = None) -> None:
        """Count one operation; fail from the n-th on, as a full disk does."""
        self.seen += 1
        if self.seen > self.number:
            raise OSError(self.code, os.strerror(self.code), path)

    @contextmanager
    def writing(self, folder: Path) -> Iterator[None]:
        """Fail reservations, writes (half of the bytes still arrive) and syncs inside a folder."""

        def opened(file: Any, mode: str = "r", *rest: Any, **settings: Any) -> Any:
            inside = str(folder) in str(file) and set(mode) & set("wax")
            if inside:
                self.step(str(file))
            return PLAIN_OPEN(file, mode, *rest, **settings)

        def pwrite(descriptor: int, data: Any, offset: int) -> int:
            if self.seen >= self.number and len(data) > 1:
                PLAIN_PWRITE(descriptor, data[: len(data) // 2], offset)
            self.step()
            return PLAIN_PWRITE(descriptor, data, offset)

        def checked(plain: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any) -> Any:
                self.step()
                return plain(*arguments)

            return call

        with (
            mock.patch("io.open", opened),
            mock.patch("os.pwrite", pwrite),
            mock.patch("os.posix_fallocate", checked(os.posix_fallocate)),
            mock.patch("os.fsync", checked(os.fsync)),
        ):
            yield

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Fail the n-th read of a tensor's bytes and those after it."""

        def preadv(*arguments: Any) -> int:
            self.step()
            return PLAIN_PREADV(*arguments)

        with mock.patch("os.preadv", preadv):
            yield


def recipe(folder: Path) -> Recipe:
    """The merge under test, in several small shards."""
    return parse_recipe(raw_recipe(folder))


def raw_recipe(folder: Path) -> dict[str, Any]:
    """The recipe as data."""
    return {
        "quick": str(folder / "quick"),
        "slow": str(folder / "slow"),
        "merge": [{"dare": {"drop": 0.3}}, {"ties": {"trim": 0.5}}],
        "output": {"shard_size": "60KB"},
    }


def make_pair(folder: Path) -> None:
    """Write the small pair and the unbroken merge of it."""
    write_pair(folder, TINY)
    run(folder, folder / "unbroken")


def run(folder: Path, out: Path) -> None:
    """Merge in this process, quietly."""
    merge(recipe(folder), out, threads=1, block=1 << 14, progress=False)


def disk_full(folder: Path, every: int) -> list[str]:
    """Let the disk fill up at each `every`-th write; returns what went wrong."""
    return _at_every_position(
        folder,
        every,
        lambda faults: faults.writing(folder),
        errno.ENOSPC,
        "cannot write|cannot be written|disk is full",
    )


def read_errors(folder: Path, every: int) -> list[str]:
    """Let every `every`-th read of a parent fail; returns what went wrong."""
    return _at_every_position(
        folder, every, lambda faults: faults.reading(), errno.EIO, "cannot read tensor"
    )


def _at_every_position(
    folder: Path, every: int, injected: Callable[[Faults], Any], code: int, words: str
) -> list[str]:
    expected = digests(folder / "unbroken")
    bad: list[str] = []
    number = 0
    while True:
        out = folder / f"out{number}"
        faults = Faults(number, code)
        where = f"position {number} ({errno.errorcode[code]})"
        try:
            with injected(faults):
                run(folder, out)
            finished = True
        except LaconicError as error:
            finished = False
            if not any(word in str(error) for word in words.split("|")):
                bad.append(f"{where}: {error}")
        except Exception as error:  # anything else is a traceback for the user
            finished = False
            bad.append(f"{where}: {type(error).__name__}: {error}")
        if not finished and out.exists() and digests(out) != expected:
            bad.append(f"{where}: looks finished")
        if not finished:
            run(folder, out)
        if digests(out) != expected:
            bad.append(f"{where}: other bytes after resuming")
        _remove(out)
        if finished:
            return bad if number else [*bad, f"{where}: no fault was met"]
        number += every


def two_processes(folder: Path, rounds: int) -> list[str]:
    """Start two merges into one folder at once: one wins, the other says so or finds it done."""
    expected = digests(folder / "unbroken")
    bad = []
    for number in range(rounds):
        out = folder / f"both{number}"
        pair = [_process(folder, out) for _ in range(2)]
        ends = [process.communicate()[1] for process in pair]
        codes = sorted(process.returncode for process in pair)
        if codes not in ([0, 0], [0, 2]) or digests(out) != expected:
            bad.append(f"two processes, round {number}: exit codes {codes}: {ends}")
        elif codes == [0, 2] and not any("another process" in end for end in ends):
            bad.append(f"two processes, round {number}: the loser says {ends}")
        _remove(out)
    return bad


def changed_parent(folder: Path, rounds: int, seed: int = 0) -> list[str]:
    """Change a parent's shard while a merge runs: it is named, or the merge was over."""
    chance = random.Random(seed)
    shard = folder / "slow" / "model-00001.safetensors"
    bad = []
    for number in range(rounds):
        out = folder / f"changed{number}"
        before, process = digests(folder / "slow"), _process(folder, out)
        time.sleep(chance.uniform(0.5, 3.0))
        finished = out.exists()
        _flip(shard, -1)
        words = process.communicate()[1]
        named = process.returncode == 2 and shard.name in words and "changed while" in words
        made_of = json.loads((out / "laconic.json").read_text())["parents"] if out.exists() else {}
        if not named and not finished and before == digests(folder / "slow"):
            bad.append(f"changed parent, round {number}: the test changed nothing")
        elif not named and not finished and not _is_of(made_of, folder):
            bad.append(f"changed parent, round {number}: exit {process.returncode}: {words}")
        _flip(shard, -1)
        _remove(out)
    return bad


def _is_of(made_of: dict[str, Any], folder: Path) -> bool:
    """Whether an output says that it was made of the parents as they are now."""
    from laconic.checkpoint.manifest import parent_records
    from laconic.tensors.source import open_source

    roles = {"base": "quick", "quick": "quick", "slow": "slow"}
    return made_of == parent_records({r: open_source(folder / n) for r, n in roles.items()})


def mutations(folder: Path, count: int, seed: int = 0) -> list[str]:
    """Merge with a mutated shard, `count` times, in a process with little address space."""
    command = [sys.executable, "-m", "bench.torture", "--mutate", str(count), str(folder)]
    done = subprocess.run([*command, "--seed", str(seed)], capture_output=True, text=True)
    if done.returncode:
        return [f"mutations: exit code {done.returncode}: {done.stderr[-2000:]}"]
    found: list[str] = json.loads(done.stdout)
    return found


def mutate_all(folder: Path, count: int, seed: int) -> list[str]:
    """The child's part: limit the address space, mutate, merge, and say what went wrong."""
    chance = random.Random(seed)
    shard = folder / "slow" / "model-00001.safetensors"
    whole = shard.read_bytes()
    run(folder, folder / "warm")
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + HEADROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    bad = []
    try:
        for number in range(count):
            kind, data = mutated(whole, chance)
            shard.write_bytes(data)
            problem = _outcome(folder, folder / "mutated", shard, kind in NEVER_VALID)
            bad += [f"mutation {number} ({kind}): {problem}"] * bool(problem)
            _remove(folder / "mutated")
    finally:
        shard.write_bytes(whole)
        _remove(folder / "warm")
    return bad


def _outcome(folder: Path, out: Path, shard: Path, refused: bool) -> str:
    """Nothing when the error names the shard, or the merge succeeded and need not be refused."""
    try:
        run(folder, out)
    except LaconicError as error:
        words = str(error)
        words.encode()
        tensor_level = "slow" in words and "tensor" in words
        return "" if shard.name in words or tensor_level else f"the file is not named: {words}"
    except Exception as error:  # MemoryError among them
        return f"{type(error).__name__}: {error}"
    return "was merged" if refused else ""


def mutated(whole: bytes, chance: random.Random) -> tuple[str, bytes]:
    """Return one mutation of a safetensors file and its name."""
    (length,) = struct.unpack("<Q", whole[:8])
    kind = chance.choice(
        ("header bits", "any bits", "cut", "length", "offsets", "garbage", "extra")
    )
    data = bytearray(whole)
    if kind in ("header bits", "any bits"):
        end = 8 + length if kind == "header bits" else len(whole)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(end)] ^= 1 << chance.randrange(8)
    elif kind == "cut":
        del data[chance.randrange(len(whole)) :]
    elif kind == "extra":
        data += bytes(chance.randint(1, 1000))
    elif kind == "length":
        data[:8] = struct.pack("<Q", chance.choice((0, 1, length - 1, length + 1, 2**31, 2**63)))
    else:
        text = _edited(whole[8 : 8 + length], kind, chance)
        data[: 8 + length] = struct.pack("<Q", len(text)) + text
    return kind, bytes(data)


def _edited(text: bytes, kind: str, chance: random.Random) -> bytes:
    if kind == "garbage":
        at = chance.randrange(len(text))
        junk = chance.choice(
            (b"[" * 5000, b"\xff\xfe", b'"\\ud800"', b"1e999", b"9" * 5000, b"NaN")
        )
        return text[:at] + junk + text[at + chance.choice((0, len(junk))) :]
    header = json.loads(text)
    name = chance.choice([name for name in header if name != "__metadata__"])
    entry = header[name]
    if chance.random() < 0.1:
        header[name + "\ud800"] = header.pop(name)
    huge = chance.choice((-1, 0, 1, 2**31, 2**63, 2**64, 10**30, 1.5, True, None, "4"))
    entry[field := chance.choice(("data_offsets", "shape"))][0] = huge
    if chance.random() < 0.3:
        entry[field] = [huge] * chance.randint(0, 5)
    if chance.random() < 0.2:
        entry["dtype"] = chance.choice(("F64", "I8", "BOOL", "F8_E4M3", "bf16", 7, ["BF16"]))
    return json.dumps(header).encode()


def _process(folder: Path, out: Path) -> subprocess.Popen[str]:
    file = folder / "torture.yml"
    if not file.is_file():
        file.write_text(json.dumps(raw_recipe(folder)))
    command = [sys.executable, "-m", "laconic", "merge", str(file), str(out)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def _flip(file: Path, at: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


def _remove(out: Path) -> None:
    import shutil

    for path in (out, out.parent / f".{out.name}.partial"):
        shutil.rmtree(path, ignore_errors=True)


def kills(folder: Path, times: int) -> list[str]:
    """Kill merges of four layers of the 0.5B shapes; returns what went wrong."""
    (folder / "kill").mkdir()
    write_pair(folder / "kill", replace(SIZES["0.5B"], layers=4))
    command = [sys.executable, "-m", "bench.kill", "--folder", str(folder / "kill")]
    done = subprocess.run([*command, "--times", str(times)], capture_output=True, text=True)
    print(done.stdout, flush=True)
    return [] if done.returncode == 0 else [f"kills: {done.stdout[-2000:]}{done.stderr[-2000:]}"]


def main() -> int:
    """Run all trials, or the child's part of the mutations."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="where a mutating child works")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--mutations", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=20, help="of races and changed parents")
    parser.add_argument("--every", type=int, default=1, help="try one position in so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mutate", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.mutate is not None:
        print(json.dumps(mutate_all(arguments.folder, arguments.mutate, arguments.seed)))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_pair(folder)
        trials: dict[str, Callable[[], list[str]]] = {
            "disk full": lambda: disk_full(folder, arguments.every),
            "read errors": lambda: read_errors(folder, arguments.every),
            "mutated files": lambda: mutations(folder, arguments.mutations, arguments.seed),
            "two processes": lambda: two_processes(folder, arguments.rounds),
            "changed parent": lambda: changed_parent(folder, arguments.rounds, arguments.seed),
            "kills": lambda: kills(folder, arguments.kills),
        }
        bad = []
        for name, trial in trials.items():
            found = trial()
            print(f"{name}: {'as it should be' if not found else f'{len(found)} bad'}", flush=True)
            bad += found
    print("\n".join(bad))
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())

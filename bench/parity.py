"""Whether laconic and mergekit write the same weights: every entry of a generated 0.5B pair.

`python -m bench.parity --folder FOLDER --mergekit BIN/mergekit-yaml`. An entry counts as the same
when it is at most one bfloat16 step away. TIES leaves a choice between entries whose magnitudes
are tied at the threshold, which mergekit makes by the order of an unstable sort; those are counted
apart: there either tool may have kept the entry. Exit code 1 when anything else differs.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import torch
from torch import Tensor

from bench.merge import commands
from bench.process import measure
from bench.shapes import SIZES, write_pair
from laconic.merging.blocks import trim_smallest
from laconic.merging.bracket import BracketSurvey
from laconic.merging.survey import survey_tensor
from laconic.tensors.source import Reader, Source, open_source

METHODS = ("linear", "task_arithmetic", "ties")
TRIM = 0.75


def steps_apart(first: Tensor, second: Tensor) -> Tensor:
    """How many bfloat16 values two tensors are apart, entry by entry."""
    bits = [tensor.view(torch.int16).int() for tensor in (first, second)]
    ordered = [torch.where(b < 0, -(b & 0x7FFF), b) for b in bits]
    return (ordered[0] - ordered[1]).abs()


def load(source: Source, reader: Reader, name: str) -> Tensor:
    """Read one bfloat16 tensor, flat."""
    stored = source.stored[name]
    raw = torch.empty(stored.spec.nbytes, dtype=torch.uint8)
    reader.read(stored, 0, raw)
    return raw.view(torch.bfloat16)


def tied(quick: Tensor, slow: Tensor) -> Tensor:
    """Which entries have exactly the magnitude at which TIES cuts."""
    base, delta = quick.float(), slow.float() - quick.float()
    cut = survey_tensor(BracketSurvey(TRIM), base, slow.float()[None]).cut
    kept = trim_smallest(delta[None], cut)[0]
    threshold = kept[kept != 0].abs().min()
    return delta.abs() == threshold


def compare(folder: Path, method: str) -> tuple[int, int, int]:
    """Return entries in all, entries that differ, and those of them that were tied."""
    sources = [open_source(folder / name) for name in ("laconic", "mergekit", "quick", "slow")]
    entries = differ = excused = 0
    with Reader() as reader:
        for name in sources[0].specs:
            ours, theirs, quick, slow = (load(source, reader, name) for source in sources)
            apart = steps_apart(ours, theirs) > 1
            entries += len(ours)
            differ += int(apart.sum())
            if method == "ties" and apart.any():
                excused += int((apart & tied(quick, slow)).sum())
    return entries, differ, excused


def main() -> int:
    """Merge by both tools and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--mergekit", required=True)
    parser.add_argument("--size", choices=SIZES, default="0.5B")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    if not (folder / "slow" / "config.json").is_file():
        write_pair(folder, SIZES[arguments.size])
    good = True
    for method in arguments.methods:
        for tool, command in commands(method, folder, arguments.mergekit).items():
            shutil.rmtree(folder / tool, ignore_errors=True)
            measure(command)
        entries, differ, excused = compare(folder, method)
        good &= differ == excused
        print(
            f"{method}: {entries:,} entries, {differ - excused:,} more than one bfloat16 step "
            f"apart, and {excused:,} tied at the threshold",
            flush=True,
        )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

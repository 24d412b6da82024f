"""Merging on a card: `python -m bench.gpu --size 1.5B [--device cuda:0] [--json]`.

Resident: both parents lie in the card's memory, the merge is made there (`LiveMerge`) and dropped
tensor by tensor; bytes read and written per second, as a share of what copying within the card's
memory reaches. Target: TARGET of it, for linear and task arithmetic. From disk: `laconic merge`
on the card as a process of its own, beside the processor. Exit code 2 without a card.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from bench import recipes
from bench.process import measure
from bench.shapes import SIZES, write_pair
from laconic.errors import LaconicError
from laconic.merging.card import Card, card_named
from laconic.merging.live import LiveMerge
from laconic.recipe import Recipe, parse_recipe

METHODS = ("linear", "task_arithmetic", "ties", "dare_ties")
TARGET, JUDGED = 0.7, ("linear", "task_arithmetic")
COPIED = 1 << 30  # bytes


def best(card: Card, work: Callable[[], object], runs: int) -> float:
    """Seconds that work takes on a card, the least of some runs after one that is not counted."""
    seconds = []
    for _ in range(runs + 1):
        card.mark().synchronize()
        began = time.monotonic()
        work()
        card.mark().synchronize()
        seconds.append(time.monotonic() - began)
    return min(seconds[1:])


def copying(card: Card, nbytes: int, runs: int) -> float:
    """Bytes per second, read and written, of a copy within the card's memory."""
    source = torch.ones(nbytes, dtype=torch.uint8, device=card.device)
    target = torch.empty_like(source)
    return 2 * nbytes / best(card, lambda: target.copy_(source), runs)


def resident(card: Card, recipe: Recipe, runs: int) -> float:
    """Bytes per second, of parents read and output written, of merges in the card's memory."""
    live = LiveMerge(recipe, device=str(card.device))
    nbytes = sum(
        step.output.nbytes + sum(tensor.spec.nbytes for tensor in step.inputs)
        for step in live.plan.steps
    )

    def work() -> None:
        for _ in live.tensors(recipe):
            pass

    return nbytes / best(card, work, runs)


def rows(card: Card, folder: Path, copied: int, runs: int) -> list[dict[str, Any]]:
    """Measure every method; GB are 10^9 bytes."""
    bandwidth = copying(card, copied, runs)
    found = [{"what": "copy", "method": "", "gb_per_s": round(bandwidth / 1e9, 2)}]
    for method in METHODS:
        raw = recipes.laconic(method, folder / "quick", folder / "slow")
        speed = resident(card, parse_recipe(raw), runs)
        row = {"what": "resident", "method": method, "gb_per_s": round(speed / 1e9, 2)}
        row["share"] = round(speed / bandwidth, 3)
        if method in JUDGED:
            row |= {"target": TARGET, "met": speed >= TARGET * bandwidth}
        found.append(row)
        found += [whole(folder, method, raw, device) for device in ("cpu", str(card.device))]
    return found


def whole(folder: Path, method: str, raw: dict[str, Any], device: str) -> dict[str, Any]:
    """Measure `laconic merge` from disk to disk."""
    recipe, out = folder / f"{method}.yml", folder / "merged"
    recipe.write_text(yaml.safe_dump(raw))
    merge = ["-m", "laconic", "merge", str(recipe), str(out), "--force", "--device", device]
    cost = measure([sys.executable, *merge])
    shutil.rmtree(out)
    return {"what": f"from disk, {device}", "method": method, **vars(cost)}


def line(row: dict[str, Any]) -> str:
    """A row for the terminal."""
    said = (
        ""
        if "met" not in row
        else f" (target {row['target']}: {'met' if row['met'] else 'missed'})"
    )
    if "gb_per_s" not in row:
        return f"{row['method']}, {row['what']}: {row['wall_s']} s, CPU {row['cpu_s']} s"
    share = f", {row['share']:.0%} of copying" if "share" in row else ""
    return f"{row['method'] or 'any'}, {row['what']}: {row['gb_per_s']} GB/s{share}{said}"


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark and print its rows, or with --json all of it as data."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="1.5B")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="keep the checkpoints here and reuse them")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    try:
        card = card_named(chosen.device)
    except LaconicError as error:
        print(f"nothing measured: {error}", file=sys.stderr)
        return 2
    if card is None:
        parser.error("--device: a card, such as cuda")
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.folder or Path(temporary)
        if not (folder / "slow").is_dir():
            write_pair(folder, SIZES[chosen.size])
        found = rows(card, folder, min(COPIED, card.free() // 4), chosen.runs)
    name = torch.cuda.get_device_name(card.device) if card.device.type == "cuda" else chosen.device
    if chosen.json:
        print(json.dumps({"card": name, "size": chosen.size, "rows": found}, indent=2))
    else:
        print("\n".join([f"{name}; {chosen.size} shapes, bfloat16", *map(line, found)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())

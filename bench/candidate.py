"""A candidate of a search beside writing the same merge and opening it.

`python -m bench.candidate --size 0.5B --folder PAIR` merges into a live model from the parents in
memory, and, in turn, writes the merge with `laconic.merge` and opens what was written. Each figure
is the median of `--runs` runs, in seconds of processor and of wall time; the model computes in
bfloat16.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from bench.shapes import SIZES, write_pair
from laconic.merging.engine import merge
from laconic.merging.live import LiveMerge
from laconic.recipe import Recipe, parse_recipe
from laconic.run.weights import replace_weights

CHAINS: dict[str, list[Any]] = {
    "interpolation": [{"interpolation": {"weight": 0.6}}],
    "task arithmetic": [{"task_arithmetic": {"alpha": 0.7}}],
    "TIES": [{"ties": {"trim": 0.4, "alpha": 0.9}}],
}


@dataclass(frozen=True)
class Cost:
    """Seconds of processor time, all threads together, and of wall time."""

    cpu: float
    wall: float


def run(folder: Path, runs: int) -> list[dict[str, Any]]:
    """Measure every chain both ways, in turns."""
    recipes = {name: _recipe(folder, chain) for name, chain in CHAINS.items()}
    out = folder / "candidate"
    prepare = time.monotonic()
    live = LiveMerge(recipes["interpolation"])
    print(f"prepared in {time.monotonic() - prepare:.1f} s", file=sys.stderr)
    model = _opened(folder / "slow")
    rows = []
    for name, recipe in recipes.items():
        costs: dict[str, list[Cost]] = {"live": [], "write": [], "open": []}
        for _ in range(runs):
            shutil.rmtree(out, ignore_errors=True)
            costs["live"].append(_timed(partial(_load, model, live, recipe)))
            costs["write"].append(_timed(partial(merge, recipe, out, progress=False)))
            costs["open"].append(_timed(partial(_opened, out)))
            print(name, {way: found[-1] for way, found in costs.items()}, file=sys.stderr)
        rows += [_row(name, unit, costs) for unit in ("cpu", "wall")]
    shutil.rmtree(out, ignore_errors=True)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Lay rows out as Markdown."""
    lines = [
        "| method | time | candidate | write | open | (write + open) / candidate |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for row in rows:
        ratio = (row["write"] + row["open"]) / row["live"]
        cells = [f"{row[way]:.2f} s" for way in ("live", "write", "open")]
        lines.append(f"| {row['method']} | {row['time']} | {' | '.join(cells)} | {ratio:.1f} |")
    return "\n".join(lines)


def _recipe(folder: Path, chain: list[Any]) -> Recipe:
    raw = {"quick": str(folder / "quick"), "slow": str(folder / "slow"), "merge": chain}
    return parse_recipe(raw)


def _load(model: Any, live: LiveMerge, recipe: Recipe) -> None:
    replace_weights(model, live.tensors(recipe))


def _opened(folder: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)


def _row(method: str, unit: str, costs: Mapping[str, Sequence[Cost]]) -> dict[str, Any]:
    medians = {
        way: statistics.median(getattr(cost, unit) for cost in found)
        for way, found in costs.items()
    }
    return {"method": method, "time": unit, **medians}


def _timed(work: Callable[[], object]) -> Cost:
    wall, cpu = time.monotonic(), time.process_time()
    work()
    return Cost(time.process_time() - cpu, time.monotonic() - wall)


def main() -> None:
    """Run the benchmark and print its table, or rows with --json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="0.5B")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="keep the checkpoints here and reuse them")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        if not (folder / "slow" / "model.safetensors.index.json").is_file():
            write_pair(folder, SIZES[arguments.size])
        rows = run(folder, arguments.runs)
    print(json.dumps(rows, indent=2) if arguments.json else table(rows))


if __name__ == "__main__":
    main()

"""Merging beside mergekit: the same recipe, the same checkpoints, whole processes in turn.

`python -m bench.merge --mergekit BIN/mergekit-yaml --size 0.5B --json` prints rows of tool, method,
cpu_s, wall_s, peak_mb. Each row is the median of `--runs` runs, the tools taking turns.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from bench import recipes
from bench.process import Cost, measure
from bench.shapes import SIZES, write_pair

METHODS = ("linear", "task_arithmetic", "ties", "dare_ties")


def commands(method: str, folder: Path, mergekit: str | None) -> dict[str, list[str]]:
    """Return, per tool, the command that merges FOLDER/quick and FOLDER/slow into FOLDER/TOOL."""
    quick, slow = folder / "quick", folder / "slow"
    found = {}
    recipe = folder / f"{method}.laconic.yml"
    recipe.write_text(yaml.safe_dump(recipes.laconic(method, quick, slow)))
    merge = ["-m", "laconic", "merge", str(recipe), str(folder / "laconic")]
    found["laconic"] = [sys.executable, *merge, "--force"]
    if mergekit:
        config = folder / f"{method}.mergekit.yml"
        config.write_text(yaml.safe_dump(recipes.mergekit(method, quick, slow)))
        found["mergekit"] = [mergekit, str(config), str(folder / "mergekit"), "--no-copy-tokenizer"]
    found["copy"] = ["cp", "-r", str(slow), str(folder / "copy")]
    return found


def run(folder: Path, mergekit: str | None, methods: list[str], runs: int) -> list[dict[str, Any]]:
    """Measure every tool on every method, in turns; returns rows of medians."""
    rows = []
    for method in methods:
        costs: dict[str, list[Cost]] = {}
        for _ in range(runs):
            for tool, command in commands(method, folder, mergekit).items():
                shutil.rmtree(folder / tool, ignore_errors=True)
                costs.setdefault(tool, []).append(measure(command))
                print(f"{method} {tool} {costs[tool][-1]}", file=sys.stderr)
        rows += [
            {"tool": tool, "method": method, **_median(found)} for tool, found in costs.items()
        ]
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Lay rows out as Markdown, with laconic's share of mergekit's cost."""
    lines = ["| method | tool | CPU s | wall s | peak MB | CPU / mergekit | peak / mergekit |"]
    lines.append("|---|---|---|---|---|---|---|")
    other = {row["method"]: row for row in rows if row["tool"] == "mergekit"}
    for row in rows:
        beside = other.get(row["method"])
        shares = [f"{row[key] / beside[key]:.2f}" if beside else "" for key in ("cpu_s", "peak_mb")]
        cells = [row["method"], row["tool"], row["cpu_s"], row["wall_s"], row["peak_mb"], *shares]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def _median(costs: list[Cost]) -> dict[str, float]:
    return {
        key: statistics.median(getattr(cost, key) for cost in costs)
        for key in ("cpu_s", "wall_s", "peak_mb")
    }


def main() -> None:
    """Run the benchmark and print its table, or rows with --json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="0.5B")
    parser.add_argument("--mergekit", help="path of the mergekit-yaml command; left out without it")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="keep the checkpoints here and reuse them")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        if not (folder / "slow" / "model.safetensors.index.json").is_file():
            write_pair(folder, SIZES[arguments.size])
        rows = run(folder, arguments.mergekit, arguments.methods, arguments.runs)
    machine = (
        f"{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}"
    )
    if arguments.json:
        print(json.dumps({"machine": machine, "size": arguments.size, "rows": rows}, indent=2))
    else:
        print(f"{machine}; {arguments.size} shapes, bfloat16\n\n{table(rows)}")


if __name__ == "__main__":
    main()

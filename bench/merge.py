"""Merging beside mergekit: the same recipe, the same checkpoints, whole processes in turn.

`python -m bench.merge --mergekit BIN/mergekit-yaml --size 0.5B --json` prints rows of tool, method,
cpu_s, wall_s, peak_mb. Each row is the median of `--runs` runs, the tools taking turns.

`copy` copies one parent, as many bytes as the output, and waits until they are on the disk,
as laconic does. Targets: see TARGETS; `--targets` ends with exit code 1 when one is missed.
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
# how many times less processor time than mergekit
TARGETS = {"linear": 5.0, "task_arithmetic": 5.0, "ties": 20.0}
PEAK_SHARE, PEAK_MB, WALL_TO_COPY = 0.25, 4000, 1.3


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
    found["copy"] = ["sh", "-c", 'cp -rL "$0" "$1" && sync "$1"/*', str(slow), str(folder / "copy")]
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
                print(f"{method} {tool} {costs[tool][-1]}", file=sys.stderr, flush=True)
                shutil.rmtree(folder / tool, ignore_errors=True)
        rows += [
            {"tool": tool, "method": method, **_median(found)} for tool, found in costs.items()
        ]
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Lay rows out as Markdown, with how many times less than mergekit they cost."""
    lines = [
        "| method | tool | CPU s | wall s | peak MB | CPU, times less than mergekit | peak / "
        "mergekit | wall / copy |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        kit, copy = (_row(rows, tool, row["method"]) for tool in ("mergekit", "copy"))
        shares = [
            f"{kit['cpu_s'] / row['cpu_s']:.1f}" if kit else "",
            f"{row['peak_mb'] / kit['peak_mb']:.2f}" if kit else "",
            f"{row['wall_s'] / copy['wall_s']:.2f}" if copy else "",
        ]
        cells = [row["method"], row["tool"], row["cpu_s"], row["wall_s"], row["peak_mb"], *shares]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def targets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Say of every target that can be judged from the rows what was measured and whether it is met.

    Each has method, target (in words), limit, measured and met.
    """
    found = []
    for method in dict.fromkeys(row["method"] for row in rows):
        ours = _row(rows, "laconic", method)
        kit, copy = (_row(rows, tool, method) for tool in ("mergekit", "copy"))
        if ours and kit and method in TARGETS:
            times = kit["cpu_s"] / ours["cpu_s"]
            found.append(_judged(method, "times less CPU", ">=", TARGETS[method], times))
        if ours and kit:
            share = ours["peak_mb"] / kit["peak_mb"]
            found.append(
                _judged(method, "share of mergekit's peak memory", "<=", PEAK_SHARE, share)
            )
        if ours:
            found.append(_judged(method, "peak MB", "<=", PEAK_MB, ours["peak_mb"]))
        if ours and copy:
            ratio = ours["wall_s"] / copy["wall_s"]
            found.append(_judged(method, "wall time, in copies", "<=", WALL_TO_COPY, ratio))
    return found


def _judged(method: str, target: str, sign: str, limit: float, measured: float) -> dict[str, Any]:
    met = measured >= limit if sign == ">=" else measured <= limit
    return {
        "method": method,
        "target": target,
        "limit": f"{sign} {limit:g}",
        "measured": round(measured, 2),
        "met": met,
    }


def _row(rows: list[dict[str, Any]], tool: str, method: str) -> dict[str, Any] | None:
    return next((r for r in rows if (r["tool"], r["method"]) == (tool, method)), None)


def _median(costs: list[Cost]) -> dict[str, float]:
    return {
        key: round(statistics.median(getattr(cost, key) for cost in costs), 2)
        for key in ("cpu_s", "wall_s", "peak_mb")
    }


def main() -> int:
    """Run the benchmark and print its table and the targets, or both as data with --json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="0.5B")
    parser.add_argument("--mergekit", help="path of the mergekit-yaml command; left out without it")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="keep the checkpoints here and reuse them")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--targets", action="store_true", help="exit code 1 when one is missed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        if not (folder / "slow" / "model.safetensors.index.json").is_file():
            write_pair(folder, SIZES[arguments.size])
        rows = run(folder, arguments.mergekit, arguments.methods, arguments.runs)
    machine = (
        f"{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}"
    )
    judged = targets(rows)
    if arguments.json:
        found = {"machine": machine, "size": arguments.size, "rows": rows, "targets": judged}
        print(json.dumps(found, indent=2))
    else:
        print(f"{machine}; {arguments.size} shapes, bfloat16\n\n{table(rows)}\n")
        for one in judged:
            said = f"{one['measured']:g} (target {one['limit']})"
            print(f"{'met   ' if one['met'] else 'missed'} {one['method']}: {one['target']} {said}")
    return int(arguments.targets and not all(one["met"] for one in judged))


if __name__ == "__main__":
    sys.exit(main())

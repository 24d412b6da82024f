"""How the cost of a merge grows with the model, beside copying as many bytes.

`python -m bench.scale` generates a light pair of each of `--sizes` (`bench.shapes`: the quick
model's files are sparse, the slow model's real) and merges it. `--layers` keeps a large one short.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.process import measure
from bench.shapes import SIZES

CHAINS: dict[str, list[Any]] = {
    "average": ["average"],
    "task_arithmetic": [{"task_arithmetic": {"alpha": 0.7}}],
    "ties": [{"ties": {"trim": 0.75}}],
}


def rows(folder: Path, size: str, methods: list[str]) -> list[dict[str, Any]]:
    """Merge the pair in a folder by each method, and copy one parent before."""
    nbytes = sum(file.stat().st_size for file in (folder / "slow").glob("*.safetensors"))
    copy = ["sh", "-c", 'cp -r "$0" "$1" && sync "$1"/*', str(folder / "slow"), str(folder / "out")]
    found = [_row(size, "copy", nbytes, copy, folder / "out")]
    for method in methods:
        recipe = folder / f"{method}.json"
        pair = {role: str(folder / role) for role in ("quick", "slow")}
        recipe.write_text(json.dumps({**pair, "merge": CHAINS[method]}))
        merge = [sys.executable, "-m", "laconic", "merge", str(recipe), str(folder / "out")]
        found.append(_row(size, method, nbytes, merge, folder / "out"))
    return found


def _row(size: str, what: str, nbytes: int, command: list[str], out: Path) -> dict[str, Any]:
    shutil.rmtree(out, ignore_errors=True)
    cost = measure(command)
    shutil.rmtree(out)
    rate = round(nbytes / 1e6 / cost.wall_s)
    row = {"size": size, "method": what, "output_mb": round(nbytes / 1e6), "mb_per_s": rate}
    print(row, cost, file=sys.stderr, flush=True)
    return {**row, "cpu_s": cost.cpu_s, "wall_s": cost.wall_s, "peak_mb": cost.peak_mb}


def _generate(folder: Path, size: str, layers: int | None) -> None:
    """Write the pair in a process of its own: memory of this one counts as its children's peak."""
    command = [sys.executable, "-m", "bench.shapes", str(folder), "--light", "--size", size]
    subprocess.run([*command, *(["--layers", str(layers)] if layers else [])], check=True)


def table(found: list[dict[str, Any]]) -> str:
    """Lay rows out as Markdown, with wall time in copies of the output."""
    lines = [
        "| size | method | output MB | CPU s | wall s | peak MB | output MB/s | wall / copy |",
        "|---|---|---|---|---|---|---|---|",
    ]
    copies = {row["size"]: row["wall_s"] for row in found if row["method"] == "copy"}
    for row in found:
        keys = ("size", "method", "output_mb", "cpu_s", "wall_s", "peak_mb", "mb_per_s")
        ratio = f"{row['wall_s'] / copies[row['size']]:.2f}"
        lines.append("| " + " | ".join([*(str(row[key]) for key in keys), ratio]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run all sizes and print the table, or rows with --json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["0.5B", "1.5B", "7B"])
    parser.add_argument("--methods", nargs="+", choices=CHAINS, default=list(CHAINS))
    parser.add_argument("--layers", type=int, help="most layers")
    parser.add_argument("--folder", type=Path, help="keep the pairs here, by size, and reuse them")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as temporary:
        for size in arguments.sizes:
            folder = (arguments.folder or Path(temporary)) / size
            if not (folder / "slow" / "model.safetensors.index.json").is_file():
                _generate(folder, size, arguments.layers)
            found += rows(folder, size, arguments.methods)
            if not arguments.folder:
                shutil.rmtree(folder)
    print(
        json.dumps(found, indent=2) if arguments.json else f"{platform.machine()}\n{table(found)}"
    )


if __name__ == "__main__":
    main()

"""The thin SVD route beside `torch.linalg.svd` on the weight shapes of a Qwen2.5 of 0.5B.

`python -m bench.svd` prints, per shape: seconds of one full (thin) SVD with its reconstruction, of
laconic's step, their ratio, and the relative difference of the two outputs. LoRE's sweep and Twin's
definition decompose once per parent, laconic once per tensor; the last column counts that in.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench.shapes import SIZES, shapes
from laconic.merging.spectrum import rank_of, soft_threshold, truncate
from laconic.tensors.names import role_of

PARENTS, MU = 2, 0.01


def rows(size: str, runs: int) -> list[dict[str, Any]]:
    """Measure both steps on every distinct shape of a size; `count` tensors have that shape."""
    counted: dict[tuple[int, ...], int] = {}
    for name, shape in shapes(SIZES[size]):
        if len(shape) == 2 and role_of(name) not in ("embedding", "head"):
            counted[shape] = counted.get(shape, 0) + 1
    found = []
    for shape, count in counted.items():
        half = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 0.001
        rank = rank_of(0.1, half.shape)
        soft, first = partial(soft_threshold, mu=MU), partial(truncate, rank=rank)
        found.append(_row("lore", half, count, runs, soft, _soft))
        found.append(_row("twin", half, count, runs, first, partial(_first, rank=rank)))
    return found


def _soft(sigma: Tensor) -> Tensor:
    return (sigma - MU).clamp(min=0)


def _first(sigma: Tensor, rank: int) -> Tensor:
    return sigma * (torch.arange(len(sigma)) < rank)


def _row(
    method: str,
    matrix: Tensor,
    count: int,
    runs: int,
    thin: Callable[[Tensor], Tensor],
    shrink: Callable[[Tensor], Tensor],
) -> dict[str, Any]:
    def full(x: Tensor) -> Tensor:
        left, sigma, right = torch.linalg.svd(x, full_matrices=False)
        return torch.mm(left * shrink(sigma), right)

    full_s, expected = _timed(full, matrix, runs)
    thin_s, output = _timed(thin, matrix, runs)
    apart = torch.linalg.norm(output - expected) / torch.linalg.norm(expected)
    return {
        "method": method,
        "shape": "x".join(map(str, matrix.shape)),
        "count": count,
        "full_s": full_s,
        "thin_s": thin_s,
        "apart": float(apart),
    }


def _timed(step: Callable[[Tensor], Tensor], matrix: Tensor, runs: int) -> tuple[float, Tensor]:
    step(matrix)
    seconds = []
    for _ in range(runs):
        began = time.process_time()
        output = step(matrix)
        seconds.append(time.process_time() - began)
    return statistics.median(seconds), output


def totals(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add, per method, a row for all of a model's matrices."""
    out = []
    for method in ("lore", "twin"):
        mine = [row for row in found if row["method"] == method]
        sums = {key: sum(row[key] * row["count"] for row in mine) for key in ("full_s", "thin_s")}
        count = sum(row["count"] for row in mine)
        apart = max(row["apart"] for row in mine)
        out.append({"method": method, "shape": "all", "count": count, **sums, "apart": apart})
    return found + out


def table(found: list[dict[str, Any]]) -> str:
    """Lay rows out as Markdown."""
    lines = [
        "| method | shape | tensors | full SVD s | laconic s | times faster | difference | "
        f"times faster than one SVD for each of {PARENTS} parents |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in found:
        faster = row["full_s"] / row["thin_s"]
        lines.append(
            f"| {row['method']} | {row['shape']} | {row['count']} | {row['full_s']:.3f} | "
            f"{row['thin_s']:.3f} | {faster:.1f} | {row['apart']:.0e} | {PARENTS * faster:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark and print its table, or rows with --json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="0.5B")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    # as in a merge, where every worker runs torch on one thread
    torch.set_num_threads(1)
    found = totals(rows(arguments.size, arguments.runs))
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        print(f"{platform.machine()}, one thread; {arguments.size} shapes, float32\n")
        print(table(found))


if __name__ == "__main__":
    main()

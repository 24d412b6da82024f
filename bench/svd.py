"""Singular-value steps beside `torch.linalg.svd` on the weight shapes of a Qwen2.5.

`python -m bench.svd` prints, per step and shape: seconds of one full (thin) SVD with its
reconstruction, of laconic's step, their ratio, and the relative difference of the two outputs; then
the same for all of a model's matrices, and whether the ratio reaches the target. LoRE's sweep and
Twin's definition decompose once per parent, laconic once per tensor: `per_parent` counts that in.

Two kinds of task vectors: noise, whose spectrum is flat, and noise with 24 directions that stand
out of it, as a threshold is meant for. Of noise a threshold of 0.01 removes nothing, or a fifth.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from bench.shapes import SIZES, shapes
from laconic.merging.spectrum import MuMode, rank_of, soft_threshold, truncate
from laconic.tensors.names import role_of

TARGET = 5.0  # times faster than one full SVD
PARENTS, DEVIATION, SPIKES = 2, 0.001, 24
Shape = tuple[int, int]


@dataclass(frozen=True)
class Row:
    """Seconds of processor time for one matrix of a shape, or for all `count` of a model."""

    step: str
    shape: str
    count: int
    full_s: float
    thin_s: float
    difference: float

    def faster(self) -> float:
        return self.full_s / self.thin_s

    def verdict(self) -> str:
        return "met" if self.faster() >= TARGET else "missed"

    def to_dict(self) -> dict[str, object]:
        faster = self.faster()
        more = {"faster": faster, "per_parent": PARENTS * faster, "target": TARGET}
        return asdict(self) | more | {"verdict": self.verdict()}


@dataclass(frozen=True)
class Step:
    """What laconic does to a matrix, and what it should do to its singular values."""

    name: str
    matrix: Callable[[Shape], Tensor]
    thin: Callable[[Tensor], Tensor]
    shrink: Callable[[Tensor], Tensor]


def noise(shape: Shape) -> Tensor:
    """A task vector without structure."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)) * DEVIATION


def spiked(shape: Shape) -> Tensor:
    """Noise, and directions of 20 down to 1.3 times its largest singular value."""
    generator = torch.Generator().manual_seed(1)
    left, right = (
        torch.linalg.qr(torch.randn(side, SPIKES, generator=generator)).Q for side in shape
    )
    edge = DEVIATION * (shape[0] ** 0.5 + shape[1] ** 0.5)
    strong = left * torch.logspace(1.3, 0.1, SPIKES) * edge
    return torch.addmm(noise(shape), strong, right.T)


def soft(name: str, matrix: Callable[[Shape], Tensor], mu: float, mode: MuMode) -> Step:
    """LoRE's step."""

    def shrink(sigma: Tensor) -> Tensor:
        cut = mu if mode == "absolute" else mu * float(sigma[0])
        return (sigma - cut).clamp(min=0)

    return Step(name, matrix, lambda x: soft_threshold(x, mu, mode), shrink)


def first(name: str, matrix: Callable[[Shape], Tensor], ratio: float) -> Step:
    """Twin's step."""

    def shrink(sigma: Tensor) -> Tensor:
        rank = max(1, int(ratio * len(sigma)))
        return sigma * (torch.arange(len(sigma)) < rank)

    return Step(name, matrix, lambda x: truncate(x, rank_of(ratio, x.shape)), shrink)


STEPS = (
    soft("lore, mu 0.01 (default), noise", noise, 0.01, "absolute"),
    soft("lore, mu 0.2 of the largest, spiked", spiked, 0.2, "fraction"),
    first("twin, rank 10% (default), noise", noise, 0.1),
    first("twin, rank 2%, noise", noise, 0.02),
    first("twin, rank 2%, spiked", spiked, 0.02),
)


def measure(size: str, runs: int) -> Iterator[Row]:
    """Yield each step's row on every distinct shape of a size, then its row for all of them."""
    counted: dict[Shape, int] = {}
    for name, shape in shapes(SIZES[size]):
        if len(shape) == 2 and role_of(name) not in ("embedding", "head"):
            counted[shape] = counted.get(shape, 0) + 1
    for step in STEPS:
        rows = [_row(step, shape, count, runs) for shape, count in counted.items()]
        yield from rows
        full, thin = (
            sum(getattr(row, key) * row.count for row in rows) for key in ("full_s", "thin_s")
        )
        worst = max(row.difference for row in rows)
        yield Row(step.name, "all", sum(counted.values()), full, thin, worst)


def _row(step: Step, shape: Shape, count: int, runs: int) -> Row:
    def full(x: Tensor) -> Tensor:
        left, sigma, right = torch.linalg.svd(x, full_matrices=False)
        return torch.mm(left * step.shrink(sigma), right)

    matrix = step.matrix(shape)
    expected, found = full(matrix), step.thin(matrix)
    seconds = [(_seconds(full, matrix), _seconds(step.thin, matrix)) for _ in range(runs)]
    full_s, thin_s = map(statistics.median, zip(*seconds, strict=True))
    apart = torch.linalg.norm(found - expected) / torch.linalg.norm(expected)
    return Row(step.name, "x".join(map(str, shape)), count, full_s, thin_s, float(apart))


def _seconds(step: Callable[[Tensor], Tensor], matrix: Tensor) -> float:
    began = time.process_time()
    step(matrix)
    return time.process_time() - began


def table(rows: list[Row]) -> str:
    """Lay rows out as Markdown."""
    lines = [
        "| step | shape | tensors | full SVD s | laconic s | times faster | difference | "
        f"times faster than one SVD for each of {PARENTS} parents | {TARGET:g}x |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.step} | {row.shape} | {row.count} | {row.full_s:.3f} | {row.thin_s:.3f} | "
        f"{row.faster():.1f} | {row.difference:.0e} | {PARENTS * row.faster():.1f} | "
        f"{row.verdict() if row.shape == 'all' else ''} |"
        for row in rows
    ]
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
    rows = list(measure(arguments.size, arguments.runs))
    if arguments.json:
        print(json.dumps([row.to_dict() for row in rows], indent=2))
    else:
        print(f"{platform.machine()}, one thread; {arguments.size} shapes, float32\n")
        print(table(rows))


if __name__ == "__main__":
    main()

"""Live merges: the parents held in memory, mixed anew for every recipe, nothing written.

The tensors are those of the same `Mixer` that `laconic merge` writes from, so that a live merge
equals the written one bit for bit.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from blake3 import blake3
from torch import Tensor

from laconic.merging.mixer import Mixer
from laconic.merging.stream import TORCH_DTYPES, BlockStream
from laconic.merging.workers import workers
from laconic.plan import Plan, Step, make_plan, replanned
from laconic.recipe import Recipe
from laconic.statistics.store import open_statistics
from laconic.tensors.header import ITEM_BYTES, StoredTensor
from laconic.tensors.source import Reader

AHEAD = 2
"""Merged tensors per thread that may wait for their reader."""


class LiveMerge:
    """A pair of parents in memory and their merges by any recipe over them.

    recipe: any recipe over the parents; it fixes them and the output. threads: that mix, one per
    processor and at most 8 unless given. Raises LaconicError for parents that do not fit.
    """

    def __init__(self, recipe: Recipe, *, threads: int | None = None) -> None:
        self._plan = make_plan(recipe, weights=True)
        self._threads = threads or min(os.cpu_count() or 1, 8)
        self._reader = ResidentReader(self._plan)

    @property
    def plan(self) -> Plan:
        """The plan of the recipe it was opened with."""
        return self._plan

    @property
    def digest(self) -> str:
        """BLAKE3 of the parents' names and bytes."""
        return self._reader.digest

    def tensors(self, recipe: Recipe) -> Iterator[tuple[str, Tensor]]:
        """Yield name and tensor (*shape), in the output dtype, of every tensor of a merge.

        Raises LaconicError for a recipe with other parents or another output, or one that the
        methods cannot run.
        """
        plan = replanned(self._plan, recipe)
        statistics = open_statistics(recipe, plan.sources, plan.experts)
        with (
            workers(self._threads) as pool,
            ThreadPoolExecutor(self._threads) as mixing,
        ):
            mixer = Mixer(plan, BlockStream(self._reader), pool, statistics)
            mixer.survey_model()
            yield from _in_order(mixer, plan, mixing, AHEAD * self._threads)


class ResidentReader(Reader):
    """Reads stored tensors from memory, where it puts those of a plan's parents, once.

    digest: of all their names and bytes, in the plan's order.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self._held: dict[tuple[Path, str], Tensor] = {}
        hasher = blake3(max_threads=blake3.AUTO)
        for step in plan.steps:
            for tensor in step.inputs:
                if tensor.stored is not None:
                    hasher.update(f"{tensor.role} {tensor.spec.name}\0".encode())
                    raw: Any = self._hold(tensor.stored).numpy()
                    hasher.update(memoryview(raw))
        self.digest = hasher.hexdigest()

    def read(self, tensor: StoredTensor, start: int, into: Tensor) -> None:
        """Fill `into` (bytes, uint8, contiguous) with the entries from `start` on."""
        offset = start * ITEM_BYTES[tensor.spec.dtype]
        into.copy_(self._hold(tensor)[offset : offset + len(into)])

    def _hold(self, tensor: StoredTensor) -> Tensor:
        key = tensor.file, tensor.spec.name
        if key not in self._held:
            raw = torch.empty(tensor.spec.nbytes, dtype=torch.uint8)
            super().read(tensor, 0, raw)
            self._held[key] = raw
        return self._held[key]


def _in_order(
    mixer: Mixer, plan: Plan, mixing: ThreadPoolExecutor, ahead: int
) -> Iterator[tuple[str, Tensor]]:
    """Mix tensors in threads, a few ahead, and yield them in the plan's order."""
    steps = iter(plan.steps)
    waiting: deque[tuple[Step, Future[Tensor]]] = deque()
    try:
        while True:
            for step in islice(steps, ahead - len(waiting)):
                waiting.append((step, mixing.submit(_mixed, mixer, step)))
            if not waiting:
                return
            step, future = waiting.popleft()
            yield step.output.name, future.result()
    finally:
        for _, future in waiting:
            future.cancel()


def _mixed(mixer: Mixer, step: Step) -> Tensor:
    out = torch.empty(step.output.numel, dtype=TORCH_DTYPES[step.output.dtype])
    done = 0
    for block in mixer.mix(step):
        out[done : done + len(block)] = block
        done += len(block)
    return out.view(step.output.shape)

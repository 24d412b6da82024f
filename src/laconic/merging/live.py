"""Live merges: the parents held in memory, mixed anew for every recipe, nothing written.

The tensors are those of the same `Mixer` that `laconic merge` writes from, so that a live merge
equals the written one bit for bit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from blake3 import blake3
from torch import Tensor

from laconic.merging.card import Card, card_named
from laconic.merging.memory import fit
from laconic.merging.mixer import Mixer
from laconic.merging.stream import TORCH_DTYPES, BlockStream
from laconic.merging.workers import workers
from laconic.plan import Plan, Step, make_plan, replanned
from laconic.recipe import Recipe
from laconic.statistics.store import open_statistics
from laconic.tensors.header import ITEM_BYTES, StoredTensor, TensorSpec
from laconic.tensors.source import Reader

AHEAD = 2
"""Merged tensors per thread that may wait for their reader."""


class LiveMerge:
    """A pair of parents in memory and their merges by any recipe over them.

    recipe: any recipe over the parents; it fixes them and the output. threads: that mix, one per
    processor and at most 8 unless given. device: whose memory holds them and who mixes, such as
    `cuda`; the processor unless given. Raises LaconicError for parents that do not fit.
    """

    def __init__(
        self, recipe: Recipe, *, threads: int | None = None, device: str | None = None
    ) -> None:
        self._plan = make_plan(recipe, weights=True)
        self._card = card_named(device)
        self._reader = ResidentReader(self._plan, self._card)
        self._memory = fit(self._plan, None, threads=threads, card=self._card)

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
        plan, memory = replanned(self._plan, recipe), self._memory
        statistics = open_statistics(recipe, plan.sources, plan.experts)
        with (
            workers(memory.threads) as pool,
            ThreadPoolExecutor(memory.threads) as mixing,
        ):
            stream = BlockStream(self._reader, memory.block, held=memory.held, card=self._card)
            mixer = Mixer(plan, stream, pool, statistics, memory.room())
            mixer.survey_model()
            yield from _in_order(mixer, plan, mixing, AHEAD * memory.threads)


class ResidentReader(Reader):
    """Reads stored tensors from memory, the card's if there is one, where it puts a plan's parents.

    digest: of all their names and bytes, in the plan's order.
    """

    def __init__(self, plan: Plan, card: Card | None = None) -> None:
        super().__init__(card.device if card else None)
        self._held: dict[tuple[Path, str], Tensor] = {}
        hasher = blake3(max_threads=blake3.AUTO)
        for step in plan.steps:
            for tensor in step.inputs:
                if tensor.stored is not None:
                    hasher.update(f"{tensor.role} {tensor.spec.name}\0".encode())
                    raw = self._fetch(tensor.stored)
                    array: Any = raw.numpy()
                    hasher.update(memoryview(array))
                    if _key(tensor.stored) not in self._held:  # the base is often a parent too
                        self._held[_key(tensor.stored)] = raw.to(self.device)
        self.digest = hasher.hexdigest()

    def read(self, tensor: StoredTensor, start: int, into: Tensor) -> None:
        """Fill `into` (bytes, uint8, contiguous) with the entries from `start` on."""
        offset = start * ITEM_BYTES[tensor.spec.dtype]
        into.copy_(self._held[_key(tensor)][offset : offset + len(into)])

    def _fetch(self, tensor: StoredTensor) -> Tensor:
        if _key(tensor) in self._held:
            return self._held[_key(tensor)].cpu()
        raw = torch.empty(tensor.spec.nbytes, dtype=torch.uint8)
        super().read(tensor, 0, raw)
        return raw


class _Filling:
    """A tensor in memory that a mixer fills from its first entry to its last."""

    def __init__(self, output: TensorSpec, device: torch.device) -> None:
        self._raw = torch.empty(output.nbytes, dtype=torch.uint8, device=device)
        self._output, self._filled = output, 0

    def space(self, entries: int) -> Tensor:
        """Return the bytes of the next entries."""
        begin = self._filled
        self._filled += entries * ITEM_BYTES[self._output.dtype]
        return self._raw[begin : self._filled]

    def tensor(self) -> Tensor:
        """Return the whole tensor (*shape)."""
        return self._raw.view(TORCH_DTYPES[self._output.dtype]).view(self._output.shape)


def _key(tensor: StoredTensor) -> tuple[Path, str]:
    return tensor.file, tensor.spec.name


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
    filling = _Filling(step.output, mixer.device)
    for _ in mixer.mix(step, filling.space):
        pass
    return filling.tensor()

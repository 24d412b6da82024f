"""Blocks of a step's input tensors as float32, read into buffers that each thread reuses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from laconic.errors import LaconicError
from laconic.merging.survey import Place
from laconic.plan import Input, Step
from laconic.tensors.header import ITEM_BYTES
from laconic.tensors.source import Reader

BLOCK = 1 << 19  # entries: 2 MiB of float32; smaller blocks cost calls, larger ones cache misses
HELD = 1 << 24  # entries: 64 MiB of float32 per thread for steps that are read several times
TORCH_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
}  # fmt: skip


Wanted = Callable[[Place, int], bool]


@dataclass(frozen=True)
class Block:
    """One block of a step: base (m,) or None, experts (n, m), float32, valid until the next one."""

    place: Place
    base: Tensor | None
    experts: Tensor


class BlockStream:
    """Yields a step's blocks in order; safe to share between threads."""

    def __init__(self, reader: Reader, entries: int = BLOCK) -> None:
        self._reader, self._entries = reader, entries
        self._local = threading.local()

    def blocks(
        self, step: Step, *, whole: bool = False, again: bool = False, wanted: Wanted | None = None
    ) -> Iterator[Block]:
        """Read the inputs of a step, block by block, or as one block.

        again: the step's blocks are asked for more than once; small ones are then kept in memory.
        wanted: told a place and the entries per block, whether that block is needed.
        Raises LaconicError naming file and tensor for a short file, NaN or Inf.
        """
        total = step.output.numel
        size = max(total if whole else min(self._entries, total), 1)
        held = self._held(step) if again and total * len(step.inputs) <= HELD else None
        for start in range(0, total, size):
            place, end = Place(step.number, start), min(start + size, total)
            if wanted and not wanted(place, size):
                continue
            block = self._read(step, start, end) if held is None else held[:, start:end]
            base, experts = (block[0], block[1:]) if step.base else (None, block)
            yield Block(place, base, experts)

    def _read(self, step: Step, start: int, end: int) -> Tensor:
        count = len(step.inputs)
        small = end - start <= self._entries
        rows = self._rows(count)[:, : end - start] if small else torch.empty(count, end - start)
        for row, tensor in zip(rows, step.inputs, strict=True):
            self._fill(row, tensor, start)
        return rows

    def _held(self, step: Step) -> Tensor:
        """Return all entries of a small step (inputs, total), read once for all passes."""
        local = self._local
        if getattr(local, "number", None) != step.number:
            local.number = None
            if not hasattr(local, "held"):
                local.held = torch.empty(HELD)
            count, total = len(step.inputs), step.output.numel
            local.rows_held = local.held[: count * total].view(count, total)
            for row, tensor in zip(local.rows_held, step.inputs, strict=True):
                self._fill(row, tensor, 0)
            local.number = step.number
        rows: Tensor = local.rows_held
        return rows

    def _rows(self, count: int) -> Tensor:
        rows: Tensor | None = getattr(self._local, "rows", None)
        if rows is None or len(rows) < count:
            rows = self._local.rows = torch.empty(count, self._entries)
        return rows[:count]

    def _fill(self, row: Tensor, tensor: Input, start: int) -> None:
        for at in range(0, len(row), self._entries):
            self._fill_piece(row[at : at + self._entries], tensor, start + at)

    def _fill_piece(self, piece: Tensor, tensor: Input, start: int) -> None:
        if tensor.stored is None:
            raise LaconicError(f"tensor '{tensor.spec.name}' of {tensor.role}: weights not fetched")
        nbytes = len(piece) * ITEM_BYTES[tensor.spec.dtype]
        raw = self._raw()[:nbytes]
        self._reader.read(tensor.stored, start, raw)
        piece.copy_(raw.view(TORCH_DTYPES[tensor.spec.dtype]))
        # a sum is not finite if an entry is not; only then is it worth looking at each of them
        if not torch.isfinite(piece.sum()) and not torch.isfinite(piece).all():
            at = start + int((~torch.isfinite(piece)).nonzero()[0])
            raise LaconicError(
                f"{tensor.stored.file}: tensor '{tensor.spec.name}' of {tensor.role} holds "
                f"{piece[at - start].item()} at entry {at}; a merge needs finite weights"
            )

    def _raw(self) -> Tensor:
        raw: Tensor | None = getattr(self._local, "raw", None)
        if raw is None:
            raw = self._local.raw = torch.empty(self._entries * 8, dtype=torch.uint8)
        return raw

"""Blocks of a step's input tensors as float32, read into buffers that each thread reuses."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from laconic.errors import LaconicError
from laconic.merging.survey import Place
from laconic.plan import Input, Step
from laconic.tensors.header import ITEM_BYTES
from laconic.tensors.source import Reader

BLOCK = 1 << 18  # entries: 1 MiB of float32, so that a block's buffers stay in the cache
TORCH_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
}  # fmt: skip


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

    def blocks(self, step: Step, *, whole: bool = False) -> Iterator[Block]:
        """Read the inputs of a step, block by block, or as one block.

        Raises LaconicError naming file and tensor for a short file, NaN or Inf.
        """
        total = step.output.numel
        size = total if whole else min(self._entries, total)
        rows = torch.empty(len(step.inputs), size) if whole else self._rows(len(step.inputs))
        for start in range(0, total, max(size, 1)):
            block = rows[:, : min(size, total - start)]
            for row, tensor in zip(block, step.inputs, strict=True):
                self._fill(row, tensor, start)
            base, experts = (block[0], block[1:]) if step.base else (None, block)
            yield Block(Place(step.number, start), base, experts)

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

"""Blocks of a step's input tensors as float32, read into buffers that each thread reuses.

On a card the buffers are the card's, and bytes reach them by way of pinned memory.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from blake3 import blake3
from torch import Tensor

from laconic.errors import LaconicError
from laconic.merging.card import Card, Landing
from laconic.merging.survey import Place
from laconic.plan import Input, Step
from laconic.tensors.digests import Digests
from laconic.tensors.header import ITEM_BYTES, StoredTensor
from laconic.tensors.source import Reader

BLOCK = 1 << 18  # entries: 1 MiB of float32; smaller blocks cost calls, larger ones cache misses
HELD = 1 << 26  # bytes per thread for the inputs of a step that is read several times
TORCH_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
}  # fmt: skip


Wanted = Callable[[Place, int], bool]
Hashers = Sequence["blake3 | None"]


@dataclass(frozen=True)
class Block:
    """One block of a step: base (m,) or None, experts (n, m), float32, valid until the next one."""

    place: Place
    base: Tensor | None
    experts: Tensor


class BlockStream:
    """Yields a step's blocks in order; safe to share between threads.

    entries: per block. held: most bytes of a step's inputs that a thread keeps between passes.
    digests: where the digests of the bytes that a last pass reads are noted. card: where the
    blocks are to be; None: on the host.
    """

    def __init__(
        self,
        reader: Reader,
        entries: int = BLOCK,
        *,
        held: int = HELD,
        digests: Digests | None = None,
        card: Card | None = None,
    ) -> None:
        self._reader, self._entries, self._most_held = reader, entries, held
        self._digests = digests
        self.card = card
        self._local = _Buffers(card)

    @property
    def device(self) -> torch.device:
        """Where its blocks are."""
        return self._local.device

    def blocks(
        self,
        step: Step,
        *,
        unit: int = 1,
        again: bool = False,
        wanted: Wanted | None = None,
        last: bool = False,
        checked: bool = True,
    ) -> Iterator[Block]:
        """Read the inputs of a step, block by block.

        unit: entries that must not be parted: 1, a row's, or all of them.
        again: the step's blocks are asked for more than once; small ones are then kept in memory.
        wanted: told a place and the entries per block, whether that block is needed.
        last: the pass whose blocks are merged: its bytes are digested. checked: look for NaN and
        Inf; a caller that does not ask for it calls `check` when its result is not finite.
        Raises LaconicError naming file and tensor for a short file, NaN or Inf.
        """
        total = step.output.numel
        # even, as random draws need it
        size = max(min(max(self._entries // (2 * unit), 1) * 2 * unit, total), 1)
        held = again and sum(map(_aligned, step.inputs)) <= self._most_held
        if held:
            self._hold(step)
        hashers = self._hashers(step) if last and not held else (None,) * len(step.inputs)
        for start in range(0, total, size):
            place, end = Place(step.number, start), min(start + size, total)
            if wanted and not wanted(place, size):
                continue
            rows = self._read(step, start, end, hashers, held)
            block = _block(step, place, rows)
            if checked and not torch.isfinite(rows.sum()):
                self.check(step, block)
            yield block
        self._note(step, hashers)

    def check(self, step: Step, block: Block) -> None:
        """Raise LaconicError naming file, tensor and entry where a block is not finite."""
        base = [] if block.base is None else [block.base]
        for row, tensor in zip((*base, *block.experts), step.inputs, strict=True):
            odd = (~torch.isfinite(row)).nonzero()
            if len(odd):
                at = int(odd[0])
                raise LaconicError(
                    f"{_stored(tensor).file}: tensor '{tensor.spec.name}' of {tensor.role} holds "
                    f"{row[at].item()} at entry {block.place.start + at}; a merge needs finite "
                    "weights"
                )

    def _read(self, step: Step, start: int, end: int, hashers: Hashers, held: bool) -> Tensor:
        count, local = len(step.inputs), self._local
        if local.read == (step.inputs, start, end) and not any(hashers):
            return local.rows
        local.read = None
        small = end - start <= self._entries
        rows = self._rows(count, end - start, small)
        for at in range(start, end, self._entries):
            part = rows[:, at - start : at - start + self._entries]
            if held:
                for row, view in zip(part, local.views, strict=True):
                    row.copy_(view[at : at + len(row)])
            else:
                self._read_part(step, at, part, hashers)
        if small:  # several merges of the same inputs take turns with each block
            local.read, local.rows = (step.inputs, start, end), rows
        return rows

    def _read_part(self, step: Step, start: int, rows: Tensor, hashers: Hashers) -> None:
        for row, tensor, hasher in zip(rows, step.inputs, hashers, strict=True):
            raw, typed = self._local.landing(tensor.spec.dtype, len(row))
            self._deliver(tensor, start, raw, hasher)
            row.copy_(typed)

    def _deliver(self, tensor: Input, start: int, into: Tensor, hasher: blake3 | None) -> None:
        """Put the stored bytes from an entry on into `into`, wherever that is."""
        travels = into.device != self._reader.device
        raw = self._local.pinned().space(len(into)) if travels else into
        self._reader.read(_stored(tensor), start, raw)
        if hasher:
            hasher.update(_bytes(raw))
        if travels:
            self._local.pinned().send(into)

    def _hold(self, step: Step) -> None:
        """Keep the bytes of a small step, read once for all passes of this thread over it."""
        local = self._local
        if local.inputs == step.inputs:
            return
        local.inputs, local.views = None, []
        space, end = local.scratch("held", sum(map(_aligned, step.inputs))), 0
        hashers = self._hashers(step)
        for tensor, hasher in zip(step.inputs, hashers, strict=True):
            view = space[end : end + tensor.spec.nbytes]
            end += _aligned(tensor)
            self._read_whole(tensor, view, hasher)
            local.views.append(view.view(TORCH_DTYPES[tensor.spec.dtype]))
        self._note(step, hashers)
        local.inputs = step.inputs

    def _read_whole(self, tensor: Input, into: Tensor, hasher: blake3 | None) -> None:
        item = ITEM_BYTES[tensor.spec.dtype]
        for start in range(0, tensor.spec.numel, self._entries):
            part = into[start * item : (start + self._entries) * item]
            self._deliver(tensor, start, part, hasher)

    def _hashers(self, step: Step) -> Hashers:
        """Return a hasher per input whose digest is not known, nor being taken by this thread."""
        known = self._digests
        if known is None:
            return (None,) * len(step.inputs)
        hashers: list[blake3 | None] = []
        for stored in map(_stored, step.inputs):
            wanted = stored not in known and stored not in self._local.hashing
            self._local.hashing |= {stored} if wanted else set()
            hashers.append(blake3() if wanted else None)
        return hashers

    def _note(self, step: Step, hashers: Hashers) -> None:
        for tensor, hasher in zip(step.inputs, hashers, strict=True):
            if hasher and self._digests is not None:
                self._digests.put(_stored(tensor), hasher.hexdigest())
                self._local.hashing.discard(_stored(tensor))

    def _rows(self, count: int, entries: int, small: bool) -> Tensor:
        if not small:
            return torch.empty(count, entries, device=self._local.device)
        flat = self._local.scratch("rows", 4 * count * self._entries)
        return flat.view(torch.float32).view(count, self._entries)[:, :entries]


class _Buffers(threading.local):
    """What one thread reuses from block to block."""

    def __init__(self, card: Card | None) -> None:
        self._card = card
        self.device = card.device if card else torch.device("cpu")
        self._pinned: Landing | None = None
        self.inputs: tuple[Input, ...] | None = None
        self.read: tuple[tuple[Input, ...], int, int] | None = None
        self.rows = torch.empty(0)
        self.hashing: set[StoredTensor] = set()
        self.views: list[Tensor] = []
        self._spaces: dict[str, Tensor] = {}
        self._landing: tuple[str, Tensor, Tensor] | None = None

    def scratch(self, name: str, nbytes: int) -> Tensor:
        """Return so many bytes of the space of that name, which grows but never shrinks."""
        space = self._spaces.get(name)
        if space is None or space.numel() < nbytes:
            space = torch.empty(nbytes, dtype=torch.uint8, device=self.device)
            self._spaces[name] = space
        return space[:nbytes]

    def landing(self, dtype: str, entries: int) -> tuple[Tensor, Tensor]:
        """Return the place for entries as they are read: its bytes, and what they stand for."""
        last = self._landing
        if last is None or last[0] != dtype or len(last[2]) != entries:
            raw = self.scratch("raw", entries * ITEM_BYTES[dtype])
            last = self._landing = dtype, raw, raw.view(TORCH_DTYPES[dtype])
        return last[1], last[2]

    def pinned(self) -> Landing:
        """Return the buffers from which bytes travel to the card."""
        if self._pinned is None:
            if self._card is None:
                raise TypeError("no card to send anything to")
            self._pinned = Landing(self._card)
        return self._pinned


def _block(step: Step, place: Place, rows: Tensor) -> Block:
    base, experts = (rows[0], rows[1:]) if step.base else (None, rows)
    return Block(place, base, experts)


def _aligned(tensor: Input) -> int:
    """Bytes of a tensor, rounded up so that a next one of 8-byte items can follow."""
    return -(-tensor.spec.nbytes // 8) * 8


def _bytes(tensor: Tensor) -> memoryview:
    array: Any = tensor.numpy()
    return memoryview(array)


def _stored(tensor: Input) -> StoredTensor:
    if tensor.stored is None:
        raise LaconicError(f"tensor '{tensor.spec.name}' of {tensor.role}: weights not fetched")
    return tensor.stored

"""One tensor on its way into a file: gathered in order, digested, written past the page cache.

What is written once and not read again soon only pushes other files out of the page cache, and
finding it room there costs more processor time than the merge itself. So whole pages go straight
from a buffer to the disk, where the file system can do that; the ends of a tensor, which share a
page with its neighbours, go through the cache.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import torch
from blake3 import blake3
from torch import Tensor

from laconic.tensors.header import ITEM_BYTES, StoredTensor

PAGE = 4096
"""Bytes: place in the file, place in memory and length of a direct write are multiples of it."""


class Shard:
    """A weight file that is being written. Any thread may write any part of it."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._direct = _open_direct(path)

    def write(self, data: Tensor, offset: int) -> None:
        """Write bytes (uint8, contiguous) from byte `offset` of the file on. Raises OSError."""
        buffer: Any = data.numpy()
        view = memoryview(buffer)
        if (data.data_ptr() - offset) % PAGE:
            self._write(view, offset)
            return
        first = min(-offset % PAGE, len(view))
        last = max((offset + len(view)) // PAGE * PAGE - offset, first)
        self._write(view[:first], offset)
        self._write_direct(view[first:last], offset + first)
        self._write(view[last:], offset + last)

    def sync(self) -> None:
        """Wait until all that was written is on the disk. Raises OSError."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)
        if self._direct is not None:
            os.close(self._direct)

    def _write(self, data: memoryview, offset: int) -> None:
        while len(data):
            count = os.pwrite(self._descriptor, data, offset)
            data, offset = data[count:], offset + count

    def _write_direct(self, data: memoryview, offset: int) -> None:
        while len(data) and self._direct is not None:
            try:
                count = os.pwrite(self._direct, data, offset)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                break  # pages of another size, or a write that was cut short: through the cache
            data, offset = data[count:], offset + count
        self._write(data, offset)


class Stages:
    """Buffers in which tensors are gathered, on loan and used again.

    nbytes: of each; two pages at least. pinned: whether a CUDA device is to write into them.
    """

    def __init__(self, nbytes: int, *, pinned: bool = False) -> None:
        self.nbytes = max(nbytes, 2 * PAGE)
        self._pinned = pinned
        self._free: list[Tensor] = []
        self._lock = threading.Lock()

    def take(self, nbytes: int = 0) -> Tensor:
        """Return a buffer (uint8) that begins a page; a larger one, made for this, if need be."""
        if nbytes > self.nbytes:
            return self._make(nbytes)
        with self._lock:
            if self._free:
                return self._free.pop()
        return self._make(self.nbytes)

    def give_back(self, stage: Tensor) -> None:
        """Take a buffer back that is not needed any more."""
        if len(stage) == self.nbytes:
            with self._lock:
                self._free.append(stage)

    def _make(self, nbytes: int) -> Tensor:
        space = torch.empty(nbytes + PAGE, dtype=torch.uint8, pin_memory=self._pinned)
        first = -space.data_ptr() % PAGE
        return space[first : first + nbytes]


class TensorWriter:
    """Writes one tensor, block after block; one stage is filled while the last is being written.

    place: where the tensor stands. guarded: runs a write and turns its OSError into a message.
    hands: who writes.
    """

    def __init__(
        self,
        shard: Shard,
        place: StoredTensor,
        stages: Stages,
        hands: Executor,
        guarded: Callable[[Callable[[], None]], None],
    ) -> None:
        self._shard, self._stages, self._hands, self._guarded = shard, stages, hands, guarded
        self._item = ITEM_BYTES[place.spec.dtype]
        self._digest = blake3()
        # a stage begins where a page of the file begins, unless entries could not be viewed then
        self._first = 0 if place.offset % self._item else place.offset % PAGE
        self._offset = place.offset - self._first
        self._filled = self._first
        self._stage = stages.take()
        self._writing: Future[None] | None = None

    def space(self, entries: int) -> Tensor:
        """Return the place for the next entries (uint8, entries * item bytes), to be filled."""
        nbytes = entries * self._item
        if self._filled + nbytes > len(self._stage):
            self._flush(self._filled // PAGE * PAGE, nbytes)
        return self._stage[self._filled : self._filled + nbytes]

    def add(self, entries: int) -> int:
        """Take as filled what `space` returned last; returns its bytes."""
        nbytes = entries * self._item
        filled: Any = self._stage[self._filled : self._filled + nbytes].numpy()
        self._digest.update(memoryview(filled))
        self._filled += nbytes
        return nbytes

    def finish(self) -> str:
        """Write what is left and wait for it; returns the BLAKE3 of all bytes."""
        self._flush(self._filled, 0)
        self._wait()
        self._stages.give_back(self._stage)
        return self._digest.hexdigest()

    def _flush(self, end: int, room: int) -> None:
        """Hand the stage over to be written up to `end`; go on in one with room for what follows.

        What lies behind `end` is carried into the next stage.
        """
        self._wait()
        full, first, left = self._stage, self._first, self._filled - end
        self._stage = self._stages.take(left + room)
        self._stage[:left] = full[end : self._filled]
        if end > first:
            self._writing = self._hands.submit(self._write, full, first, end, self._offset)
        self._offset, self._filled = self._offset + end, left
        self._first = 0 if end else first

    def _write(self, stage: Tensor, first: int, end: int, offset: int) -> None:
        self._guarded(lambda: self._shard.write(stage[first:end], offset + first))
        self._stages.give_back(stage)

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.result()
            self._writing = None


def _open_direct(path: Path) -> int | None:
    flag = getattr(os, "O_DIRECT", None)
    if flag is None:
        return None
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | flag)
    except OSError:  # a file system that cannot, such as some that lie on a network
        return None

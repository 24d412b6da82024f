"""A card: an accelerator with memory of its own, to and from which bytes travel by themselves.

All threads of a merge give their work to one queue of the card: reading and digesting take the
host longer than a transfer takes the card, so that the queue is what they share best.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from laconic.errors import LaconicError
from laconic.models import choose_device


class Card:
    """An accelerator of torch, such as `cuda` or `cuda:1`."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.pins = device.type == "cuda"  # torch pins memory for CUDA alone
        self._module: Any = getattr(torch, device.type, None)
        if not hasattr(self._module, "mem_get_info"):
            raise LaconicError(f"device '{device}': merging runs on cpu or cuda")

    def free(self) -> int:
        """Return the bytes of its memory that are free."""
        free, _ = self._module.mem_get_info(self.device)
        return int(free)

    def mark(self) -> Any:
        """Return an event; its `synchronize` waits until all that was queued so far is done."""
        event = self._module.Event()
        event.record(self._module.current_stream(self.device))
        return event

    def fetch(self, data: Tensor, into: Tensor) -> None:
        """Copy from the card into host memory of the same dtype, and wait until it is there."""
        into.copy_(data, non_blocking=True)
        self.mark().synchronize()


class Landing:
    """Two pinned buffers of one thread: one is filled while the other one's bytes travel."""

    def __init__(self, card: Card) -> None:
        self._card = card
        self._buffers = [torch.empty(0, dtype=torch.uint8)] * 2
        self._events: list[Any] = [None, None]
        self._turn = 0

    def space(self, nbytes: int) -> Tensor:
        """Return the buffer (uint8) to be filled next, once its last bytes have left it."""
        self._turn = 1 - self._turn
        if event := self._events[self._turn]:
            event.synchronize()
        if len(self._buffers[self._turn]) < nbytes:
            pinned = torch.empty(nbytes, dtype=torch.uint8, pin_memory=self._card.pins)
            self._buffers[self._turn] = pinned
        return self._buffers[self._turn][:nbytes]

    def send(self, into: Tensor) -> None:
        """Send what `space` returned last on its way into memory of the card."""
        into.copy_(self._buffers[self._turn][: len(into)], non_blocking=True)
        self._events[self._turn] = self._card.mark()


def card_named(name: str | None) -> Card | None:
    """Return the card of a device name; None for the processor: `cpu`, or no name.

    Raises LaconicError for a device that torch does not know or cannot use here.
    """
    device = choose_device(name or "cpu")
    return None if device.type == "cpu" else Card(device)

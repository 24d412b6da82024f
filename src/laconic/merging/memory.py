"""How much memory a merge may take, and the threads, blocks and buffers that follow from it."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from laconic.errors import LaconicError
from laconic.merging.apply import unit_of
from laconic.merging.bracket import MOST_INSIDE
from laconic.merging.card import Card
from laconic.merging.stream import BLOCK, HELD
from laconic.plan import Plan, Step
from laconic.registry import get_method

CARD_BLOCK = 1 << 22  # entries: a card needs many at a time to be busy
_CARD_SHARE = 0.85  # of its free memory: torch's allocator rounds up and keeps pieces
_LEAST_BLOCK = 1 << 14
# float32 words per entry of a block: its inputs, task vectors, draws and sums, beside the output
_WORDS, _WORDS_PER_INPUT = 8, 4
# of a whole tensor, where a step falls back to a decomposition in float64
_WHOLE_WORDS, _WHOLE_WORDS_PER_INPUT = 24, 3
# bytes per entry of a block: few large writes cost less than many small ones
_STAGED, _STAGED_LEAST = 16, 5
_SURVEY_BYTES = 10  # per magnitude kept around a threshold: it, a copy to select from, a mask
_SLACK = 1 << 25  # bytes: plan, journal, and what the allocator cannot give back


@dataclass(frozen=True)
class Memory:
    """What a merge works with: threads, entries per block, bytes held per thread between passes.

    whole: bytes for all tensors that are merged whole at one time; None when there is no cap.
    outputs: how many merges are made together. card: where they are computed, or None.
    """

    threads: int
    block: int
    held: int
    whole: int | None = None
    outputs: int = 1
    card: Card | None = None

    @property
    def stage(self) -> int:
        """Bytes of a buffer in which a tensor of one output is gathered before it is written."""
        blocks = _STAGED_LEAST if self.card else _STAGED // self.outputs
        return max(blocks, _STAGED_LEAST) * self.block

    def room(self) -> Room:
        """Return the room that tensors merged whole share."""
        return Room(self.whole)


class Room:
    """Bytes that threads take and give back; None: without limit."""

    def __init__(self, total: int | None) -> None:
        self._left = total
        self._changed = threading.Condition()

    @contextmanager
    def take(self, nbytes: int) -> Iterator[None]:
        """Wait until so many bytes are free, and hold them inside the `with`."""
        if self._left is None or not nbytes:
            yield
            return
        with self._changed:
            self._changed.wait_for(lambda: nbytes <= (self._left or 0))
            self._left -= nbytes
        try:
            yield
        finally:
            with self._changed:
                self._left += nbytes
                self._changed.notify_all()


def fit(
    plan: Plan,
    cap: int | None,
    *,
    threads: int | None = None,
    block: int | None = None,
    outputs: int = 1,
    card: Card | None = None,
) -> Memory:
    """Choose threads, block size and held bytes so that the process stays under `cap` bytes.

    cap: resident bytes of the whole process, interpreter and libraries among them. outputs: how
    many merges are made together. With less memory, less is held between passes, then blocks get
    smaller, then threads fewer; the result is the same to the byte. card: its free memory is then
    what counts, and no cap can be given. Raises LaconicError when no setting is small enough,
    naming the tensors that must be merged whole and the bytes they need.
    """
    most = threads or min(os.cpu_count() or 1, 8)
    if card is not None:
        return _fit_card(plan, cap, Memory(most, block or CARD_BLOCK, 0, None, outputs, card))
    if cap is None:
        return Memory(most, block or BLOCK, HELD, outputs=outputs)
    base = resident() + _SLACK
    whole = [step for step in plan.steps if whole_bytes(step)]
    largest = max(map(whole_bytes, whole), default=0)
    for memory in _settings(most, block, outputs):
        left = cap - base - memory.threads * _thread_bytes(plan, memory)
        if left >= largest:
            return replace(memory, whole=left)
    raise _too_small(plan, cap, base, whole, outputs)


def _fit_card(plan: Plan, cap: int | None, memory: Memory) -> Memory:
    """Share a card's free memory: a part for blocks, the rest for what is held or merged whole."""
    if cap is not None or memory.card is None:
        raise LaconicError("memory: a cap is kept on the processor only; leave it out on a card")
    free = int(memory.card.free() * _CARD_SHARE)
    largest = max(plan.steps, key=whole_bytes)
    for threads in range(memory.threads, 0, -1):
        left = free - threads * _blocks_bytes(plan, memory)
        held = max(left - whole_bytes(largest), 0) // (2 * threads)
        if left >= whole_bytes(largest):
            return replace(memory, threads=threads, held=held, whole=left - threads * held)
    raise LaconicError(
        f"device '{memory.card.device}': {free:,} bytes of its memory can be used, which is too "
        f"little: {_blocks_bytes(plan, memory):,} are needed for blocks, and "
        f"{whole_bytes(largest):,} for tensor '{largest.output.name}'; merge on the cpu"
    )


def needed(plan: Plan, memory: Memory) -> int:
    """Return the resident bytes that a merge with these settings will at most take."""
    largest = max(map(whole_bytes, plan.steps), default=0)
    whole = largest * memory.threads if memory.whole is None else memory.whole
    return resident() + _SLACK + memory.threads * _thread_bytes(plan, memory) + whole


def whole_bytes(step: Step) -> int:
    """Return the bytes that merging a step takes when it is given its tensors whole; else 0."""
    total = step.output.numel
    if unit_of(step.stages, step.output) < total or total <= _LEAST_BLOCK:
        return 0
    return 4 * total * (_WHOLE_WORDS + _WHOLE_WORDS_PER_INPUT * len(step.inputs))


def resident() -> int:
    """Return the bytes of this process that are resident now, or at most were."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:  # no Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return pages * resource.getpagesize()


def peak() -> int:
    """Return the most bytes of this process that were resident at one time."""
    try:
        # not getrusage: a process starts with the peak of the one that started it
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:  # no Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def _settings(threads: int, block: int | None, outputs: int) -> Iterator[Memory]:
    blocks = [block] if block else [BLOCK, BLOCK >> 2, _LEAST_BLOCK]
    for count in range(threads, 0, -1):
        for size in blocks:
            for held in (HELD, HELD >> 3, 0):
                yield Memory(count, size, held, outputs=outputs)


def _thread_bytes(plan: Plan, memory: Memory) -> int:
    """Return the most bytes that one thread takes for tensors that are streamed."""
    return _blocks_bytes(plan, memory) + 2 * memory.outputs * memory.stage


def _blocks_bytes(plan: Plan, memory: Memory) -> int:
    """Return the most bytes of blocks, and of what is kept of them, that one thread works with."""
    inputs = max((len(step.inputs) for step in plan.steps), default=0)
    words = _WORDS + _WORDS_PER_INPUT * inputs
    again = any(get_method(s.method).survey for step in plan.steps for s in step.stages)
    return 4 * words * memory.block + (memory.held + _survey(plan, inputs) if again else 0)


def _survey(plan: Plan, inputs: int) -> int:
    largest = max((step.output.numel for step in plan.steps), default=0)
    return _SURVEY_BYTES * inputs * min(MOST_INSIDE, largest)


def _too_small(
    plan: Plan, cap: int, base: int, whole: Iterable[Step], outputs: int
) -> LaconicError:
    threads = _thread_bytes(plan, Memory(1, _LEAST_BLOCK, 0, outputs=outputs))
    needs = sorted(((whole_bytes(step), step.output.name) for step in whole), reverse=True)
    least = base + threads + (needs[0][0] if needs else 0)
    lines = [
        f"memory: a cap of {cap:,} bytes is too small for this merge, which needs {least:,}: "
        f"{base:,} for Python and its libraries, {threads:,} for one thread"
    ]
    over = [need for need in needs if need[0] > cap - base - threads]
    lines += [
        f"tensor '{name}': is merged whole by its method, which needs {need:,} bytes"
        for need, name in over[:10]
    ]
    lines += [f"and {len(over) - 10} more tensors like these"] * (len(over) > 10)
    return LaconicError("\n".join([*lines, "give more memory, or another method"]))

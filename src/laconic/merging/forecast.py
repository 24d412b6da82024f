"""What a merge will cost in time, memory and disk, measured on noise in a fraction of a second."""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import torch
from blake3 import blake3
from torch import Tensor

from laconic.merging.memory import Memory, needed, whole_bytes
from laconic.merging.mixer import Mixer
from laconic.merging.stream import TORCH_DTYPES, BlockStream
from laconic.merging.workers import Workers, workers
from laconic.plan import Input, Plan, Step
from laconic.registry import get_method
from laconic.tensors.digests import Digests
from laconic.tensors.header import ITEM_BYTES, StoredTensor, TensorSpec
from laconic.tensors.sink import free_bytes
from laconic.tensors.source import Reader

_ENTRIES, _SIDE = 1 << 20, 512  # of the noise that streamed and whole tensors are timed on
_TURNS = 4
_TENSOR = 3e-4  # seconds that a tensor costs whatever its size: journal and calls
HOW = "timed now on noise, files in memory"


@dataclass(frozen=True)
class Forecast:
    """Seconds of processor time, bytes of resident memory, bytes of disk needed and free.

    seconds: reading from and writing to memory; a disk adds what it takes for the bytes. None for
    methods with statistics, which are not timed. free: on the disk of `folder`.
    """

    seconds: float | None
    memory: int
    disk: int
    free: int
    folder: str

    def to_dict(self) -> dict[str, Any]:
        """The forecast as data."""
        return {**asdict(self), "how": HOW}

    def line(self) -> str:
        """The forecast on one line."""
        cost = "time unknown" if self.seconds is None else f"about {self.seconds:,.1f} s of CPU"
        return (
            f"forecast  {cost} ({HOW}), at most {self.memory / 2**20:,.0f} MiB of memory, "
            f"{self.disk:,} bytes on disk ({self.free:,} free at {self.folder})"
        )


def forecast(plan: Plan, settings: Memory, out: Path) -> Forecast:
    """Forecast a merge into `out`, which need not exist."""
    memory = needed(plan, settings)
    return Forecast(_seconds(plan), memory, plan.nbytes, free_bytes(out), str(out))


def _seconds(plan: Plan) -> float | None:
    """Time one step of each kind on noise, and scale it to all of them."""
    if any(get_method(stage.method).needs for stage in plan.recipe.merge):
        return None
    kinds: dict[tuple[object, ...], list[Step]] = {}
    for step in plan.steps:
        kinds.setdefault(_kind(step), []).append(step)
    total = _TENSOR * len(plan.steps)
    for steps in kinds.values():
        sample = _sample(max(steps, key=_work))
        total += _timed(plan, sample) * sum(map(_work, steps)) / _work(sample)
    return round(total, 2)


def _kind(step: Step) -> tuple[object, ...]:
    """What is the same for steps that take as long per entry."""
    methods = tuple(stage.method for stage in step.stages)
    return methods, whole_bytes(step) > 0, tuple((i.role, i.spec.dtype) for i in step.inputs)


def _work(step: Step) -> float:
    """How a step's time grows: with its entries; cubic for a matrix that is merged whole."""
    shape = step.output.shape
    entries = max(step.output.numel, 1)
    return float(entries * min(shape[-2:])) if whole_bytes(step) and len(shape) > 1 else entries


def _sample(step: Step) -> Step:
    """Return the step with tensors of the sample's size, which `_Noise` gives."""
    matrix = whole_bytes(step) and len(step.output.shape) > 1
    shape = (_SIDE, _SIDE) if matrix else (min(_ENTRIES, step.output.numel),)

    def sized(tensor: Input) -> Input:
        spec = TensorSpec(tensor.spec.name, tensor.spec.dtype, shape)
        return Input(tensor.role, spec, StoredTensor(spec, Path(tensor.role), 0))

    base = sized(step.base) if step.base else None
    output = TensorSpec(step.output.name, step.output.dtype, shape)
    return Step(step.number, output, base, tuple(map(sized, step.experts)), step.stages)


def _timed(plan: Plan, step: Step) -> float:
    """Seconds of processor time for mixing and digesting a step: the least of a few turns."""
    small = replace(plan, steps=(step,))
    noise = _Noise(step.inputs)
    with workers(1) as pool:
        return min(_turn(small, noise, pool) for _ in range(_TURNS))


def _turn(plan: Plan, noise: Reader, pool: Workers) -> float:
    mixer = Mixer(plan, BlockStream(noise, digests=Digests()), pool, None)
    mixer.survey_model()
    output = plan.steps[0].output
    stage, item = torch.empty(output.nbytes, dtype=torch.uint8), ITEM_BYTES[output.dtype]
    digest, began = blake3(), time.process_time()
    for block in mixer.mix(plan.steps[0], lambda entries: stage[: entries * item]):
        raw: Any = block.view(torch.uint8).numpy()
        digest.update(bytes(raw))  # the copy stands for the write
    return time.process_time() - began


class _Noise(Reader):
    """Gives normal random weights in place of a parent's: the same for the same role."""

    def __init__(self, inputs: Sequence[Input]) -> None:
        super().__init__()
        self._raw = {Path(tensor.role): _noise(tensor) for tensor in inputs}

    def read(self, tensor: StoredTensor, start: int, into: Tensor) -> None:
        """Fill `into` with noise."""
        raw = self._raw[tensor.file]
        item = tensor.spec.nbytes // max(prod(tensor.spec.shape), 1)
        into.copy_(raw[start * item : start * item + len(into)])


def _noise(tensor: Input) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(tensor.role.encode()))
    weights = torch.randn(tensor.spec.numel, generator=generator) * 0.02
    return weights.to(TORCH_DTYPES[tensor.spec.dtype]).view(torch.uint8)

"""The weights of a live model: put others in their place, and name them by a digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from laconic.errors import LaconicError, did_you_mean
from laconic.tensors.header import TensorSpec

READ_BYTES = 1 << 22


def replace_weights(model: Any, pairs: Iterable[tuple[str, Tensor]]) -> None:
    """Copy (name, tensor) pairs over the model's parameters, cast to its dtype, in place.

    Raises LaconicError for an unknown name, another shape, a parameter that is missing, or two
    different tensors for one tied parameter. The model is then half replaced: load again.
    """
    targets: dict[str, Tensor] = model.state_dict()
    given: dict[str, Tensor] = {}
    seen: dict[int, str] = {}
    for name, tensor in pairs:
        target = _target(targets, name, tuple(tensor.shape))
        _refuse_other_tied(seen, name, target, tensor)
        target.copy_(tensor)
        given[name] = target
        seen[target.data_ptr()] = name
    missing = [n for n, t in targets.items() if n not in given and t.data_ptr() not in seen]
    if missing:
        raise LaconicError(
            f"weights to load lack {len(missing)} of {len(targets)} parameters, "
            f"first '{missing[0]}'; load a whole checkpoint of this architecture"
        )


def check_specs(model: Any, specs: Mapping[str, TensorSpec]) -> None:
    """Refuse names and shapes that do not fit the model, before a byte is read."""
    targets = model.state_dict()
    for name, spec in specs.items():
        _target(targets, name, tuple(spec.shape))


def stored(files: Sequence[Path]) -> Iterator[tuple[str, Tensor]]:
    """The (name, tensor) pairs of safetensors files, one tensor in memory at a time."""
    for file in files:
        with safetensors.safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (not a mapping: has no __iter__)
                yield name, tensors.get_tensor(name)


def digest_files(files: Sequence[Path]) -> str:
    """sha256 over the names and bytes of files."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0")
        with open(file, "rb") as stream:
            while chunk := stream.read(READ_BYTES):
                digest.update(chunk)
    return digest.hexdigest()


def digest_live(model: Any) -> str:
    """sha256 over the names and bytes of a model's parameters, as they are in memory."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + b"\0")
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _target(targets: dict[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
    if name not in targets:
        hint = did_you_mean(name, targets)
        raise LaconicError(f"weights to load: the live model has no parameter '{name}'{hint}")
    target = targets[name]
    if tuple(target.shape) != shape:
        raise LaconicError(
            f"weights to load: '{name}' has shape {shape}; "
            f"the live model expects {tuple(target.shape)}"
        )
    return target


def _refuse_other_tied(seen: dict[int, str], name: str, target: Tensor, tensor: Tensor) -> None:
    twin = seen.get(target.data_ptr())
    if twin is not None and not torch.equal(target.cpu(), tensor.to(target.dtype).cpu()):
        raise LaconicError(
            f"weights to load: '{name}' differs from '{twin}', but the live model ties them; "
            "open the checkpoint as a model of its own"
        )

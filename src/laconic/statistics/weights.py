"""One tensor of a checkpoint at a time."""

from __future__ import annotations

from torch import Tensor

from laconic.errors import LaconicError
from laconic.plan import Input
from laconic.tensors.header import StoredTensor


def read_tensor(stored: StoredTensor) -> Tensor:
    """Read one tensor of a checkpoint as float32."""
    from safetensors import safe_open

    with safe_open(stored.file, framework="pt") as file:
        tensor: Tensor = file.get_tensor(stored.spec.name)
    return tensor.float()


def read_input(tensor: Input) -> Tensor:
    """Read a parent's tensor as float32; LaconicError when its weights were not fetched."""
    if tensor.stored is None:
        raise LaconicError(f"tensor '{tensor.spec.name}' of {tensor.role}: weights not fetched")
    return read_tensor(tensor.stored)

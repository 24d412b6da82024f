"""A second torch device for machines without one: its tensors live in memory, but behave as away.

`CARD` stands for an accelerator. What is computed on it is what the processor computes, and what a
card refuses is refused: operands on two devices, `numpy()`, a result placed in a tensor elsewhere.
It is stricter than a card in one thing: an index must be on the card too. `waits()` counts how
often the host would have to wait for the card.

It cannot show what asynchrony does (streams, pinned memory), kernels that a card lacks, numbers
that its kernels round differently, or how much memory and time they take.

How: the name "lazy", a device that torch knows and nothing here uses, is given its factory
functions; they return a tensor subclass that runs every operation on the tensor inside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

CARD = torch.device("lazy:0")
HOST = torch.device("cpu")

_TAKES_HOST_SCALARS = {
    "add", "sub", "rsub", "mul", "div", "pow", "remainder", "maximum", "minimum", "atan2",
    "eq", "ne", "lt", "le", "gt", "ge", "bitwise_and", "bitwise_or", "where", "masked_fill",
    "fill", "index_put",
}  # fmt: skip
"""Operations in which CUDA lets a tensor without dimensions stay on the host."""
_WAITS = {
    "_local_scalar_dense", "equal", "nonzero", "masked_select", "bincount", "_linalg_check_errors",
    "_linalg_eigh", "_linalg_svd",
}  # fmt: skip
"""Operations whose result the host needs before it can go on."""


class CardTensor(Tensor):
    """A tensor on the stand-in: `inside` holds what it would hold on a card."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    inside: Tensor

    @staticmethod
    def __new__(cls, inside: Tensor) -> CardTensor:
        outside = torch.Tensor._make_wrapper_subclass(
            cls,
            inside.shape,
            strides=inside.stride(),
            storage_offset=inside.storage_offset(),
            dtype=inside.dtype,
            device=CARD,
        )
        outside.inside = inside
        return outside

    @classmethod
    def __torch_dispatch__(
        cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        values = dict(zip((each.name for each in operation._schema.arguments), args, strict=False))
        _refuse_strangers(operation, values | kwargs)
        _count(operation, values | kwargs)
        stays = kwargs.get("device") == HOST
        if kwargs.get("device") is not None:
            kwargs["device"] = HOST
        known = {id(_inside(leaf)): leaf for leaf in tree_leaves((args, kwargs))}
        out = operation(*tree_map(_inside, args), **tree_map(_inside, kwargs))
        _follow(known.values())
        return tree_map(lambda leaf: known.get(id(leaf), leaf if stays else _outside(leaf)), out)

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError(
            f"can't convert {CARD} device type tensor to numpy. "
            "Use Tensor.cpu() to copy the tensor to host memory first."
        )

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __repr__(self, **_: Any) -> str:
        return f"on card: {self.inside!r}"


@contextmanager
def waits() -> Iterator[list[str]]:
    """List the operations for which the host waits for the card, of all threads."""
    found: list[str] = []
    _listeners.append(found)
    try:
        yield found
    finally:
        _listeners.remove(found)


_listeners: list[list[str]] = []


def _inside(leaf: Any) -> Any:
    return leaf.inside if isinstance(leaf, CardTensor) else leaf


def _outside(leaf: Any) -> Any:
    return CardTensor(leaf) if isinstance(leaf, Tensor) else leaf


def _name(operation: Any) -> str:
    return operation._schema.name.removeprefix("aten::").rstrip("_")


def _refuse_strangers(operation: Any, values: dict[str, Any]) -> None:
    """Raise as CUDA does for operands on the host, but for scalars where they may stay there."""
    if _name(operation) == "copy":
        return
    for argument in operation._schema.arguments:
        value = values.get(argument.name)
        written = argument.alias_info is not None and argument.alias_info.is_write
        free = isinstance(value, Tensor) and value.ndim == 0 and not written
        if free and _name(operation) in _TAKES_HOST_SCALARS:
            continue
        if any(isinstance(v, Tensor) and not isinstance(v, CardTensor) for v in tree_leaves(value)):
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at least two devices, "
                f"{CARD} and cpu! ({operation}, argument {argument.name})"
            )


def _follow(leaves: Any) -> None:
    """Give tensors that an operation has resized or turned in place their new shape."""
    for leaf in leaves:
        if isinstance(leaf, CardTensor) and _layout(leaf) != _layout(leaf.inside):
            leaf.data = CardTensor(leaf.inside)


def _layout(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.stride(), tensor.storage_offset()


def _count(operation: Any, values: dict[str, Any]) -> None:
    """Note an operation that waits: a fetch, unless it need not block, or one of unknown size."""
    indices = tree_leaves(values.get("indices", []))
    masked = any(isinstance(index, Tensor) and index.dtype == torch.bool for index in indices)
    to_host = values.get("device") == HOST or (
        _name(operation) == "copy" and not isinstance(values["self"], CardTensor)
    )
    fetched = to_host and not values.get("non_blocking")
    if masked or fetched or _name(operation) in _WAITS:
        for listener in _listeners:
            listener.append(str(operation))


def _empty(size: Any, dtype: Any = None, **_: Any) -> Tensor:
    return CardTensor(torch.empty(size, dtype=dtype))


def _empty_strided(size: Any, stride: Any, dtype: Any = None, **_: Any) -> Tensor:
    return CardTensor(torch.empty_strided(size, stride, dtype=dtype))


def _copy_from(source: Tensor, target: Any, non_blocking: bool = False) -> Tensor:
    target.inside.copy_(source)
    return target


_factories = torch.library.Library("aten", "IMPL")
_factories.impl("empty.memory_format", _empty, "Lazy")
_factories.impl("empty_strided", _empty_strided, "Lazy")
_factories.impl("_copy_from", _copy_from, "Lazy")

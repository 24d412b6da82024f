"""Hooks on a model's modules that come off again, whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

Watch = Callable[[Tensor], None]


@contextmanager
def watching_inputs(watches: Iterable[tuple[nn.Module, Watch]]) -> Iterator[None]:
    """Show every module's first input to its watch while inside."""

    def hook(watch: Watch) -> Callable[..., None]:
        return lambda _module, inputs: watch(inputs[0])

    with removed(m.register_forward_pre_hook(hook(watch)) for m, watch in watches):
        yield


@contextmanager
def watching_outputs(watches: Iterable[tuple[nn.Module, Watch]]) -> Iterator[None]:
    """Show every module's output to its watch while inside."""

    def hook(watch: Watch) -> Callable[..., None]:
        # a mixture of experts puts out its router's logits beside the activations
        return lambda _m, _in, out: watch(out[0] if isinstance(out, tuple) else out)

    with removed(m.register_forward_hook(hook(watch)) for m, watch in watches):
        yield


@contextmanager
def watching_gradients(watches: Iterable[tuple[nn.Parameter, Watch]]) -> Iterator[None]:
    """Show every parameter's gradient to its watch as soon as it is whole, then free it.

    The parameters take gradients while inside, and only then.
    """
    parameters = []

    def hook(watch: Watch) -> Callable[[Tensor], None]:
        def reduce(parameter: Tensor) -> None:
            if parameter.grad is not None:
                watch(parameter.grad)
                parameter.grad = None

        return reduce

    def register() -> Iterator[Any]:
        for parameter, watch in watches:
            parameters.append(parameter.requires_grad_(True))
            taken: Any = parameter
            yield taken.register_post_accumulate_grad_hook(hook(watch))

    try:
        with removed(register()):
            yield
    finally:
        for parameter in parameters:
            parameter.grad = None
            parameter.requires_grad_(False)


@contextmanager
def removed(handles: Iterable[Any]) -> Iterator[None]:
    """Take all hooks off at the end, also those put on before one of them failed to be."""
    taken = []
    try:
        for handle in handles:
            taken.append(handle)
        yield
    finally:
        for handle in taken:
            handle.remove()

"""The stand-in for a card: computes what the processor computes, refuses what a card refuses."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from stand_in_card import CARD, waits

TWO_DEVICES = "Expected all tensors to be on the same device"


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


def halved_in_place(x: Tensor) -> Tensor:
    x = x.clone()
    x[1:, ::2].mul_(0.5)
    x.view(-1)[x.view(-1) > 0] = 7.0
    return x


def into_a_view(x: Tensor) -> Tensor:
    out = torch.zeros(5, 5, device=x.device)
    torch.mm(x, x, out=out[:4, :4])
    return out


def through_svd(x: Tensor) -> Tensor:
    left, sigma, right = torch.linalg.svd(x.double(), full_matrices=False)
    return (left * sigma) @ right


def turned(x: Tensor) -> Tensor:
    return x.clone().t_().unsqueeze_(0)


WORK: list[Callable[[Tensor], Tensor]] = [
    halved_in_place,
    into_a_view,
    through_svd,
    turned,
    lambda x: torch.linalg.eigh(x @ x.T).eigenvalues,
    lambda x: x.view(torch.int32) >> 16,
    lambda x: torch.stack([row * 2 for row in x]).sum(0),
    lambda x: x.abs().argsort(dim=-1, stable=True),
    lambda x: torch.add(x, x, out=torch.empty(0, device=x.device)),
    lambda x: x * torch.arange(4, device=x.device) + torch.eye(4, device=x.device),
    lambda x: torch.tensor([1.0, 2.0, 3.0, 4.0], device=x.device) + torch.tensor(2.0) * x,
    lambda x: torch.bmm(x[None], x[None]).bfloat16(),
]


@pytest.mark.parametrize("work", WORK)
def test_it_computes_what_the_processor_computes(work: Callable[[Tensor], Tensor]) -> None:
    x = numbers(4, 4)
    found, expected = work(x.to(CARD)), work(x)
    assert found.device == CARD
    assert found.shape == expected.shape
    assert found.stride() == expected.stride()
    assert torch.equal(found.cpu(), expected)


def test_values_come_back() -> None:
    x = numbers(3)
    away = x.to(CARD)
    assert away.device.type != "cpu"
    assert away.to("cpu").device.type == "cpu"
    assert away.tolist() == x.tolist()
    assert away.sum().item() == x.sum().item()
    assert torch.equal(torch.empty(3).copy_(away), x)
    assert torch.equal(torch.zeros(1, device=CARD).cpu(), torch.zeros(1))


@pytest.mark.parametrize(
    "mixing",
    [
        lambda away, here: away + here,
        lambda away, here: here + away,
        lambda away, here: torch.stack([away, here]),
        lambda away, here: torch.stack([away.sum(), here.sum()]),
        lambda away, here: here.add_(away),
        lambda away, here: here.sum().add_(away.sum()),
        lambda away, here: torch.add(away, away, out=here),
        lambda away, here: torch.where(away > 0, here, away),
        lambda away, here: away[here.long()],
        lambda away, here: torch.lerp(away, away, here.sum()),
    ],
)
def test_operands_on_two_devices_are_refused(mixing: Callable[..., Any]) -> None:
    with pytest.raises(RuntimeError, match=TWO_DEVICES):
        mixing(torch.ones(3).to(CARD), torch.ones(3))


def test_numpy_is_refused() -> None:
    with pytest.raises(TypeError, match="to numpy"):
        torch.ones(3).to(CARD).numpy()


def test_waits_are_counted() -> None:
    x = numbers(5).to(CARD)
    with waits() as found:
        y = (x * 2 + 1).clamp_(min=0)
        y.copy_(torch.ones(5))
        y.to(CARD, torch.float64)
        torch.empty(5).copy_(x, non_blocking=True)
    assert found == []
    with waits() as found:
        x.cpu(), float(x.sum()), x[x > 0], x.nonzero(), torch.empty(5).copy_(x), x.tolist()
    assert len(found) == 6
    float(x.sum())
    assert len(found) == 6


def test_other_threads_see_the_card() -> None:
    found: list[Tensor] = []
    thread = threading.Thread(target=lambda: found.append(torch.ones(3).to(CARD) * 2))
    thread.start()
    thread.join()
    assert found[0].device == CARD
    assert found[0].tolist() == [2.0, 2.0, 2.0]

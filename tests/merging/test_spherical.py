"""Merges on the sphere and Model Stock: worked examples and what geometry says of them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, tensor

from checkpoints import pair
from laconic.errors import LaconicError
from laconic.merging.apply import apply
from laconic.merging.gram import GramSurvey
from laconic.merging.survey import Place
from laconic.plan import make_plan
from laconic.recipe import parse_recipe

RIGHT = tensor([[2.0, 0, 0], [0, 2, 0]])  # a right angle
SPHERICAL = ["slerp", "multislerp", "karcher"]


def close(found: Tensor, expected: Tensor | list[float], atol: float = 1e-6) -> None:
    expected = torch.as_tensor(expected, dtype=torch.float32)
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", SPHERICAL)
def test_midpoint_of_a_right_angle(name: str) -> None:
    half = 2 * math.cos(math.pi / 4)
    close(apply(name, None, RIGHT), [half, half, 0])


def test_slerp_goes_at_constant_speed() -> None:
    angle = math.radians(90 * 0.3)
    close(apply("slerp", None, RIGHT, weight=0.3), [2 * math.cos(angle), 2 * math.sin(angle), 0])
    close(apply("karcher", None, RIGHT, weights=(0.7, 0.3), iters=50), apply_slerp(0.3))


def apply_slerp(weight: float) -> Tensor:
    return apply("slerp", None, RIGHT, weight=weight)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_slerp_ends_at_the_parents(weight: float) -> None:
    pair = random(2, 5, 4)
    close(apply("slerp", None, pair, weight=weight), pair[int(weight)])


def test_karcher_mean_is_where_the_pulls_cancel() -> None:
    parents = random(3, 200) + 0.5
    merged = apply("karcher", None, parents, iters=100).double()
    point = merged / merged.norm()
    pulls = []
    for parent in parents.double():
        unit = parent / parent.norm()
        angle = torch.arccos(unit @ point)
        pulls.append(angle / torch.sin(angle) * (unit - (unit @ point) * point))
    assert torch.stack(pulls).sum(0).norm() < 1e-5
    assert merged.norm().item() == pytest.approx(parents.norm(dim=1).mean().item(), rel=1e-6)


def test_multislerp_averages_directions_and_norms_apart() -> None:
    """Vectors e1, e2, 5 e3 with weights 2, 1, 1: direction (2, 1, 1), norm (2 + 1 + 5) / 4."""
    parents = torch.eye(3) * tensor([1.0, 1, 5])
    expected = 2 * tensor([2.0, 1, 1]) / math.sqrt(6)
    close(apply("multislerp", None, parents, weights=(2, 1, 1)), expected)


@pytest.mark.parametrize("name", SPHERICAL)
def test_close_parents_make_it_the_straight_line(name: str) -> None:
    """The angle of a quick and a slow model of one ancestor: .027 (arXiv 2510.10977)."""
    quick = random(300, 20)
    pair = torch.stack([quick, quick + 0.027 * random(300, 20, seed=1)])
    far = (pair[1] - pair[0]).norm()
    assert (apply(name, None, pair) - pair.mean(0)).norm() / far < 0.02
    assert (apply(name, None, pair) - pair.mean(0)).norm() / quick.norm() < 2e-4


@pytest.mark.parametrize("name", SPHERICAL)
def test_degenerate_parents_give_the_straight_average(name: str) -> None:
    opposed = torch.stack([RIGHT[0], -RIGHT[0]])
    close(apply(name, None, opposed), [0, 0, 0])
    close(apply(name, None, torch.zeros(2, 3)), [0, 0, 0])
    with_zero = apply(name, None, torch.stack([RIGHT[0], torch.zeros(3)]))
    assert torch.isfinite(with_zero).all()
    close(with_zero, [1, 0, 0] if name != "slerp" else [math.sqrt(2), 0, 0])


def test_inner_products_are_exact_enough_for_a_tiny_angle() -> None:
    quick = random(100_000)
    pair = torch.stack([quick, quick + 1e-4 * random(100_000, seed=1)])
    survey = GramSurvey()
    for start in range(0, 100_000, 4096):
        survey.see(torch.zeros(1), pair[:, start : start + 4096], Place(0, start))
    gram = survey.result(Place())
    torch.testing.assert_close(gram, pair.double() @ pair.double().T, rtol=1e-13, atol=0)


@pytest.mark.parametrize(("degrees", "share"), [(90, 0.0), (60, 2 / 3), (0, 1.0), (120, -2.0)])
def test_model_stock_of_two(degrees: float, share: float) -> None:
    angle = math.radians(degrees)
    base = tensor([1.0, 1, 1])
    deltas = tensor([[1.0, 0, 0], [3 * math.cos(angle), 3 * math.sin(angle), 0]])
    merged = apply("model_stock", base, base + deltas)
    close(merged, base + share * deltas.mean(0), atol=1e-5)


def test_model_stock_of_three() -> None:
    base, experts = random(40), random(3, 40, seed=1) + 1
    deltas = experts - base
    cosine = torch.nn.functional.cosine_similarity
    mean = torch.stack(
        [cosine(deltas[i], deltas[j], 0) for i, j in ((0, 1), (0, 2), (1, 2))]
    ).mean()
    share = 3 * mean / (1 + 2 * mean)
    close(apply("model_stock", base, experts), base + share * deltas.mean(0), atol=1e-5)


def test_model_stock_keeps_the_base_where_no_point_exists() -> None:
    base = tensor([1.0, 2])
    experts = base + tensor([[0.5, 0], [-0.5, 0]])
    close(apply("model_stock", base, experts), base)


@pytest.mark.parametrize("method", ["model_stock", "sce"])
def test_a_pair_with_one_task_vector_is_refused(tmp_path: Path, method: str) -> None:
    quick, slow = pair(tmp_path)
    recipe = parse_recipe({"quick": str(quick), "slow": str(slow), "merge": [method]})
    with pytest.raises(LaconicError, match=f"{method}: takes 2 parents or more beside the base"):
        make_plan(recipe)

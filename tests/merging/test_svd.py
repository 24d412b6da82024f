"""LoRE and Twin: worked examples, the identities their papers imply, and the thin SVD route."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, tensor

from laconic.errors import LaconicError
from laconic.merging import spectrum
from laconic.merging.apply import apply
from laconic.merging.spectrum import rank_of, soft_threshold, threshold, truncate

DIAGONAL = torch.stack([torch.zeros(2, 2), torch.diag(tensor([4.0, 1.0]))])  # quick, slow


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def close(found: Tensor, expected: Any, atol: float = 1e-6) -> None:
    expected = torch.as_tensor(expected, dtype=torch.float32)
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def by_full_svd(matrix: Tensor, gain: Callable[[Tensor], Tensor]) -> Tensor:
    left, sigma, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    return ((left * gain(sigma)) @ right).float()


def sweep(experts: Tensor, mu: float, iters: int) -> tuple[Tensor, Tensor]:
    """LoRE's Jacobi sweep, written down once more with a full SVD."""
    deltas = torch.zeros_like(experts)
    for _ in range(iters):
        base = (experts - deltas).mean(0)
        soft = [by_full_svd(x - base, lambda s: (s - mu).clamp(min=0)) for x in experts]
        deltas = torch.stack(soft)
    return (experts - deltas).mean(0), deltas


def test_lore_of_two_parents() -> None:
    close(apply("lore", None, DIAGONAL, mu=0.6), [[2.56, 0], [0, 0.5]])
    flipped = apply("lore", None, DIAGONAL.flip(0), mu=0.6, weights=(0.7, 0.3))
    close(flipped, [[2.56, 0], [0, 0.5]])
    close(apply("lore_base", DIAGONAL[0], DIAGONAL[1:], mu=0.6), [[2.38, 0], [0, 0.28]])


def test_lore_of_three_scalars() -> None:
    parents = tensor([0.0, 0, 3]).view(3, 1, 1)

    def lore(iters: int, *weights: float) -> float:
        return float(apply("lore", None, parents, mu=0.5, iters=iters, weights=weights))

    first = lore(1, 0, 0, 0)
    assert first == pytest.approx(0.83333333)
    assert lore(1, 1, 0, 0) - first == pytest.approx(-0.5)
    assert lore(1, 0, 0, 1) - first == pytest.approx(1.5)
    assert lore(60, 0, 0, 0) == pytest.approx(0.25)
    assert lore(60, 0, 0, 1) == pytest.approx(0.25 + 2.25)
    assert lore(60, 1, 0, 0) == pytest.approx(0.25)
    assert lore(60, 1 / 3, 1 / 3, 1 / 3) == pytest.approx(1.0)


def test_lore_of_two_is_stationary_after_one_sweep() -> None:
    experts = random(2, 6, 4)
    for iters in (1, 40):
        base, deltas = sweep(experts, 0.5, iters)
        close(base, experts.mean(0))
        close(deltas[0], -deltas[1])
        expected = base + 0.8 * (0.3 * deltas[0] + 0.7 * deltas[1])
        close(apply("lore", None, experts, mu=0.5, lam=0.8), expected)


@pytest.mark.parametrize("iters", [1, 4, 30])
@pytest.mark.parametrize("parents", [3, 4])
def test_lore_of_more_parents_follows_the_sweep(iters: int, parents: int) -> None:
    experts = random(parents, 6, 4)
    base, deltas = sweep(experts, 0.7, iters)
    weights = (0.1, 0.5, 0.9, 0.2)[:parents]
    expected = base + sum(w * d for w, d in zip(weights, deltas, strict=True))
    found = apply("lore", None, experts, mu=0.7, iters=iters, weights=weights)
    close(found, expected, atol=2e-6)


@pytest.mark.parametrize("iters", [1, 20])
def test_lore_base_plus_mean_delta_is_the_mean_of_the_parents(iters: int) -> None:
    experts = random(3, 5, 7)
    equal = (1 / 3, 1 / 3, 1 / 3)
    with pytest.warns(UserWarning, match="plain averaging"):
        merged = apply("lore", None, experts, mu=0.8, iters=iters, weights=equal)
    close(merged, experts.mean(0), atol=2e-6)


def test_lore_with_equal_weights_is_the_average_and_says_so() -> None:
    experts = random(2, 5, 7)
    with pytest.warns(UserWarning, match="plain averaging"):
        merged = apply("lore", None, experts, mu=0.3, lam=2.0, weights=(0.9, 0.9))
    close(merged, apply("average", None, experts))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        apply("lore", None, experts)
        apply("lore", None, random(3, 5, 7), lam=0.5, weights=(1 / 3,) * 3)


@pytest.mark.parametrize("shape", [(8, 5), (5, 8), (9,), (3, 4, 6)], ids=str)
def test_lore_without_threshold_is_task_arithmetic(shape: tuple[int, ...]) -> None:
    experts = random(2, *shape)
    line = apply("task_arithmetic", experts[0], experts[1:], alpha=0.7)
    close(apply("lore", None, experts, mu=0.0), line)
    close(apply("lore_base", experts[0], experts[1:], mu=0.0), line)


@pytest.mark.parametrize(
    ("tensor_name", "shape"),
    [("w.bias", (6,)), ("model.embed_tokens.weight", (6, 4)), ("lm_head.weight", (6, 4))],
)
@pytest.mark.parametrize("method", ["lore", "twin", "lore_base", "twin_base"])
def test_vectors_embedding_and_head_stay_dense(
    tensor_name: str, shape: tuple[int, ...], method: str
) -> None:
    experts = random(2, *shape)
    based = method.endswith("_base")
    arguments = (experts[0], experts[1:]) if based else (None, experts)
    knobs: dict[str, Any] = {"mu": 1.0} if method.startswith("lore") else {"ratio": 0.1}
    dense = apply(method, *arguments, tensor=tensor_name, **knobs)
    close(dense, apply("task_arithmetic", experts[0], experts[1:], alpha=0.7))
    with_all = apply(method, *arguments, tensor=tensor_name, embeddings=True, **knobs)
    assert torch.allclose(with_all, dense) == (len(shape) == 1)
    if len(shape) == 2:
        close(with_all, apply(method, *arguments, tensor="model.layers.0.q.weight", **knobs))


def test_mu_modes() -> None:
    sigma = tensor([1.0, 2.0, 4.0])
    assert threshold(sigma, 0.5, "absolute") == 0.5
    assert threshold(sigma, 0.5, "fraction") == 2.0
    assert threshold(sigma, 5 / 21, "energy") == 2.0  # 1 + 4 of 21
    assert threshold(sigma, 4.9 / 21, "energy") == 1.0
    assert threshold(sigma, 0.01, "energy") == 0.0
    fraction = apply("lore", None, DIAGONAL, mu=0.3, mu_mode="fraction")  # of 4 / 2
    close(fraction, apply("lore", None, DIAGONAL, mu=0.6))
    three = torch.cat([DIAGONAL, DIAGONAL[:1]])
    weights = (0.2, 0.5, 0.1)
    energy = apply("lore", None, three, mu=0.0, mu_mode="energy", weights=weights, iters=2)
    close(energy, apply("lore", None, three, mu=0.0, weights=weights, iters=2))


def test_thresholds_of_three_parents_are_taken_of_their_distance_to_the_mean() -> None:
    experts, weights = random(3, 6, 4) + 1, (0.1, 0.5, 0.9)
    deltas = [
        by_full_svd(x - experts.mean(0), lambda s: (s - 0.4 * s[0]).clamp(min=0)) for x in experts
    ]
    base = (experts - torch.stack(deltas)).mean(0)
    expected = base + sum(w * d for w, d in zip(weights, deltas, strict=True))
    knobs: dict[str, Any] = {"mu": 0.4, "mu_mode": "fraction", "weights": weights, "iters": 1}
    close(apply("lore", None, experts, **knobs), expected, atol=2e-6)


def test_twin() -> None:
    close(apply("twin", None, DIAGONAL, ratio=0.5), [[2.8, 0], [0, 0.5]])
    close(apply("twin", None, DIAGONAL, ratio=0.5, weights=(0.5, 0.5)), [[2, 0], [0, 0.5]])


def test_twin_is_what_its_definition_says() -> None:
    experts = random(2, 5, 3)
    gamma, (w_quick, w_slow) = 0.3, (0.2, 0.9)
    shared = experts[0] + gamma * (experts[1] - experts[0])
    own = [by_full_svd(x - shared, lambda s: s * torch.tensor([1.0, 1, 0])) for x in (experts)]
    expected = shared + w_quick * own[0] + w_slow * own[1]
    found = apply("twin", None, experts, gamma=gamma, weights=(w_quick, w_slow), ratio=0.67)
    close(found, expected)


def test_twin_of_full_rank_is_task_arithmetic() -> None:
    experts = random(2, 9, 6)
    found = apply("twin", None, experts, gamma=0.4, weights=(0.1, 0.8), ratio=1.0)
    alpha = 0.4 + 0.8 * 0.6 - 0.1 * 0.4
    close(found, apply("task_arithmetic", experts[0], experts[1:], alpha=alpha))


def test_twin_with_equal_weights_is_the_average() -> None:
    experts = random(2, 9, 6)
    close(apply("twin", None, experts, weights=(0.5, 0.5)), experts.mean(0))


@pytest.mark.parametrize(
    ("ratio", "side", "rank"),
    [(0.1, 1000, 100), (0.29, 100, 29), (0.07, 100, 7), (0.57, 100, 57), (0.1, 896, 89),
     (0.1, 5, 1), (0.001, 10, 1), (1.0, 12, 12)],
)  # fmt: skip
def test_rank_is_exact(ratio: float, side: int, rank: int) -> None:
    assert rank_of(ratio, torch.Size((side, side + 3))) == rank
    assert rank_of(ratio, torch.Size((2, side + 3, side))) == rank


def test_a_stack_of_matrices_is_treated_one_by_one() -> None:
    experts = random(2, 3, 6, 5)
    for method, knobs in (("lore", {"mu": 0.8}), ("twin", {"ratio": 0.3})):
        whole = apply(method, None, experts, **knobs)
        for index in range(3):
            close(whole[index], apply(method, None, experts[:, index], **knobs))
    three = random(3, 2, 6, 5)
    knobs = {"mu": 0.8, "weights": (0.2, 0.3, 0.9), "mu_mode": "energy", "iters": 3}
    whole = apply("lore", None, three, **knobs)
    close(whole[1], apply("lore", None, three[:, 1], **knobs))


@pytest.mark.parametrize("shape", [(40, 40), (200, 30), (30, 200), (1, 5), (300, 290)], ids=str)
def test_thin_route_equals_the_full_svd(shape: tuple[int, int]) -> None:
    matrix = random(*shape) * 0.003
    top = float(torch.linalg.matrix_norm(matrix, 2))
    for mu in (0.01 * top, 0.3 * top, 0.9 * top, 2 * top):
        expected = by_full_svd(matrix, lambda s, mu=mu: (s - mu).clamp(min=0))
        close(soft_threshold(matrix, mu), expected, atol=1e-5 * top)
    for rank in (1, 3, 25):
        kept = torch.arange(min(shape)) < rank
        close(truncate(matrix, rank), by_full_svd(matrix, lambda s, k=kept: s * k), 1e-5 * top)


@pytest.fixture
def svd_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    full = spectrum._by_svd

    def counted(*arguments: Any) -> Tensor:
        calls.append(1)
        return full(*arguments)

    monkeypatch.setattr(spectrum, "_by_svd", counted)
    return calls


def test_small_singular_values_fall_back_to_the_full_svd(svd_calls: list[int]) -> None:
    left, _ = torch.linalg.qr(random(30, 8).double())
    right, _ = torch.linalg.qr(random(8, 8, seed=1).double())
    sigma = torch.logspace(0, -6, 8, dtype=torch.float64)
    matrix = ((left * sigma) @ right).float()
    found = truncate(matrix, 6)
    assert len(svd_calls) == 1
    expected = by_full_svd(matrix, lambda s: s * (torch.arange(8) < 6))
    close(found, expected, atol=1e-7)
    soft = soft_threshold(matrix, 1e-4)
    assert len(svd_calls) == 2
    close(soft, by_full_svd(matrix, lambda s: (s - 1e-4).clamp(min=0)), atol=1e-7)
    soft_threshold(matrix, 0.01)
    truncate(matrix, 2)
    assert len(svd_calls) == 2


def test_what_loses_nothing_stays_the_same_to_the_bit() -> None:
    matrix = random(40, 30)
    assert torch.equal(truncate(matrix, 30), matrix)
    assert torch.equal(soft_threshold(matrix, 0.0), matrix)


@pytest.mark.parametrize("shape", [(40, 30), (600, 520)], ids=str)
def test_what_does_not_converge_goes_the_long_way_and_other_errors_do_not(
    shape: tuple[int, int], svd_calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix = random(*shape)
    expected = by_full_svd(matrix, lambda s: s * (torch.arange(len(s)) < 3))
    errors = [torch.linalg.LinAlgError("did not converge"), RuntimeError("out of memory")]

    def fails(_: Tensor) -> None:
        raise errors[0]

    monkeypatch.setattr(torch.linalg, "eigh", fails)
    close(truncate(matrix, 3), expected, atol=1e-5)
    assert len(svd_calls) == 1
    errors.pop(0)
    with pytest.raises(RuntimeError, match="out of memory"):
        truncate(matrix, 3)


def test_a_matrix_of_zeros_stays_zero() -> None:
    assert not soft_threshold(torch.zeros(4, 3), 0.1).any()
    assert not truncate(torch.zeros(3, 4), 2).any()


@pytest.mark.parametrize(
    ("name", "knobs", "message"),
    [
        ("lore", {"mu": -0.1}, r"lore\.mu: -0\.1 is not allowed"),
        ("lore", {"mu_mode": "share"}, r"lore\.mu_mode"),
        ("lore", {"iters": 0}, r"lore\.iters"),
        ("twin", {"ratio": 0}, r"twin\.ratio"),
        ("twin", {"weights": (1, 2, 3)}, r"twin\.weights"),
    ],
)
def test_bad_knobs(name: str, knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(LaconicError, match=message):
        apply(name, None, torch.zeros(2, 3, 3), **knobs)

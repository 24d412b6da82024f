"""Worked examples and properties of the methods that need statistics."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, tensor

from laconic.errors import LaconicError
from laconic.merging.apply import Context, Link, TensorInfo, apply, run_chain
from laconic.merging.draws import Draws
from laconic.merging.methods.guard import share_left
from laconic.merging.methods.sens import sens_coefficients, task_coefficients
from laconic.registry import get_method
from laconic.statistics.view import Information, TensorStatistics
from views import view


def close(found: Tensor, expected: Any, atol: float = 1e-6) -> None:
    torch.testing.assert_close(
        found.double(), torch.as_tensor(expected, dtype=torch.float64), rtol=0, atol=atol
    )


def f64(*values: float) -> Tensor:
    return tensor(values, dtype=torch.float64)


# AIM


def test_aim_example() -> None:
    merged = tensor([[1.0, -2, 10], [5, 4, 2]])
    stats = TensorStatistics(0, channel_means=f64(8, 2, 4))
    found = apply("aim", torch.zeros(2, 3), merged[None], stats=stats, merged=merged, omega=0.4)
    close(found, [[0.4, -1.7, 7], [2, 3.4, 1.4]])


def test_aim_relaxes_a_norm_entry_by_entry() -> None:
    stats = TensorStatistics(0, channel_means=f64(8, 2, 4))
    ones = torch.ones(3)
    close(apply("aim", torch.zeros(3), ones[None], stats=stats, omega=0.4), [0.4, 0.85, 0.7])


def test_aim_properties() -> None:
    base, merged = torch.randn(2, 6, 5).unbind()
    means = torch.rand(5, dtype=torch.float64) + 0.1

    def aim(omega: float, means: Tensor | None = means) -> Tensor:
        stats = TensorStatistics(0, channel_means=means)
        return apply("aim", base, merged[None], stats=stats, merged=merged, omega=omega)

    close(aim(1.0), merged)
    assert torch.equal(aim(0.3), aim(0.3, means * 8))
    shares = (aim(0.3) - base) / (merged - base)
    assert shares.min() >= 0.3 - 1e-4
    assert shares.max() <= 1 + 1e-4
    close(shares[:, means.argmax()], torch.full((6,), 0.3), 1e-4)
    assert torch.equal(aim(0.3, None), merged)  # a bias or an embedding has no means


def test_aim_refuses_means_of_another_width() -> None:
    stats = TensorStatistics(0, channel_means=torch.ones(4))
    with pytest.raises(LaconicError, match="4 channel means for a tensor of shape"):
        apply("aim", torch.zeros(2, 3), torch.ones(1, 2, 3), stats=stats)


# Sens

EXAMPLE = tensor([[3.0, 4], [4, 3]], dtype=torch.float64)


def test_sens_coefficients_of_the_example() -> None:
    quick, slow = sens_coefficients(EXAMPLE, 0.7, 2.0)
    close(quick, [0.905285, 0.955030])
    close(slow, [1.094715, 1.044970])
    close(quick + slow, [2.0, 2.0], 1e-12)


@pytest.mark.parametrize(("layer", "expected"), [(0, 1.671585), (1, 1.686509), (-1, 1.7)])
def test_sens_example(layer: int, expected: float) -> None:
    stats = TensorStatistics(layer, crossed_sensitivity=EXAMPLE)
    pair = tensor([[1.0], [2.0]])
    close(apply("sens", None, pair, stats=stats, alpha=0.7, temperature=2.0), [expected])


def test_sens_without_scaling_the_base() -> None:
    stats = TensorStatistics(0, crossed_sensitivity=EXAMPLE)
    pair = tensor([[1.0], [2.0]])
    found = apply("sens", None, pair, stats=stats, scale_base=False)
    close(found, [1 + 1.094715 * 0.7])


@pytest.mark.parametrize(
    ("alpha", "temperature", "flat"), [(0.4, 3, 0.9937), (0.7, 2, 1.0189), (0.8, 6, 1.0072)]
)
def test_sens_of_flat_profiles_at_the_published_settings(
    alpha: float, temperature: float, flat: float
) -> None:
    layers = 48 if alpha == 0.8 else 28
    found = sens_coefficients(torch.ones(2, layers, dtype=torch.float64), alpha, temperature)
    close(found[1], torch.full((layers,), flat), 5e-5)


def test_sens_properties() -> None:
    pair = torch.randn(2, 6, 5)
    line = apply("task_arithmetic", pair[0], pair[1:], alpha=0.6)
    scores = torch.rand(2, 4, dtype=torch.float64)

    def sens(scores: Tensor, **knobs: Any) -> Tensor:
        return apply(
            "sens", None, pair, stats=TensorStatistics(2, crossed_sensitivity=scores), **knobs
        )

    close(sens(scores, alpha=0.6, temperature=1000), line, 2e-3)
    scaled = scores * tensor([[8.0], [0.25]], dtype=torch.float64)
    close(sens(scores), sens(scaled))
    equal = scores[:1].expand(2, 4)
    close(sens(equal, alpha=0.5), apply("interpolation", None, pair, weight=0.5))


def test_sens_task_example() -> None:
    distances = tensor([[0.0, 1], [3, 0]])
    found = task_coefficients(EXAMPLE, distances, 1.0)
    close(found, [[0.778722, 0.875647], [1.221278, 1.124353]])
    stats = TensorStatistics(1, task_sensitivity=EXAMPLE, logit_distances=distances)
    both = tensor([[1.0], [10.0]])
    close(
        apply("sens_task", torch.zeros(1), both, stats=stats, alpha=0.5),
        [0.5 * (0.875647 + 11.24353)],
        1e-5,
    )


def test_sens_task_of_one_vector_is_task_arithmetic() -> None:
    base, expert = torch.randn(2, 6, 5).unbind()
    stats = view((6, 5), experts=1)
    found = apply("sens_task", base, expert[None], stats=stats, alpha=0.7)
    close(found, apply("task_arithmetic", base, expert[None], alpha=0.7))


# ACM


def acm(values: list[list[float]], layer: int = 0, **knobs: Any) -> float:
    """The share of the step that is left in a layer, given its information per prompt."""
    table = tensor(values, dtype=torch.float64)
    groups = tuple(range(len(values)))
    stats = TensorStatistics(layer, merged_information=Information(groups, table, table * 2))
    return apply("acm", torch.zeros(1), torch.ones(1, 1), stats=stats, **knobs).item()


def test_acm_example() -> None:
    sigmoids = [1 / (1 + math.exp(0.7 * 2)), 0.5]
    assert acm([[1.0, 3.0]]) == pytest.approx(1 - sum(sigmoids) / 2)
    assert acm([[1.0, 3.0]], estimator="hist", t=0.35) == pytest.approx(1 - sum(sigmoids) / 2)


def test_acm_edges() -> None:
    assert acm([[2.0, 2.0, 2.0]]) == pytest.approx(0.5)
    assert acm([[1.0, 3.0]], t=0) == pytest.approx(0.5)
    base = torch.randn(4, 3)
    assert torch.equal(apply("acm", base, base[None], stats=view((4, 3))), base)


def test_acm_shifts() -> None:
    values = [[1.0, 3.0], [4.0, 4.0]]
    assert acm(values, 1) == pytest.approx(0.5)
    assert acm(values, 1, shift="global") == pytest.approx(0.5)
    far = 1 - (1 / (1 + math.exp(0.7 * 3)) + 1 / (1 + math.exp(0.7))) / 2
    assert acm(values, 0, shift="global") == pytest.approx(far)
    assert acm(values, 1, shift="none") == pytest.approx(1 - 1 / (1 + math.exp(-2.8)))


def test_acm_level_matched_takes_the_mean_coefficient() -> None:
    values = [[1.0, 3.0], [4.0, 4.0]]
    mean = (acm(values, 0) + acm(values, 1)) / 2
    for layer in (0, 1, -1):
        assert acm(values, layer, level_matched=True) == pytest.approx(mean)


def test_acm_of_the_paper_weighs_each_task_vector() -> None:
    tables = [Information((0,), f64(1.0, 3.0)[None], f64(0, 0)[None]) for _ in range(2)]
    tables[1] = Information((0,), f64(0.0, 0.0)[None], f64(0, 0)[None])
    stats = TensorStatistics(0, expert_information=tuple(tables))
    found = apply("acm_paper", torch.ones(1), tensor([[2.0], [5.0]]), stats=stats)
    close(found, [[1 + 1 - 1 / (1 + math.exp(-1.4))], [1 + 4 * 0.5]])


# FIM


def fim(layer: int, tensor_name: str = "w", **knobs: Any) -> float:
    # log s = 0, 2, 4: z = -1.224745, 0, 1.224745
    stats = TensorStatistics(
        layer, fisher=f64(1, math.e, math.e**2), delta_norms=f64(1, math.e, math.e**2)
    )
    found = apply("fim", torch.zeros(1), torch.ones(1, 1), stats=stats, tensor=tensor_name, **knobs)
    return found.item()


def test_fim_example() -> None:
    flat = 1 / (1 + math.exp(-1.2247449))
    assert fim(0) == pytest.approx(0.4 + 0.6 * flat)
    assert fim(1) == pytest.approx(0.7)
    assert fim(2) == pytest.approx(0.4 + 0.6 * (1 - flat))
    assert fim(-1) == pytest.approx(0.7)


def test_fim_knobs() -> None:
    shifted = [fim(layer, recenter=0.5) for layer in range(3)]
    assert sum(shifted) / 3 == pytest.approx(0.5)
    assert shifted[0] - shifted[2] == pytest.approx(fim(0) - fim(2), abs=1e-6)
    assert fim(0, level_matched=True, recenter=0.6) == pytest.approx(0.6)
    assert fim(1, "layers.1.mlp.gate_proj.weight", gate_scale=0.7) == pytest.approx(0.49)
    assert fim(0, kappa=5) > fim(0)


# Guard


def test_guard_keeps_the_slow_models_outputs() -> None:
    pair, inputs = torch.randn(2, 6, 20), torch.randn(4, 20)
    stats = TensorStatistics(0, think_inputs=inputs)
    merged = 0.3 * pair[0] + 0.7 * pair[1]
    found = apply("guard", None, pair, stats=stats, merged=merged, ridge=1e-8)
    close(inputs @ found.T, inputs @ pair[1].T, 1e-4)
    assert (inputs @ merged.T - inputs @ pair[1].T).abs().max() > 0.1


def test_guard_leaves_orthogonal_inputs_to_the_merge() -> None:
    pair, inputs = torch.randn(2, 6, 20), torch.randn(4, 20)
    other = torch.randn(20)
    other -= torch.linalg.lstsq(inputs.T, other[:, None]).solution[:, 0] @ inputs
    merged = pair.mean(0)
    found = apply("guard", None, pair, stats=TensorStatistics(0, think_inputs=inputs))
    close(found @ other, merged @ other, 1e-4)


def test_guard_does_not_mind_scale_or_repeated_inputs() -> None:
    pair, inputs = torch.randn(2, 6, 20), torch.randn(4, 20)
    scaled = inputs * tensor([[1000.0], [1], [1e-3], [1]])
    for rows in (scaled, torch.cat([inputs, inputs])):
        found = apply("guard", None, pair, stats=TensorStatistics(0, think_inputs=rows), ridge=1e-6)
        close(inputs @ found.T, inputs @ pair[1].T, 1e-3)


def test_guard_tells_how_much_of_the_step_is_left() -> None:
    inputs = torch.randn(4, 20)
    assert share_left(inputs, 1e-8) == pytest.approx(16 / 20, abs=1e-5)
    assert share_left(torch.cat([inputs, 3 * inputs]), 1e-8) == pytest.approx(16 / 20, abs=1e-5)
    assert share_left(torch.randn(40, 20), 1e-8) == pytest.approx(0, abs=1e-5)


def test_guard_elsewhere() -> None:
    pair = torch.randn(2, 7)
    none = TensorStatistics(0)
    assert torch.equal(apply("guard", None, pair, stats=none), pair.mean(0))
    assert torch.equal(apply("guard", None, pair, stats=none, rest="slow"), pair[1])
    bias = TensorStatistics(0, think_inputs=torch.randn(2, 5))
    assert torch.equal(apply("guard", None, pair, stats=bias), pair[1])


@pytest.mark.parametrize("name", ["aim", "sens", "sens_task", "acm", "acm_paper", "fim", "guard"])
def test_statistics_that_were_not_given_are_named(name: str) -> None:
    pair = torch.randn(2, 3, 4)
    with pytest.raises(LaconicError, match=f"{name}: needs statistics '.*laconic calibrate"):
        apply(name, pair[0], pair)


def test_a_wrapper_sees_the_parents_as_they_were_before_sparsifiers() -> None:
    pair = torch.randn(2, 7)
    chain = [
        Link(get_method(name), get_method(name).settings(knobs))
        for name, knobs in (("dare", {"drop": 0.5}), ("average", {}), ("guard", {}))
    ]
    bias = TensorStatistics(0, think_inputs=torch.randn(2, 5))
    found = run_chain(chain, pair[0] * 0, pair, Context(Draws(), TensorInfo("b", (7,)), bias))
    assert torch.equal(found, pair[1])

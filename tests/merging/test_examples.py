"""Worked examples small enough to do on paper, and the properties the papers state."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, tensor

from laconic.merging.apply import Context, Link, TensorInfo, apply, run_chain
from laconic.merging.blocks import trim_smallest
from laconic.merging.bracket import BracketSurvey
from laconic.merging.draws import Draws
from laconic.merging.survey import Place, TrimSurvey
from laconic.registry import get_method

D1 = tensor([0.5, -0.1, 0.3, -0.4, 0.2])
D2 = tensor([-0.2, 0.6, 0.4, -0.1, 0.3])
ZERO = torch.zeros(5)
INFO = TensorInfo("w", ())


def close(found: Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(found, tensor(expected, dtype=torch.float32), rtol=0, atol=1e-6)


def test_average() -> None:
    close(apply("average", None, tensor([[1.0, 2, -3], [3, 0, 1]])), [2, 1, -1])


def test_linear_normalises_its_weights() -> None:
    close(apply("linear", None, tensor([[1.0, 2], [4, 8]]), weights=(2, 1)), [2, 4])


def test_task_arithmetic() -> None:
    base = tensor([1.0, -2, 0.5])
    first, second = tensor([2.0, -1, 0]), base + tensor([-1, 0.5, 1])
    close(apply("task_arithmetic", base, first[None], alpha=0.7), [1.7, -1.3, 0.15])
    both = torch.stack([first, second])
    close(apply("task_arithmetic", base, both, alpha=0.7), [1.0, -0.95, 0.85])
    close(apply("task_arithmetic", base, both, alpha=(1.0, 0.0)), first.tolist())


def bf16(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3)).bfloat16().float()


def test_ends_of_the_line_are_the_parents_bit_for_bit() -> None:
    quick, slow = bf16(2, 4000) * tensor([[0.02], [0.021]])
    quick, slow = quick.bfloat16().float(), slow.bfloat16().float()
    pair = torch.stack([quick, slow])
    for alpha, parent in ((0.0, quick), (1.0, slow)):
        assert torch.equal(apply("interpolation", None, pair, weight=alpha), parent)
        moved = apply("task_arithmetic", quick, slow[None], alpha=alpha)
        assert torch.equal(moved.bfloat16(), parent.bfloat16())
    half = apply("task_arithmetic", quick, slow[None], alpha=0.5)
    assert torch.equal(half.bfloat16(), apply("average", None, pair).bfloat16())
    line = apply("task_arithmetic", quick, slow[None], alpha=0.6)
    torch.testing.assert_close(line, apply("interpolation", None, pair, weight=0.6))


def test_ties_of_two_task_vectors() -> None:
    both = torch.stack([D1, D2])
    close(apply("ties", ZERO, both, trim=0.4), [0.5, 0.6, 0.35, -0.4, 0.25])
    close(apply("ties", ZERO, both, trim=0.4, rule="exact"), [0.5, 0.6, 0.35, -0.4, 0.3])


def test_ties_of_one_task_vector_prunes_it() -> None:
    close(apply("ties", ZERO, D1[None], trim=0.8), [0.5, 0, 0, -0.4, 0])
    close(apply("ties", ZERO, D1[None], trim=0.8, rule="exact"), [0.5, 0, 0, 0, 0])
    majority = apply("ties", ZERO, D1[None], trim=0.4, zero_sign="majority")
    assert torch.equal(majority, apply("ties", ZERO, D1[None], trim=0.4))


def test_ties_at_the_threshold_inflate_what_ge_keeps() -> None:
    tied = tensor([0.1, 0.1, 0.1, 0.1, 0.5])
    close(apply("ties", ZERO, tied[None], trim=0.8), tied.tolist())
    close(apply("ties", ZERO, tied[None], trim=0.8, rule="exact"), [0, 0, 0, 0, 0.5])
    close(apply("ties", ZERO, tied[None], trim=0.4, rule="exact"), [0, 0, 0.1, 0.1, 0.5])


@pytest.mark.parametrize(("rule", "kept"), [("ge", [0, 0.2, 0.3]), ("exact", [0, 0, 0.3])])
def test_global_scope_ranks_all_tensors_together(rule: str, kept: list[float]) -> None:
    first, second = tensor([0.9, 0.8]), tensor([0.1, 0.2, 0.3])
    survey = TrimSurvey(0.4, rule)  # type: ignore[arg-type]
    again = True
    while again:
        survey.see(torch.zeros(2), first[None], Place(0))
        survey.see(torch.zeros(3), second[None], Place(1))
        again = survey.turn()
    method = get_method("ties")
    ties = Link(method, method.settings({"trim": 0.4, "rule": rule}))
    for number, (vector, expected) in enumerate([(first, [0.9, 0.8]), (second, kept)]):
        base = torch.zeros_like(vector)
        found = survey.result(Place(number))
        context = Context(Draws(), INFO, found=lambda _, found=found: found)
        close(run_chain([ties], base, vector[None], context), expected)
    if rule == "ge":  # per tensor, one entry of two and of three is below c = 1: nothing is cut
        close(apply("ties", torch.zeros(2), first[None], trim=0.4), [0.9, 0.8])


def test_sign_of_cancelled_entries() -> None:
    plus = tensor([[0.3, -0.2], [-0.3, -0.4]])
    zero = torch.zeros(2)
    close(apply("ties", zero, plus, trim=0), [0.3, -0.3])
    close(apply("ties", zero, plus, trim=0, zero_sign="majority"), [-0.3, -0.3])
    cancelled = tensor([[0.3], [-0.3]])
    close(apply("ties", torch.zeros(1), cancelled, trim=0, zero_sign="majority"), [0])
    close(apply("ties", torch.zeros(1), cancelled, trim=0), [0.3])


def test_trim_zero_is_task_arithmetic() -> None:
    experts = bf16(1, 500)
    base = bf16(500) * 0.5
    ties = apply("ties", base, experts, trim=0, alpha=0.6)
    assert torch.equal(ties, apply("task_arithmetic", base, experts, alpha=0.6))


@pytest.mark.parametrize("kind", ["random", "tied", "bfloat16"])
@pytest.mark.parametrize("trim", [0.0, 0.2, 0.5, 0.8, 0.999, 1.0])
def test_counted_threshold_is_the_order_statistic(kind: str, trim: float) -> None:
    values = torch.randn(50_000, generator=torch.Generator().manual_seed(1)) * 0.003
    if kind == "tied":
        values = (values * 2000).round() / 2000
    if kind == "bfloat16":
        values = values.bfloat16().float()
    survey = TrimSurvey(trim)
    again = True
    while again:
        for start in range(0, 50_000, 7000):
            part = values[None, start : start + 7000]
            survey.see(torch.zeros(1), part, Place(0, start))
        again = survey.turn()
    count = int(50_000 * trim)
    expected = np.partition(values.abs().numpy(), count - 1)[count - 1] if count else 0.0
    assert survey.result(Place()).cut.thresholds == (float(expected),)


def test_dare_given_the_mask() -> None:
    class Fixed(Draws):
        def uniform(self, like: Tensor) -> Tensor:
            return tensor([[0.9, 0.1, 0.8]])

    zero, delta = torch.zeros(3), tensor([[0.7, -1.4, 2.1]])
    dare = Link(get_method("dare"), {"drop": 0.3, "rescale": True})

    def then(name: str, experts: Tensor, **knobs: float) -> Tensor:
        method = get_method(name)
        return run_chain(
            [dare, Link(method, method.settings(knobs))], zero, experts, Context(Fixed(), INFO)
        )

    close(run_chain([dare], zero, delta, Context(Fixed(), INFO))[0], [1, 0, 3])
    close(then("average", torch.cat([zero[None], delta])), [0.5, 0, 1.5])
    close(then("task_arithmetic", delta, alpha=0.7), [0.7, 0, 2.1])
    close(then("ties", delta, trim=0.4), [1, 0, 3])
    close(then("ties", delta, trim=0.8), [1, 0, 3])
    close(then("ties", delta, trim=1.0), [0, 0, 3])


def test_dare_is_unbiased_and_reaches_its_rate() -> None:
    ones = torch.ones(1, 200_000)
    dropped = apply("dare", torch.zeros(200_000), ones, drop=0.3, seed=5, tensor="w")[0]
    moved = 0.7 * dropped
    assert set(moved.round(decimals=5).unique().tolist()) == {0.0, 1.0}
    assert abs(moved.mean().item() - 0.7) < 0.005
    means = [
        apply("dare", torch.zeros(2000), ones[:, :2000], drop=0.5, seed=seed, tensor="w").mean()
        for seed in range(50)
    ]
    assert abs(torch.stack(means).mean().item() - 1.0) < 0.01


def test_dare_drop_zero_is_the_identity() -> None:
    experts = torch.randn(2, 100)
    assert torch.equal(apply("dare", torch.randn(100), experts, drop=0), experts)


def test_draws_differ_by_tensor_and_by_expert() -> None:
    like = torch.zeros(2, 1000)
    first, second = Draws(0, "a").uniform(like), Draws(0, "b").uniform(like)
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[1])
    assert abs(first.mean().item() - 0.5) < 0.03


@pytest.mark.parametrize("rule", ["ge", "exact"])
@pytest.mark.parametrize("trim", [0.0, 0.003, 0.2, 0.5, 0.8, 0.999, 1.0])
@pytest.mark.parametrize("kind", ["random", "tied", "sorted", "constant"])
def test_the_bracket_finds_what_counting_finds(kind: str, trim: float, rule: str) -> None:
    """`sorted` misleads the sample of every sixteenth block, so that counting must take over."""
    values = torch.randn(2, 60_000, generator=torch.Generator().manual_seed(4)) * 0.003
    values = {
        "random": values,
        "tied": (values * 3000).round() / 3000,
        "sorted": values.sort().values,
        "constant": torch.full_like(values, 0.5),
    }[kind]
    base = torch.zeros(1)
    bracket, counting = BracketSurvey(trim, rule), TrimSurvey(trim, rule)  # type: ignore[arg-type]
    starts = range(0, 60_000, 1000)
    again = True
    while again:
        for start in starts:
            if bracket.wants(Place(0, start), 1000):
                bracket.see(base, values[:, start : start + 1000], Place(0, start))
        again = bracket.turn()
    again = True
    while again:
        for start in starts:
            counting.see(base, values[:, start : start + 1000], Place(0, start))
        again = counting.turn()
    for start in starts:
        block = values[:, start : start + 1000]
        found = trim_smallest(block, bracket.result(Place(0, start)).cut)
        assert torch.equal(found, trim_smallest(block, counting.result(Place(0, start)).cut))

"""DELLA, breadcrumbs and SCE: worked examples, exact counts and density."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, tensor

from checkpoints import pair
from laconic.merging.apply import Context, Link, TensorInfo, apply, run_chain
from laconic.merging.draws import Draws
from laconic.merging.engine import merge
from laconic.recipe import parse_recipe
from laconic.registry import get_method

ZERO = torch.zeros(6)
INFO = TensorInfo("w", ())


def close(found: Tensor, expected: Any) -> None:
    expected = torch.as_tensor(expected, dtype=torch.float32)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_breadcrumbs_cuts_both_tails() -> None:
    delta = tensor([[0.5, -0.1, 0.3, -0.9, 0.2, 0.0]])
    found = apply("breadcrumbs", ZERO, delta, trim=0.5, outliers=0.2)
    close(found, [[0.5, 0, 0.3, 0, 0, 0]])
    close(apply("breadcrumbs", ZERO, delta, trim=0, outliers=0.34), [[0, -0.1, 0.3, 0, 0.2, 0]])
    close(apply("breadcrumbs", ZERO, delta, trim=0.5, outliers=0), [[0.5, 0, 0.3, -0.9, 0, 0]])
    close(apply("breadcrumbs", ZERO, delta, trim=0.6, outliers=0.5), [[0] * 6])


def test_breadcrumbs_breaks_ties_by_index() -> None:
    tied = tensor([[0.1, -0.1, 0.1, 0.1, -0.1, 0.1]])
    found = apply("breadcrumbs", ZERO, tied, trim=0.34, outliers=0.34)
    close(found, [[0, 0, 0.1, 0.1, 0, 0]])


@pytest.mark.parametrize("shares", [(0.85, 0.01), (0.3, 0.25), (0.0, 0.1), (0.9, 0.0)])
def test_breadcrumbs_drops_exactly_the_shares(shares: tuple[float, float]) -> None:
    base, expert = random(70, 90), random(1, 70, 90, seed=1)
    found = apply("breadcrumbs", base, expert, trim=shares[0], outliers=shares[1])[0]
    order = (expert[0] - base).abs().reshape(-1).argsort()
    low, high = int(6300 * shares[0]), 6300 - int(6300 * shares[1])
    kept = order[low:high]
    assert torch.equal(found.view(-1)[kept], expert[0].reshape(-1)[kept])
    assert int((found != base).sum()) == high - low


class Fixed(Draws):
    """The same draws for every row."""

    def uniform(self, like: Tensor) -> Tensor:
        return tensor([0.19, 0.35, 0.5]).expand(like.shape)


def test_della_given_the_draws() -> None:
    """Probabilities .6 for the smallest, .4, .2 for the largest; row 2 has the order reversed."""
    delta = tensor([[[0.4, -1.2, 3.2], [-3.2, 1.2, 0.4]]])
    link = Link(get_method("della"), {"drop": 0.4, "window": 0.4, "rescale": True})
    found = run_chain([link], torch.zeros(2, 3), delta, Context(Fixed(), INFO))[0]
    close(found, [[0, 0, 4.0], [0, 0, 0]])
    plain = Link(get_method("della"), {"drop": 0.2, "window": 0.0, "rescale": False})
    found = run_chain([plain], torch.zeros(2, 3), delta, Context(Fixed(), INFO))[0]
    close(found, [[0, -1.2, 3.2], [0, 1.2, 0.4]])


def test_della_is_unbiased_and_drops_small_entries_more() -> None:
    delta = random(1, 200, 1000)
    found = apply("della", torch.zeros(200, 1000), delta, drop=0.4, window=0.6, seed=2, tensor="w")
    dropped = (found[0] == 0).float()
    order = delta[0].abs().argsort(dim=1)
    by_rank = dropped.gather(1, order).mean(0)  # share dropped at each rank, smallest first
    assert dropped.mean().item() == pytest.approx(0.4, abs=0.005)
    assert by_rank[:100].mean().item() == pytest.approx(0.67, abs=0.01)
    assert by_rank[-100:].mean().item() == pytest.approx(0.13, abs=0.01)
    kept = found[0] != 0
    ratio = (found[0] / delta[0])[kept]
    assert ratio.min().item() == pytest.approx(1 / 0.9, rel=1e-3)
    assert ratio.max().item() == pytest.approx(1 / 0.3, rel=1e-3)
    total = (found[0] * delta[0].sign()).sum() / delta[0].abs().sum()
    assert total.item() == pytest.approx(1.0, abs=0.01)


def test_della_without_window_is_dare() -> None:
    base, experts = random(30, 20), random(2, 30, 20, seed=1)
    found = apply("della", base, experts, drop=0.3, window=0.0, tensor="w", seed=4)
    torch.testing.assert_close(found, apply("dare", base, experts, drop=0.3, tensor="w", seed=4))


def test_sce() -> None:
    """Energies 4 and 1 in mean: weights .8 and .2; signs +, +, -, +."""
    deltas = tensor([[4.0, -1, -2, 0], [1.0, 3, 2, 0]])
    energies = tensor([21.0, 14.0])
    weight = energies / energies.sum()
    base = tensor([1.0, 1, 1, 1])
    first = (weight[0] * 4 + weight[1] * 1).item()
    close(apply("sce", base, base + deltas), [1 + first, 1 + 3, 1 + 2, 1])
    both = torch.stack([deltas[0], torch.tensor([1.0, 3, -2, 0])])
    close(apply("sce", base, base + both)[2], -1)


def test_sce_selects_where_parents_differ() -> None:
    deltas = tensor([[4.0, -1, 0.2, 0.3], [4.0, 2, 0.1, 0.3]])  # variances 0, 2.25, .0025, 0
    found = apply("sce", torch.zeros(4), deltas, select=0.5)
    close(found, [0, 2, 0, 0])
    close(apply("sce", torch.zeros(4), deltas, select=0.0), [0, 0, 0, 0])


def test_sce_selection_counts_and_ties() -> None:
    deltas = torch.stack([torch.ones(10), -torch.ones(10)]) * tensor(
        [3.0] * 3 + [2.0] * 4 + [1] * 3
    )
    found = apply("sce", torch.zeros(10), deltas, select=0.5)
    assert (found != 0).tolist() == [True] * 5 + [False] * 5


CHAINS = [
    ["breadcrumbs", {"ties": {"trim": 0.3, "rule": "exact"}}],
    ["breadcrumbs", {"ties": {"trim": 0.3, "scope": "global"}}],
    [{"della": {"drop": 0.4}}, {"ties": {"trim": 0.5, "rule": "exact"}}],
    [{"breadcrumbs": {"trim": 0.5}}, "karcher"],
    [{"della": {"drop": 0.4}}, "lore"],
]


@pytest.mark.parametrize("chain", CHAINS, ids=str)
def test_surveys_see_what_the_sparsifier_left(tmp_path: Path, chain: list[Any]) -> None:
    quick, slow = (load_file(p / "model.safetensors") for p in pair(tmp_path))
    recipe = parse_recipe(
        {"quick": str(tmp_path / "quick"), "slow": str(tmp_path / "slow"), "merge": chain}
    )
    merge(recipe, tmp_path / "a", block=64, threads=2, progress=False)
    merge(recipe, tmp_path / "b", block=1 << 18, threads=1, progress=False)
    found, again = (load_file(tmp_path / f / "model.safetensors") for f in "ab")
    links = [Link(get_method(stage.method), stage.knobs) for stage in recipe.merge]
    global_scope = any(stage.knobs.get("scope") == "global" for stage in recipe.merge)
    for name, base in quick.items():
        assert torch.equal(found[name], again[name]), name
        if global_scope:
            continue
        experts = slow[name].float()[None]
        if "base" not in links[-1].method.inputs:
            experts = torch.cat([base.float()[None], experts])
        context = Context(Draws(0, name), TensorInfo(name, tuple(base.shape)))
        expected = run_chain(links, base.float(), experts, context)
        assert torch.equal(found[name], expected.bfloat16()), name

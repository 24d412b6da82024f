from __future__ import annotations

import math

import pytest
import torch

from laconic.run.picking import Noise, pick
from laconic.run.sampling import Sampling

# Shares 0.2, 0.5, 0.3: the likeliest is token 1, then 2, then 0.
LOGITS = torch.tensor([[math.log(0.2), math.log(0.5), math.log(0.3)]])


def picked(uniform: float, **sampling: float) -> int:
    settings = Sampling(**({"temperature": 1.0} | sampling))  # type: ignore[arg-type]
    return int(pick(LOGITS, settings, [uniform]))


@pytest.mark.parametrize(
    ("uniform", "token"), [(0.0, 1), (0.49, 1), (0.51, 2), (0.79, 2), (0.81, 0), (0.999999, 0)]
)
def test_a_uniform_number_inverts_the_distribution(uniform: float, token: int) -> None:
    assert picked(uniform) == token


def test_greedy_takes_the_likeliest() -> None:
    assert picked(0.99, temperature=0.0) == 1


@pytest.mark.parametrize(("uniform", "token"), [(0.62, 1), (0.63, 2), (0.999999, 2)])
def test_top_k_renormalises_what_is_left(uniform: float, token: int) -> None:
    assert picked(uniform, top_k=2) == token  # 0.5 / 0.8 = 0.625


@pytest.mark.parametrize(("top_p", "last"), [(0.4, 1), (0.49, 1), (0.51, 2), (0.79, 2), (0.81, 0)])
def test_top_p_keeps_the_fewest_tokens_that_hold_it(top_p: float, last: int) -> None:
    assert picked(0.999999, top_p=top_p) == last


@pytest.mark.parametrize(("uniform", "token"), [(0.62, 1), (0.63, 2)])
def test_top_p_renormalises_what_is_left(uniform: float, token: int) -> None:
    assert picked(uniform, top_p=0.6) == token  # 0.5 / 0.8 = 0.625


def test_temperature_divides_the_logits() -> None:
    # At temperature 1/2 the shares are squared: 0.25, 0.09, 0.04 of 0.38, so 0.658 for token 1.
    assert picked(0.65, temperature=0.5) == 1
    assert picked(0.67, temperature=0.5) == 2


def test_rows_are_picked_apart() -> None:
    logits = torch.cat([LOGITS, LOGITS.flip(1)])
    assert pick(logits, Sampling(temperature=1.0), [0.9, 0.9]).tolist() == [0, 2]


def test_noise_depends_on_seed_sample_and_draw_alone() -> None:
    first, again = Noise(0, "q1", 0), Noise(0, "q1", 0)
    ahead = again[300]
    assert [first[i] for i in range(301)][300] == ahead
    others = [Noise(1, "q1", 0), Noise(0, "q2", 0), Noise(0, "q1", 1)]
    assert len({first[0], *(noise[0] for noise in others)}) == 4
    assert all(0 <= first[i] < 1 for i in range(600))
    assert first[0] != first[256]
    # Fixed for good: stored runs must be resumable by later versions.
    assert Noise(0, "q1", 0)[0] == pytest.approx(0.5430258911276593, abs=1e-15)

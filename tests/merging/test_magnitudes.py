"""Primitives of the surveys, on the processor and on a card, against plain sorting."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from laconic.merging import bracket
from laconic.merging.apply import or_zero
from laconic.merging.blocks import trim_smallest
from laconic.merging.bracket import BracketSurvey
from laconic.merging.gram import GramSurvey
from laconic.merging.magnitudes import (
    absolute,
    count,
    histogram,
    join,
    patterns,
    select,
    take,
)
from laconic.merging.survey import Place, Survey, TrimRule, TrimSurvey, survey_tensor
from laconic.merging.tails import BodySurvey
from stand_in_card import CARD, waits

HOST = torch.device("cpu")
everywhere = pytest.mark.parametrize("device", [HOST, CARD], ids=["processor", "card"])


def spread(count: int, seed: int = 0) -> Tensor:
    """Numbers from subnormal to large, of both signs, a third of them with equals."""
    random = torch.Generator().manual_seed(seed)
    powers = torch.randint(-140, 30, (count,), generator=random).float()
    numbers = torch.randn(count, generator=random)
    numbers[::3] = numbers[::3].sign()
    return numbers * torch.exp2(powers)


@everywhere
def test_patterns_sort_as_magnitudes_do(device: torch.device) -> None:
    vector = spread(500)
    bits = select(patterns(vector.to(device)), range(500))
    assert bits == vector.abs().sort().values.view(torch.int32).tolist()


@everywhere
def test_histogram_counts_every_number(device: torch.device) -> None:
    values = torch.tensor([0, 3, 3, 65535, 7, 3], dtype=torch.int32)
    found = histogram(values.to(device) if device == CARD else values.numpy())
    assert len(found) == 65536
    assert {i: int(n) for i, n in enumerate(found) if n} == {0: 1, 3: 3, 7: 1, 65535: 1}


@everywhere
def test_taking_joining_counting_and_selecting(device: torch.device) -> None:
    values = absolute(torch.tensor([-3.0, 1.0, -2.0, 5.0]).to(device))
    assert count(values >= 2) == 3
    some = take(values, values >= 2)
    assert [float(x) for x in some] == [3.0, 2.0, 5.0]
    assert select(join([some, values]), [0, 3, 6]) == [1.0, 3.0, 5.0]


def test_a_missing_base_stands_where_the_experts_do() -> None:
    experts = torch.stack([spread(400, 1), spread(400, 2)])
    found, expected = (
        survey_tensor(BracketSurvey(0.5), or_zero(None, each), each)
        for each in (experts.to(CARD), experts)
    )
    assert found == expected


def blocks(survey: Survey, base: Tensor, experts: Tensor, size: int) -> list[Place]:
    """Show a survey all blocks, pass by pass; return their places."""
    places = [Place(0, start) for start in range(0, len(base), size)]
    again = True
    while again:
        for place in places:
            part = slice(place.start, place.start + size)
            survey.see(base[part], experts[:, part], place)
        again = survey.turn()
    return places


@pytest.mark.parametrize("rule", ["ge", "exact"])
@pytest.mark.parametrize("misled", [False, True], ids=["bracket holds", "sample misled"])
def test_a_bracket_on_a_card_finds_what_it_finds_here(
    rule: TrimRule, misled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if misled:
        monkeypatch.setattr(bracket, "MOST_INSIDE", 3)
    # every entry 16 times in a row: what is sampled is just like the whole
    base, experts = torch.zeros(4000), torch.stack([spread(250, seed) for seed in range(6)])
    experts = experts.repeat_interleave(16, dim=1)
    here, away, sure = BracketSurvey(0.6, rule), BracketSurvey(0.6, rule), TrimSurvey(0.6, rule)
    for survey in (here, sure):
        blocks(survey, base, experts, 640)
    with waits() as found:
        places = blocks(away, base.to(CARD), experts.to(CARD), 640)
    assert any("bincount" in operation for operation in found) == misled
    smallest = experts.abs().sort().values[:, int(4000 * 0.6) - 1]
    for place in places:
        assert away.result(place) == here.result(place)
        assert sure.result(place).cut.thresholds == tuple(smallest.tolist())
        part = experts[:, place.start : place.start + 640]
        kept = [trim_smallest(part, s.result(place).cut) for s in (away, sure)]
        assert torch.equal(kept[0], kept[1])


@pytest.mark.parametrize(
    "survey",
    [
        lambda: TrimSurvey(0.5),
        lambda: TrimSurvey(0.5, "exact", "majority"),
        lambda: BracketSurvey(0.5, "exact"),
        lambda: BodySurvey(0.5, 0.1),
        lambda: GramSurvey(),
    ],
)
def test_what_surveys_find_is_on_the_host_and_the_same(survey: object) -> None:
    base, experts = torch.zeros(3000), torch.stack([spread(3000, 3), spread(3000, 4)])
    here, away = survey(), survey()  # type: ignore[operator]
    blocks(here, base, experts, 1000)
    with waits() as found:
        places = blocks(away, base.to(CARD), experts.to(CARD), 1000)
    assert len(found) <= 12 * len(places) * len(experts)
    for place in places:
        expected, result = here.result(place), away.result(place)
        if isinstance(expected, Tensor):
            assert result.device == HOST
            assert torch.equal(result, expected)
        else:
            assert result == expected

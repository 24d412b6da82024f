"""Choosing without right answers: by agreement of neighbours, then by length."""

from __future__ import annotations

from pathlib import Path

import pytest

from laconic.searching.auto import auto, choose, disagreement
from laconic.searching.outcomes import Outcome
from laconic.searching.search import Options
from laconic.searching.study_file import parse_study
from searching.fakes import Live, study


def outcomes(answers: str, tokens: int, fault: str | None = None) -> list[Outcome]:
    return [
        Outcome(str(i), 0, None, tokens, False, True, answer, fault)  # type: ignore[arg-type]
        for i, answer in enumerate(answers)
    ]


def test_disagreement_by_hand() -> None:
    assert disagreement(outcomes("1234", 1), outcomes("1235", 1)) == 0.25
    missing = [Outcome("0", 0, None, 1, False, True, None)]
    assert disagreement(missing, missing) == 1.0  # two missing answers do not agree


def test_the_steadiest_and_then_the_shortest() -> None:
    rows = ["1111", "2111", "2222", "2223", "2223", "2223", "2223", "2223", "2223", "2223", "4444"]
    swept = [outcomes(row, 10 * step) for step, row in enumerate(rows)]
    choice = choose(swept, 4, {"quick": "q", "slow": "s"})
    # 4 to 8 agree with both neighbours; 3 and 9 do not; the parents are not chosen
    assert [round(one.disagreement, 3) for one in choice.candidates][3:6] == [0.125, 0.0, 0.0]
    assert choice.weight == 0.4
    assert choice.recipe["merge"] == [{"interpolation": {"weight": 0.4}}]


def test_collapsed_merges_are_not_chosen() -> None:
    swept = [outcomes("1111", 10 * step, "loop" if step < 6 else None) for step in range(11)]
    assert choose(swept, 4, {"quick": "q", "slow": "s"}).weight == 0.6


def test_a_live_pair(tmp_path: Path) -> None:
    raw = study(tmp_path, questions={"count": 20})
    live = Live(tmp_path)
    choice = auto(
        parse_study(raw), out=tmp_path / "out", options=Options(progress=False), runner=live
    )
    assert choice.questions == 20
    assert choice.weight == pytest.approx(0.5)  # from 0.4 on all are right; 0.4 has 0.3 beside it
    again = Live(tmp_path)
    same = auto(
        parse_study(raw), out=tmp_path / "out", options=Options(progress=False), runner=again
    )
    assert same == choice
    assert again.generated == []
    assert "<- chosen" in "\n".join(choice.lines())

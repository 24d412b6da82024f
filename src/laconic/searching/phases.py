"""The phases of a search: one of a study's own recipes, or three of the usual plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from laconic.searching.blocks import Units
from laconic.searching.outcomes import Outcome
from laconic.searching.space import Space, make_space
from laconic.searching.study_file import Sampler, Study
from laconic.stages import StagePoint, fit_stages

SWEEP = 11
"""Points of the usual plan's sweep: 0 to 1 by 0.1."""
MARGIN = 0.1
"""How far beyond the good merges of the sweep the later phases look."""
LEAST = 0.2
"""Least width of the region that the later phases search."""
BLOCKS = 8


@dataclass(frozen=True)
class Swept:
    """A merge of the sweep: its weight, its mean figures, and its responses."""

    weight: float
    outcomes: Sequence[Outcome]
    good: bool


@dataclass(frozen=True)
class Phase:
    """A part of a search with a space and a sampler of its own. trials: of the study's budget."""

    name: str
    space: Space
    sampler: Sampler | None
    trials: int


def own_phase(study: Study, units: Units | None) -> Phase:
    """The one phase of a study that names its recipes."""
    space = make_space(study.common(), study.recipes, units)
    return Phase("trials", space, study.sampler, study.budget.trials)


def sweep_phase(study: Study) -> Phase:
    """The first phase of the usual plan: interpolation from quick to slow."""
    space = make_space(study.common(), [{"interpolation": {"weight": [0.0, 1.0]}}], None)
    return Phase("sweep", space, "grid", min(SWEEP, study.budget.trials))


def later_phases(study: Study, units: Units, swept: Sequence[Swept]) -> list[Phase]:
    """What follows the sweep: TIES, then blocks of layers, around its best region."""
    low, high = region(swept)
    left = max(study.budget.trials - SWEEP, 0)
    ties: dict[str, Any] = {"ties": {"trim": [0.0, 0.8], "alpha": [low, min(1.5 * high, 1.5)]}}
    count = min(BLOCKS, units.count)
    blocks: dict[str, Any] = {"interpolation": {"weight": [low, high]}, "blocks": {"count": count}}
    wanted = [("ties", ties, left * 2 // 5), ("blocks", blocks, left - left * 2 // 5)]
    return [
        Phase(name, make_space(study.common(), [raw], units), study.sampler, trials)
        for name, raw, trials in wanted
        if trials
    ]


def region(swept: Sequence[Swept]) -> tuple[float, float]:
    """The range of weights worth searching: that of the good merges and a margin around it.

    From where thinking begins (arXiv 2510.10977), when the sweep shows it, and no narrower than
    0.2. good: on the front of the sweep and longer than the quick parent's style.
    """
    points = [
        StagePoint(
            one.weight,
            len(one.outcomes),
            sum(outcome.closed for outcome in one.outcomes),
            sum(outcome.tokens for outcome in one.outcomes) / len(one.outcomes),
        )
        for one in sorted(swept, key=lambda s: s.weight)
        if one.outcomes
    ]
    found = fit_stages(points)
    begin = found.low if found.low is not None else 0.0
    good = [one.weight for one in swept if one.good and one.weight >= begin - MARGIN]
    low = max(min(good, default=begin) - MARGIN, 0.0)
    high = min(max(good, default=1.0) + MARGIN, 1.0)
    if high - low < LEAST:
        low = max(high - LEAST, 0.0)
    return round(low, 4), round(max(high, low + LEAST), 4)

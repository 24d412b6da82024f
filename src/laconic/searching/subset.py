"""A subset of the questions, chosen once, and how well it ranks merges as all of them do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scipy import stats

from laconic.searching.outcomes import Answer, figures
from laconic.searching.questions import shuffled

Answers = Mapping[str, Answer]
FEWEST = 3
"""Merges without which a rank correlation says nothing."""


@dataclass(frozen=True)
class Fidelity:
    """Spearman's rank correlation, over merges, between a subset's figures and all questions'.

    merges: how many it is over. None: fewer than three, or all alike.
    """

    questions: int
    merges: int
    accuracy: float | None
    tokens: float | None

    def to_dict(self) -> dict[str, Any]:
        """The fidelity as data."""
        return asdict(self)


def most_telling(sweep: Sequence[Answers], count: int, seed: int) -> tuple[str, ...]:
    """The questions on which the merges of a sweep differ most (Evo-L2S, arXiv 2604.06465).

    By the entropy of each question's share right over the merges, ties in the seed's order. Use
    their accuracy to rank merges only: they are chosen to be hard to call.
    """
    shared = set.intersection(*(set(own) for own in sweep))
    ordered = shuffled(sorted(shared), seed)
    entropy = {id: _entropy([own[id].correct for own in sweep]) for id in ordered}
    chosen = sorted(ordered, key=lambda id: -entropy[id])[:count]
    return tuple(id for id in ordered if id in set(chosen))


def fidelity(merges: Sequence[Answers], subset: Sequence[str]) -> Fidelity:
    """How alike a subset and all questions rank merges that answered them all."""
    whole = [figures(own) for own in merges]
    part = [figures({id: own[id] for id in subset}) for own in merges]
    return Fidelity(
        len(subset),
        len(merges),
        _spearman([f.accuracy for f in part], [f.accuracy for f in whole]),
        _spearman([f.tokens for f in part], [f.tokens for f in whole]),
    )


def _spearman(one: Sequence[float], other: Sequence[float]) -> float | None:
    if len(one) < FEWEST or len(set(one)) == 1 or len(set(other)) == 1:
        return None
    return float(stats.spearmanr(one, other).statistic)


def _entropy(shares: Sequence[float | None]) -> float:
    known = [share for share in shares if share is not None]
    p = sum(known) / len(known) if known else 0.0
    return -sum(q * math.log2(q) for q in (p, 1 - p) if q > 0)

"""Where, between a quick and a slow model, thinking begins: the stages of interpolation.

Sweeping the weight lambda of `interpolation` passes three stages (Wu et al., arXiv:2510.10977): the
quick model's style, a sharp emergence of </think>, the slow model's style. The useful merges lie at
the end of the second and early in the third. The detector is this project's own.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from laconic.errors import LaconicError
from laconic.plan import Plan, make_plan
from laconic.recipe import parse_recipe
from laconic.run.runner import Runner
from laconic.run.sample import Sample
from laconic.run.sampling import Sampling
from laconic.statistics.weights import read_input
from laconic.tags import THINK_END

LOW, HIGH = 0.05, 0.95
STEEPEST = 200.0
"""Of the fitted curve: nearly a step between two points of the finest grid."""


@dataclass(frozen=True)
class StagePoint:
    """What a merge with this weight on the slow model did: responses, those closed, their length.

    `closed`: responses with exactly one </think>; another token in its place does not count.
    """

    weight: float
    responses: int
    closed: int
    mean_tokens: float

    @property
    def share(self) -> float:
        """Share of the responses that close their thinking."""
        return self.closed / self.responses


@dataclass(frozen=True)
class Stages:
    """The sweep, and where the fitted share of closed responses passes 0.05 and 0.95.

    `low`, `high` and the operating points {high, (high + 1) / 2} are None and empty, and `note`
    says why, when the share never rises from below 0.05 to above 0.95.
    """

    points: tuple[StagePoint, ...]
    low: float | None
    high: float | None
    operating_points: tuple[float, ...]
    note: str

    def to_dict(self) -> dict[str, Any]:
        """The stages as data."""
        rows = [asdict(point) | {"share": point.share} for point in self.points]
        return {**asdict(self), "points": rows}

    def lines(self) -> Iterator[str]:
        """Yield a table for a terminal."""
        yield f"{'weight':>7}{THINK_END:>10}{'tokens':>10}"
        for point in self.points:
            yield f"{point.weight:>7.3f}{point.share:>10.3f}{point.mean_tokens:>10.1f}"
        if self.low is not None and self.high is not None:
            yield f"thinking begins at {self.low:.3f} and is settled at {self.high:.3f}"
            yield f"operating points: {', '.join(f'{w:.3f}' for w in self.operating_points)}"
        yield from [self.note] * bool(self.note)


def stages(
    quick: str,
    slow: str,
    samples: Sequence[Sample],
    *,
    step: float = 0.1,
    refinements: int = 4,
    sampling: Sampling | None = None,
    runner: Runner | None = None,
    progress: bool = True,
) -> Stages:
    """Interpolate from quick to slow in steps, and find where the think tags appear.

    samples: prompts, about 64. step: of the grid over the weight. refinements: further merges, each
    in the middle of the interval where the share passes 0.95 or 0.05. sampling: 4 draws at
    temperature 0.6 and top_p 0.95 unless given. runner: a live model of the slow parent, opened
    here unless given; merges replace its weights, nothing is written.
    Raises LaconicError for parents that do not fit, or no samples.
    """
    if not samples or not 0 < step <= 0.5:
        raise LaconicError("stages: needs samples, and a step above 0 and at most 0.5")
    plan = make_plan(
        parse_recipe({"quick": quick, "slow": slow, "merge": ["interpolation"]}), weights=True
    )
    sampling = sampling or Sampling(temperature=0.6, top_p=0.95, n=4)
    if runner is None:
        from laconic.run.transformers import TransformersRunner

        runner = TransformersRunner(slow)
    count = math.ceil(round(1 / step, 6))
    points: dict[float, StagePoint] = {}
    hidden = None if progress else True
    with tqdm(total=count + 1 + refinements, disable=hidden, file=sys.stderr) as bar:
        for weight in [round(i / count, 6) for i in range(count + 1)]:
            points[weight] = _measure(plan, weight, samples, sampling, runner)
            bar.update()
        for turn in range(refinements):
            middle = _middle(sorted(points.values(), key=_weight), HIGH if turn % 2 == 0 else LOW)
            if middle is not None and middle not in points:
                points[middle] = _measure(plan, middle, samples, sampling, runner)
            bar.update()
    return fit_stages(sorted(points.values(), key=_weight))


def fit_stages(points: Sequence[StagePoint]) -> Stages:
    """Fit a logistic curve to the shares of a sweep and read the stages off it."""
    shares = [point.share for point in points]
    if not shares or min(shares) >= LOW or max(shares) <= HIGH:
        spread = f"from {min(shares):.2f} to {max(shares):.2f}" if shares else "unknown"
        note = f"no stages: the share of responses with {THINK_END} goes {spread}"
        return Stages(tuple(points), None, None, (), note)
    slope, middle = _logistic(points)
    reach = math.log(HIGH / LOW) / slope
    low, high = max(middle - reach, 0.0), min(middle + reach, 1.0)
    return Stages(tuple(points), low, high, (high, (high + 1) / 2), "")


def _logistic(points: Sequence[StagePoint]) -> tuple[float, float]:
    """Slope and middle of the likeliest share(w) = 1 / (1 + exp(-slope (w - middle)))."""
    from scipy.optimize import minimize

    weights, closed, asked = (
        np.array([getattr(p, name) for p in points], float)
        for name in ("weight", "closed", "responses")
    )

    def loss(values: Any) -> float:
        logits = values[0] * (weights - values[1])
        found: float = (asked * np.logaddexp(0, logits) - closed * logits).sum()
        return found

    bounds = [(1.0, STEEPEST), (0.0, 1.0)]
    # several starts: the likelihood of a steep curve is flat away from the step
    starts = [(20.0, middle) for middle in np.linspace(0.05, 0.95, 10)]
    found = [minimize(loss, start, method="L-BFGS-B", bounds=bounds) for start in starts]
    slope, middle = min(found, key=lambda result: float(result.fun)).x
    return float(slope), float(middle)


def _middle(points: Sequence[StagePoint], share: float) -> float | None:
    """The middle of the first interval in which the measured share passes a level."""
    for before, after in pairwise(points):
        if before.share < share <= after.share:
            return round((before.weight + after.weight) / 2, 6)
    return None


def _measure(
    plan: Plan, weight: float, samples: Sequence[Sample], sampling: Sampling, runner: Runner
) -> StagePoint:
    runner.load(_interpolated(plan, weight))
    done = list(runner.generate(samples, sampling))
    closed = sum(completion.text.count(THINK_END) == 1 for completion in done)
    tokens = sum(completion.tokens for completion in done) / len(done)
    return StagePoint(weight, len(done), closed, tokens)


def _interpolated(plan: Plan, weight: float) -> Iterator[tuple[str, Tensor]]:
    for step in plan.steps:
        quick, slow = (read_input(tensor) for tensor in step.experts)
        yield step.output.name, torch.lerp(quick, slow, weight)


def _weight(point: StagePoint) -> float:
    return point.weight

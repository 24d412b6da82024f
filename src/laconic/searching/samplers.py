"""Optuna's samplers, so seeded that a trial's draw depends on the study and its number alone."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler
from optuna.study import Study as OptunaStudy
from optuna.trial import FrozenTrial, TrialState

from laconic.errors import LaconicError
from laconic.searching.space import WHICH, Dial, Space
from laconic.searching.study_file import Sampler

STARTUP = 8
"""Random trials before a model of the objectives is fitted."""
POPULATION = 8
"""Of NSGA-II: small, for budgets of tens of trials."""
Constraints = Callable[[FrozenTrial], Sequence[float]]


class Seeded(BaseSampler):
    """Makes an inner sampler anew for every trial, from the study's seed and the trial's number.

    Optuna keeps no sampler's state in its storage; so made, a study that was killed goes on with
    the very draws of an unbroken one.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        self._make, self._seed = make, seed
        self._inner: dict[int, BaseSampler] = {}

    def infer_relative_search_space(
        self, study: OptunaStudy, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Leave it to the trial's sampler."""
        return self._of(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: OptunaStudy, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Leave it to the trial's sampler."""
        return self._of(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: OptunaStudy, trial: FrozenTrial, name: str, distribution: BaseDistribution
    ) -> Any:
        """Leave it to the trial's sampler."""
        return self._of(trial).sample_independent(study, trial, name, distribution)

    def before_trial(self, study: OptunaStudy, trial: FrozenTrial) -> None:
        """Leave it to the trial's sampler."""
        self._of(trial).before_trial(study, trial)

    def after_trial(
        self,
        study: OptunaStudy,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Leave it to the trial's sampler, which is not needed any more."""
        self._of(trial).after_trial(study, trial, state, values)
        self._inner.pop(trial.number, None)

    def _of(self, trial: FrozenTrial) -> BaseSampler:
        if trial.number not in self._inner:
            # 2**16 trials per seed before two studies share a draw
            self._inner[trial.number] = self._make((self._seed << 16) + trial.number)
        return self._inner[trial.number]


class Grid(BaseSampler):
    """The points of one parameter, evenly spread, coarse before fine: trial n takes the n-th."""

    def __init__(self, points: int) -> None:
        self._points = points

    def infer_relative_search_space(
        self, study: OptunaStudy, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Nothing is sampled together."""
        return {}

    def sample_relative(
        self, study: OptunaStudy, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing is sampled together."""
        return {}

    def sample_independent(
        self, study: OptunaStudy, trial: FrozenTrial, name: str, distribution: BaseDistribution
    ) -> Any:
        """The trial's point."""
        place = coarse_to_fine(self._points)[trial.number % self._points]
        if isinstance(distribution, CategoricalDistribution):
            return distribution.choices[place % len(distribution.choices)]
        if not isinstance(distribution, FloatDistribution | IntDistribution):
            raise TypeError(f"a grid over {distribution}")
        share = place / (self._points - 1) if self._points > 1 else 0.5
        value = distribution.low + share * (distribution.high - distribution.low)
        return round(value) if isinstance(distribution, IntDistribution) else value


def coarse_to_fine(count: int) -> list[int]:
    """The numbers 0 to count - 1: middle, ends, then ever halving what lies between."""
    order = list(dict.fromkeys([count // 2, 0, count - 1]))
    while len(order) < count:
        known = sorted(order)
        order += [(a + b) // 2 for a, b in pairwise(known) if (a + b) // 2 not in known]
    return order


def make_sampler(
    name: Sampler | None, space: Space, seed: int, points: int, constraints: Constraints | None
) -> BaseSampler:
    """The sampler of a study: as named, or grid for one knob, TPE for several recipes, GP else.

    points: of a grid. Raises LaconicError for a sampler that the space does not suit.
    """
    chosen = name or default_sampler(space)
    dials = [dial for option in space.options for dial in option.dials]
    if chosen == "grid" and len(dials) != 1:
        raise LaconicError(f"sampler grid: takes one knob, the study has {len(dials)}")
    if chosen in ("gp", "nsga2") and not space.alone:
        raise LaconicError(
            f"sampler {chosen}: takes the knobs of one recipe, the study has "
            f"{len(space.options)} recipes; tpe and random take several"
        )
    if chosen == "grid":
        return Grid(points)
    # what these announce, experimental options and independent draws at the start, is intended
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return Seeded(_maker(chosen, constraints), seed)


def default_sampler(space: Space) -> Sampler:
    """Grid for one knob, TPE for several recipes, a Gaussian process for several knobs of one."""
    if not space.alone:
        return "tpe"
    return "grid" if len(space.options[0].dials) == 1 else "gp"


def _maker(name: Sampler, constraints: Constraints | None) -> Callable[[int], BaseSampler]:
    made = optuna.samplers
    if name == "random":
        return lambda seed: made.RandomSampler(seed)
    if name == "nsga2":
        return lambda seed: made.NSGAIISampler(
            seed=seed, population_size=POPULATION, constraints_func=constraints
        )
    if name == "tpe":
        return lambda seed: made.TPESampler(
            seed=seed,
            n_startup_trials=STARTUP,
            multivariate=True,
            group=True,
            constraints_func=constraints,
        )
    return lambda seed: made.GPSampler(
        seed=seed, n_startup_trials=STARTUP, constraints_func=constraints
    )


def ask(space: Space, trial: optuna.Trial) -> dict[str, Any]:
    """Have a trial choose all its parameters; those it has chosen before stay."""
    params: dict[str, Any] = {}
    if not space.alone:
        labels = [option.label for option in space.options]
        params[WHICH] = trial.suggest_categorical(WHICH, labels)
    for name, dial in space.dials(space.option(params)).items():
        params[name] = _ask_one(trial, name, dial)
    return params


def _ask_one(trial: optuna.Trial, name: str, dial: Dial) -> Any:
    if dial.choices:
        return trial.suggest_categorical(name, list(range(len(dial.choices))))
    if dial.whole:
        return trial.suggest_int(name, int(dial.low), int(dial.high))
    return trial.suggest_float(name, dial.low, dial.high)

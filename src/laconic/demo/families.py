"""The ways of merging that the demo tries, each with a few settings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Chain = tuple[dict[str, dict[str, Any]], ...]


@dataclass(frozen=True)
class Setting:
    """A chain of methods with the knobs that the demo tries."""

    family: str
    stages: Chain

    @property
    def label(self) -> str:
        """What tables call it."""
        each = [knobs for stage in self.stages for knobs in stage.values()]
        knobs = [f"{knob} {_text(value)}" for one in each for knob, value in one.items()]
        return f"{self.family} ({', '.join(knobs)})" if knobs else self.family

    @property
    def method(self) -> str:
        """The methods' names, joined by a plus."""
        return "+".join(name for stage in self.stages for name in stage)


@dataclass(frozen=True)
class Family:
    """One way of merging and the settings of it that are tried on the validation split."""

    name: str
    chains: tuple[Chain, ...]

    @property
    def settings(self) -> list[Setting]:
        """Its settings, named after it."""
        return [Setting(self.name, chain) for chain in self.chains]


def _text(value: Any) -> str:
    return "/".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _one(method: str, knob: str, values: Iterable[Any], **fixed: Any) -> tuple[Chain, ...]:
    """Chains of one method, one for each value of a knob."""
    return tuple(({method: {knob: value, **fixed}},) for value in values)


def _over(first: dict[str, dict[str, Any]], chains: Iterable[Chain]) -> tuple[Chain, ...]:
    """The chains, each after a first stage."""
    return tuple((first, *chain) for chain in chains)


def _wrapped(chains: Iterable[Chain], last: dict[str, dict[str, Any]]) -> tuple[Chain, ...]:
    """The chains, each with a wrapper around it."""
    return tuple((*chain, last) for chain in chains)


def _ta(*alphas: float) -> tuple[Chain, ...]:
    return _one("task_arithmetic", "alpha", alphas)


FAMILIES = (
    Family("average", (({"average": {}},),)),
    Family("task arithmetic", _ta(0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)),
    Family("TIES", _one("ties", "trim", (0.2, 0.4, 0.6, 0.8))),
    Family("DARE + TA", _over({"dare": {"drop": 0.3}}, _ta(0.5, 0.7, 0.9))),
)
"""What `laconic demo` merges."""

EVERY = (
    *FAMILIES,
    Family("linear", _one("linear", "weights", ((0.6, 0.4), (0.4, 0.6)))),
    Family("interpolation", _one("interpolation", "weight", (0.4, 0.6, 0.8))),
    Family("DARE + TIES", _over({"dare": {"drop": 0.3}}, _one("ties", "trim", (0.4, 0.6)))),
    Family("DELLA + TA", _over({"della": {"drop": 0.3}}, _ta(0.5, 0.7))),
    Family("breadcrumbs + TA", _over({"breadcrumbs": {"trim": 0.5}}, _ta(0.5, 0.7, 1.0))),
    Family("SLERP", _one("slerp", "weight", (0.4, 0.6))),
    Family("multi-SLERP", _one("multislerp", "weights", ((0.6, 0.4), (0.4, 0.6)))),
    Family("Karcher", (({"karcher": {}},),)),
    Family("LoRE", _one("lore", "weights", ((0.6, 0.4), (0.3, 0.7)))),
    Family("LoRE against the base", _one("lore_base", "alpha", (0.5, 0.7))),
    Family("Twin", _one("twin", "ratio", (0.1, 0.3))),
    Family("Twin against the base", _one("twin_base", "ratio", (0.1, 0.3, 0.5))),
    Family("TA + AIM", _wrapped(_ta(0.5, 0.7), {"aim": {"omega": 0.4}})),
    Family("TIES + AIM", _wrapped(_one("ties", "trim", (0.4, 0.6)), {"aim": {"omega": 0.4}})),
    Family("Sens", _one("sens", "alpha", (0.4, 0.5, 0.7))),
    Family("TA + ACM", _wrapped(_ta(0.5, 0.7, 1.0), {"acm": {"t": 0.7}})),
    Family("TIES + ACM", _wrapped(_one("ties", "trim", (0.4, 0.6)), {"acm": {"t": 0.7}})),
    Family("ACM (paper) + TA", _over({"acm_paper": {"t": 0.7}}, _ta(1.0, 1.5))),
    Family("TA + FIM", _wrapped(_ta(0.7, 1.0), {"fim": {}})),
    Family("TA + guard", _wrapped(_ta(0.4, 0.5, 0.7), {"guard": {}})),
)
"""What `laconic demo --all` merges: every method that two models are enough for."""

NEEDS_MORE_PARENTS = ("sce", "model_stock", "sens_task")
"""Methods that need at least two parents beside the base, which this pair doesn't have."""

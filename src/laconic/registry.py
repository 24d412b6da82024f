"""The register of merging methods: a function's signature is its schema.

Positional parameters are inputs that the engine supplies by name (`base`, `experts`, `merged`,
`tensor`, `rng`, `survey`, `stats`); keyword-only parameters are knobs, annotated, with defaults.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from math import prod
from typing import Any, Literal, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from laconic.errors import LaconicError, did_you_mean, unknown

Kind = Literal["sparsifier", "combiner", "wrapper"]
INPUTS = ("base", "experts", "merged", "tensor", "rng", "survey", "stats")


@dataclass(frozen=True)
class Knob:
    """A hyper-parameter: its name, type as written, and default."""

    name: str
    type: str
    default: Any


@dataclass(frozen=True)
class Method:
    """A merging algorithm: a pure function of tensors with a name, a kind and knobs.

    `pointwise`: an output entry depends only on the same entry of the inputs, so that the engine
    may call it block by block. `survey`: builds, from the knobs, the object that gathers what the
    method must know of a whole tensor (or model) before the first block. `parents`: how many
    experts it takes, when that is fixed; `least`: the fewest. `needs`: the kinds of statistics
    that `laconic calibrate` must have gathered for it. Of methods that are not pointwise, `rowwise`
    ones may be called on blocks of whole rows, and those with `streams` are pointwise for tensors
    for which it is true, told the tensor and the knobs.
    """

    name: str
    kind: Kind
    source: str
    function: Callable[..., Any]
    pointwise: bool
    survey: Callable[..., Any] | None = None
    parents: int | None = None
    inputs: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    least: int = 1
    rowwise: bool = False
    streams: Callable[..., bool] | None = None

    def unit(self, tensor: Any, knobs: Mapping[str, Any]) -> int:
        """How many neighbouring entries of a tensor it must be given together: 1, a row or all."""
        if self.pointwise or (self.streams and self.streams(tensor, **knobs)):
            return 1
        if self.rowwise and len(tensor.shape) > 1:
            return max(int(tensor.shape[-1]), 1)
        return max(int(prod(tensor.shape)), 1)

    @property
    def summary(self) -> str:
        """First line of the docstring."""
        return (self.function.__doc__ or "").strip().splitlines()[0]

    @cached_property
    def knobs(self) -> tuple[Knob, ...]:
        """The keyword-only parameters, in order."""
        parameters = inspect.signature(self.function).parameters.values()
        return tuple(
            Knob(p.name, str(p.annotation), p.default)
            for p in parameters
            if p.kind is inspect.Parameter.KEYWORD_ONLY
        )

    @cached_property
    def schema(self) -> type[BaseModel]:
        """A pydantic model of the knobs; refuses unknown names and values out of range."""
        hints = get_type_hints(self.function, include_extras=True)
        fields: Any = {knob.name: (hints[knob.name], knob.default) for knob in self.knobs}
        config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
        model: type[BaseModel] = create_model(self.name, __config__=config, **fields)
        return model

    def to_dict(self) -> dict[str, Any]:
        """The method as data: name, kind, knobs with type and default, inputs, source."""
        return {
            "name": self.name,
            "kind": self.kind,
            "summary": self.summary,
            "knobs": {
                knob.name: {"type": knob.type, "default": knob.default} for knob in self.knobs
            },
            "needs": list(self.inputs),
            "statistics": list(self.needs),
            "source": self.source,
        }

    def line(self) -> str:
        """One line for a list of methods."""
        knobs = ", ".join(f"{knob.name}={knob.default}" for knob in self.knobs) or "-"
        return f"{self.name:<18}{self.kind:<12}{knobs:<62}{self.source}"

    def explanation(self) -> str:
        """Everything the docstring says, with kind, inputs and source."""
        head = f"{self.name}: {self.kind}, needs {', '.join(self.inputs)}. {self.source}"
        if self.needs:
            head += f"\nstatistics (laconic calibrate): {', '.join(self.needs)}"
        return f"{head}\n\n{inspect.getdoc(self.function)}"

    def problems(self, values: Mapping[str, Any]) -> list[str]:
        """List what is wrong with knob values: unknown names and values out of range."""
        try:
            self.schema(**values)
        except ValidationError as error:
            names = [knob.name for knob in self.knobs]
            return [_problem(self.name, item, names) for item in error.errors()]
        return []

    def settings(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return every knob's value, defaults filled in, checked.

        Raises LaconicError listing every problem.
        """
        problems = self.problems(values)
        if problems:
            raise LaconicError("\n".join(problems))
        return self.schema(**values).model_dump()


def _problem(method: str, item: Any, names: list[str]) -> str:
    name = str(item["loc"][0])
    if item["type"] == "extra_forbidden":
        known = f"known: {', '.join(names)}" if names else "it has none"
        return f"{method}: unknown knob '{name}'{did_you_mean(name, names)} ({known})"
    return f"{method}.{name}: {item['input']!r} is not allowed: {item['msg']}"


_METHODS: dict[str, Method] = {}


def method(
    *,
    source: str,
    kind: Kind = "combiner",
    pointwise: bool = True,
    survey: Callable[..., Any] | None = None,
    parents: int | None = None,
    needs: tuple[str, ...] = (),
    least: int = 1,
    rowwise: bool = False,
    streams: Callable[..., bool] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function as a merging method under its own name; returns it unchanged."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        inputs = tuple(
            parameter.name
            for parameter in inspect.signature(function).parameters.values()
            if parameter.kind is not inspect.Parameter.KEYWORD_ONLY
        )
        strangers = set(inputs) - set(INPUTS)
        if strangers:
            raise TypeError(f"method {function.__name__}: no such input: {sorted(strangers)}")
        name = function.__name__
        _METHODS[name] = Method(
            name,
            kind,
            source,
            function,
            pointwise,
            survey,
            parents,
            inputs,
            needs,
            least,
            rowwise,
            streams,
        )
        return function

    return register


@cache
def methods() -> Mapping[str, Method]:
    """Return every registered method by name; imports each file of `laconic.merging.methods`."""
    package = importlib.import_module("laconic.merging.methods")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"laconic.merging.methods.{module.name}")
    return dict(sorted(_METHODS.items()))


def get_method(name: str) -> Method:
    """Return a method by name; LaconicError with a suggestion when there is none."""
    if name not in methods():
        raise unknown("method", name, methods())
    return methods()[name]

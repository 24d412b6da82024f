"""Knobs that change over the layers: `{over_depth: [first, ..., last]}`, interpolated linearly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from laconic.errors import did_you_mean
from laconic.registry import Method
from laconic.tensors.names import EMBEDDING_LAYER, layer_of

KEY = "over_depth"


def problems(method: Method, values: Mapping[str, Any]) -> list[str]:
    """List what is wrong with knob values, each plain or over depth."""
    plain = {name: value for name, value in values.items() if not isinstance(value, Mapping)}
    found = method.problems(plain)
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += _gradient_problems(method, name, value)
    return found


def settings(method: Method, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return every knob's value, defaults filled in; those over depth stay over depth."""
    plain = {name: value for name, value in values.items() if not isinstance(value, Mapping)}
    gradients = {
        name: {KEY: [float(value) for value in gradient[KEY]]}
        for name, gradient in values.items()
        if isinstance(gradient, Mapping)
    }
    return {**method.settings(plain), **gradients}


def resolved(knobs: Mapping[str, Any], tensor: str, layers: int) -> dict[str, Any]:
    """Return the knobs of one tensor of a model with so many layers.

    The embedding takes the first value, what comes after the layers (final norm, head) the last.
    """
    return {
        name: _at(value[KEY], _depth(tensor, layers)) if isinstance(value, Mapping) else value
        for name, value in knobs.items()
    }


def _depth(tensor: str, layers: int) -> float:
    """Where a tensor stands, from 0 (first layer) to 1 (last)."""
    layer = layer_of(tensor)
    if layer < 0:
        return 0.0 if layer == EMBEDDING_LAYER else 1.0
    return layer / (layers - 1) if layers > 1 else 0.0


def _at(values: list[float], depth: float) -> float:
    place = depth * (len(values) - 1)
    before = min(int(place), len(values) - 2)
    share = place - before
    return values[before] * (1 - share) + values[before + 1] * share


def _gradient_problems(method: Method, name: str, value: Mapping[str, Any]) -> list[str]:
    knob = next((knob for knob in method.knobs if knob.name == name), None)
    if knob is None:
        return method.problems({name: None})
    where = f"{method.name}.{name}"
    strangers = [str(key) for key in value if key != KEY]
    if strangers or KEY not in value:
        hint = did_you_mean(strangers[0], [KEY]) if strangers else ""
        return [f"{where}: {dict(value)} is not {{{KEY}: [first, ..., last]}}{hint}"]
    if not isinstance(knob.default, float):
        return [f"{where}: is not a number that could change over depth"]
    values = value[KEY]
    if not isinstance(values, list | tuple) or len(values) < 2 or not all(map(_is_number, values)):
        return [f"{where}: {KEY} takes a list of two numbers or more, not {values!r}"]
    return [problem for item in values for problem in method.problems({name: item})]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

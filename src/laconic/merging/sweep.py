"""A sweep: the recipes that differ in one knob, and the folder that each of them is merged into."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from laconic.errors import LaconicError, did_you_mean
from laconic.recipe import Recipe, Stage, parse_recipe
from laconic.registry import get_method

MOST = 1000


def variants(recipe: Recipe, setting: str) -> Mapping[str, Recipe]:
    """Return the recipes of a sweep by folder name, such as `alpha-0.3`.

    setting: KNOB=VALUES or METHOD.KNOB=VALUES, with values `0.3,0.5` or `first:last:step`.
    Raises LaconicError for a setting that is not written so, a knob that no method or several
    methods of the recipe have, and values that the knob does not allow.
    """
    key, equals, values = setting.partition("=")
    if not equals:
        raise _unreadable(setting)
    stage, knob = _find(recipe, key.strip())
    texts = _values(setting, values)
    return {
        f"{key.strip()}-{text}": _with(recipe, stage, knob, float(text), f"--sweep {setting}")
        for text in texts
    }


def _find(recipe: Recipe, key: str) -> tuple[Stage, str]:
    method, dot, knob = key.rpartition(".")
    having = [s for s in recipe.merge if knob in s.knobs and (not dot or s.method == method)]
    if not having:
        known = [name for s in recipe.merge for name in (*s.knobs, *_dotted(s))]
        raise LaconicError(
            f"--sweep {key}: no method of this recipe has that knob{did_you_mean(key, known)} "
            f"(known: {', '.join(name for s in recipe.merge for name in _dotted(s))})"
        )
    if len(having) > 1:
        names = " or ".join(f"{stage.method}.{knob}" for stage in having)
        raise LaconicError(f"--sweep {key}: several methods have that knob; write {names}")
    default = next(k.default for k in get_method(having[0].method).knobs if k.name == knob)
    if isinstance(default, bool | str) or isinstance(having[0].knobs[knob], Mapping):
        raise LaconicError(f"--sweep {key}: is not a plain number")
    return having[0], knob


def _dotted(stage: Stage) -> list[str]:
    return [f"{stage.method}.{knob}" for knob in stage.knobs]


def _values(setting: str, text: str) -> list[str]:
    """Return the values as they are named: exact decimals, no float's noise."""
    try:
        if ":" in text:
            first, last, step = (Decimal(part.strip()) for part in text.split(":"))
            count = int((last - first) / step) + 1 if step else 0
            numbers = [first + index * step for index in range(min(max(count, 0), MOST + 1))]
        else:
            numbers = [Decimal(part.strip()) for part in text.split(",")]
    except (InvalidOperation, ValueError):
        raise _unreadable(setting) from None
    if not numbers or len(numbers) > MOST or not all(number.is_finite() for number in numbers):
        raise LaconicError(f"--sweep {setting}: {len(numbers)} values; give from 1 to {MOST}")
    return list(dict.fromkeys(f"{number.normalize():f}" for number in numbers))


def _with(recipe: Recipe, stage: Stage, knob: str, value: float, where: str) -> Recipe:
    raw: dict[str, Any] = recipe.to_dict()
    for index, one in enumerate(recipe.merge):
        if one is stage:
            number = int(value) if isinstance(stage.knobs[knob], int) else value
            raw["merge"][index] = {stage.method: {**stage.knobs, knob: number}}
    return parse_recipe(raw, where=where)


def _unreadable(setting: str) -> LaconicError:
    return LaconicError(
        f"--sweep {setting}: expected KNOB=FIRST:LAST:STEP, such as alpha=0.3:0.9:0.1, or "
        "KNOB=VALUE,VALUE"
    )

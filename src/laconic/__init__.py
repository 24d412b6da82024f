"""laconic: reasoning models that think in fewer words, made by merging weights, and the proof.

The public verbs are imported when first used, so that `import laconic` is cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from laconic.checkpoint.manifest import verify
    from laconic.diagnosis.doctor import doctor
    from laconic.errors import LaconicError
    from laconic.grade.comparisons import compare
    from laconic.grade.evaluation import evaluate
    from laconic.merging.engine import merge
    from laconic.plan import make_plan
    from laconic.recipe import load_recipe, parse_recipe
    from laconic.searching.search import search
    from laconic.statistics.calibrate import calibrate
    from laconic.statistics.inspection import inspect

_VERBS = {
    "LaconicError": "laconic.errors",
    "calibrate": "laconic.statistics.calibrate",
    "compare": "laconic.grade.comparisons",
    "doctor": "laconic.diagnosis.doctor",
    "evaluate": "laconic.grade.evaluation",
    "inspect": "laconic.statistics.inspection",
    "load_recipe": "laconic.recipe",
    "make_plan": "laconic.plan",
    "make_runner": "laconic.run.engines",
    "merge": "laconic.merging.engine",
    "parse_recipe": "laconic.recipe",
    "search": "laconic.searching.search",
    "verify": "laconic.checkpoint.manifest",
}

__all__ = [
    "LaconicError",
    "calibrate",
    "compare",
    "doctor",
    "evaluate",
    "inspect",
    "load_recipe",
    "make_plan",
    "merge",
    "parse_recipe",
    "search",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib import metadata  # takes longer than the rest of this file

        return metadata.version("laconic")
    if name in _VERBS:
        return getattr(import_module(_VERBS[name]), name)
    raise AttributeError(f"module 'laconic' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])

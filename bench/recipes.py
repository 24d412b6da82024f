"""The same merges as laconic and mergekit spell them: matched settings, float32 arithmetic.

TIES trims three quarters: laconic drops floor(n * trim) entries and mergekit keeps
floor(n * density), which is the same number only when n * trim is whole.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

LACONIC: dict[str, list[Any]] = {
    "linear": [{"linear": {"weights": [0.3, 0.7]}}],
    "task_arithmetic": [{"task_arithmetic": {"alpha": 0.7}}],
    "ties": [{"ties": {"trim": 0.75, "alpha": 1.0, "rule": "exact"}}],
    "dare_ties": [{"dare": {"drop": 0.3}}, {"ties": {"trim": 0.0, "alpha": 1.0}}],
}
_MERGEKIT: dict[str, tuple[dict[str, float], dict[str, Any]]] = {
    "linear": ({"weight": 0.7}, {"normalize": True}),
    "task_arithmetic": ({"weight": 0.7}, {"normalize": False}),
    "ties": ({"weight": 1.0, "density": 0.25}, {"normalize": True, "lambda": 1.0}),
    "dare_ties": ({"weight": 1.0, "density": 0.7}, {"normalize": True, "lambda": 1.0}),
}


def laconic(method: str, quick: Path, slow: Path) -> dict[str, Any]:
    """Return laconic's recipe for a method."""
    return {"quick": str(quick), "slow": str(slow), "merge": LACONIC[method]}


def mergekit(method: str, quick: Path, slow: Path) -> dict[str, Any]:
    """Return mergekit's configuration for the same method."""
    own, shared = _MERGEKIT[method]
    models = [{"model": str(slow), "parameters": own}]
    config: dict[str, Any] = {"merge_method": method, "parameters": shared}
    if method == "linear":
        models.insert(0, {"model": str(quick), "parameters": {"weight": 1 - own["weight"]}})
    else:
        config["base_model"] = str(quick)
    return config | {"models": models, "dtype": "float32", "out_dtype": "bfloat16"}

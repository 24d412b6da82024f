"""The engines that run a model, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from laconic.errors import LaconicError, unknown
from laconic.run.runner import Runner


def make_runner(engine: str, model: str | Path, **options: Any) -> Runner:
    """Open a model with an engine: `transformers`, `server` or `vllm`.

    options: the engine's own, as keywords; those that are None count as not given. Raises
    LaconicError for an unknown engine, an option that it does not have, or one that it needs.
    """
    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES)
    given = {name: value for name, value in options.items() if value is not None}
    opened = ENGINES[engine]()
    parameters = inspect.signature(opened).parameters
    known = [name for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY]
    for name in given:
        if name not in known:
            raise LaconicError(
                f"engine '{engine}' has no option '{name}' (it has: {', '.join(known)})"
            )
    for name in known:
        if parameters[name].default is inspect.Parameter.empty and name not in given:
            raise LaconicError(f"engine '{engine}' needs the option '{name}'")
    return opened(model, **given)


def _transformers() -> Callable[..., Runner]:
    from laconic.run.transformers import TransformersRunner

    return TransformersRunner


def _server() -> Callable[..., Runner]:
    from laconic.run.server import ServerRunner

    return ServerRunner


def _vllm() -> Callable[..., Runner]:
    from laconic.run.vllm import open_vllm

    return open_vllm


ENGINES: dict[str, Callable[[], Callable[..., Runner]]] = {
    "transformers": _transformers,
    "server": _server,
    "vllm": _vllm,
}
"""Each engine's opener, imported when it is asked for."""

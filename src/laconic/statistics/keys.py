"""What statistics depend on: the content of models and data, and the settings."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from laconic.errors import LaconicError
from laconic.provenance import digest_file
from laconic.recipe import Recipe, Stage
from laconic.registry import get_method
from laconic.tensors.source import Source
from laconic.tensors.vocab import tokenizer_files

TEXTLESS = ("fisher", "delta_norms")
OF_BASE = ("channel_means", "fisher", "delta_norms", "merged_information", "expert_information")
OF_BASE_ALONE = ("channel_means", "fisher")

Entry = dict[str, Any]


def needed_kinds(recipe: Recipe) -> tuple[str, ...]:
    """Return the kinds of statistics that the recipe's methods need, in order."""
    kinds = [kind for stage in recipe.merge for kind in get_method(stage.method).needs]
    return tuple(dict.fromkeys(kinds))


def stages_before(recipe: Recipe, kind: str) -> tuple[Stage, ...]:
    """Return the stages before the first one whose method needs a kind."""
    stages = []
    for stage in recipe.merge:
        if kind in get_method(stage.method).needs:
            break
        stages.append(stage)
    return tuple(stages)


def entry_for(
    kind: str,
    recipe: Recipe,
    sources: Mapping[str, Source],
    experts: Sequence[str],
    dtype: str | None = None,
) -> Entry:
    """Return what one kind of a recipe's statistics depends on: `models`, `experts`, `settings`.

    Without a dtype, or where the recipe names no calibration, those settings are left open.
    """
    settings: dict[str, Any] = {} if dtype is None else {"dtype": dtype}
    if kind != "delta_norms":
        settings["seed"] = recipe.seed
    if kind not in TEXTLESS and recipe.calibration is not None:
        settings |= recipe.calibration.model_dump(exclude={"data"})
        data = Path(recipe.calibration.data)
        if data.is_file():
            settings["data blake3"] = digest_file(data)
    if kind == "merged_information":
        chain = [{stage.method: dict(stage.knobs)} for stage in stages_before(recipe, kind)]
        settings["merge before"] = _plain(chain)
        settings["rules"] = _plain([rule.model_dump(mode="json") for rule in recipe.rules])
        settings["output"] = recipe.output.model_dump(exclude={"shard_size", "tokenizer"})
    models = {role: model_digest(sources[role]) for role in roles_of(kind, experts)}
    return {"models": models, "experts": list(experts), "settings": _plain(settings)}


def roles_of(kind: str, experts: Sequence[str]) -> list[str]:
    """Return the roles of the models that a kind of statistics is taken from."""
    if kind in OF_BASE_ALONE:
        return ["base"]
    if kind == "think_inputs":
        if experts[-1] == "quick":
            raise LaconicError("guard: the slow model is the base of this recipe, not an expert")
        return [experts[-1]]
    return (["base"] if kind in OF_BASE else []) + list(experts)


def differences(found: Entry, wanted: Entry) -> Iterator[str]:
    """Name what differs between the entry of a file and the one a recipe asks for."""
    for role, digest in wanted["models"].items():
        if role not in found["models"]:
            yield f"no {role} model in it"
        elif found["models"][role] != digest:
            old = found["models"][role]
            yield f"the {role} model is another (blake3 {old[:12]}, now {digest[:12]})"
    if found["experts"] != wanted["experts"]:
        yield f"experts {', '.join(found['experts'])}, now {', '.join(wanted['experts'])}"
    for key, value in wanted["settings"].items():
        old = found["settings"].get(key)
        if old != value:
            yield f"{key} {_short(old)}, now {_short(value)}"


def model_digest(source: Source) -> str:
    """Return the SHA-256 over a checkpoint's weights, config and tokenizer, names included."""
    digest = hashlib.sha256()
    paths = [*source.files, source.folder / "config.json", *tokenizer_files(source.folder)]
    for path in sorted(path for path in paths if path.is_file()):
        stat = path.stat()
        digest.update(f"{path.name}\0{_sha256(path, stat.st_size, stat.st_mtime_ns)}\n".encode())
    return digest.hexdigest()


@lru_cache(maxsize=1024)
def _sha256(path: Path, size: int, changed: int) -> str:
    return digest_file(path)


def _short(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value):
        return value[:12]
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _plain(value: Any) -> Any:
    """As it comes back from JSON: lists for tuples, string keys."""
    return json.loads(json.dumps(value))

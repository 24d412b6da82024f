"""The statistics file: one safetensors file, with what it depends on in its metadata."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from laconic.errors import LaconicError
from laconic.provenance import digest_file
from laconic.recipe import Recipe
from laconic.registry import get_method
from laconic.statistics.keys import Entry, differences, entry_for, needed_kinds
from laconic.statistics.think import input_name
from laconic.statistics.view import Information, TensorStatistics
from laconic.tensors.header import read_header
from laconic.tensors.names import layer_of
from laconic.tensors.source import Source

FORMAT = 1
BY_MODULE = ("channel_means", "think_inputs")
INFORMATION = ("merged_information", "expert_information")


class Statistics:
    """A statistics file, opened for a recipe; gives each tensor its view."""

    def __init__(self, path: Path, kinds: Sequence[str]) -> None:
        from safetensors import safe_open

        self.path = path
        self.digest = digest_file(path)
        self._file: Any = safe_open(path, framework="pt")
        self._names = frozenset(read_header(path))
        self._by_module = [kind for kind in BY_MODULE if kind in kinds]
        entries = read_entries(path)
        self._common: dict[str, Any] = {
            kind: self._load(kind, entries[kind]) for kind in kinds if kind not in BY_MODULE
        }

    def view(self, tensor: str) -> TensorStatistics:
        """Return what methods are shown of the statistics while they work on a tensor."""
        found: Any = {kind: self._module_tensor(kind, tensor) for kind in self._by_module}
        return TensorStatistics(layer_of(tensor), **self._common, **found)

    def _module_tensor(self, kind: str, tensor: str) -> Tensor | None:
        module, _, parameter = tensor.rpartition(".")
        if parameter != "weight" and not (kind == "think_inputs" and parameter == "bias"):
            return None
        name = f"{kind}/{input_name(module) if kind == 'think_inputs' else module}"
        return self._file.get_tensor(name) if name in self._names else None

    def _load(self, kind: str, entry: Entry) -> Any:
        if kind not in INFORMATION:
            return self._file.get_tensor(kind)
        tables = [
            Information(
                tuple(entry["groups"]),
                self._file.get_tensor(f"{kind}/{index}/exact"),
                self._file.get_tensor(f"{kind}/{index}/hist"),
            )
            for index in range(entry["tables"])
        ]
        return tables[0] if kind == "merged_information" else tuple(tables)


def open_statistics(
    recipe: Recipe, sources: Mapping[str, Source], experts: Sequence[str]
) -> Statistics | None:
    """Open the statistics that a recipe names, or return None when its methods need none.

    Raises LaconicError when it names none, or they lack a kind, or are of other models or settings.
    """
    kinds = needed_kinds(recipe)
    if not kinds:
        return None
    names = [s.method for s in recipe.merge if get_method(s.method).needs]
    if recipe.statistics is None:
        raise LaconicError(
            f"{', '.join(names)}: needs statistics ({', '.join(kinds)}) and the recipe names none; "
            "make them with `laconic calibrate RECIPE OUT`, then write `statistics: OUT` in it"
        )
    path = Path(recipe.statistics)
    if not path.is_file():
        raise LaconicError(
            f"statistics {path}: no such file; make it with `laconic calibrate RECIPE {path}`"
        )
    problems = statistics_problems(
        read_entries(path), {kind: entry_for(kind, recipe, sources, experts) for kind in kinds}
    )
    if problems:
        raise LaconicError(
            "\n".join([f"statistics {path}: not those of this recipe", *problems])
            + f"\nmake them again with `laconic calibrate RECIPE {path} --force`"
        )
    return Statistics(path, kinds)


def statistics_problems(found: Mapping[str, Entry], wanted: Mapping[str, Entry]) -> list[str]:
    """List, by kind, what a file lacks or has from other models, data or settings."""
    problems = []
    for kind, entry in wanted.items():
        if kind not in found:
            problems.append(f"{kind}: not in it (it has: {', '.join(found) or 'none'})")
        else:
            problems += [f"{kind}: {text}" for text in differences(found[kind], entry)]
    return problems


def read_entries(path: Path) -> dict[str, Entry]:
    """Read what each kind in a file depends on; LaconicError when it is no statistics file."""
    from safetensors import safe_open

    read_header(path)  # names what is wrong with a damaged file
    with safe_open(path, framework="numpy") as file:
        text = (file.metadata() or {}).get("laconic statistics")
    if text is None:
        raise LaconicError(f"{path}: not a statistics file of `laconic calibrate`")
    raw = json.loads(text)
    if raw["format"] > FORMAT:
        raise LaconicError(
            f"{path}: format {raw['format']}, this laconic reads {FORMAT}: update it"
        )
    entries: dict[str, Entry] = raw["kinds"]
    return entries


def write_statistics(
    path: Path, tensors: Mapping[str, Tensor], entries: Mapping[str, Entry]
) -> None:
    """Write a statistics file, whole or not at all."""
    from safetensors.torch import save_file

    text = json.dumps({"format": FORMAT, "kinds": entries}, sort_keys=True)
    temporary = path.with_name(f".{path.name}.partial")
    contiguous = {name: tensor.contiguous() for name, tensor in sorted(tensors.items())}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(contiguous, temporary, metadata={"laconic statistics": text})
        os.replace(temporary, path)
    except OSError as error:
        raise LaconicError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)

"""Config, generation settings and tokenizer of the output: what is not a weight, card or digest."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from laconic.diagnosis.parents import (
    generation_config,
    reference,
    stop_ids,
    tokenizer_parent,
    vocabulary,
)
from laconic.errors import LaconicError
from laconic.tensors.source import Source
from laconic.tensors.vocab import tokenizer_files

SPECIAL = ("bos_token", "eos_token", "pad_token")
DROPPED = ("_name_or_path", "torch_dtype")


def write_sidecars(
    folder: Path,
    sources: Mapping[str, Source],
    *,
    tokenizer_role: str,
    untied: bool,
    dtype: str,
) -> None:
    """Write config.json and generation_config.json and copy the chosen parent's tokenizer.

    Same parents and choices, same bytes. Raises LaconicError when a file cannot be written.
    """
    config = merged_config(sources, tokenizer_role=tokenizer_role, untied=untied, dtype=dtype)
    chosen = tokenizer_parent(sources, tokenizer_role)
    try:
        write_json(folder / "config.json", config)
        generation = merged_generation_config(sources, tokenizer_role)
        write_json(folder / "generation_config.json", generation)
        for file in tokenizer_files(chosen.folder):
            target = folder / file.relative_to(chosen.folder)
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, target)
    except OSError as error:
        raise LaconicError(f"{folder}: cannot write the files of the output: {error}") from error


def merged_config(
    sources: Mapping[str, Source], *, tokenizer_role: str, untied: bool, dtype: str
) -> dict[str, Any]:
    """Return the output's config: the base's, long enough, with the chosen tokenizer's ids.

    max_position_embeddings is the larger of the parents': with the quick model's 4096 the long
    answers that the slow model brings would break. rope settings stay: the doctor has made sure
    that they are the same. tie_word_embeddings and dtype say what the weight files hold.
    """
    config = {k: v for k, v in reference(sources).config.items() if k not in DROPPED}
    lengths = [source.config.get("max_position_embeddings") for source in sources.values()]
    known = [length for length in lengths if length is not None]
    if known:
        config["max_position_embeddings"] = max(known)
    chosen = tokenizer_parent(sources, tokenizer_role)
    config |= {f"{key}_id": _special_id(chosen, key) for key in SPECIAL}
    return config | {"tie_word_embeddings": not untied, "dtype": dtype}


def merged_generation_config(
    sources: Mapping[str, Source], tokenizer_role: str
) -> dict[str, int | list[int]]:
    """Return the output's generation settings: where text starts, stops and is padded, no more.

    Sampling parameters and length limits are dropped: a limit such as Qwen2.5-Math's 2048 new
    tokens cuts answers, and a temperature nobody asked for makes a comparison random.
    """
    chosen = tokenizer_parent(sources, tokenizer_role)
    settings: dict[str, int | list[int]] = {}
    for key in ("bos_token", "pad_token"):
        own = generation_config(chosen).get(f"{key}_id")
        token = _special_id(chosen, key) if own is None else own
        if token is not None:
            settings[f"{key}_id"] = token
    stops = stop_ids(sources, tokenizer_role)
    if stops:
        settings["eos_token_id"] = stops if len(stops) > 1 else stops[0]
    return settings


def _special_id(source: Source, key: str) -> Any:
    """Return a special token's id by the tokenizer, else as the parent's config has it."""
    by_tokenizer = vocabulary(source).special_id(key)
    return source.config.get(f"{key}_id") if by_tokenizer is None else by_tokenizer


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON whose bytes depend on the value alone."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8", newline="\n")

"""The parents of a merge together: who is the reference, whose tokenizer, what the head will be."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from laconic.errors import LaconicError, unknown
from laconic.records import read_json
from laconic.tensors.names import role_of
from laconic.tensors.source import Source
from laconic.tensors.vocab import TOKENIZER_FILES, Vocabulary, read_vocabulary

TIE_POLICIES = ("untie_any", "base", "error")
# A template writes one of these where a turn ends, so a merge that answers in it must stop there.
TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>")


def reference(sources: Mapping[str, Source]) -> Source:
    """Return the parent that gives the output its parameters and config: base, or the first."""
    if not sources:
        raise LaconicError("no models given: at least two are needed")
    return sources.get("base") or next(iter(sources.values()))


def distinct(sources: Mapping[str, Source]) -> dict[str, Source]:
    """Return the parents without a `base` that is one of the others under a second name."""
    others = {role: source for role, source in sources.items() if role != "base"}
    if "base" in sources and any(s.folder == sources["base"].folder for s in others.values()):
        return others
    return dict(sources)


def tokenizer_parent(sources: Mapping[str, Source], role: str) -> Source:
    """Return the parent whose tokenizer the output gets; `base` without a base is the first."""
    if role == "base":
        return reference(sources)
    if role not in sources:
        raise unknown("tokenizer role", role, {*sources, "base"})
    return sources[role]


def untied_output(sources: Mapping[str, Source], tie_policy: str) -> bool:
    """Return whether the output has a head of its own.

    `untie_any`: when any parent has; `base`: when the base has; `error`: a mix is refused.
    """
    if tie_policy not in TIE_POLICIES:
        raise unknown("tie_policy", tie_policy, TIE_POLICIES)
    tied = {role: source.tied for role, source in distinct(sources).items()}
    if tie_policy == "error" and len(set(tied.values())) > 1:
        raise LaconicError(
            f"tied and untied embeddings in one merge (tied: {tied}) and tie_policy is error; "
            "choose tie_policy untie_any or base"
        )
    return not reference(sources).tied if tie_policy == "base" else not all(tied.values())


def vocabulary(source: Source) -> Vocabulary:
    """Return a parent's tokenizer facts; read again only when a file changed."""
    stamps = tuple(_stamp(source.folder / name) for name in TOKENIZER_FILES)
    return _vocabulary(source.folder, stamps)


def generation_config(source: Source) -> dict[str, Any]:
    """Return a parent's generation_config.json, empty when it has none."""
    path = source.folder / "generation_config.json"
    return read_json(path, "it holds the generation settings") if path.is_file() else {}


def embedding_rows(source: Source) -> int | None:
    """Return the rows of the input embedding, or None when no tensor is named like one."""
    shapes = (spec.shape for name, spec in source.specs.items() if role_of(name) == "embedding")
    return next((shape[0] for shape in shapes if shape), None)


def own_stop_ids(source: Source) -> set[int]:
    """Return the ids at which a parent stops, by its generation_config, config and tokenizer."""
    listed = [generation_config(source).get("eos_token_id"), source.config.get("eos_token_id")]
    ids = {i for value in listed for i in (value if isinstance(value, list) else [value])}
    return {i for i in ids | {vocabulary(source).special_id("eos_token")} if i is not None}


def stop_ids(sources: Mapping[str, Source], tokenizer: str) -> list[int]:
    """Return the ids at which the output stops.

    Those of the tokenizer's parent, the end of a turn in its chat template, and another parent's
    where that id is the same token in both tokenizers.
    """
    chosen = tokenizer_parent(sources, tokenizer)
    vocab = vocabulary(chosen)
    ids = own_stop_ids(chosen)
    ids |= {
        vocab.ids[end] for end in TURN_ENDS if end in (vocab.template or "") and end in vocab.ids
    }
    for other in sources.values():
        theirs = vocabulary(other).tokens
        ids |= {i for i in own_stop_ids(other) if i in theirs and vocab.tokens.get(i) == theirs[i]}
    return sorted(ids)


def _stamp(path: Path) -> tuple[int, int] | None:
    if not path.is_file():
        return None
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size


@lru_cache(maxsize=8)
def _vocabulary(folder: Path, stamps: tuple[tuple[int, int] | None, ...]) -> Vocabulary:
    return read_vocabulary(folder)

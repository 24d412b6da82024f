"""What a checkpoint's tokenizer files say, read as JSON without loading a tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from laconic.errors import LaconicError
from laconic.records import read_json

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
)
TEMPLATE_FOLDER = "additional_chat_templates"
SPECIAL = ("bos_token", "eos_token", "pad_token")
WHY = "it describes the tokenizer"


@dataclass(frozen=True)
class Vocabulary:
    """Token strings by id, special tokens and chat template of one checkpoint.

    `kind` is how tokenizer.json splits text, such as BPE; `tokens` is empty when the files hold no
    vocabulary that can be read as JSON.
    """

    kind: str | None
    tokens: Mapping[int, str]
    special: Mapping[str, str]
    add_bos: bool
    template: str | None

    @cached_property
    def ids(self) -> Mapping[str, int]:
        """The id of every token string."""
        return {token: i for i, token in self.tokens.items()}

    def special_id(self, key: str) -> int | None:
        """Return the id of `bos_token`, `eos_token` or `pad_token`, or None."""
        return self.ids.get(self.special.get(key, ""))


def read_vocabulary(folder: Path) -> Vocabulary:
    """Read the tokenizer of a checkpoint folder; all fields are empty when there is none.

    Raises LaconicError for a tokenizer file that is not valid.
    """
    core = _optional(folder / "tokenizer.json")
    settings = _optional(folder / "tokenizer_config.json")
    tokens = _core_tokens(folder, core) | _added_tokens(folder, core, settings)
    special = _special(settings) or _special(_optional(folder / "special_tokens_map.json"))
    kind = (core.get("model") or {}).get("type")
    return Vocabulary(kind, tokens, special, _adds_bos(core, settings), _template(folder, settings))


def tokenizer_files(folder: Path) -> tuple[Path, ...]:
    """Return the tokenizer and chat template files that a checkpoint folder holds, sorted."""
    named = [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
    return tuple(sorted([*named, *(folder / TEMPLATE_FOLDER).glob("*.jinja")]))


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path, WHY) if path.is_file() else {}


def _core_tokens(folder: Path, core: Mapping[str, Any]) -> dict[int, str]:
    path = folder / "tokenizer.json"
    vocab = (core.get("model") or {}).get("vocab")
    if vocab is None:
        path = folder / "vocab.json"
        vocab = _optional(path)
    if isinstance(vocab, dict):
        return _by_id(path, vocab.items())
    # A Unigram model lists [piece, score] in the order of the ids.
    if isinstance(vocab, list) and all(isinstance(entry, list) and entry for entry in vocab):
        return {i: str(entry[0]) for i, entry in enumerate(vocab)}
    raise LaconicError(f"{path}: its vocabulary is neither an object nor a list of pieces; {WHY}")


def _added_tokens(
    folder: Path, core: Mapping[str, Any], settings: Mapping[str, Any]
) -> dict[int, str]:
    listed = core.get("added_tokens") or []
    decoder = settings.get("added_tokens_decoder") or {}
    extra = _optional(folder / "added_tokens.json")
    try:
        return (
            {int(i): token for token, i in extra.items()}
            | {int(i): _content(token) or "" for i, token in decoder.items()}
            | {int(entry["id"]): entry["content"] for entry in listed}
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LaconicError(f"{folder}: its list of added tokens is malformed: {error!r}") from error


def _by_id(path: Path, pairs: Iterable[tuple[str, Any]]) -> dict[int, str]:
    try:
        return {int(i): token for token, i in pairs}
    except (TypeError, ValueError) as error:
        raise LaconicError(f"{path}: an id in its vocabulary is not a number: {error}") from error


def _special(settings: Mapping[str, Any]) -> dict[str, str]:
    found = {key: _content(settings.get(key)) for key in SPECIAL}
    return {key: token for key, token in found.items() if token is not None}


def _content(token: Any) -> str | None:
    """Return a token's string: written plainly, or in an object with a `content`."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


def _adds_bos(core: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    explicit = settings.get("add_bos_token")
    return explicit if isinstance(explicit, bool) else _starts_special(core.get("post_processor"))


def _starts_special(processor: Any) -> bool:
    if not isinstance(processor, dict):
        return False
    if processor.get("type") == "Sequence":
        return any(_starts_special(part) for part in processor.get("processors") or [])
    single = processor.get("single") or []
    return bool(single) and isinstance(single[0], dict) and "SpecialToken" in single[0]


def _template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    template = settings.get("chat_template")
    if template is None:
        template = _optional(folder / "chat_template.json").get("chat_template")
    if isinstance(template, list):  # several templates by name; `default` is the one applied
        named = {entry.get("name"): entry.get("template") for entry in template}
        template = named.get("default")
    return template if isinstance(template, str) else None

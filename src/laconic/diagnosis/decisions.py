"""What laconic decides where parents differ but can be merged, and what is worth knowing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from laconic.diagnosis.findings import Finding, told
from laconic.diagnosis.parents import (
    distinct,
    embedding_rows,
    generation_config,
    reference,
    stop_ids,
    tokenizer_parent,
    untied_output,
    vocabulary,
)
from laconic.tags import THINK, THINK_TAGS
from laconic.tensors.names import role_of
from laconic.tensors.source import HEAD, Source
from laconic.tensors.vocab import Vocabulary

EXAMPLES = 5
OUTPUT_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
DTYPE_NAMES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}
SAMPLING = ("do_sample", "temperature", "top_p", "top_k", "min_p", "repetition_penalty")


@dataclass(frozen=True)
class Case:
    """The parents and the choices of a recipe that the findings below depend on."""

    sources: Mapping[str, Source]
    tie_policy: str
    tokenizer: str
    dtype: str

    @cached_property
    def parents(self) -> dict[str, Source]:
        """The parents, each once."""
        return distinct(self.sources)

    @cached_property
    def chosen(self) -> Source:
        """The parent whose tokenizer the output gets."""
        return tokenizer_parent(self.sources, self.tokenizer)

    @cached_property
    def chosen_role(self) -> str:
        """Its role among the parents."""
        return next(r for r, s in self.parents.items() if s.folder == self.chosen.folder)

    @cached_property
    def vocab(self) -> Vocabulary:
        """The tokenizer the output gets."""
        return vocabulary(self.chosen)

    def each(self, read: Callable[[Source], Any]) -> dict[str, Any]:
        """Return what `read` finds for every parent, by role."""
        return {role: read(source) for role, source in self.parents.items()}


def decisions(case: Case) -> Iterator[Finding]:
    """Yield every decision and note about these parents."""
    for check in CHECKS:
        yield from check(case)


def _embeddings(case: Case) -> Iterator[Finding]:
    tied = case.each(lambda source: source.tied)
    if len(set(tied.values())) < 2 or case.tie_policy == "error":
        return
    own = [role for role, is_tied in tied.items() if not is_tied]
    sharing = [role for role, is_tied in tied.items() if is_tied]
    message = f"{_list(sharing)} ties its head to the embedding, {_list(own)} has a head of its own"
    action = (
        f"tie_policy {case.tie_policy}: the head of {_list(sharing)} is taken to be its embedding, "
        "the output is untied (tie_word_embeddings=false)"
        if untied_output(case.sources, case.tie_policy)
        else f"tie_policy {case.tie_policy}: the output ties as the base does and the head of "
        f"{_list(own)} is dropped, as in the paper's code; that costs about 8 points on "
        "Qwen2.5-Math-1.5B + R1-Distill-Qwen-1.5B. tie_policy untie_any keeps it"
    )
    yield Finding("decision", "tied embeddings", message, action, tied)


def _tie_claims(case: Case) -> Iterator[Finding]:
    for role, source in case.parents.items():
        claim = source.config.get("tie_word_embeddings")
        if claim is None or claim == (HEAD not in source.specs):
            continue
        message, action = (
            (
                f"{role}: config.json ties head and embedding, but its files hold {HEAD}",
                f"the config decides: {HEAD} is left out. transformers 5 loads such a head when it "
                "differs from the embedding: if it is one of its own, set tie_word_embeddings to "
                "false in that config.json",
            )
            if claim
            else (
                f"{role}: config.json says the head is not tied, but its files hold no {HEAD}",
                "the files decide: the head is taken to be the embedding",
            )
        )
        yield Finding("decision", "tie flag", message, action, {role: claim})


def _positions(case: Case) -> Iterator[Finding]:
    values = case.each(lambda source: source.config.get("max_position_embeddings"))
    known = [value for value in values.values() if value is not None]
    if len(set(values.values())) > 1 and known:
        action = f"the output says {max(known)}, the larger: a short limit breaks long answers"
        message = f"differs: {told(values)}"
        yield Finding("decision", "max_position_embeddings", message, action, values)


def _tokenizers(case: Case) -> Iterator[Finding]:
    counts = case.each(lambda source: len(vocabulary(source).tokens))
    action = f"the tokenizer of {case.chosen_role} ({case.chosen.name}) goes into the output"
    if not case.vocab.tokens:
        message = f"{case.chosen_role} has no tokenizer that can be read as JSON"
        action = "its files are copied as they are; output.tokenizer chooses another parent's"
        yield Finding("decision", "tokenizer", message, action, counts)
    elif any(vocabulary(s).tokens != case.vocab.tokens for s in case.parents.values()):
        message = f"the tokenizers differ; tokens: {told(counts)}"
        action += "; output.tokenizer chooses. Prompts become other ids with another tokenizer"
        yield Finding("decision", "tokenizer", message, action, counts)
    else:
        yield Finding("note", "tokenizer", "the same in all parents", action, counts)


def _tokenizer_class(case: Case) -> Iterator[Finding]:
    kind = case.vocab.kind
    if case.chosen.config.get("model_type") == "qwen2" and kind not in (None, "BPE"):
        yield Finding(
            "note",
            "tokenizer class",
            f"{case.chosen_role}'s tokenizer.json is a {kind}, but AutoTokenizer of transformers 5 "
            "reads every qwen2 tokenizer as byte-level BPE and would split text differently",
            "load it with PreTrainedTokenizerFast.from_pretrained",
            {case.chosen_role: kind},
        )


def _token_meanings(case: Case) -> Iterator[Finding]:
    mine = case.vocab.tokens
    for role, source in _others(case):
        theirs = vocabulary(source).tokens
        common = mine.keys() & theirs.keys()
        clash = sorted(i for i in common if mine[i] != theirs[i])
        if not clash:
            continue
        pairs = {i: [mine[i], theirs[i]] for i in clash[:EXAMPLES]}
        shown = "; ".join(f"{i} is {a} / {b}" for i, (a, b) in pairs.items())
        mostly = 2 * len(clash) > len(common)
        yield Finding(
            "blocker" if mostly else "decision",
            "token meanings",
            f"{len(clash)} of {len(common)} ids mean another token in {case.chosen_role} than in "
            f"{role}: {shown}" + (" ..." if len(clash) > EXAMPLES else ""),
            "most rows of the embeddings belong to different tokens; choose parents with one "
            "vocabulary"
            if mostly
            else f"their rows are merged like any other; the output reads them as "
            f"{case.chosen_role} does",
            {case.chosen_role: {i: a for i, (a, _) in pairs.items()}}
            | {role: {i: b for i, (_, b) in pairs.items()}},
        )


def _single_tokens(case: Case) -> Iterator[Finding]:
    for role, source in _others(case):
        theirs = vocabulary(source).ids
        gained = {case.chosen_role: _by_id(case.vocab.ids, theirs)}
        lost = {role: _by_id(theirs, case.vocab.ids)}
        only = {who: tokens for who, tokens in (gained | lost).items() if tokens}
        if not only or not theirs or not case.vocab.ids:
            continue
        shown = "; ".join(f"{_some(tokens)} only in {who}" for who, tokens in only.items())
        action = f"the output has the tokens of {case.chosen_role}; the others split into pieces"
        yield Finding("decision", "tokens", shown, action, only)


def _think_tags(case: Case) -> Iterator[Finding]:
    ids = case.each(lambda source: {tag: vocabulary(source).ids.get(tag) for tag in THINK_TAGS})
    without = [role for role, found in ids.items() if None in found.values()]
    within = [role for role in ids if role not in without]
    if not within:
        return
    if not without:
        yield from _moved_tags(case, ids)
        return
    message = f"{' and '.join(THINK_TAGS)} are tokens in {_list(within)}, not in {_list(without)}"
    read_as = {
        f"{i} ({tag})": case.vocab.tokens.get(i, "nothing")
        for tag, i in ids[within[0]].items()
        if i is not None
    }
    action = (
        "the output has them"
        if case.chosen_role in within
        else f"the output's tokenizer reads {told(read_as)}, not thinking; "
        f"output.tokenizer: {within[0]} keeps the tags"
    )
    yield Finding("decision", "think tags", message, action, ids)


def _moved_tags(case: Case, ids: Mapping[str, Any]) -> Iterator[Finding]:
    if any(found != ids[case.chosen_role] for found in ids.values()):
        message = f"{' and '.join(THINK_TAGS)} have different ids: {told(ids)}"
        action = f"the output uses those of {case.chosen_role}"
        yield Finding("decision", "think tags", message, action, ids)


def _template(case: Case) -> Iterator[Finding]:
    has = case.each(lambda source: vocabulary(source).template)
    if len(set(has.values())) < 2 and case.vocab.template is not None:
        return
    values = {role: _kind(template) for role, template in has.items()}
    if case.vocab.template is None:
        action = (
            f"{case.chosen_role} has none, so the output has none and cannot be prompted as chat"
        )
    else:
        action = f"the output gets that of {case.chosen_role}, with its tokenizer"
    message = f"differs: {told(values)}" if len(set(has.values())) > 1 else "no parent has one"
    yield Finding("decision", "chat template", message, action, values)


def _kind(template: str | None) -> str:
    if template is None:
        return "none"
    style = "ChatML" if "<|im_start|>" in template else "own style"
    thinks = f", writes {THINK}" if THINK in template else ""
    return f"{style}, {len(template)} characters{thinks}"


def _special_tokens(case: Case) -> Iterator[Finding]:
    for key in ("bos_token", "eos_token", "pad_token"):
        values = {role: _special_of(source, key) for role, source in case.parents.items()}
        if len({str(value) for value in values.values()}) > 1:
            shown = {role: _told_special(value) for role, value in values.items()}
            yield Finding(
                "decision",
                key,
                f"differs: {told(shown)}",
                f"the output has that of {case.chosen_role}",
                values,
            )


def _special_of(source: Source, key: str) -> dict[str, Any]:
    vocab = vocabulary(source)
    return {
        "tokenizer": vocab.special.get(key),
        "tokenizer id": vocab.special_id(key),
        "config": source.config.get(f"{key}_id"),
        "generation_config": generation_config(source).get(f"{key}_id"),
    }


def _told_special(value: Mapping[str, Any]) -> str:
    written = {k: v for k, v in value.items() if v is not None}
    return f"({told(written)})" if written else "none"


def _add_bos(case: Case) -> Iterator[Finding]:
    values = case.each(lambda source: vocabulary(source).add_bos)
    if len(set(values.values())) > 1:
        does = "adds" if case.vocab.add_bos else "does not add"
        action = f"the output's tokenizer {does} BOS, as that of {case.chosen_role}"
        yield Finding("decision", "add_bos_token", f"differs: {told(values)}", action, values)
    bos = case.vocab.special.get("bos_token")
    template = case.vocab.template or ""
    if case.vocab.add_bos and bos and ("bos_token" in template or bos in template):
        yield Finding(
            "note",
            "add_bos_token",
            f"both the tokenizer and the chat template of {case.chosen_role} write {bos}",
            "tokenize a templated prompt with add_special_tokens=False, or it starts with two",
            {case.chosen_role: True},
        )


def _generation(case: Case) -> Iterator[Finding]:
    sampling = case.each(
        lambda source: {k: v for k, v in generation_config(source).items() if k in SAMPLING}
    )
    if any(sampling.values()):
        yield Finding(
            "decision",
            "generation_config",
            f"sets sampling: {told({role: found for role, found in sampling.items() if found})}",
            "dropped from the output: pass sampling parameters explicitly",
            sampling,
        )
    stops = case.each(lambda source: sorted(_as_list(generation_config(source), source.config)))
    united = stop_ids(case.sources, case.tokenizer)
    if any(found != united for found in stops.values()):
        message = f"stop ids differ or leave out the end of a turn: {told(stops)}"
        names = ", ".join(f"{i} ({case.vocab.tokens.get(i, '?')})" for i in united)
        action = f"the output stops at {names or 'no token: give stop ids when generating'}"
        yield Finding("decision", "stop tokens", message, action, stops)


def _as_list(generation: Mapping[str, Any], config: Mapping[str, Any]) -> list[int]:
    value = generation.get("eos_token_id", config.get("eos_token_id"))
    return value if isinstance(value, list) else [] if value is None else [value]


def _dtypes(case: Case) -> Iterator[Finding]:
    stored = case.each(
        lambda source: sorted({DTYPE_NAMES.get(s.dtype, s.dtype) for s in source.specs.values()})
    )
    if all(found == [case.dtype] for found in stored.values()):
        return
    alike = len({tuple(found) for found in stored.values()}) == 1
    action = f"computed in float32, rounded once to {case.dtype} (output.dtype)"
    yield Finding(
        "note" if alike else "decision",
        "dtype",
        f"stored as {told(stored)}",
        action,
        stored,
    )


def _padding_rows(case: Case) -> Iterator[Finding]:
    rows = embedding_rows(reference(case.sources))
    if not case.vocab.tokens or rows is None:
        return
    used = max(case.vocab.tokens) + 1
    values = {case.chosen_role: used}
    if used > rows:
        message = f"the tokenizer of {case.chosen_role} has ids up to {used - 1}, rows: {rows}"
        action = "such a token would fail when generating; choose another output.tokenizer"
        yield Finding("decision", "padding rows", message, action, values)
    elif used < rows:
        message = f"{rows} embedding rows, {used} used: {rows - used} are padding"
        yield Finding("note", "padding rows", message, "merged like any other row", values)


def _instruct(case: Case) -> Iterator[Finding]:
    base, slow = reference(case.sources), case.sources.get("slow")
    tuned = re.compile(r"(^|[-_.])(instruct|chat|it)([-_.]|$)", re.IGNORECASE)
    if slow is None or not tuned.search(_last(base)) or tuned.search(_last(slow)):
        return
    yield Finding(
        "note",
        "base",
        f"by its name the base ({base.name}) is instruction-tuned, the slow model ({slow.name}) "
        "is not",
        "if the slow model was trained from the plain base, use that as base: task vectors are "
        "differences from the common ancestor",
        {"base": base.name, "slow": slow.name},
    )


def _last(source: Source) -> str:
    return source.name.rstrip("/").rsplit("/", 1)[-1]


def _size(case: Case) -> Iterator[Finding]:
    base = reference(case.sources)
    specs = {name: spec for name, spec in base.specs.items() if name != HEAD}
    # A mix under `error` is a blocker and has no size; counted as if the head were kept.
    policy = "untie_any" if case.tie_policy == "error" else case.tie_policy
    if untied_output(case.sources, policy):
        embedding = next((s for n, s in specs.items() if role_of(n) == "embedding"), None)
        if embedding is not None:
            specs[HEAD] = embedding
    count = sum(spec.numel for spec in specs.values())
    need = count * OUTPUT_BYTES.get(case.dtype, 2)
    message = f"{count:,} parameters in {len(specs)} tensors"
    action = f"the output needs {need:,} bytes as {case.dtype}"
    yield Finding("note", "size", message, action, {"output": need})


def _others(case: Case) -> list[tuple[str, Source]]:
    return [(role, s) for role, s in case.parents.items() if role != case.chosen_role]


def _by_id(here: Mapping[str, int], there: Mapping[str, int]) -> list[str]:
    return sorted(here.keys() - there.keys(), key=lambda token: here[token])


def _some(tokens: list[str]) -> str:
    more = f" and {len(tokens) - EXAMPLES} more" if len(tokens) > EXAMPLES else ""
    # Added tokens have the highest ids and say most about how a model is used.
    return ", ".join(tokens[-EXAMPLES:]) + more


def _list(roles: list[str]) -> str:
    return " and ".join(roles)


CHECKS: tuple[Callable[[Case], Iterator[Finding]], ...] = (
    _embeddings,
    _tie_claims,
    _positions,
    _tokenizers,
    _tokenizer_class,
    _token_meanings,
    _single_tokens,
    _think_tags,
    _template,
    _special_tokens,
    _add_bos,
    _generation,
    _dtypes,
    _padding_rows,
    _instruct,
    _size,
)

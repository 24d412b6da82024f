"""What makes two checkpoints impossible to merge: read from configs and headers alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from laconic.diagnosis.findings import Finding, told
from laconic.diagnosis.parents import distinct, embedding_rows, reference
from laconic.tensors.header import FLOAT_DTYPES
from laconic.tensors.names import natural_order, role_of
from laconic.tensors.source import HEAD, Source

Config = Mapping[str, Any]
EXAMPLES = 3

# What transformers assumes where a config is silent: for all models, then by model type.
DEFAULTS: Mapping[str, Any] = {
    "rope_theta": 10000.0,
    "attention_bias": False,
    "mlp_bias": False,
    "partial_rotary_factor": 1.0,
}
TYPE_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "mixtral": {"rope_theta": 1e6},
    "qwen3": {"head_dim": 128},
    "gemma2": {"head_dim": 256},
    "gemma3_text": {"head_dim": 256, "rope_theta": 1e6},
}

# Topic -> the keys that older and newer configs, or other families, use for it.
PLAIN: Mapping[str, tuple[str, ...]] = {
    "architecture": ("architectures",),
    "model type": ("model_type",),
    "layers": ("num_hidden_layers",),
    "attention heads": ("num_attention_heads",),
    "hidden size": ("hidden_size",),
    "intermediate size": ("intermediate_size",),
    "activation": ("hidden_act", "hidden_activation"),
    "norm epsilon": ("rms_norm_eps", "layer_norm_eps", "norm_epsilon"),
    "attention bias": ("attention_bias",),
    "mlp bias": ("mlp_bias",),
    "experts": ("num_experts", "num_local_experts", "n_routed_experts"),
    "experts per token": ("num_experts_per_tok",),
    "expert size": ("moe_intermediate_size",),
    "shared experts": ("n_shared_experts", "shared_expert_intermediate_size"),
    "expert layers": ("decoder_sparse_step", "first_k_dense_replace"),
    "dense layers": ("mlp_only_layers",),
    "expert weights": ("norm_topk_prob",),
    "expert scaling": ("routed_scaling_factor",),
    "expert scoring": ("scoring_func",),
    "attention softcap": ("attn_logit_softcapping",),
    "logit softcap": ("final_logit_softcapping",),
    "attention scale": ("query_pre_attn_scalar", "attention_multiplier"),
    "latent attention": ("kv_lora_rank",),
    "value head size": ("v_head_dim",),
    "layers without rope": ("no_rope_layers",),
    "logits scaling": ("logits_scaling",),
    "residual scaling": ("residual_multiplier",),
    "embedding scaling": ("embedding_multiplier",),
}
# A network's shape follows from these; a wrong function hides behind the others.
SILENT = "the tensors would fit but the network would compute something else"
OTHER_NETWORK = "these are different networks; choose parents that share an ancestor"


def blockers(sources: Mapping[str, Source], tie_policy: str) -> Iterator[Finding]:
    """Yield everything that stops a merge of these parents."""
    parents = distinct(sources)
    yield from _config_blockers(parents)
    yield from _quantised(parents)
    yield from _row_blockers(parents)
    yield from _name_blockers(reference(sources), parents)
    yield from _shape_blockers(reference(sources), parents)
    yield from _tie_blocker(parents, tie_policy)


def setting(config: Config, key: str) -> Any:
    """Return a config value, or what transformers assumes for this type when it is absent."""
    value = config.get(key)
    if value is not None:
        return value
    own = TYPE_DEFAULTS.get(str(config.get("model_type")), {})
    return own.get(key, DEFAULTS.get(key))


def rope(config: Config) -> dict[str, dict[str, Any]]:
    """Return rope_theta and scaling in one form, whichever way the config spells them.

    transformers 5 writes `rope_parameters: {rope_theta, rope_type}`, per kind of layer for some
    models; older versions write `rope_theta` and `rope_scaling: {type or rope_type, ...}`.
    """
    modern = config.get("rope_parameters") or {}
    if modern and all(isinstance(value, dict) for value in modern.values()):
        return {kind: _one_rope(config, value) for kind, value in sorted(modern.items())}
    return {"all layers": _one_rope(config, modern or config.get("rope_scaling") or {})}


def _one_rope(config: Config, raw: Config) -> dict[str, Any]:
    kind = raw.get("rope_type", raw.get("type")) or "default"
    scaling = {k: v for k, v in raw.items() if v is not None and k not in _ROPE_ASIDE}
    return {
        "rope_theta": float(raw.get("rope_theta") or setting(config, "rope_theta")),
        "rope_scaling": None if kind == "default" else {"rope_type": kind, **scaling},
        "partial_rotary_factor": raw.get("partial_rotary_factor")
        or setting(config, "partial_rotary_factor"),
    }


_ROPE_ASIDE = ("rope_theta", "rope_type", "type", "partial_rotary_factor")


def _plain_reader(keys: tuple[str, ...]) -> Callable[[Config], Any]:
    return lambda config: next((v for key in keys if (v := setting(config, key)) is not None), None)


def _kv_heads(config: Config) -> Any:
    return config.get("num_key_value_heads") or config.get("num_attention_heads")


def _head_dim(config: Config) -> Any:
    hidden, heads = config.get("hidden_size"), config.get("num_attention_heads")
    known = setting(config, "head_dim")
    return known if known or not (hidden and heads) else hidden // heads


def _window(config: Config) -> Any:
    """Return the sliding window in use; Qwen's configs write one that a switch keeps unused."""
    switched = "use_sliding_window" in config or str(config.get("model_type")).startswith("qwen")
    if switched and not config.get("use_sliding_window"):
        return "not in use"
    window = config.get("sliding_window")
    return "not in use" if window is None else [window, config.get("max_window_layers")]


def _rope_part(part: str) -> Callable[[Config], Any]:
    def read(config: Config) -> Any:
        parts = {kind: one[part] for kind, one in rope(config).items()}
        return parts["all layers"] if set(parts) == {"all layers"} else parts

    return read


READERS: Mapping[str, Callable[[Config], Any]] = {
    **{topic: _plain_reader(keys) for topic, keys in PLAIN.items()},
    "key-value heads": _kv_heads,
    "head size": _head_dim,
    "sliding window": _window,
}
ROPE_READERS = {
    part: _rope_part(part) for part in ("rope_theta", "rope_scaling", "partial_rotary_factor")
}


def _config_blockers(parents: Mapping[str, Source]) -> Iterator[Finding]:
    for topic, read in {**READERS, **ROPE_READERS}.items():
        values = {role: read(source.config) for role, source in parents.items()}
        if _same(values):
            continue
        if any(v is None for v in values.values()) and topic not in ROPE_READERS:
            message = f"not written in every config: {told(values)}"
            yield Finding("note", topic, message, "laconic cannot compare it", values)
            continue
        action = OTHER_NETWORK if topic not in _SILENT_TOPICS else f"{SILENT}; {_REMEDY}"
        yield Finding("blocker", topic, f"differs: {told(values)}", action, values)


_SILENT_TOPICS = {*ROPE_READERS, "norm epsilon", "activation", "sliding window"}
_REMEDY = (
    "find the parent's real ancestor (general Qwen2.5-1.5B has rope_theta 1e6, "
    "Qwen2.5-Math-1.5B and its R1 distillation 1e4)"
)


def _same(values: Mapping[str, Any]) -> bool:
    first, *others = values.values()
    return all(other == first for other in others)


def _quantised(parents: Mapping[str, Source]) -> Iterator[Finding]:
    for role, source in parents.items():
        odd = [s for s in source.specs.values() if s.dtype not in FLOAT_DTYPES]
        quantisation = source.config.get("quantization_config")
        if not odd and not quantisation:
            continue
        how = (quantisation or {}).get("quant_method") or (odd[0].dtype if odd else "unnamed")
        where = f"; {len(odd)} tensors such as {odd[0].name} are {odd[0].dtype}" if odd else ""
        yield Finding(
            "blocker",
            "quantised weights",
            f"{role} ({source.name}) is quantised ({how}){where}",
            "merge the original bfloat16, float16 or float32 weights and quantise the result",
            {role: how},
        )


def _row_blockers(parents: Mapping[str, Source]) -> Iterator[Finding]:
    rows = {role: embedding_rows(source) for role, source in parents.items()}
    if not _same(rows):
        yield Finding(
            "blocker",
            "vocabulary rows",
            f"the embeddings have different numbers of rows: {told(rows)}",
            "laconic resizes nothing: bring one parent to the other's rows with "
            "resize_token_embeddings, or choose another parent",
            rows,
        )
    for role, source in parents.items():
        claimed = source.config.get("vocab_size")
        if None not in (claimed, rows[role]) and claimed != rows[role]:
            yield Finding(
                "blocker",
                "vocabulary rows",
                f"{role}: config.json says {claimed} rows, its embedding has {rows[role]}",
                "this checkpoint would not load either: correct vocab_size in its config.json",
                {role: rows[role]},
            )


def _name_blockers(base: Source, parents: Mapping[str, Source]) -> Iterator[Finding]:
    for role, source in parents.items():
        tied = base.tied or source.tied
        missing = _only(base, source, tied)
        extra = _only(source, base, tied)
        if missing or extra:
            parts = [_some("lacks", missing), _some("has besides the base's", extra)]
            yield Finding(
                "blocker",
                "parameter names",
                f"{role} ({source.name}) " + " and ".join(part for part in parts if part),
                OTHER_NETWORK + ", or rename the tensors of one",
                {role: {"missing": missing, "extra": extra}},
            )


def _only(here: Source, there: Source, tied: bool) -> list[str]:
    names = here.specs.keys() - there.specs.keys() - ({HEAD} if tied else set())
    return sorted(names, key=natural_order)


def _some(verb: str, names: list[str]) -> str:
    more = "" if len(names) <= EXAMPLES else f" and {len(names) - EXAMPLES} more"
    return f"{verb} {', '.join(names[:EXAMPLES])}{more}" if names else ""


def _shape_blockers(base: Source, parents: Mapping[str, Source]) -> Iterator[Finding]:
    for role, source in parents.items():
        common = base.specs.keys() & source.specs.keys()
        wrong = sorted((n for n in common if _shapes_clash(base, source, n)), key=natural_order)
        if not wrong:
            continue
        shown = [
            f"{n}: {list(base.specs[n].shape)} in the base, {list(source.specs[n].shape)} in {role}"
            for n in wrong[:EXAMPLES]
        ]
        yield Finding(
            "blocker",
            "shapes",
            f"{len(wrong)} of {len(common)} tensors differ in shape: {'; '.join(shown)}",
            OTHER_NETWORK,
            {role: wrong},
        )


def _shapes_clash(base: Source, source: Source, name: str) -> bool:
    mine, theirs = base.specs[name].shape, source.specs[name].shape
    # Rows of the vocabulary are a finding of their own.
    by_row = role_of(name) in ("embedding", "head") and mine[1:] == theirs[1:]
    return mine != theirs and not (by_row and embedding_rows(base) != embedding_rows(source))


def _tie_blocker(parents: Mapping[str, Source], tie_policy: str) -> Iterator[Finding]:
    tied = {role: source.tied for role, source in parents.items()}
    if _same(tied):
        return
    if tie_policy == "error":
        yield Finding(
            "blocker",
            "tied embeddings",
            f"some parents tie head and embedding, some do not, and tie_policy is error: "
            f"tied: {told(tied)}",
            "choose tie_policy untie_any (keeps every parent's head) or base",
            tied,
        )

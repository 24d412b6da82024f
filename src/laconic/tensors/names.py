"""What a parameter's name tells: its layer and its role in the network."""

from __future__ import annotations

import re

EMBEDDING_LAYER, NORM_LAYER, HEAD_LAYER = -1, -2, -3
OTHER_LAYER = -4

_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")
_ROLES = (
    ("embedding", re.compile(r"(^|\.)embed_tokens\.")),
    ("head", re.compile(r"(^|\.)lm_head\.")),
    ("shared_expert", re.compile(r"\.shared_(expert(s|_gate)?|mlp)\.")),
    # Qwen, DeepSeek, OLMoE, gpt-oss | Mixtral, Phi, Granite | Llama 4
    ("router", re.compile(r"\.(mlp|block_sparse_moe|feed_forward)\.(gate|router)\.")),
    ("expert", re.compile(r"\.experts\.|\.block_sparse_moe\.(in|out)put_linear\.")),
    ("norm", re.compile(r"norm\.")),
    ("attention", re.compile(r"\.(self_attn|attention)\.")),
    ("mlp", re.compile(r"\.(mlp|feed_forward)\.")),
)
OTHER = "other"
ROLES = (*(role for role, _ in _ROLES), OTHER)


def layer_of(name: str) -> int:
    """Return the decoder layer in a name; -1 embeddings, -2 final norm, -3 head, -4 anything else.

    The negative keys are those of ACM (arXiv 2505.14009), so that coefficient plots line up.
    """
    match = _LAYER.search(name)
    if match:
        return int(match.group(1))
    others = {"embedding": EMBEDDING_LAYER, "norm": NORM_LAYER, "head": HEAD_LAYER}
    return others.get(role_of(name), OTHER_LAYER)


def role_of(name: str) -> str:
    """Return `embedding`, `head`, `norm`, `attention`, `mlp`, `router`, `expert`,
    `shared_expert` or `other`."""
    return next((role for role, pattern in _ROLES if pattern.search(name)), OTHER)


def natural_order(name: str) -> tuple[tuple[int, int | str], ...]:
    """Sort key that puts layer 2 before layer 10."""
    parts = re.split(r"(\d+)", name)
    return tuple((0, int(part)) if part.isdigit() else (1, part) for part in parts if part)

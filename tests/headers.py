"""Checkpoints of real models' shapes that cost no disk: headers, and holes where weights would be.

Sizes are those of the models' config.json files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Model:
    """The sizes that fix a Qwen2.5 or Qwen3 model's tensors."""

    hidden: int
    inner: int
    layers: int
    heads: int
    kv: int
    vocab: int
    tied: bool = False
    theta: float = 1e6
    eps: float = 1e-6
    head: int = 128
    family: str = "qwen2"
    experts: int = 0


MATH_15 = Model(1536, 8960, 28, 12, 2, 151936, theta=1e4)
MATH_7 = Model(3584, 18944, 28, 28, 4, 152064, theta=1e4)
QWEN_14 = Model(5120, 13824, 48, 40, 8, 152064, eps=1e-5)
QWEN_32 = Model(5120, 27648, 64, 40, 8, 152064, eps=1e-5)
QWEN3_4 = Model(2560, 9728, 36, 32, 8, 151936, tied=True, theta=5e6, family="qwen3")
QWEN3_8 = Model(4096, 12288, 36, 32, 8, 151936, family="qwen3")
QWEN3_30 = Model(2048, 768, 48, 32, 4, 151936, theta=1e7, family="qwen3_moe", experts=128)
MODELS = {
    "Qwen/Qwen2.5-Math-1.5B": Model(**{**MATH_15.__dict__, "tied": True}),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": MATH_15,
    "Qwen/Qwen2.5-Math-7B": MATH_7,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": MATH_7,
    "Qwen/Qwen2.5-14B": QWEN_14,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B": QWEN_14,
    "Qwen/Qwen2.5-32B": QWEN_32,
    "Qwen/Qwen2.5-32B-Instruct": QWEN_32,
    "Qwen/QwQ-32B": QWEN_32,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B": QWEN_32,
    "Qwen/Qwen3-8B": QWEN3_8,
    "deepseek-ai/DeepSeek-R1-0528-Qwen3-8B": QWEN3_8,
    "Qwen/Qwen3-4B-Instruct-2507": QWEN3_4,
    "Qwen/Qwen3-4B-Thinking-2507": QWEN3_4,
    "Qwen/Qwen3-30B-A3B-Instruct-2507": QWEN3_30,
    "Qwen/Qwen3-30B-A3B-Thinking-2507": QWEN3_30,
}


def write_headers(folder: Path, model: Model) -> Path:
    """Write a checkpoint of this model whose tensors are holes in a sparse file."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(_config(model)))
    header: dict[str, Any] = {}
    end = 0
    for name, shape in _shapes(model):
        start, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return folder


def _shapes(model: Model) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "model.embed_tokens.weight", (model.vocab, model.hidden)
    for layer in range(model.layers):
        for name, shape in (*_attention(model), *_mlp(model)):
            yield f"model.layers.{layer}.{name}", shape
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield f"model.layers.{layer}.{norm}.weight", (model.hidden,)
    yield "model.norm.weight", (model.hidden,)
    if not model.tied:
        yield "lm_head.weight", (model.vocab, model.hidden)


def _attention(model: Model) -> Iterator[tuple[str, tuple[int, ...]]]:
    wide, narrow = model.heads * model.head, model.kv * model.head
    for letter, rows in (("q", wide), ("k", narrow), ("v", narrow)):
        yield f"self_attn.{letter}_proj.weight", (rows, model.hidden)
        if model.family == "qwen2":
            yield f"self_attn.{letter}_proj.bias", (rows,)
        elif letter != "v":
            yield f"self_attn.{letter}_norm.weight", (model.head,)
    yield "self_attn.o_proj.weight", (model.hidden, wide)


def _mlp(model: Model) -> Iterator[tuple[str, tuple[int, ...]]]:
    prefixes = [f"mlp.experts.{index}" for index in range(model.experts)] or ["mlp"]
    for prefix in prefixes:
        yield f"{prefix}.gate_proj.weight", (model.inner, model.hidden)
        yield f"{prefix}.up_proj.weight", (model.inner, model.hidden)
        yield f"{prefix}.down_proj.weight", (model.hidden, model.inner)
    if model.experts:
        yield "mlp.gate.weight", (model.experts, model.hidden)


def _config(model: Model) -> dict[str, Any]:
    names = {"qwen2": "Qwen2", "qwen3": "Qwen3", "qwen3_moe": "Qwen3Moe"}
    config = {
        "architectures": [f"{names[model.family]}ForCausalLM"],
        "model_type": model.family,
        "hidden_size": model.hidden,
        "intermediate_size": model.inner,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv,
        "head_dim": model.head,
        "hidden_act": "silu",
        "rms_norm_eps": model.eps,
        "rope_theta": model.theta,
        "vocab_size": model.vocab,
        "tie_word_embeddings": model.tied,
        "max_position_embeddings": 131072,
        "torch_dtype": "bfloat16",
    }
    moe = {"num_experts": model.experts, "moe_intermediate_size": model.inner}
    return config | (moe if model.experts else {})

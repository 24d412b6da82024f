"""Small checkpoints that tests make for themselves: random tensors under Qwen2's names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

CONFIG: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 40,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
}


def random_tensors(
    seed: int, *, tied: bool = False, dtype: torch.dtype = torch.bfloat16, layers: int = 2
) -> dict[str, torch.Tensor]:
    """Tensors with the names and shapes of a Qwen2 with hidden size 16."""
    generator = torch.Generator().manual_seed(seed)
    hidden, inner, kv, vocab = 16, 24, 8, 40
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, hidden)}
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        for name, rows in (("q", hidden), ("k", kv), ("v", kv)):
            shapes[f"{prefix}self_attn.{name}_proj.weight"] = (rows, hidden)
            shapes[f"{prefix}self_attn.{name}_proj.bias"] = (rows,)
        shapes[f"{prefix}self_attn.o_proj.weight"] = (hidden, hidden)
        shapes[f"{prefix}mlp.gate_proj.weight"] = (inner, hidden)
        shapes[f"{prefix}mlp.up_proj.weight"] = (inner, hidden)
        shapes[f"{prefix}mlp.down_proj.weight"] = (hidden, inner)
        shapes[f"{prefix}input_layernorm.weight"] = (hidden,)
        shapes[f"{prefix}post_attention_layernorm.weight"] = (hidden,)
    shapes["model.norm.weight"] = (hidden,)
    if not tied:
        shapes["lm_head.weight"] = (vocab, hidden)
    return {
        name: (torch.randn(shape, generator=generator) * 0.02).to(dtype)
        for name, shape in shapes.items()
    }


def write_checkpoint(
    folder: Path, tensors: Mapping[str, torch.Tensor], *, shards: int = 1, **config: Any
) -> Path:
    """Write a checkpoint folder, sharded with an index when `shards` is more than one."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
    names = sorted(tensors)
    if shards == 1:
        save_file(dict(tensors), folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    weight_map = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = {name: tensors[name] for name in names[shard::shards]}
        save_file(part, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def pair(folder: Path, *, shards: int = 1, **config: Any) -> tuple[Path, Path]:
    """Write a quick and a slow checkpoint that differ everywhere; returns their folders."""
    quick = random_tensors(1)
    slow = {
        name: (tensor.float() + 0.1 * random_tensors(2)[name].float()).to(tensor.dtype)
        for name, tensor in quick.items()
    }
    return (
        write_checkpoint(folder / "quick", quick, shards=shards, **config),
        write_checkpoint(folder / "slow", slow, shards=shards, **config),
    )


def folder_digest(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a folder by name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }

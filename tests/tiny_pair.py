"""Tiny Qwen2-shaped checkpoints on disk, made in milliseconds and without a network."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

ROWS, HIDDEN, MLP, LAYERS, HEADS, KV = 64, 32, 64, 2, 4, 2
LETTERS = string.ascii_letters[:50]
# The tokens that Qwen2.5-Math and its R1 distillation hold at the same ids, from 50 on.
QWEN_SPECIAL = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>",
    "<|box_start|>", "<|box_end|>",
]  # fmt: skip
R1_SPECIAL = [
    "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<｜begin▁of▁sentence｜>", "<|EOT|>",
    "<think>", "</think>",
]  # fmt: skip
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
R1_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<｜User｜>{{ m.content }}{% endfor %}"
    "<｜Assistant｜><think>\n"
)
CONFIG: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": HIDDEN,
    "intermediate_size": MLP,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000,
    "vocab_size": ROWS,
    "torch_dtype": "bfloat16",
    "sliding_window": 4096,
    "use_sliding_window": False,
    "max_window_layers": 2,
    "_name_or_path": "somewhere/else",
}


def weights(*, tied: bool, seed: int = 0, dtype: torch.dtype = torch.bfloat16) -> dict[str, Any]:
    """Make the tensors of a Qwen2 model of the sizes above."""
    shapes = {"model.embed_tokens.weight": (ROWS, HIDDEN), "model.norm.weight": (HIDDEN,)}
    if not tied:
        shapes["lm_head.weight"] = (ROWS, HIDDEN)
    width = HIDDEN * KV // HEADS
    for i in range(LAYERS):
        at = f"model.layers.{i}"
        for name, out in (("q", HIDDEN), ("k", width), ("v", width)):
            shapes[f"{at}.self_attn.{name}_proj.weight"] = (out, HIDDEN)
            shapes[f"{at}.self_attn.{name}_proj.bias"] = (out,)
        shapes[f"{at}.self_attn.o_proj.weight"] = (HIDDEN, HIDDEN)
        shapes[f"{at}.mlp.gate_proj.weight"] = shapes[f"{at}.mlp.up_proj.weight"] = (MLP, HIDDEN)
        shapes[f"{at}.mlp.down_proj.weight"] = (HIDDEN, MLP)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{at}.{norm}.weight"] = (HIDDEN,)
    made = torch.Generator().manual_seed(seed)
    return {n: (0.1 * torch.randn(s, generator=made)).to(dtype) for n, s in shapes.items()}


def save_weights(folder: Path, tensors: dict[str, Any]) -> None:
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def edit(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None removes one."""
    value = json.loads(path.read_text()) if path.exists() else {}
    value |= changes
    write(path, {key: entry for key, entry in value.items() if entry is not None})


def save_tokenizer(folder: Path, special: list[str], template: str | None, **settings: Any) -> None:
    vocab = {letter: i for i, letter in enumerate(LETTERS)}
    added = [
        {
            "id": len(LETTERS) + i,
            "content": token,
            "special": True,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
        }
        for i, token in enumerate(special)
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    byte_level["use_regex"] = False
    core = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    }
    write(folder / "tokenizer.json", core)
    settings = {"tokenizer_class": "Qwen2Tokenizer", **settings}
    if template is not None:
        settings["chat_template"] = template
    write(folder / "tokenizer_config.json", settings)


def make_quick(folder: Path, *, tied: bool = False) -> Path:
    """Make a checkpoint like Qwen2.5-Math-1.5B (tied=True) or -7B."""
    folder.mkdir(parents=True)
    config = {"max_position_embeddings": 4096, "bos_token_id": 50, "eos_token_id": 50}
    write(folder / "config.json", CONFIG | config | {"tie_word_embeddings": tied})
    save_weights(folder, weights(tied=tied, seed=1))
    save_tokenizer(
        folder, QWEN_SPECIAL, CHATML, eos_token="<|endoftext|>", pad_token="<|endoftext|>"
    )
    generation = {"bos_token_id": 50, "pad_token_id": 50, "eos_token_id": 50}
    write(folder / "generation_config.json", generation | {"max_new_tokens": 2048})
    return folder


def make_slow(folder: Path, *, tied: bool = False) -> Path:
    """Make a checkpoint like the R1 distillation of that model."""
    folder.mkdir(parents=True)
    config = {"max_position_embeddings": 131072, "bos_token_id": 53, "eos_token_id": 50}
    write(folder / "config.json", CONFIG | config | {"tie_word_embeddings": tied})
    save_weights(folder, weights(tied=tied, seed=2))
    save_tokenizer(
        folder,
        R1_SPECIAL,
        R1_TEMPLATE,
        add_bos_token=True,
        bos_token={"__type": "AddedToken", "content": R1_SPECIAL[3]},
        eos_token={"__type": "AddedToken", "content": R1_SPECIAL[0]},
        pad_token=R1_SPECIAL[0],
    )
    generation = {"bos_token_id": 53, "eos_token_id": 50, "do_sample": True}
    write(folder / "generation_config.json", generation | {"temperature": 0.6, "top_p": 0.95})
    return folder

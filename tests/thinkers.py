"""A tiny quick and a tiny slow Qwen2 with a tokenizer that has think tags, and text for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from laconic.recipe import Recipe, parse_recipe

LETTERS = "0123456789+-= abcdefghijklmnopqrstuvwxyzQA:\n"
TAGS = ("<think>", "</think>")
TEMPLATE = "{% for m in messages %}Q{{ m['content'] }}{% endfor %}A"


def tokenizer(tags: tuple[str, ...] = TAGS) -> PreTrainedTokenizerFast:
    words = ("<end>", *LETTERS, *TAGS) if tags else ("<end>", *LETTERS, "<a>", "<b>")
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<end>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    core.decoder = decoders.Fuse()
    core.add_special_tokens(["<end>"])
    core.add_tokens(list(words[-2:]))
    made = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<end>", pad_token="<end>")
    made.chat_template = TEMPLATE
    return made


def config(**settings: Any) -> Qwen2Config:
    defaults = {
        "vocab_size": 48,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.3,
        "eos_token_id": 0,
        "bos_token_id": None,
        "tie_word_embeddings": False,
    }
    return Qwen2Config(**(defaults | settings))


def model(seed: int = 0, **settings: Any) -> Qwen2ForCausalLM:
    torch.manual_seed(seed)
    made = Qwen2ForCausalLM(config(**settings)).eval()
    for parameter in made.parameters():
        if parameter.dim() == 1:  # norms of one and biases of zero would hide mistakes
            parameter.data += 0.2 * torch.randn(parameter.shape)
    return made


def write_pair(folder: Path, *, slow_tags: tuple[str, ...] = TAGS) -> Path:
    """Write `quick` and `slow`, the slow one being the quick one moved a little everywhere."""
    quick, slow = model(1), model(2)
    moved = {
        name: tensor + 0.2 * slow.state_dict()[name] for name, tensor in quick.state_dict().items()
    }
    quick.save_pretrained(folder / "quick")
    slow.load_state_dict(moved)
    slow.save_pretrained(folder / "slow")
    tokenizer().save_pretrained(folder / "quick")
    tokenizer(slow_tags).save_pretrained(folder / "slow")
    return folder


def rows(count: int = 6) -> list[dict[str, str]]:
    return [
        {
            "question": f"add {i}+{i * 7 % 10}" + "x" * (i * 3 % 8),
            "short": f"{i}{i + 1}",
            "long": f"let me see {i} and {'y' * (i * 5 % 11)} wait so {i + 1}",
        }
        for i in range(count)
    ]


def write_rows(path: Path, made: list[dict[str, str]] | None = None) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in made or rows()))
    return path


def recipe(folder: Path, *merge: Any, **extra: Any) -> Recipe:
    """A recipe over the pair in a folder; its calibration data is made unless it is there."""
    data = folder / "text.jsonl"
    if not data.exists():
        write_rows(data)
    calibration = {
        "data": str(data),
        "fields": {"question": "question", "short": "short", "long": "long"},
        **extra.pop("calibration", {}),
    }
    raw = {"quick": str(folder / "quick"), "slow": str(folder / "slow"), "merge": list(merge)}
    return parse_recipe({**raw, "calibration": calibration, **extra})

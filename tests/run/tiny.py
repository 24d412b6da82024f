"""A tiny Qwen2 checkpoint with random weights, and its samples."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from laconic.run.sample import Message, Sample

SPECIAL = ("<end>", "<turn>", "<stop>")
TEMPLATE = (
    "{% for message in messages %}<turn>{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<turn>{% endif %}"
)


def tokenizer(template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    words = (*SPECIAL, *"0123456789+-= abcdefghij")
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<end>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    core.decoder = decoders.Fuse()
    core.add_special_tokens(list(SPECIAL))
    made = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<end>", pad_token="<end>")
    made.chat_template = template
    return made


def write_checkpoint(
    folder: Path, seed: int = 0, template: str | None = TEMPLATE, **config: object
) -> Path:
    torch.manual_seed(seed)
    settings = {
        "vocab_size": 26,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "initializer_range": 0.5,  # large, so that the argmax is clear and depends on the prompt
        "eos_token_id": 0,
        "bos_token_id": None,
        "tie_word_embeddings": False,
    }
    model = Qwen2ForCausalLM(Qwen2Config(**(settings | config)))
    model.generation_config.eos_token_id = [0, 2]
    model.generation_config.do_sample = True  # a trap: sampling settings must not be inherited
    model.generation_config.temperature = 0.3
    model.save_pretrained(folder)
    tokenizer(template).save_pretrained(folder)
    return folder


def samples(count: int) -> list[Sample]:
    """Prompts of very different lengths, 3 to 23 tokens."""
    texts = [f"{i}+{'1' * (i * 7 % 19)}=" for i in range(count)]
    return [
        Sample(f"q{i:02d}", (Message("user", text),), level=str(i % 3))
        for i, text in enumerate(texts)
    ]

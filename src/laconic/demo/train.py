"""From a seed to the pair: base, then quick from base, then slow from quick.

    python -m laconic.demo.train --out DIR [--seed 0] [--quickly]

The same seed gives the same bytes on the same machine: one thread, one generator per stage,
deterministic kernels.
"""

from __future__ import annotations

import argparse
import copy
import math
import random
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from laconic.demo import batches
from laconic.demo.tokenizer import END_OF_TEXT, TURN_END, build
from laconic.demo.traces import Mix

POSITIONS = {"quick": 512, "slow": 2048}


@dataclass(frozen=True)
class Stage:
    """One run of training: `rows` samples a step, `rate` is the peak learning rate of AdamW."""

    name: str
    steps: int
    rate: float
    rows: int
    mix: Mix
    warmup: int = 50
    chunks: int = 3


BASE = Stage("base", 700, 3e-3, 32, Mix(terse=0.35, first=0.15, second=0.5, slips=0.0))
QUICK = Stage("quick", 300, 1e-3, 32, Mix(terse=0.85, first=0.0, second=0.0, slips=0.0), warmup=20)
SLOW = Stage("slow", 350, 8e-4, 16, Mix(terse=0.0, first=0.85, second=0.7, slips=0.3), warmup=20)


def shape(tokenizer: PreTrainedTokenizerFast, positions: int) -> Qwen2Config:
    """A third of a million parameters in the shape of a Qwen2 model, the output head untied."""
    return Qwen2Config(
        vocab_size=-(-len(tokenizer) // 8) * 8,
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=positions,
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
        initializer_range=0.02,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        bos_token_id=None,
        eos_token_id=tokenizer.convert_tokens_to_ids(TURN_END),
        pad_token_id=tokenizer.convert_tokens_to_ids(END_OF_TEXT),
        dtype="float32",
    )


def settle(seed: int) -> None:
    """One thread and deterministic kernels, so that a seed fixes every byte."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)


def train(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, stage: Stage, seed: int
) -> Qwen2ForCausalLM:
    """A trained copy of the model."""
    model = copy.deepcopy(model).train()
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=stage.rate, betas=(0.9, 0.98), weight_decay=0.01
    )
    rng = random.Random(f"{seed} {stage.name}")
    source = batches.steps(tokenizer, rng, stage.mix, stage.rows, stage.chunks)
    began = time.monotonic()
    for step in range(stage.steps):
        for group in optimiser.param_groups:
            group["lr"] = stage.rate * schedule(step, stage.steps, stage.warmup)
        loss = _descend(model, next(source))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if (step + 1) % 50 == 0 or step + 1 == stage.steps:
            note = f"{stage.name} {step + 1}/{stage.steps} loss {loss:.4f}"
            print(f"{note} {time.monotonic() - began:.0f} s", file=sys.stderr)
    return model.eval()


def schedule(step: int, steps: int, warmup: int) -> float:
    """Share of the peak rate: linear warm-up, then a cosine down to a twentieth."""
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done))


def _descend(model: Qwen2ForCausalLM, groups: list[batches.Batch]) -> float:
    """Add the gradient of the mean loss per learnt token over all groups; returns that loss."""
    learnt = sum(int((group.labels[:, 1:] != batches.IGNORED).sum()) for group in groups)
    total = 0.0
    for group in groups:
        loss = _loss(model, group) / learnt
        torch.autograd.backward(loss)
        total += loss.item()
    return total


def _loss(model: Qwen2ForCausalLM, group: batches.Batch) -> Tensor:
    """Summed cross-entropy in nats."""
    logits = model(input_ids=group.tokens, use_cache=False).logits[:, :-1]
    return functional.cross_entropy(
        logits.flatten(0, 1),
        group.labels[:, 1:].flatten(),
        ignore_index=batches.IGNORED,
        reduction="sum",
    )


def make(folder: Path, seed: int, quickly: bool = False) -> dict[str, Path]:
    """Train and save the pair; returns the folders of `quick` and `slow`."""
    settle(seed)
    stages = [replace(s, steps=3, rows=10) if quickly else s for s in (BASE, QUICK, SLOW)]
    tokenizer = build()
    model = Qwen2ForCausalLM(shape(tokenizer, POSITIONS["slow"]))
    folders = {}
    for stage in stages:
        model = train(model, tokenizer, stage, seed)
        if stage.name in POSITIONS:
            folders[stage.name] = save(model, folder / stage.name, POSITIONS[stage.name])
    return folders


def save(model: Qwen2ForCausalLM, folder: Path, positions: int) -> Path:
    """A Hugging Face folder: config, weights, tokenizer, generation defaults."""
    tokenizer = build(positions)
    kept = Qwen2ForCausalLM(shape(tokenizer, positions))
    kept.load_state_dict(model.state_dict())
    kept.generation_config = GenerationConfig(
        do_sample=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    kept.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def main() -> None:
    """Train one pair and print its two folders."""
    parser = argparse.ArgumentParser(description="train the pair: DIR/quick and DIR/slow")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quickly", action="store_true", help="three steps a stage, as a test")
    arguments = parser.parse_args()
    for path in make(arguments.out, arguments.seed, arguments.quickly).values():
        print(path)


if __name__ == "__main__":
    main()

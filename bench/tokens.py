"""Tokens per second of the transformers runner beside plain `model.generate`, on equal outputs.

`python -m bench.tokens --questions 100` asks the bundled slow model, greedily: one prompt at a
time, in fixed batches (left-padded, each waiting for its longest), with transformers' continuous
batching (caches of given sizes), and with the runner. Every way must give the same tokens; one run
each, model loading left out, one thread. Exit code 1 when an output differs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig

import laconic.demo
from laconic.grade.tasks import load_task
from laconic.run.decoding import left_padded
from laconic.run.sample import Sample
from laconic.run.sampling import Sampling
from laconic.run.tokenizer import Tokenizer
from laconic.run.transformers import TransformersRunner

SLOW = Path(laconic.demo.__file__).parent / "pair" / "slow"
Outputs = dict[str, tuple[int, ...]]


def generated(model: Any, prompts: dict[str, tuple[int, ...]], limit: int, size: int) -> Outputs:
    """Answer with `model.generate`, `size` prompts at a time in the order given."""
    outputs: Outputs = {}
    names = list(prompts)
    for first in range(0, len(names), size):
        batch = names[first : first + size]
        ids, mask = left_padded([prompts[name] for name in batch], model.device)
        rows = model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=limit,
            pad_token_id=0,
        )[:, ids.shape[1] :]
        for name, row in zip(batch, rows.tolist(), strict=True):
            outputs[name] = _until(row, _ends(model))
    return outputs


def continuous(model: Any, prompts: dict[str, tuple[int, ...]], limit: int, blocks: int) -> Outputs:
    """Answer with `model.generate_batch`; blocks: of 256 tokens, in its cache.

    Left to itself it sizes the cache by the memory that is free.
    """
    found = model.generate_batch(
        [list(ids) for ids in prompts.values()],
        generation_config=GenerationConfig(
            max_new_tokens=limit,
            do_sample=False,
            eos_token_id=model.generation_config.eos_token_id,
            pad_token_id=0,
        ),
        continuous_batching_config=ContinuousBatchingConfig(
            num_blocks=blocks, max_batch_tokens=4 * blocks
        ),
    )
    names = {ids: name for name, ids in prompts.items()}
    return {names[tuple(one.prompt_ids)]: tuple(one.generated_tokens) for one in found.values()}


def by_runner(runner: TransformersRunner, samples: Sequence[Sample], limit: int) -> Outputs:
    """Answer with the runner of this package."""
    found = runner.generate(samples, Sampling(max_tokens=limit))
    return {one.id: one.token_ids or () for one in found}


def measure(ways: dict[str, Callable[[], Outputs]]) -> tuple[list[dict[str, Any]], bool]:
    """Time each way once; returns rows, and whether all gave the same outputs."""
    rows: list[dict[str, Any]] = []
    expected: Outputs | None = None
    for name, way in ways.items():
        began = time.monotonic()
        outputs = way()
        seconds = time.monotonic() - began
        expected = expected or outputs
        tokens = sum(map(len, outputs.values()))
        first = rows[0]["seconds"] if rows else seconds
        rows.append(
            {
                "way": name,
                "seconds": round(seconds, 2),
                "tokens": tokens,
                "tokens_per_s": round(tokens / seconds),
                "speed_up": round(first / seconds, 1),
                "same_output": outputs == expected,
            }
        )
        print(rows[-1], file=sys.stderr)
    return rows, all(row["same_output"] for row in rows)


def table(rows: list[dict[str, Any]]) -> str:
    """Lay rows out as Markdown."""
    lines = ["| way | seconds | tokens/s | against one by one | same output |"]
    lines.append("|---|---:|---:|---:|---|")
    for row in rows:
        same = "yes" if row["same_output"] else "NO"
        cells = [row["way"], row["seconds"], row["tokens_per_s"], f"{row['speed_up']}x", same]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def _ends(model: Any) -> set[int]:
    found = model.generation_config.eos_token_id
    return set(found) if isinstance(found, list) else {found}


def _until(row: list[int], ends: set[int]) -> tuple[int, ...]:
    """A row up to and with its end token; what follows is padding."""
    end = next((i for i, token in enumerate(row) if token in ends), len(row) - 1)
    return tuple(row[: end + 1])


def main() -> int:
    """Run the benchmark and print its table, or rows with --json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=str(SLOW))
    parser.add_argument("--task", default="arithmetic")
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--max-tokens", type=int, default=512)
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 128])
    parser.add_argument("--blocks", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    task = load_task(arguments.task, limit=arguments.questions)
    samples = [task.sample(question) for question in task.questions]
    random.Random(0).shuffle(samples)  # not sorted by level, and so by length
    tokenizer = Tokenizer(arguments.model, "the model")
    prompts = {sample.id: tokenizer.prompt(sample).ids for sample in samples}
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype="float32").eval()
    runner = TransformersRunner(arguments.model, device="cpu")
    limit = arguments.max_tokens
    ways: dict[str, Callable[[], Outputs]] = {
        "generate, one by one": lambda: generated(model, prompts, limit, 1)
    }
    for size in arguments.batches:
        ways[f"generate, batches of {size}"] = lambda size=size: generated(  # type: ignore[misc]
            model, prompts, limit, size
        )
    for blocks in arguments.blocks:
        ways[f"generate_batch, {blocks} blocks"] = lambda blocks=blocks: continuous(  # type: ignore[misc]
            model, prompts, limit, blocks
        )
    ways["laconic"] = lambda: by_runner(runner, samples, limit)
    rows, same = measure(ways)
    machine = (
        f"{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}"
    )
    if arguments.json:
        print(json.dumps({"machine": machine, "questions": len(samples), "rows": rows}, indent=2))
    else:
        lengths = sorted(len(ids) for ids in by_runner(runner, samples, limit).values())
        print(
            f"{machine}; {len(samples)} prompts, responses of {lengths[0]} to {lengths[-1]} "
            f"tokens\n\n{table(rows)}"
        )
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())

"""Generate checkpoints with the shapes of real Qwen2 models and random weights.

`python -m bench.shapes --size 0.5B FOLDER` writes FOLDER/quick and FOLDER/slow, bfloat16, seeded:
weights N(0, 0.02), the slow model's differences N(0, 0.002).

`--light` is for sizes that the disk or the patience cannot hold: the quick model's files are sparse
(all weights 0, no disk), the slow model's repeat 64 MiB of N(0, 0.002). `--layers 4` leaves out the
layers from the fifth on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from laconic.tensors.header import TensorSpec, build_header

SHARD_BYTES = 1_000_000_000
TILE = 1 << 25  # entries


@dataclass(frozen=True)
class Size:
    """The sizes of a Qwen2 model that fix the shapes of its tensors."""

    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    vocab: int
    tied: bool


SIZES = {
    "tiny": Size(64, 160, 4, 4, 2, 1000, False),
    "0.5B": Size(896, 4864, 24, 14, 2, 151936, True),
    "1.5B": Size(1536, 8960, 28, 12, 2, 151936, False),
    "7B": Size(3584, 18944, 28, 28, 4, 152064, False),
    "32B": Size(5120, 27648, 64, 40, 8, 152064, False),
}


def shapes(size: Size) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the name and shape of every parameter."""
    hidden, inner = size.hidden, size.inner
    kv = hidden // size.heads * size.kv_heads
    yield "model.embed_tokens.weight", (size.vocab, hidden)
    for layer in range(size.layers):
        prefix = f"model.layers.{layer}"
        for name, rows in (("q", hidden), ("k", kv), ("v", kv)):
            yield f"{prefix}.self_attn.{name}_proj.weight", (rows, hidden)
            yield f"{prefix}.self_attn.{name}_proj.bias", (rows,)
        yield f"{prefix}.self_attn.o_proj.weight", (hidden, hidden)
        yield f"{prefix}.mlp.gate_proj.weight", (inner, hidden)
        yield f"{prefix}.mlp.up_proj.weight", (inner, hidden)
        yield f"{prefix}.mlp.down_proj.weight", (hidden, inner)
        yield f"{prefix}.input_layernorm.weight", (hidden,)
        yield f"{prefix}.post_attention_layernorm.weight", (hidden,)
    yield "model.norm.weight", (hidden,)
    if not size.tied:
        yield "lm_head.weight", (size.vocab, hidden)


def write_pair(folder: Path, size: Size, seed: int = 0) -> None:
    """Write FOLDER/quick and FOLDER/slow."""
    _write_configs(folder, size)
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(_shards(size), 1):
        file = f"model-{number:05}.safetensors"
        quick, slow = {}, {}
        for index, (name, shape) in enumerate(shard):
            generator = torch.Generator().manual_seed(seed * 10**6 + number * 1000 + index)
            base = torch.randn(shape, generator=generator) * 0.02
            quick[name] = base.bfloat16()
            delta = torch.randn(shape, generator=generator) * 0.002
            slow[name] = delta.add_(quick[name]).bfloat16()
        for role, tensors in (("quick", quick), ("slow", slow)):
            save_file(tensors, folder / role / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(quick, file)
    _write_index(folder, weight_map)


def write_light_pair(folder: Path, size: Size, seed: int = 0) -> None:
    """Write FOLDER/quick, sparse and all zero, and FOLDER/slow, the same noise again and again."""
    _write_configs(folder, size)
    noise = torch.randn(TILE, generator=torch.Generator().manual_seed(seed)) * 0.002
    raw: Any = noise.bfloat16().view(torch.uint8).numpy()
    tile = memoryview(raw)
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(_shards(size), 1):
        file = f"model-{number:05}.safetensors"
        specs = [TensorSpec(name, "BF16", shape) for name, shape in shard]
        header, left = build_header(specs, {"format": "pt"}), sum(spec.nbytes for spec in specs)
        with (
            (folder / "quick" / file).open("wb") as quick,
            (folder / "slow" / file).open("wb") as f,
        ):
            quick.write(header)
            quick.truncate(len(header) + left)
            f.write(header)
            while left:
                left -= f.write(tile[:left])
        weight_map |= dict.fromkeys((spec.name for spec in specs), file)
    _write_index(folder, weight_map)


def _write_configs(folder: Path, size: Size) -> None:
    for role in ("quick", "slow"):
        (folder / role).mkdir(parents=True, exist_ok=True)
        (folder / role / "config.json").write_text(json.dumps(_config(size), indent=2))


def _write_index(folder: Path, weight_map: dict[str, str]) -> None:
    for role in ("quick", "slow"):
        index_file = folder / role / "model.safetensors.index.json"
        index_file.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def _shards(size: Size) -> Iterator[list[tuple[str, tuple[int, ...]]]]:
    shard: list[tuple[str, tuple[int, ...]]] = []
    filled = 0
    for name, shape in shapes(size):
        nbytes = 2 * torch.Size(shape).numel()
        if shard and filled + nbytes > SHARD_BYTES:
            yield shard
            shard, filled = [], 0
        shard.append((name, shape))
        filled += nbytes
    yield shard


def _config(size: Size) -> dict[str, object]:
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_act": "silu",
        "hidden_size": size.hidden,
        "intermediate_size": size.inner,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads,
        "vocab_size": size.vocab,
        "tie_word_embeddings": size.tied,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "torch_dtype": "bfloat16",
    }


def main() -> None:
    """Write a pair of the size asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=SIZES, default="0.5B")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--layers", type=int, help="most layers")
    parser.add_argument("--light", action="store_true", help="sparse and repeated weights")
    arguments = parser.parse_args()
    size = SIZES[arguments.size]
    size = replace(size, layers=min(size.layers, arguments.layers or size.layers))
    write = write_light_pair if arguments.light else write_pair
    write(arguments.folder, size, arguments.seed)


if __name__ == "__main__":
    main()

"""Differential tests: the same merge by mergekit, with matched settings.

Skipped unless mergekit is installed (`pip install laconic[oracle]`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import pair, random_tensors, write_checkpoint
from safetensors.torch import load_file

from laconic.merging.engine import merge
from laconic.recipe import parse_recipe

mergekit_config = pytest.importorskip("mergekit.config", reason="mergekit is not installed")


def by_mergekit(folder: Path, config: dict[str, Any]) -> dict[str, torch.Tensor]:
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    full = mergekit_config.MergeConfiguration.model_validate(
        config | {"dtype": "float32", "out_dtype": "bfloat16"}
    )
    run_merge(full, str(folder), options=MergeOptions(copy_tokenizer=False, quiet=True))
    return load_file(folder / "model.safetensors")


def by_laconic(folder: Path, recipe: dict[str, Any]) -> dict[str, torch.Tensor]:
    merge(parse_recipe(recipe), folder, progress=False)
    return load_file(folder / "model.safetensors")


def steps_apart(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """How many bfloat16 values two tensors are apart, entry by entry."""
    ordered = []
    for tensor in (first, second):
        bits = tensor.view(torch.int16).int()
        ordered.append(torch.where(bits < 0, -(bits & 0x7FFF), bits))
    return (ordered[0] - ordered[1]).abs()


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert int(steps_apart(tensor, expected[name]).max()) <= 1, name


def weighted(path: Path, **parameters: float) -> dict[str, Any]:
    return {"model": str(path), "parameters": parameters}


def test_linear(tmp_path: Path) -> None:
    quick, slow = pair(tmp_path)
    config = {
        "merge_method": "linear",
        "models": [weighted(quick, weight=0.5), weighted(slow, weight=1.0)],
    }
    recipe = {
        "quick": str(quick),
        "slow": str(slow),
        "merge": [{"linear": {"weights": [0.5, 1.0]}}],
    }
    assert_same(by_laconic(tmp_path / "a", recipe), by_mergekit(tmp_path / "b", config))


@pytest.mark.parametrize("alpha", [0.3, 0.7, 1.0])
def test_task_arithmetic(tmp_path: Path, alpha: float) -> None:
    quick, slow = pair(tmp_path)
    config = {
        "merge_method": "task_arithmetic",
        "base_model": str(quick),
        "models": [weighted(slow, weight=alpha)],
    }
    recipe = {
        "quick": str(quick),
        "slow": str(slow),
        "merge": [{"task_arithmetic": {"alpha": alpha}}],
    }
    assert_same(by_laconic(tmp_path / "a", recipe), by_mergekit(tmp_path / "b", config))


@pytest.mark.parametrize("experts", [1, 2])
@pytest.mark.parametrize("trim", [0.25, 0.5, 0.75])
def test_ties(tmp_path: Path, experts: int, trim: float) -> None:
    """Float32 inputs without equal magnitudes: mergekit breaks ties in no stable order.

    trim is a power of two, so that floor(n * trim) dropped and floor(n * density) kept agree.
    """
    base = random_tensors(1, dtype=torch.float32)
    quick = write_checkpoint(tmp_path / "quick", base)
    models = []
    for number in range(experts):
        other = random_tensors(number + 2, dtype=torch.float32)
        moved = {name: tensor + 0.1 * other[name] for name, tensor in base.items()}
        models.append(write_checkpoint(tmp_path / f"slow{number}", moved))
    config = {
        "merge_method": "ties",
        "base_model": str(quick),
        "models": [weighted(path, weight=1.0, density=1 - trim) for path in models],
        "parameters": {"normalize": True, "lambda": 0.8},
    }
    recipe = {
        "base": str(quick),
        "models": [str(quick), *map(str, models)],
        "merge": [{"ties": {"trim": trim, "alpha": 0.8, "rule": "exact"}}],
    }
    assert_same(by_laconic(tmp_path / "a", recipe), by_mergekit(tmp_path / "b", config))

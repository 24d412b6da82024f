"""Differential tests: the same merge by mergekit, with matched settings.

Skipped unless mergekit is installed (`pip install laconic[oracle]`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from checkpoints import pair, random_tensors, write_checkpoint
from laconic.merging.apply import apply
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


def assert_same(
    found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], atol: float = 0.0
) -> None:
    """Equal to one bfloat16 step, or to `atol` where parents nearly cancel."""
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        apart = steps_apart(tensor, expected[name])
        apart[(tensor.float() - expected[name].float()).abs() <= atol] = 0
        assert int(apart.max()) <= 1, name


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


def three(folder: Path) -> tuple[Path, list[Path]]:
    """A base and two fine-tunes, float32, without equal magnitudes."""
    tensors = random_tensors(1, dtype=torch.float32)
    paths = []
    for number in range(2):
        other = random_tensors(number + 2, dtype=torch.float32)
        moved = {name: tensor + 0.4 * other[name] for name, tensor in tensors.items()}
        paths.append(write_checkpoint(folder / f"slow{number}", moved))
    return write_checkpoint(folder / "base", tensors), paths


def unweighted(paths: list[Path]) -> list[dict[str, Any]]:
    return [{"model": str(path)} for path in paths]


def compare(
    folder: Path, models: list[Path], merge: list[Any], config: dict[str, Any], base: Path
) -> None:
    recipe = {"base": str(base), "models": [str(path) for path in models], "merge": merge}
    found = by_laconic(folder / "a", recipe)
    assert_same(found, by_mergekit(folder / "b", config), atol=1e-6)


@pytest.mark.parametrize("select", [1.0, 0.5, 0.25])
def test_sce(tmp_path: Path, select: float) -> None:
    base, models = three(tmp_path)
    config = {
        "merge_method": "sce",
        "base_model": str(base),
        "models": unweighted(models),
        "parameters": {"select_topk": select},
    }
    compare(tmp_path, models, [{"sce": {"select": select}}], config, base)


@pytest.mark.parametrize("count", [2, 3])
def test_karcher(tmp_path: Path, count: int) -> None:
    base, models = three(tmp_path)
    parents = [base, *models][:count]
    config = {"merge_method": "karcher", "models": unweighted(parents)}
    compare(tmp_path, parents, ["karcher"], config, base)


def test_model_stock(tmp_path: Path) -> None:
    base, models = three(tmp_path)
    config = {
        "merge_method": "model_stock",
        "base_model": str(base),
        "models": unweighted(models),
    }
    compare(tmp_path, models, ["model_stock"], config, base)


@pytest.mark.parametrize("weight", [0.3, 0.8])
def test_slerp(tmp_path: Path, weight: float) -> None:
    base, models = three(tmp_path)
    config = {
        "merge_method": "slerp",
        "base_model": str(base),
        "models": unweighted([base, models[0]]),
        "parameters": {"t": weight},
    }
    recipe = [{"slerp": {"weight": weight}}]
    compare(tmp_path, [base, models[0]], recipe, config, base)


def test_multislerp(tmp_path: Path) -> None:
    base, models = three(tmp_path)
    parents = [base, *models]
    weights = (0.5, 0.2, 0.9)
    config = {
        "merge_method": "multislerp",
        "models": [weighted(p, weight=w) for p, w in zip(parents, weights, strict=True)],
    }
    compare(tmp_path, parents, [{"multislerp": {"weights": list(weights)}}], config, base)


@pytest.mark.parametrize(("trim", "outliers"), [(0.5, 0.25), (0.75, 0.125)])
def test_breadcrumbs(tmp_path: Path, trim: float, outliers: float) -> None:
    base, models = three(tmp_path)
    config = {
        "merge_method": "breadcrumbs",
        "base_model": str(base),
        "models": [
            weighted(path, weight=0.6, density=1 - trim - outliers, gamma=outliers)
            for path in models
        ],
        "parameters": {"normalize": False},
    }
    recipe = [
        {"breadcrumbs": {"trim": trim, "outliers": outliers}},
        {"task_arithmetic": {"alpha": 0.6}},
    ]
    compare(tmp_path, models, recipe, config, base)


def test_della_drops_as_often_at_every_magnitude() -> None:
    """mergekit's epsilon is half of the window; its rescaling matches norms and is left out."""
    from mergekit.sparsify import della_magprune

    deltas = torch.randn(1200, 400, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(7)  # not 0, whose stream made the deltas
    theirs = della_magprune(deltas, density=0.6, epsilon=0.3)
    ours = apply(
        "della", torch.zeros_like(deltas), deltas[None], drop=0.4, window=0.6, rescale=False
    )[0]
    order = deltas.abs().argsort(dim=1)
    for part in order.split(80, dim=1):
        shares = [(kept.gather(1, part) != 0).float().mean() for kept in (ours, theirs)]
        assert abs(shares[0] - shares[1]) < 0.01

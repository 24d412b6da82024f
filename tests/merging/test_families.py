"""End to end with tiny models of each family, made, read back and run by transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from laconic.errors import LaconicError
from laconic.merging.apply import apply
from laconic.merging.engine import merge
from laconic.plan import make_plan
from laconic.recipe import Recipe, parse_recipe
from laconic.tensors.names import role_of

SIZES: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 40, "max_position_embeddings": 64, "bos_token_id": 0,
    "eos_token_id": 1, "pad_token_id": None, "tie_word_embeddings": False,
}  # fmt: skip
EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
FAMILIES: dict[str, Any] = {
    "qwen2": lambda: transformers.Qwen2Config(**SIZES),
    "qwen3": lambda: transformers.Qwen3Config(**SIZES, head_dim=4),
    "llama": lambda: transformers.LlamaConfig(**SIZES),
    "qwen3_moe": lambda: transformers.Qwen3MoeConfig(**SIZES, **EXPERTS, head_dim=4),
    "mixtral": lambda: transformers.MixtralConfig(
        **SIZES, num_local_experts=4, num_experts_per_tok=2
    ),
}
METHODS: list[Any] = [
    {"lore": {"mu": 0.02}},
    {"task_arithmetic": {"alpha": {"over_depth": [0.2, 0.9]}}},
]
TOKENS = torch.arange(12).view(1, 12)


def parents(folder: Path, family: str) -> dict[str, str]:
    """Write a quick and a slow model of a family."""
    paths = {}
    for seed, role in enumerate(("quick", "slow")):
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(FAMILIES[family]())
        model.to(torch.bfloat16).save_pretrained(folder / role)
        paths[role] = str(folder / role)
    return paths


def made(folder: Path, family: str, chain: Any, rules: list[Any] | None = None) -> Recipe:
    return parse_recipe({**parents(folder, family), "merge": chain, "rules": rules or []})


@pytest.mark.parametrize("method", METHODS, ids=lambda method: next(iter(method)))
@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_loads_the_merge(tmp_path: Path, family: str, method: Any) -> None:
    recipe = made(tmp_path, family, [method])
    merge(recipe, tmp_path / "out", progress=False)
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not any(info.values()), info
    with torch.no_grad():
        assert torch.isfinite(model(TOKENS).logits).all()
    quick, slow, out = (
        load_file(tmp_path / role / "model.safetensors") for role in ("quick", "slow", "out")
    )
    assert out.keys() == quick.keys()
    for name, tensor in out.items():
        stage = recipe.stages_for(name, 2)[0]
        pair = torch.stack([quick[name], slow[name]]).float()
        based = (pair[0], pair[1:]) if stage.method == "task_arithmetic" else (None, pair)
        expected = apply(stage.method, *based, tensor=name, **stage.knobs)  # type: ignore[misc]
        assert torch.equal(tensor, expected.bfloat16()), name


def test_a_mixture_is_the_mixture_of_the_parents_functions(tmp_path: Path) -> None:
    """Weight 1 is the slow model: router, experts and all reach their places."""
    merge(made(tmp_path, "qwen3_moe", [{"interpolation": {"weight": 1}}]), tmp_path / "out")
    load = transformers.AutoModelForCausalLM.from_pretrained
    with torch.no_grad():
        found, expected = (load(tmp_path / role)(TOKENS).logits for role in ("out", "slow"))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("family", ["qwen3_moe", "mixtral"])
def test_roles_of_a_saved_mixture(tmp_path: Path, family: str) -> None:
    parents(tmp_path, family)
    names = load_file(tmp_path / "quick" / "model.safetensors")
    roles = [role_of(name) for name in names]
    per_layer = {"router": 1, "expert": 12, "mlp": 0, "attention": 4}
    assert {role: roles.count(role) / 2 for role in per_layer} == per_layer
    assert "other" not in roles


SPLIT = "layers 0, 1: the router and its experts are not treated alike"


@pytest.mark.parametrize(
    "rules",
    [
        [{"role": "expert", "take": "slow"}],
        [{"match": "*.mlp.gate.*", "set": {"ties.alpha": 0.1}}],
        [{"match": "*.experts.0.*", "set": {"ties.alpha": 0.1}}],
        [{"role": "expert", "take": "slow"}, {"match": "*.gate.*", "take": "quick"}],
    ],
)
def test_a_router_apart_from_its_experts_is_refused(tmp_path: Path, rules: list[Any]) -> None:
    recipe = made(tmp_path, "qwen3_moe", ["ties"], rules)
    with pytest.raises(LaconicError, match=SPLIT):
        make_plan(recipe)


@pytest.mark.parametrize(
    "rules",
    [
        [{"role": ["router", "expert"], "take": "slow"}],
        [{"match": "*.mlp.*", "set": {"ties.alpha": 0.3}}],
        [{"role": "expert", "take": "slow"}, {"role": "router", "take": "quick"}],
        [{"role": ["attention", "norm"], "layers": "0", "take": "slow"}],
    ],
)
def test_a_router_with_its_experts_or_on_purpose_plans(tmp_path: Path, rules: list[Any]) -> None:
    make_plan(made(tmp_path, "qwen3_moe", ["ties"], rules))


def test_a_split_in_one_layer_is_named(tmp_path: Path) -> None:
    rules = [{"role": "router", "layers": 0, "take": "slow"}, {"role": "expert", "take": "quick"}]
    recipe = made(tmp_path, "mixtral", ["average"], rules)
    with pytest.raises(LaconicError, match=r"layers 1: the router and its experts"):
        make_plan(recipe)

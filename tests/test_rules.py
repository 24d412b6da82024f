"""Rules by glob, layer and role, and knobs that change over the depth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from checkpoints import pair, random_tensors, write_checkpoint
from laconic.errors import LaconicError
from laconic.plan import make_plan
from laconic.recipe import load_recipe, parse_recipe
from laconic.rules import parse_layers
from laconic.tensors.names import ROLES, layer_of, role_of

TIES = [{"ties": {"alpha": 0.5}}]


def parsed(rules: list[Any], merge: Any = TIES, **keys: Any) -> Any:
    return parse_recipe({"quick": "q", "slow": "s", "merge": merge, "rules": rules, **keys})


def alpha(recipe: Any, name: str, layers: int = 12) -> Any:
    return recipe.stages_for(name, layers)[0].knobs["alpha"]


def up(layer: int) -> str:
    return f"model.layers.{layer}.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("written", "inside", "outside"),
    [
        (3, [3], [0, 2, 4]),
        ("0-3", [0, 3], [4]),
        ([0, 3, "5-9"], [0, 3, 5, 9], [1, 4, 10]),
        ("0, 5-6", [0, 5, 6], [1, 4, 7]),
    ],
)
def test_layers(written: Any, inside: list[int], outside: list[int]) -> None:
    recipe = parsed([{"layers": written, "set": {"ties.alpha": 0.9}}])
    assert {alpha(recipe, up(layer)) for layer in inside} == {0.9}
    assert {alpha(recipe, up(layer)) for layer in outside} == {0.5}
    assert alpha(recipe, "model.norm.weight") == 0.5


def test_layers_written_either_way_hash_alike() -> None:
    one, other = (
        parsed([{"layers": w, "set": {"ties.alpha": 0.9}}]) for w in (["5-9", 0], "0,5-9")
    )
    assert one.hash == other.hash
    assert parse_layers(one.rules[0].layers) == ((0, 0), (5, 9))


def test_all_conditions_must_hold_and_the_first_rule_wins() -> None:
    rules = [
        {"role": "mlp", "layers": "0-3", "match": "*.up_proj.*", "set": {"ties.alpha": 0.1}},
        {"role": ["mlp", "norm"], "set": {"ties.alpha": 0.2}},
        {"match": "*", "take": "slow"},
    ]
    recipe = parsed(rules)
    assert alpha(recipe, up(2)) == 0.1
    assert alpha(recipe, up(4)) == 0.2
    assert alpha(recipe, "model.layers.2.mlp.down_proj.weight") == 0.2
    assert alpha(recipe, "model.layers.2.input_layernorm.weight") == 0.2
    assert recipe.stages_for("model.layers.2.self_attn.q_proj.weight", 12) == "slow"


@pytest.mark.parametrize(
    ("values", "layer", "expected"),
    [
        ([0.2, 0.8], 0, 0.2), ([0.2, 0.8], 11, 0.8), ([0.2, 0.8], 5, 0.2 + 0.6 * 5 / 11),
        ([0.2, 0.8, 0.5], 11, 0.5), ([0, 1, 0], 2, 4 / 11), ([0, 1, 0], 9, 4 / 11),
    ],
)  # fmt: skip
def test_over_depth(values: list[float], layer: int, expected: float) -> None:
    gradient = {"over_depth": values}
    recipe = parsed([], [{"ties": {"alpha": gradient}}])
    assert alpha(recipe, up(layer)) == pytest.approx(expected)
    ruled = parsed([{"role": "mlp", "set": {"ties.alpha": gradient}}])
    assert alpha(ruled, up(layer)) == pytest.approx(expected)
    assert alpha(ruled, "model.layers.3.self_attn.q_proj.weight") == 0.5


def test_over_depth_outside_the_layers() -> None:
    recipe = parsed([], [{"ties": {"alpha": {"over_depth": [0.2, 0.9, 0.4]}}}])
    assert alpha(recipe, "model.embed_tokens.weight") == 0.2
    assert alpha(recipe, "model.norm.weight") == alpha(recipe, "lm_head.weight") == 0.4
    assert alpha(recipe, up(0), layers=1) == 0.2


def test_recipes_with_rules_read_back(tmp_path: Path) -> None:
    rules = [
        {"layers": [0, "2-3"], "role": "attention", "set": {"ties.alpha": {"over_depth": [0, 1]}}},
        {"role": ["norm", "head"], "take": "quick"},
    ]
    recipe = parsed(rules, [{"ties": {"trim": {"over_depth": [0.1, 0.9]}}}])
    (tmp_path / "r.yml").write_text(recipe.to_yaml())
    assert load_recipe(tmp_path / "r.yml") == recipe
    assert load_recipe(tmp_path / "r.yml").hash == recipe.hash


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"rules": [{"take": "slow"}]}, "give at least one of match, layers and role"),
        ({"rules": [{"role": "mpl", "take": "slow"}]}, r"no such role: 'mpl'; did you mean 'mlp'"),
        ({"rules": [{"role": ["mlp", "x"], "take": "slow"}]}, "no such role: 'x'"),
        ({"rules": [{"layers": "9-0", "take": "slow"}]}, "'9-0' ends before it begins"),
        ({"rules": [{"layers": "0-", "take": "slow"}]}, "'0-' is not a layer"),
        ({"rules": [{"layers": -1, "take": "slow"}]}, "'-1' is not a layer"),
        ({"rules": [{"layers": [], "take": "slow"}]}, "an empty list names no layer"),
        ({"rules": [{"layer": 3, "take": "slow"}]}, r"'rules\.0\.layer'; did you mean 'layers'\?"),
        ({"merge": [{"ties": {"alpha": {"over_dept": [0, 1]}}}]}, "did you mean 'over_depth'"),
        ({"merge": [{"ties": {"alpha": {"over_depth": [0.5]}}}]}, "a list of two numbers or more"),
        ({"merge": [{"ties": {"alpha": {"over_depth": [0, "1"]}}}]}, "list of two numbers"),
        ({"merge": [{"ties": {"trim": {"over_depth": [0, 1.5]}}}]}, r"ties\.trim: 1\.5 is not"),
        ({"merge": [{"ties": {"scope": {"over_depth": [0, 1]}}}]}, "ties.scope: is not a number"),
        ({"merge": [{"ties": {"alpa": {"over_depth": [0, 1]}}}]}, "unknown knob 'alpa'; did you"),
        ({"rules": [{"match": "*", "set": {"ties.trim": {"over_depth": [0, 2]}}}]}, "trim: 2 is"),
    ],
)
def test_bad_rules(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(LaconicError, match=message):
        parse_recipe({"quick": "q", "slow": "s", "merge": TIES, **keys})


def test_all_problems_come_in_one_message() -> None:
    with pytest.raises(LaconicError) as caught:
        parse_recipe(
            {
                "quick": "q",
                "slow": "s",
                "merge": [{"ties": {"alpha": {"over_depth": [0]}, "trim": 2}}],
                "rules": [{"role": "mpl", "take": "slow"}, {"layers": "x", "take": "slow"}],
            }
        )
    for part in ("ties.alpha", "ties.trim", "mpl", "'x' is not a layer"):
        assert part in str(caught.value)


def test_the_plan_shows_the_resolved_value_of_every_tensor(tmp_path: Path) -> None:
    for seed, role in enumerate(("quick", "slow")):
        write_checkpoint(tmp_path / role, random_tensors(seed, layers=3), num_hidden_layers=3)
    recipe = parse_recipe(
        {
            "quick": str(tmp_path / "quick"),
            "slow": str(tmp_path / "slow"),
            "merge": [{"task_arithmetic": {"alpha": {"over_depth": [0.2, 0.8]}}}],
            "rules": [{"role": "norm", "layers": 1, "take": "quick"}],
        }
    )
    rows = {row["tensor"]: row["stages"] for row in make_plan(recipe).to_dict()["steps"]}
    values = [rows[up(layer)][0]["task_arithmetic"]["alpha"] for layer in range(3)]
    assert values == pytest.approx([0.2, 0.5, 0.8])
    assert rows["model.layers.1.input_layernorm.weight"] == "copy"
    assert rows["model.layers.2.input_layernorm.weight"] != "copy"


def test_a_rule_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    pair(tmp_path)
    models = {"quick": str(tmp_path / "quick"), "slow": str(tmp_path / "slow")}
    rules = [
        {"role": "mlp", "set": {"ties.alpha": 1}},
        {"role": "router", "take": "slow"},
        {"layers": "7-9", "take": "slow"},
    ]
    with pytest.raises(LaconicError) as caught:
        make_plan(parse_recipe({**models, "merge": TIES, "rules": rules}))
    assert str(caught.value).splitlines() == [
        "rules[2]: matches no tensor of these models",
        "rules[3]: matches no tensor of these models",
    ]


def test_a_global_scope_takes_no_gradient(tmp_path: Path) -> None:
    pair(tmp_path)
    models = {"quick": str(tmp_path / "quick"), "slow": str(tmp_path / "slow")}
    merge = [{"ties": {"scope": "global", "alpha": {"over_depth": [0, 1]}}}]
    with pytest.raises(LaconicError, match="with scope global, rules cannot change its knobs"):
        make_plan(parse_recipe({**models, "merge": merge}))


LAYER = "model.layers.7."


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("model.embed_tokens.weight", "embedding"),
        ("lm_head.weight", "head"),
        ("model.norm.weight", "norm"),
        (LAYER + "self_attn.q_norm.weight", "norm"),
        (LAYER + "self_attn.q_proj.bias", "attention"),
        (LAYER + "self_attn.kv_a_proj_with_mqa.weight", "attention"),
        (LAYER + "mlp.gate_proj.weight", "mlp"),
        (LAYER + "feed_forward.up_proj.weight", "mlp"),
        # Qwen3-MoE, OLMoE and DeepSeek as saved, and as transformers 5 holds them in memory
        (LAYER + "mlp.gate.weight", "router"),
        (LAYER + "mlp.gate.e_score_correction_bias", "router"),
        (LAYER + "mlp.experts.11.gate_proj.weight", "expert"),
        (LAYER + "mlp.experts.gate_up_proj", "expert"),
        (LAYER + "mlp.experts.down_proj", "expert"),
        (LAYER + "mlp.shared_experts.gate_proj.weight", "shared_expert"),
        (LAYER + "mlp.shared_expert.down_proj.weight", "shared_expert"),
        (LAYER + "mlp.shared_expert_gate.weight", "shared_expert"),
        # Mixtral, gpt-oss, Llama 4, Granite
        (LAYER + "block_sparse_moe.gate.weight", "router"),
        (LAYER + "block_sparse_moe.experts.3.w2.weight", "expert"),
        (LAYER + "mlp.router.weight", "router"),
        (LAYER + "mlp.experts.gate_up_proj_bias", "expert"),
        (LAYER + "feed_forward.router.weight", "router"),
        (LAYER + "feed_forward.shared_expert.up_proj.weight", "shared_expert"),
        (LAYER + "block_sparse_moe.router.layer.weight", "router"),
        (LAYER + "block_sparse_moe.input_linear.weight", "expert"),
        (LAYER + "shared_mlp.input_linear.weight", "shared_expert"),
        ("vision.patch.weight", "other"),
    ],
)
def test_roles(name: str, role: str) -> None:
    assert role_of(name) == role
    assert role in ROLES
    assert layer_of(name) == (7 if name.startswith(LAYER) else layer_of(name))

"""Spaces of recipes with ranges: what is accepted, what is refused, and the recipes of points."""

from __future__ import annotations

from typing import Any

import pytest

from laconic.errors import LaconicError
from laconic.recipe import parse_recipe
from laconic.searching.blocks import Units, partition
from laconic.searching.space import Space, make_space

COMMON = {"quick": "q", "slow": "s", "seed": 0}
UNITS = Units(3, (0.1, 0.9, 0.85, 0.2, 0.15))


def space(*recipes: Any) -> Space:
    return make_space(COMMON, recipes, UNITS)


def test_a_point_is_a_plain_recipe() -> None:
    made = space({"ties": {"trim": [0.2, 0.9], "alpha": [0.3, 1.0], "rule": "exact"}})
    found = made.recipe({"ties.trim": 0.123456, "ties.alpha": 1.0})
    plain = {"trim": 0.1235, "alpha": 1.0, "rule": "exact"}
    assert found == parse_recipe({**COMMON, "merge": [{"ties": plain}]})


def test_chains_choices_and_whole_numbers() -> None:
    chain = [{"dare": {"drop": [0.0, 0.5]}}, {"ties": {"rule": {"choices": ["ge", "exact"]}}}]
    made = space({"merge": chain}, {"karcher": {"iters": [1, 20]}})
    assert [option.label for option in made.options] == ["dare+ties", "karcher"]
    first = {"recipe": "dare+ties", "dare+ties: dare.drop": 0.3, "dare+ties: ties.rule": 1}
    assert made.recipe(first).merge[1].knobs["rule"] == "exact"
    second = {"recipe": "karcher", "karcher: karcher.iters": 7.0}
    assert made.recipe(second).merge[0].knobs["iters"] == 7


def test_blocks_cover_every_tensor_with_a_weight_of_their_own() -> None:
    made = space({"interpolation": {"weight": [0.0, 1.0]}, "blocks": {"count": 3}})
    params = {f"interpolation.weight@block {i}": i / 10 for i in (1, 2, 3)}
    recipe = made.recipe(params)
    names = ("model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight",
             "model.layers.1.self_attn.q_proj.weight", "model.layers.2.mlp.up_proj.weight",
             "model.norm.weight", "lm_head.weight")  # fmt: skip
    weights = [recipe.stages_for(name, 3)[0].knobs["weight"] for name in names]  # type: ignore[union-attr]
    assert weights == [0.1, 0.2, 0.2, 0.3, 0.3, 0.3]


def test_modules_split_attention_from_mlp() -> None:
    made = space({"interpolation": {"weight": [0.0, 1.0]}, "modules": True})
    params = {f"interpolation.weight@{g}": w for g, w in
              (("attention", 0.1), ("mlp", 0.2), ("rest", 0.3))}  # fmt: skip
    recipe = made.recipe(params)
    at = "model.layers.0"
    names = (f"{at}.self_attn.q_proj.weight", f"{at}.mlp.gate.weight",
             f"{at}.mlp.up_proj.weight", f"{at}.input_layernorm.weight")  # fmt: skip
    weights = [recipe.stages_for(name, 3)[0].knobs["weight"] for name in names]  # type: ignore[union-attr]
    assert weights == [0.1, 0.2, 0.2, 0.3]


def test_equal_recipes_are_told_apart() -> None:
    made = space({"ties": {"trim": [0.1, 0.5]}}, {"ties": {"trim": [0.5, 0.9]}})
    assert [option.label for option in made.options] == ["ties", "ties 2"]


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"tise": {"trim": [0, 1]}}, r"recipes\[1\]: unknown method 'tise'; did you mean 'ties'\?"),
        ({"ties": {"trmi": [0, 1]}}, r"unknown knob 'trmi'; did you mean 'trim'\?"),
        ({"ties": {"trim": [0.2, 1.5]}}, r"ties.trim: 1.5 is not allowed"),
        ({"ties": {"trim": [0.9, 0.2]}}, r"ties.trim: the range \[0.9, 0.2\] is empty"),
        ({"ties": {"rule": {"choices": ["ge", "gt"]}}}, r"ties.rule: 'gt' is not allowed"),
        ({"ties": {"trim": 0.5}}, r"no knob has a range such as trim: \[0.2, 0.9\]"),
        ({"merge": [{"ties": {"trim": [0, 1]}}], "dare": {}}, "'dare' beside merge"),
        ({"interpolation": {"weight": [0, 1]}, "blocks": 9}, "blocks: 9 blocks of 5 units"),
        ({"interpolation": {"weight": [0, 1]}, "blocks": {"cuont": 2}}, "is not {count: 4}"),
        ({"interpolation": {"weight": [0, 1]}, "blocks": "x"}, "blocks: count is 'x'"),
        ({"interpolation": {"weight": [0, 1]}, "blocks": 2, "modules": True}, "blocks or modules"),
        ({"dare": {"drop": [0.0, 0.5]}}, "needs exactly one combiner, has 0"),
        ("ties", "recipes\\[1\\]: 'ties' is not {method: {knob: \\[low, high\\]}}"),
    ],
)
def test_what_is_refused(recipe: Any, message: str) -> None:
    with pytest.raises(LaconicError, match=message):
        space(recipe)


def test_all_problems_come_at_once() -> None:
    with pytest.raises(LaconicError, match=r"2 problem\(s\)\n.*tise.*\n.*1.5"):
        space({"tise": {"trim": [0, 1]}}, {"ties": {"trim": [0.2, 1.5]}})


def test_the_partition_by_hand() -> None:
    assert partition((0.1, 0.1, 0.9, 0.9, 0.5), 3) == ((0, 1), (2, 3), (4, 4))
    assert partition((0.1, 0.2), 1) == ((0, 1),)
    # with equal priors only the even shares decide
    assert partition((0.5,) * 6, 3) == ((0, 1), (2, 3), (4, 5))

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from laconic.errors import LaconicError
from laconic.recipe import load_recipe, parse_recipe, parse_size, recipe_hash

PAIR = {"quick": "q", "slow": "s"}


def parsed(**keys: Any) -> Any:
    return parse_recipe({**PAIR, "merge": ["average"], **keys})


def test_defaults_are_filled_in() -> None:
    recipe = parse_recipe({**PAIR, "merge": [{"ties": {"trim": 0.5}}]})
    assert recipe.base == "q"
    assert recipe.roles == {"base": "q", "quick": "q", "slow": "s"}
    knobs = recipe.merge[0].knobs
    assert (knobs["trim"], knobs["alpha"], knobs["scope"]) == (0.5, 1.0, "tensor")
    assert (recipe.output.dtype, recipe.output.tie_policy) == ("bfloat16", "untie_any")


def test_a_method_may_be_written_alone() -> None:
    assert parsed(merge="average") == parsed(merge=["average"]) == parsed(merge=[{"average": None}])


def test_the_hash_is_of_the_meaning() -> None:
    short = parsed(merge=["ties"])
    long = parsed(merge=[{"ties": {"alpha": 1, "trim": 0.8}}], seed=0, output={"shard_size": "5GB"})
    assert short.hash == long.hash == recipe_hash(short.to_dict())
    assert short.hash != parsed(merge=["ties"], seed=1).hash
    assert short.hash != parsed(merge=[{"ties": {"trim": 0.81}}]).hash


def test_the_written_recipe_reads_back(tmp_path: Path) -> None:
    recipe = parsed(
        merge=[{"dare": {"drop": 0.2}}, "ties"],
        rules=[{"match": "lm_head.*", "take": "slow"}],
        output={"dtype": "float16"},
    )
    (tmp_path / "r.yml").write_text(recipe.to_yaml())
    assert load_recipe(tmp_path / "r.yml") == recipe
    assert parse_recipe(yaml.safe_load(recipe.to_yaml())).hash == recipe.hash


def test_many_models() -> None:
    recipe = parse_recipe({"models": ["a", "b", "c"], "merge": ["average"]})
    assert recipe.roles == {"model 1": "a", "model 2": "b", "model 3": "c"}
    with pytest.raises(LaconicError, match="base: missing; task_arithmetic"):
        parse_recipe({"models": ["a", "b"], "merge": ["task_arithmetic"]})


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"experst": ["a"]}, "unknown key 'experst'"),
        ({"mergee": []}, r"unknown key 'mergee'; did you mean 'merge'\?"),
        ({"output": {"dtpye": "float16"}}, r"'output\.dtpye'; did you mean 'dtype'\?"),
        ({"output": {"dtype": "int8"}}, r"output\.dtype: 'int8' is not allowed"),
        ({"output": {"shard_size": "five"}}, r"output\.shard_size: 'five'"),
        ({"output": {"tokenizer": "model 1"}}, r"output\.tokenizer: 'model 1' is not one of"),
        ({"seed": -1}, "seed: -1 is not allowed"),
        ({"merge": ["tise"]}, r"unknown method 'tise'; did you mean 'ties'\?"),
        ({"merge": [{"ties": {"trim": 1.2}}]}, r"ties\.trim: 1\.2 is not allowed"),
        ({"merge": [{"ties": {"density": 0.2}}]}, "ties: unknown knob 'density'"),
        ({"merge": [3]}, "3 is not a method"),
        ({"merge": None}, "merge: missing"),
        ({"merge": ["dare"]}, "needs exactly one combiner, has 0"),
        ({"merge": ["average", "ties"]}, "needs exactly one combiner, has 2"),
        ({"merge": ["ties", "dare"]}, "the order is sparsifiers, one combiner, wrappers"),
        ({"models": ["a"]}, "not models and quick and slow"),
        ({"rules": [{"match": "*"}]}, r"rules\[1\]: give exactly one of set and take"),
        ({"rules": [{"match": "*", "take": "fast"}]}, r"rules\[1\]: take: 'fast' is not one of"),
        ({"rules": [{"match": "*", "set": {"ties.trim": 1}}]}, r"'ties\.trim' is not METHOD\.KNOB"),
        ({"rules": [{"match": "*", "set": {"average.x": 1}}]}, "average: unknown knob 'x'"),
    ],
)
def test_what_is_wrong_is_said(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(LaconicError, match=message):
        parsed(**keys)


def test_all_problems_come_in_one_message() -> None:
    with pytest.raises(LaconicError) as caught:
        parse_recipe({"quick": "q", "merg": 1, "merge": [{"ties": {"trim": 2, "x": 1}}, "nope"]})
    text = str(caught.value)
    for part in ("4 problem(s)", "'merg'", "ties.trim", "knob 'x'", "'nope'"):
        assert part in text


@pytest.mark.parametrize("raw", [None, [], "ties", 3])
def test_what_is_no_mapping_is_refused(raw: Any) -> None:
    with pytest.raises(LaconicError, match="expected a mapping"):
        parse_recipe(raw)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(LaconicError, match=r"nothing\.yml: cannot be read"):
        load_recipe(tmp_path / "nothing.yml")
    (tmp_path / "bad.yml").write_text("a: [")
    with pytest.raises(LaconicError, match="not valid YAML"):
        load_recipe(tmp_path / "bad.yml")


def test_first_matching_rule_wins() -> None:
    recipe = parsed(
        merge=["ties"],
        rules=[
            {"match": "*.mlp.*", "set": {"ties.alpha": 0.5}},
            {"match": "*.layers.0.*", "take": "quick"},
        ],
    )
    assert recipe.stages_for("model.layers.0.mlp.up_proj.weight", 28)[0].knobs["alpha"] == 0.5
    assert recipe.stages_for("model.layers.0.self_attn.q_proj.bias", 28) == "quick"
    assert recipe.stages_for("model.layers.10.self_attn.q_proj.bias", 28)[0].knobs["alpha"] == 1.0


@pytest.mark.parametrize(
    ("text", "size"), [("5GB", 5 * 10**9), ("1.5 mb", 1_500_000), ("2048", 2048), ("10KB", 10**4)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0GB", "-1", "5 XB", "GB", "1e9"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        parse_size(text)

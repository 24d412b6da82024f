"""Every published recipe parses, says where it comes from, and plans on its models' shapes."""

from __future__ import annotations

import pytest

from headers import MODELS, write_headers
from laconic.plan import make_plan
from laconic.published import recipes
from laconic.recipe import RECIPES, Recipe, load_recipe, parse_recipe

PUBLISHED = {name: (recipe, about) for name, recipe, about in recipes()}


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return {
        name: str(write_headers(folder / name.replace("/", "--"), model))
        for name, model in MODELS.items()
    }


def local(recipe: Recipe, checkpoints: dict[str, str]) -> Recipe:
    """The recipe with local folders in place of Hub ids; a model not listed here is an error."""
    single = {
        role: checkpoints[model]
        for role in ("base", "quick", "slow")
        if (model := getattr(recipe, role)) is not None
    }
    models = tuple(checkpoints[model] for model in recipe.models)
    return recipe.model_copy(update={**single, "models": models})


def test_every_file_is_listed_and_found_by_name() -> None:
    assert sorted(PUBLISHED) == sorted(file.stem for file in RECIPES.glob("*.yml"))
    assert load_recipe("l2s-7b-ties") == PUBLISHED["l2s-7b-ties"][0]


@pytest.mark.parametrize("name", PUBLISHED)
def test_source_and_result(name: str) -> None:
    recipe, about = PUBLISHED[name]
    assert "arXiv" in about.source
    assert about.published or about.note
    for value in about.published.values():
        numbers = value if isinstance(value, list) else [value]
        assert all(isinstance(number, int | float) for number in numbers)
    assert recipe.slow is None or recipe.base == recipe.quick


@pytest.mark.parametrize("name", PUBLISHED)
def test_it_plans_on_its_models_shapes(name: str, checkpoints: dict[str, str]) -> None:
    plan = make_plan(local(PUBLISHED[name][0], checkpoints))
    quick = next(iter(PUBLISHED[name][0].roles.values()))
    model = MODELS[quick]
    per_layer = {"qwen2": 12, "qwen3": 11, "qwen3_moe": 9 + 3 * model.experts}[model.family]
    head = 0 if model.tied and "qwen3" in model.family else 1
    assert len(plan.steps) == model.layers * per_layer + 2 + head
    assert plan.nbytes > 3e9


def test_no_two_recipes_are_the_same() -> None:
    hashes = [recipe.hash for recipe, _ in PUBLISHED.values()]
    assert len(set(hashes)) == len(hashes)


def test_the_header_about_is_no_part_of_the_hash() -> None:
    plain = {"quick": "q", "slow": "s", "merge": ["ties"]}
    told = parse_recipe({**plain, "about": {"source": "somewhere", "published": {"GSM8K": 90}}})
    assert told.hash == parse_recipe(plain).hash
    assert "about" not in told.to_dict()
    assert told.about is not None
    assert told.about.published == {"GSM8K": 90}


def test_settings_of_table_7() -> None:
    def knobs(name: str) -> list[dict[str, object]]:
        return [stage.knobs for stage in PUBLISHED[name][0].merge]

    for size, trim, alpha in (
        ("1.5b", 0.8, 1.0), ("7b", 0.8, 1.0), ("14b", 0.2, 0.5), ("32b", 0.25, 0.55),
    ):  # fmt: skip
        assert (knobs(f"l2s-{size}-ties")[0]["trim"], knobs(f"l2s-{size}-ties")[0]["alpha"]) == (
            trim,
            alpha,
        )
        assert knobs(f"l2s-{size}-ta")[0]["alpha"] == 0.7
    for size, drop, alpha, temperature in (
        ("1.5b", 0.3, 0.4, 3.0), ("7b", 0.3, 0.7, 2.0), ("14b", 0.4, 0.8, 6.0),
    ):  # fmt: skip
        assert knobs(f"l2s-{size}-dare")[0]["drop"] == drop
        assert knobs(f"l2s-{size}-aim-ties")[1]["omega"] == 0.4
        sens = knobs(f"l2s-{size}-sens")[0]
        assert (sens["alpha"], sens["temperature"]) == (alpha, temperature)

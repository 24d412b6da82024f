"""The published recipes that ship with laconic."""

from __future__ import annotations

from laconic.recipe import RECIPES, About, Recipe, load_recipe


def recipes() -> list[tuple[str, Recipe, About]]:
    """Return name, recipe, and source with published result, of every recipe, sorted by name."""
    found = []
    for file in sorted(RECIPES.glob("*.yml")):
        recipe = load_recipe(file)
        found.append((file.stem, recipe, recipe.about or About(source="not given")))
    return found

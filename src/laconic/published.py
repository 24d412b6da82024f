"""The published recipes that ship with laconic."""

from __future__ import annotations

from pathlib import Path

from laconic.recipe import About, Recipe, load_recipe

FOLDER = Path(__file__).parent / "recipes"


def recipes() -> list[tuple[str, Recipe, About]]:
    """Return name, recipe, and source with published result, of every recipe, sorted by name."""
    found = []
    for file in sorted(FOLDER.glob("*.yml")):
        recipe = load_recipe(file)
        found.append((file.stem, recipe, recipe.about or About(source="not given")))
    return found

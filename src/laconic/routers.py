"""Routers of mixture-of-experts layers: never mixed apart from their experts by accident."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from laconic.recipe import Recipe
from laconic.tensors.names import layer_of, role_of


def split_routers(recipe: Recipe, treatments: Mapping[str, str]) -> Iterator[str]:
    """Yield a problem for layers whose router and routed experts are treated differently.

    treatments: what is done to each tensor, in words. A router that is matched by a rule which
    names the role `router` is treated as its author means it.
    """
    split: dict[tuple[str, ...], list[int]] = {}
    for layer, parts in _mixtures(recipe, treatments).items():
        different = tuple(sorted(parts["router"] | parts["expert"]))
        if parts["router"] and parts["expert"] and len(different) > 1:
            split.setdefault(different, []).append(layer)
    for different, layers in split.items():
        yield (
            f"layers {', '.join(map(str, layers))}: the router and its experts are not treated "
            f"alike ({' | '.join(different)}), and it would send tokens to the wrong ones. Keep "
            "them together with one rule for both, {role: [router, expert], ...}; if you mean it, "
            "say so with a rule for the router, {role: router, ...}"
        )


def _mixtures(recipe: Recipe, treatments: Mapping[str, str]) -> dict[int, dict[str, set[str]]]:
    """Layer -> role -> the treatments of its tensors; routers with a rule of theirs left out."""
    found: dict[int, dict[str, set[str]]] = {}
    for name, treatment in treatments.items():
        role = role_of(name)
        if role in ("router", "expert") and not (role == "router" and _is_meant(recipe, name)):
            parts = found.setdefault(layer_of(name), {"router": set(), "expert": set()})
            parts[role].add(treatment)
    return found


def _is_meant(recipe: Recipe, router: str) -> bool:
    rule = recipe.rule_for(router)
    return rule is not None and "router" in (rule.role or ())

"""Rules of a recipe: other knobs, or a plain copy of one parent, for some of the tensors."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from laconic.errors import did_you_mean
from laconic.tensors.names import ROLES, layer_of, role_of


class Rule(BaseModel):
    """Which tensors, and what for them: `set` changes knobs, `take` copies a parent.

    match: a glob over the tensor's name. layers: `3`, `0-9` or `[0, 3, 5-9]`. role: one or more of
    mlp, attention, norm, embedding, head, expert, shared_expert, router, other. A tensor must meet
    all that are given.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    match: str | None = None
    layers: str | None = None
    role: tuple[str, ...] | None = None
    set: dict[str, Any] = {}
    take: str | None = None

    @field_validator("layers", mode="before")
    @classmethod
    def _layers(cls, raw: Any) -> Any:
        return raw if raw is None else _written(parse_layers(raw))

    @field_validator("role", mode="before")
    @classmethod
    def _role(cls, raw: Any) -> Any:
        roles = [raw] if isinstance(raw, str) else raw
        for role in roles if isinstance(roles, list | tuple) else []:
            if role not in ROLES:
                hint = did_you_mean(str(role), ROLES)
                raise ValueError(f"no such role: '{role}'{hint} (known: {', '.join(ROLES)})")
        return roles

    @model_validator(mode="after")
    def _names_tensors(self) -> Rule:
        if self.match is None and self.layers is None and self.role is None:
            raise ValueError("give at least one of match, layers and role")
        return self

    def matches(self, tensor: str) -> bool:
        """Whether the rule is about this tensor."""
        return (
            (self.match is None or fnmatchcase(tensor, self.match))
            and (self.role is None or role_of(tensor) in self.role)
            and (self.layers is None or _holds(parse_layers(self.layers), layer_of(tensor)))
        )

    def knobs_of(self, method: str) -> dict[str, Any]:
        """The knobs that the rule sets for a method, by their own names."""
        prefix = f"{method}."
        return {
            key.removeprefix(prefix): value
            for key, value in self.set.items()
            if key.startswith(prefix)
        }


def parse_layers(raw: Any) -> tuple[tuple[int, int], ...]:
    """Parse `3`, `0-9`, `0, 3, 5-9` or a list of such into (first, last) pairs.

    Raises ValueError for anything else.
    """
    parts = raw if isinstance(raw, list | tuple) else str(raw).split(",")
    pairs = []
    for part in parts:
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", str(part))
        if match is None or isinstance(part, bool):
            raise ValueError(f"'{part}' is not a layer such as 3 or a range such as 0-9")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f"'{part}' ends before it begins")
        pairs.append((first, last))
    if not pairs:
        raise ValueError("an empty list names no layer")
    return tuple(pairs)


def _written(pairs: tuple[tuple[int, int], ...]) -> str:
    """Write layers one way only, so that equal rules hash alike."""
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in sorted(pairs))


def _holds(pairs: tuple[tuple[int, int], ...], layer: int) -> bool:
    return any(first <= layer <= last for first, last in pairs)

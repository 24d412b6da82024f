"""What is wrong with these parents, and what laconic will do about it, before a byte is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from laconic.diagnosis.blockers import blockers
from laconic.diagnosis.decisions import Case, decisions
from laconic.diagnosis.findings import Diagnosis, Finding, diagnosis
from laconic.diagnosis.parents import TIE_POLICIES, tokenizer_parent
from laconic.errors import LaconicError, unknown
from laconic.tensors.source import Source, open_source

__all__ = ["Diagnosis", "Finding", "doctor", "examine", "refuse"]


def doctor(
    quick: str | Path,
    slow: str | Path,
    base: str | Path | None = None,
    *,
    tie_policy: str = "untie_any",
    tokenizer: str = "base",
    dtype: str = "bfloat16",
) -> Diagnosis:
    """Say whether a pair can be merged and what will be decided; reads no weights.

    Models are local folders or Hub ids; the base is the quick model unless given.
    """
    roles = {"base": str(base or quick), "quick": str(quick), "slow": str(slow)}
    opened = {name: open_source(name, weights=False) for name in dict.fromkeys(roles.values())}
    sources = {role: opened[name] for role, name in roles.items()}
    return examine(sources, tie_policy=tie_policy, tokenizer=tokenizer, dtype=dtype)


def examine(
    sources: Mapping[str, Source],
    *,
    tie_policy: str = "untie_any",
    tokenizer: str = "base",
    dtype: str = "bfloat16",
) -> Diagnosis:
    """Compare parents by headers, config, tokenizer and template files alone.

    sources: parents by role, `base`, `quick` and `slow`, or `base`, `model 1`, `model 2` and so on;
    base may be absent, or the same checkpoint as another.
    Raises LaconicError for an unknown policy or role, or a file that is not valid.
    """
    if tie_policy not in TIE_POLICIES:
        raise unknown("tie_policy", tie_policy, TIE_POLICIES)
    if not sources:
        raise LaconicError("no models to examine: give at least two")
    tokenizer_parent(sources, tokenizer)
    case = Case(sources, tie_policy, tokenizer, dtype)
    return diagnosis([*blockers(sources, tie_policy), *decisions(case)])


def refuse(diagnosis: Diagnosis) -> None:
    """Raise LaconicError with every blocker when there is one."""
    if not diagnosis.ok:
        raise LaconicError(diagnosis.refusal())

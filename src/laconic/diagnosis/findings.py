"""What an examination of parents found: blockers, decisions and notes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Level = Literal["blocker", "decision", "note"]
LEVELS: tuple[Level, ...] = ("blocker", "decision", "note")


@dataclass(frozen=True)
class Finding:
    """One thing about a set of parents, and what laconic or the user does about it.

    A `blocker` stops a merge, a `decision` says what laconic will do, a `note` informs.
    `values` maps a parent's role to what was found there.
    """

    level: Level
    topic: str
    message: str
    action: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Diagnosis:
    """All findings, blockers first."""

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether the parents can be merged."""
        return not self.blockers

    @property
    def blockers(self) -> tuple[Finding, ...]:
        """What stops a merge."""
        return self.of("blocker")

    @property
    def decisions(self) -> tuple[Finding, ...]:
        """What laconic decides, each with how."""
        return self.of("decision")

    def of(self, level: Level) -> tuple[Finding, ...]:
        """Return the findings of one level."""
        return tuple(finding for finding in self.findings if finding.level == level)

    def lines(self) -> Iterator[str]:
        """Yield the lines of a report for the terminal."""
        for finding in self.findings:
            yield f"{finding.level:<9} {finding.topic}: {finding.message}"
            if finding.action:
                yield f"{'':<9} -> {finding.action}"
        counts = [f"{len(self.of(level))} {level}s" for level in LEVELS]
        verdict = "can be merged" if self.ok else "cannot be merged as they are"
        yield f"The parents {verdict}: {', '.join(counts)}."

    def refusal(self) -> str:
        """Return one message that names every blocker, for an error."""
        lines = [f"  {f.topic}: {f.message}\n    -> {f.action}" for f in self.blockers]
        return "\n".join(["these models cannot be merged:", *lines])

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {"ok": self.ok, "findings": [asdict(finding) for finding in self.findings]}


def diagnosis(findings: list[Finding]) -> Diagnosis:
    """Sort findings by level, keeping their order within one, and freeze them."""
    return Diagnosis(tuple(sorted(findings, key=lambda f: LEVELS.index(f.level))))


def told(values: Mapping[str, Any]) -> str:
    """Return `base 1, slow 2` for the values by role."""
    return ", ".join(f"{role} {_plain(value)}" for role, value in values.items())


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)

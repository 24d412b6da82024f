"""What was asked already: every outcome, on disk as it comes, so that none is generated twice."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from laconic.records import Journal
from laconic.run.runner import Key
from laconic.searching.outcomes import Outcome


@dataclass(frozen=True)
class Asked:
    """The outcomes of some questions, and the tokens that were generated for them."""

    outcomes: tuple[Outcome, ...]
    generated: int


class Responses:
    """A journal of outcomes by merge and question. Open it with `with`; one process at a time.

    Each remembers for which trial it was generated: a trial that was broken off and is asked again
    is charged the same as in an unbroken run.
    """

    def __init__(self, path: Path) -> None:
        self._journal = Journal(path)
        self._known: dict[str, dict[Key, tuple[str, Outcome]]] = {}

    def __enter__(self) -> Responses:
        self._journal.__enter__()
        for record in self._journal.records:
            self._keep(dict(record))
        return self

    def __exit__(self, *_: object) -> None:
        self._journal.__exit__(None, None, None)

    def done(self, merge: str) -> Collection[Key]:
        """Questions and draws that a merge, named by its recipe's hash, has answered."""
        return self._known.get(merge, {}).keys()

    def add(self, merge: str, trial: str, outcomes: Sequence[Outcome]) -> None:
        """Keep outcomes that were generated for a trial."""
        for outcome in outcomes:
            record = {"merge": merge, "trial": trial, **outcome.to_record()}
            self._journal.append(record)
            self._keep(record)

    def of(self, merge: str, trial: str, ids: Collection[str]) -> Asked:
        """What a merge answered to some questions; `generated` counts what this trial paid for."""
        wanted = set(ids)
        found = {k: v for k, v in self._known.get(merge, {}).items() if k[0] in wanted}
        outcomes = tuple(found[key][1] for key in sorted(found))
        paid = sum(outcome.tokens for by, outcome in found.values() if by == trial)
        return Asked(outcomes, paid)

    def all_of(self, merge: str) -> tuple[Outcome, ...]:
        """Everything a merge answered, sorted by question and draw."""
        known = self._known.get(merge, {})
        return tuple(known[key][1] for key in sorted(known))

    def generated(self) -> int:
        """Tokens generated for all of it."""
        return sum(o.tokens for own in self._known.values() for _, o in own.values())

    def generated_for(self, trials: tuple[str, ...]) -> int:
        """Tokens generated for the trials whose names begin so."""
        pairs = (pair for own in self._known.values() for pair in own.values())
        return sum(outcome.tokens for by, outcome in pairs if by.startswith(trials))

    def complete(self, count: int) -> list[tuple[Outcome, ...]]:
        """The outcomes of every merge that has at least so many."""
        return [self.all_of(merge) for merge, own in self._known.items() if len(own) >= count]

    def _keep(self, record: dict[str, Any]) -> None:
        merge, trial = record.pop("merge"), record.pop("trial")
        outcome = Outcome(**record)
        self._known.setdefault(merge, {})[outcome.id, outcome.draw] = trial, outcome

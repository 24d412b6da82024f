"""The desk: has merges answer all the deciding questions, and keeps what they answered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from laconic.recipe import Recipe, parse_recipe
from laconic.searching.examiner import Examiner, ends
from laconic.searching.outcomes import answers
from laconic.searching.questions import Exam, in_turn, shuffled
from laconic.searching.racing import Answers, longest
from laconic.searching.responses import Responses
from laconic.searching.study_file import Study
from laconic.searching.subset import Fidelity, fidelity, most_telling

SWEEP_STEPS = 10
"""Intervals of the sweep from which an entropy subset is chosen."""
BEFORE = ("slow", "quick", "sweep:")
"""How the names begin under which tokens are charged before the first trial."""


@dataclass(frozen=True)
class Desk:
    """What all merges of a study are asked. common: the keys its recipes share."""

    study: Study
    common: Mapping[str, Any]
    exam: Exam
    examiner: Examiner
    responses: Responses

    def parents(self) -> tuple[dict[str, Answers], int]:
        """What slow and quick answer to what trials are asked, and the search's token limit.

        The limit follows from the slow parent's longest response when the study races. An entropy
        subset is chosen later, from answers to everything.
        """
        most, racing = self.exam.sampling.max_tokens, self.study.racing
        ids = self._blind_order() or self.exam.ids
        recipes = ends(self.common)
        slow = self.ask(recipes["slow"], ids, "slow", most)
        lengths = [one.tokens for one in self.responses.of(recipes["slow"].hash, "", ids).outcomes]
        limit = longest(lengths, racing.cut, most) if racing.on else most
        return {"slow": slow, "quick": self.ask(recipes["quick"], ids, "quick", limit)}, limit

    def whole_parents(self, limit: int) -> dict[str, Answers]:
        """What slow and quick answer to every deciding question."""
        limits = {"slow": self.exam.sampling.max_tokens, "quick": limit}
        recipes = ends(self.common)
        return {
            role: self.ask_all(recipes[role], f"front:{role}", most)
            for role, most in limits.items()
        }

    def ask(self, recipe: Recipe, ids: Sequence[str], by: str, limit: int) -> Answers:
        """Ask a merge those of some questions that it has not answered; charge `by`."""
        done = set(self.responses.done(recipe.hash))
        new = self.examiner.ask(recipe.to_dict(), ids, limit, done)
        self.responses.add(recipe.hash, by, new)
        return answers(self.responses.of(recipe.hash, by, ids).outcomes)

    def ask_all(self, recipe: Recipe, by: str, limit: int) -> Answers:
        """Ask a merge every deciding question that it has not answered; charge `by`."""
        return self.ask(recipe, self.exam.ids, by, limit)

    def order(self, limit: int) -> tuple[str, ...]:
        """The ids that trials are asked, in their order: all, or the study's subset."""
        if (blind := self._blind_order()) is not None:
            return blind
        wanted, seed = self.study.questions, self.study.seed
        return most_telling(list(self._sweep(limit)), wanted.count or 0, seed)

    def _blind_order(self) -> tuple[str, ...] | None:
        """The order when it does not depend on answers; None for an entropy subset."""
        wanted, seed = self.study.questions, self.study.seed
        every = in_turn(self.exam, seed)
        if wanted.count is None or wanted.count >= len(every):
            return every
        if wanted.choose == "entropy":
            return None
        return (every if wanted.choose == "stratified" else shuffled(every, seed))[: wanted.count]

    def fidelity(self, order: tuple[str, ...]) -> Fidelity | None:
        """How well the subset ranks the merges that answered every question; None without one."""
        if len(order) == len(self.exam.ids):
            return None
        whole = self.responses.complete(len(self.exam.ids) * self.exam.sampling.n)
        return fidelity([answers(own) for own in whole], order)

    def paid(self) -> int:
        """Tokens generated before the first trial: by the parents and by an entropy sweep."""
        return self.responses.generated_for(BEFORE)

    def _sweep(self, limit: int) -> Iterator[Answers]:
        """Ask the merges of an even sweep all deciding questions."""
        plain = {key: value for key, value in self.common.items() if key != "rules"}
        for step in range(SWEEP_STEPS + 1):
            weight = step / SWEEP_STEPS
            recipe = parse_recipe({**plain, "merge": [{"interpolation": {"weight": weight}}]})
            yield self.ask_all(recipe, f"sweep:{step}", limit)

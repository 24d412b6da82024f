"""Pick a merge from a finished search's front and write it, with its figures in its model card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from laconic.checkpoint.card import add_results
from laconic.merging.engine import merge
from laconic.searching.finish import PARENTS, recipe_of
from laconic.searching.folder import StudyFolder
from laconic.searching.front import pick as pick_from


@dataclass(frozen=True)
class Row:
    """A row of front.json with the figures that decide."""

    raw: Mapping[str, Any]
    accuracy: float
    tokens: float


@dataclass(frozen=True)
class Picked:
    """The merge that was picked, and the folder it was written to."""

    trial: str
    rule: str
    path: str
    recipe_hash: str
    row: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The pick as data."""
        return {
            "trial": self.trial,
            "rule": self.rule,
            "path": self.path,
            "recipe_hash": self.recipe_hash,
            "row": dict(self.row),
        }


def pick(folder: str | Path, rule: str, out: str | Path, *, force: bool = False) -> Picked:
    """Write the merge of a search's front that a rule picks, into a new folder.

    folder: of a finished search. rule: `knee`, `accuracy` or `tokens=N`, within the study's bounds.
    What is written equals, bit for bit, what was asked. Raises LaconicError when the search is not
    complete, or nothing of the front is within the bounds.
    """
    record = StudyFolder(Path(folder)).read_front()
    rows = [Row(row, row["accuracy"], row["tokens"]) for row in record["front"]]
    bounds = record["bounds"]
    quick, slow = (
        Row(raw, raw["accuracy"], raw["tokens"])
        for raw in (record["parents"][role] for role in ("quick", "slow"))
    )
    chosen = pick_from(rows, rule, quick, slow, least=bounds["accuracy"], most=bounds["tokens"])
    recipe = recipe_of(chosen.raw)
    merge(recipe, out, force=force, progress=False)
    add_results(Path(out), list(_card_rows(record, chosen.raw, rule)))
    return Picked(chosen.raw["trial"], rule, str(out), recipe.hash, chosen.raw)


def _card_rows(record: Mapping[str, Any], row: Mapping[str, Any], rule: str) -> Any:
    """The parents and the merge on the questions that report, as a card's table has them."""
    tasks = " + ".join(record["questions"])
    slow = record["parents"]["slow"]["test"]
    name = f"this merge ({rule} of study {record['hash']})"
    methods = "+".join(method for stage in row["recipe"]["merge"] for method in stage)
    found = [(role, "parent", record["parents"][role]["test"]) for role in PARENTS]
    for label, method, figures in [*found, (name, methods, row["test"])]:
        change = None if label == "slow" else figures["tokens"] / slow["tokens"] - 1
        yield {**figures, "name": label, "method": method, "task": tasks, "tokens_change": change}

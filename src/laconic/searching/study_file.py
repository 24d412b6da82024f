"""The study: parents, recipes with ranges, questions, objectives and budget; strictly read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from laconic.errors import LaconicError, did_you_mean, refusal
from laconic.recipe import recipe_hash
from laconic.records import read_yaml

Sampler = Literal["grid", "random", "nsga2", "tpe", "gp"]
EXTENDABLE = ("budget",)
"""Keys that may change while a study goes on: what was tried stays comparable."""
SHARED = ("base", "quick", "slow", "output", "rules", "statistics", "calibration")
"""Keys that a study's recipes have in common."""
Share = Annotated[float, Field(gt=0, lt=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SplitFiles(_Strict):
    """A task whose splits are two JSONL files."""

    validation: str
    test: str


class Objectives(_Strict):
    """Bounds on what is wanted: of accuracy from below, of mean tokens from above.

    accuracy: `>= 0.9` or `>= slow - 1 point`. tokens: `<= 60` or `<= 60% of slow`.
    """

    accuracy: str | None = None
    tokens: str | None = None

    @field_validator("accuracy")
    @classmethod
    def _accuracy(cls, text: str | None) -> str | None:
        if text is not None:
            accuracy_floor(text, 1.0)
        return text

    @field_validator("tokens")
    @classmethod
    def _tokens(cls, text: str | None) -> str | None:
        if text is not None:
            token_ceiling(text, 1.0)
        return text


class Budget(_Strict):
    """When a search ends: after so many trials, generated tokens or hours, whichever is first."""

    trials: Annotated[int, Field(ge=1)] = 40
    tokens: Annotated[int, Field(ge=1)] | None = None
    hours: Annotated[float, Field(gt=0)] | None = None


class Questions(_Strict):
    """The subset of the deciding questions that trials are asked; the front is asked them all.

    count: None is all. choose: `random`, `stratified` by task and level, or `entropy`: those on
    which the merges of a sweep differ most.
    """

    count: Annotated[int, Field(ge=8)] | None = None
    choose: Literal["random", "stratified", "entropy"] = "stratified"


class Racing(_Strict):
    """How a trial is ended early. Off: every trial is asked every question.

    first: questions of the first block; each block doubles what has been asked. accuracy, tokens:
    tolerances: a merge is dropped when another one is surely no more than `accuracy` less accurate
    and no more than the share `tokens` longer. confidence: of "surely", all looks together. cut:
    responses are stopped at this multiple of the slow parent's longest one.
    """

    on: bool = True
    first: Annotated[int, Field(ge=8)] = 16
    accuracy: Annotated[float, Field(ge=0, lt=1)] = 0.05
    tokens: Annotated[float, Field(ge=0, lt=1)] = 0.02
    confidence: Share = 0.95
    cut: Annotated[float, Field(ge=1)] = 1.25


class Decoding(_Strict):
    """How responses are drawn; the protocol's own unless given."""

    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    n: Annotated[int, Field(ge=1)] | None = None


class Study(_Strict):
    """A whole search.

    recipes: as in a recipe's `merge`, with [low, high] for a knob's value; none: the usual plan, a
    sweep of the interpolation, then TIES and blocks of layers around its best region.
    holdout: for tasks without a validation split, the share of their test questions that decides;
    the rest reports. sampler: chosen by the number of knobs unless given. seed: of everything.
    """

    name: str = "search"
    quick: str
    slow: str
    base: str | None = None
    recipes: tuple[Any, ...] = ()
    tasks: Annotated[tuple[str | SplitFiles, ...], Field(min_length=1)]
    holdout: Share | None = None
    protocol: str | None = None
    sampling: Decoding = Decoding()
    objectives: Objectives = Objectives()
    budget: Budget = Budget()
    sampler: Sampler | None = None
    questions: Questions = Questions()
    racing: Racing = Racing()
    output: dict[str, Any] = {}
    rules: tuple[dict[str, Any], ...] = ()
    statistics: str | None = None
    calibration: dict[str, Any] | None = None
    seed: Annotated[int, Field(ge=0)] = 0

    @field_validator("tasks", mode="before")
    @classmethod
    def _several(cls, raw: Any) -> Any:
        return [raw] if isinstance(raw, str | Mapping) else raw

    @field_validator("racing", mode="before")
    @classmethod
    def _switch(cls, raw: Any) -> Any:
        return {"on": raw} if isinstance(raw, bool) else raw

    @property
    def hash(self) -> str:
        """16 hexadecimal digits that name everything but the budget, defaults filled in."""
        return recipe_hash(self.fixed())

    def fixed(self) -> dict[str, Any]:
        """What may not change while the study goes on, as data."""
        data = self.model_dump(mode="json")
        return {key: value for key, value in data.items() if key not in EXTENDABLE}

    def common(self) -> dict[str, Any]:
        """The keys that every recipe of the study has."""
        data = self.model_dump(mode="json", exclude_none=True)
        return {key: data[key] for key in SHARED if data.get(key)} | {"seed": self.seed}


def load_study(path: str | Path) -> Study:
    """Read a study from a YAML file. Raises LaconicError listing every problem at once."""
    file = Path(path)
    where = f"study {path}"
    raw = read_yaml(file, where)
    if isinstance(raw, Mapping):
        raw = {"name": file.stem, **raw}
    return parse_study(raw, where=where)


def parse_study(raw: Any, *, where: str = "study") -> Study:
    """Check a study's dictionary form; unknown keys are refused with a suggestion."""
    if not isinstance(raw, Mapping):
        raise LaconicError(f"{where}: expected keys such as quick, slow, recipes and tasks")
    if "merge" in raw:
        raise LaconicError(
            f"{where}: this looks like a recipe, for it has 'merge': `laconic merge` takes one; a "
            "study has 'tasks', and 'recipes' in place of 'merge'"
        )
    try:
        return Study(**raw)
    except ValidationError as error:
        problems = list(dict.fromkeys(_problem(item) for item in error.errors()))
        raise refusal(where, problems) from None


def accuracy_floor(text: str, slow: float) -> float:
    """The least accuracy (a share) that `>= 0.9` or `>= slow - 1 point` asks for.

    slow: the slow parent's accuracy. Raises ValueError for anything else.
    """
    match = re.fullmatch(
        r">=\s*(?:(?P<share>[01]?\.?\d+)|slow(?:\s*-\s*(?P<points>\d+(?:\.\d+)?)\s*points?)?)",
        text.strip(),
    )
    if match is None:
        raise ValueError("expected '>= 0.9' or '>= slow - 1 point'")
    if match["share"]:
        return float(match["share"])
    return slow - float(match["points"] or 0) / 100


def token_ceiling(text: str, slow: float) -> float:
    """The most mean tokens that `<= 60` or `<= 60% of slow` allows; slow: the slow parent's."""
    match = re.fullmatch(r"<=\s*(\d+(?:\.\d+)?)\s*(% of slow)?", text.strip())
    if match is None:
        raise ValueError("expected '<= 60' or '<= 60% of slow'")
    number = float(match[1])
    return number / 100 * slow if match[2] else number


def _problem(item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"] if part not in ("str", "SplitFiles"))
    if item["type"] == "extra_forbidden":
        inside = [str(part) for part in item["loc"][:-1] if str(part) in _SECTIONS]
        fields = (_SECTIONS[inside[-1]] if inside else Study).model_fields
        return f"unknown key '{where}'{did_you_mean(str(item['loc'][-1]), fields)}"
    if item["type"] == "missing":
        return f"{where}: missing"
    return f"{where}: {item['input']!r} is not allowed: {item['msg']}"


_SECTIONS: dict[str, type[BaseModel]] = {
    "objectives": Objectives,
    "budget": Budget,
    "questions": Questions,
    "racing": Racing,
    "sampling": Decoding,
    "tasks": SplitFiles,
}

"""The recipe: what to merge and how. Parsed strictly, hashed stably."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from laconic import depth
from laconic.errors import LaconicError, did_you_mean, refusal
from laconic.records import read_yaml
from laconic.registry import Method, get_method, methods
from laconic.rules import Rule

RECIPES = Path(__file__).parent / "recipes"
DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Output(_Strict):
    """How the merged checkpoint is written."""

    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    shard_size: str = "5GB"
    tokenizer: str = "base"
    tie_policy: Literal["untie_any", "base", "error"] = "untie_any"

    @field_validator("shard_size")
    @classmethod
    def _sized(cls, text: str) -> str:
        parse_size(text)
        return text

    @property
    def shard_bytes(self) -> int:
        """Most tensor bytes per file."""
        return parse_size(self.shard_size)


class Stage(_Strict):
    """One step of the merge: a method and its knobs, all of them, defaults filled in."""

    method: str
    knobs: dict[str, Any]


class About(_Strict):
    """Where a published recipe comes from and what it gave; no part of the recipe's hash.

    protocol: the one its figures were measured under, by name.
    """

    source: str
    protocol: str | None = None
    published: dict[str, Any] = {}
    note: str = ""


class Fields(_Strict):
    """Names of the calibration data's fields; the defaults are those of s1K-1.1."""

    question: str = "question"
    short: str = "deepseek_attempt"
    long: str = "deepseek_thinking_trajectory"


class Calibration(_Strict):
    """The text that models run on for statistics: JSONL with the named fields, or plain text.

    answers: what follows the question for channel means. Other statistics fix it themselves:
    crossed sensitivities read each parent's answers with the other, mutual information reads
    questions, think inputs read long answers. select: which samples are taken when there are more.
    max_length: tokens of a sample, the rest is cut. skip_first_token: leave the first token out of
    channel means.
    """

    data: str
    samples: Annotated[int, Field(ge=1)] = 100
    answers: Literal["quick", "slow", "both", "question"] = "quick"
    max_length: Annotated[int, Field(ge=2)] = 2048
    fields: Fields = Fields()
    select: Literal["random", "kmeans", "first"] = "random"
    skip_first_token: bool = False


class Recipe(_Strict):
    """A whole merge. Parents are local folders or Hub ids.

    Either `quick` and `slow` (base: the quick model unless given), or `models` for any number of
    parents (base needed only by methods that ask for it).
    """

    base: str | None = None
    quick: str | None = None
    slow: str | None = None
    models: tuple[str, ...] = ()
    merge: tuple[Stage, ...]
    calibration: Calibration | None = None
    statistics: str | None = None
    rules: tuple[Rule, ...] = ()
    output: Output = Output()
    seed: Annotated[int, Field(ge=0)] = 0
    about: About | None = Field(default=None, exclude=True)

    @property
    def roles(self) -> dict[str, str]:
        """Role -> model: `base`, then `quick` and `slow`, or `model 1`, `model 2`, ..."""
        parents = (
            {f"model {i}": model for i, model in enumerate(self.models, 1)}
            if self.models
            else {"quick": str(self.quick), "slow": str(self.slow)}
        )
        return {"base": self.base, **parents} if self.base else parents

    @property
    def hash(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the recipe with all defaults filled in."""
        return recipe_hash(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """The recipe as it would be written in YAML, every knob spelled out."""
        raw = self.model_dump(exclude_none=True, mode="json")
        raw["merge"] = [{stage.method: dict(stage.knobs)} for stage in self.merge]
        return {key: value for key, value in raw.items() if value != []}

    def to_yaml(self) -> str:
        """The recipe as YAML text, keys in the documented order."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    def rule_for(self, tensor: str) -> Rule | None:
        """Return the first rule that matches a tensor."""
        return next((rule for rule in self.rules if rule.matches(tensor)), None)

    def stages_for(self, tensor: str, layers: int) -> tuple[Stage, ...] | str:
        """Return the stages for a tensor of a model with so many layers, or the role to copy.

        Its first matching rule is applied, and knobs over depth have the value of its layer.
        """
        rule = self.rule_for(tensor)
        if rule is not None and rule.take is not None:
            return rule.take
        return tuple(_stage_for(stage, rule, tensor, layers) for stage in self.merge)


def recipe_hash(recipe: Mapping[str, Any]) -> str:
    """Hash a recipe's dictionary form; the same for any order of keys."""
    text = json.dumps(recipe, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def parse_size(text: str) -> int:
    """Parse `5GB`, `200MB`, `1.5GB` or plain bytes into a positive number of bytes."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?B?)\s*", text.upper())
    size = int(float(match[1]) * _UNITS.get(match[2], 0)) if match else 0
    if size <= 0:
        raise ValueError(f"'{text}' is not a size such as 5GB or 200MB")
    return size


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe from a YAML file, or a published one by name.

    Raises LaconicError listing every problem at once.
    """
    file = Path(path)
    published = RECIPES / f"{path}.yml"
    if not file.is_file() and file.suffix == "" and published.is_file():
        file = published
    where = f"recipe {path}"
    return parse_recipe(read_yaml(file, where), where=where)


def parse_recipe(raw: Any, *, where: str = "recipe") -> Recipe:
    """Check a recipe's dictionary form and fill in every default.

    Raises LaconicError with all problems in one message, unknown words with a suggestion.
    """
    if not isinstance(raw, Mapping):
        raise LaconicError(f"{where}: expected a mapping with keys such as quick, slow and merge")
    stages, problems = _parse_stages(raw.get("merge"))
    try:
        recipe = Recipe(**{**raw, "merge": tuple(stages)})
    except ValidationError as error:
        found = [_schema_problem(item) for item in error.errors()]
        raise refusal(where, found + problems) from None
    problems += _parent_problems(recipe) + _rule_problems(recipe)
    if not problems:
        problems = _chain_problems(recipe)
    if problems:
        raise refusal(where, problems)
    if recipe.base is None and recipe.quick is not None:
        recipe = recipe.model_copy(update={"base": recipe.quick})
    return recipe


def _parse_stages(raw: Any) -> tuple[list[Stage], list[str]]:
    if raw is None:
        return [], ["merge: missing; for example  merge: [{ties: {trim: 0.8}}]"]
    stages: list[Stage] = []
    problems: list[str] = []
    for item in raw if isinstance(raw, list | tuple) else [raw]:
        name, knobs = _split_stage(item)
        if name is None:
            problems.append(f"merge: {item!r} is not a method or {{method: {{knob: value}}}}")
        elif name not in methods():
            known = ", ".join(methods())
            problems.append(
                f"merge: unknown method '{name}'{did_you_mean(name, methods())} (known: {known})"
            )
        else:
            method = get_method(name)
            problems += (found := depth.problems(method, knobs))
            if not found:
                stages.append(Stage(method=name, knobs=depth.settings(method, knobs)))
    return stages, problems


def _split_stage(item: Any) -> tuple[str | None, dict[str, Any]]:
    if isinstance(item, str):
        return item, {}
    if isinstance(item, Mapping) and len(item) == 1:
        ((name, knobs),) = item.items()
        if knobs is None or isinstance(knobs, Mapping):
            return str(name), dict(knobs or {})
    return None, {}


def _schema_problem(item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        key = str(item["loc"][-1])
        parents: dict[str, type[BaseModel]] = {
            "output": Output, "rules": Rule, "calibration": Calibration, "fields": Fields,
            "about": About,
        }  # fmt: skip
        inside = item["loc"][:-1]
        names = [str(part) for part in inside if str(part) in parents]
        fields = (parents[names[-1]] if names else Recipe).model_fields
        return f"unknown key '{where}'{did_you_mean(key, fields)}"
    return f"{where}: {item['input']!r} is not allowed: {item['msg']}"


def _parent_problems(recipe: Recipe) -> list[str]:
    pair = [role for role in ("quick", "slow") if getattr(recipe, role) is not None]
    if recipe.models and pair:
        return [f"give either models or quick and slow, not models and {' and '.join(pair)}"]
    if recipe.models:
        return [] if len(recipe.models) > 1 or recipe.base else ["models: at least two are needed"]
    return [f"{role}: missing" for role in ("quick", "slow") if role not in pair]


def _rule_problems(recipe: Recipe) -> list[str]:
    problems = []
    for number, rule in enumerate(recipe.rules, 1):
        where = f"rules[{number}]"
        if bool(rule.set) == bool(rule.take):
            problems.append(f"{where}: give exactly one of set and take")
        if rule.take is not None and rule.take not in recipe.roles | {"base": ""}:
            problems.append(f"{where}: take: '{rule.take}' is not one of {', '.join(recipe.roles)}")
        problems += [f"{where}: {problem}" for problem in _setting_problems(recipe, rule)]
    if recipe.output.tokenizer not in recipe.roles | {"base": ""}:
        problems.append(
            f"output.tokenizer: '{recipe.output.tokenizer}' is not one of "
            f"{', '.join(recipe.roles | {'base': ''})}"
        )
    return problems


def _setting_problems(recipe: Recipe, rule: Rule) -> list[str]:
    used = {stage.method: stage for stage in recipe.merge}
    problems = []
    for key in rule.set:
        name, _, knob = key.partition(".")
        if not knob or name not in used:
            problems.append(f"set: '{key}' is not METHOD.KNOB with METHOD one of {', '.join(used)}")
    for stage in recipe.merge:
        knobs = rule.knobs_of(stage.method)
        problems += depth.problems(get_method(stage.method), {**stage.knobs, **knobs})
    return problems


def _stage_for(stage: Stage, rule: Rule | None, tensor: str, layers: int) -> Stage:
    knobs = {**stage.knobs, **(rule.knobs_of(stage.method) if rule else {})}
    return Stage(method=stage.method, knobs=depth.resolved(knobs, tensor, layers))


def _chain_problems(recipe: Recipe) -> list[str]:
    """A chain is any number of sparsifiers, one combiner, any number of wrappers."""
    chain = [get_method(stage.method) for stage in recipe.merge]
    order = {"sparsifier": 0, "combiner": 1, "wrapper": 2}
    kinds = [order[method.kind] for method in chain]
    problems = []
    if kinds.count(1) != 1:
        problems.append(
            f"merge: needs exactly one combiner, has {kinds.count(1)}: "
            + ", ".join(f"{method.name} ({method.kind})" for method in chain)
        )
    if kinds != sorted(kinds):
        problems.append("merge: the order is sparsifiers, one combiner, wrappers")
    needy = [method.name for method in chain if _needs_base(method)]
    if needy and recipe.models and recipe.base is None:
        problems.append(f"base: missing; {', '.join(needy)} merges task vectors against a base")
    return problems


def _needs_base(method: Method) -> bool:
    return "base" in method.inputs

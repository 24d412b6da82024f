"""The search space: recipes with ranges in place of some knobs, and the plain recipe of a point."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from laconic.depth import problems as knob_problems
from laconic.errors import LaconicError, did_you_mean, refusal
from laconic.recipe import Recipe, parse_recipe
from laconic.registry import Method, get_method, methods
from laconic.searching.blocks import Units, partition

CHOICES = "choices"
SPECIAL = ("merge", "blocks", "modules", "name")
WHICH = "recipe"
"""Name of the parameter that chooses between several recipes."""
DIGITS = 4
"""To which sampled numbers are rounded, so that a recipe can be read and typed again."""
MODULES: dict[str, dict[str, Any]] = {
    "attention": {"role": ["attention"]},
    "mlp": {"role": ["mlp", "expert", "shared_expert", "router"]},
    "rest": {"match": "*"},
}

Params = Mapping[str, Any]


@dataclass(frozen=True)
class Dial:
    """A knob to be chosen: between `low` and `high`, or one of `choices`.

    group: the group of tensors whose value this is; None: of all.
    """

    method: str
    knob: str
    low: float = 0.0
    high: float = 0.0
    whole: bool = False
    choices: tuple[Any, ...] = ()
    group: str | None = None

    @property
    def name(self) -> str:
        """`ties.trim`, or `interpolation.weight@block 2` for a group's value."""
        return f"{self.method}.{self.knob}" + (f"@{self.group}" if self.group else "")

    def value(self, raw: Any) -> Any:
        """The knob's value from a parameter's."""
        if self.choices:
            return self.choices[int(raw)]
        return int(raw) if self.whole else round(float(raw), DIGITS)


@dataclass(frozen=True)
class Group:
    """Tensors that share the values of the dials: in a recipe, one or more rules."""

    name: str
    matchers: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Option:
    """One recipe with ranges: its chain with the fixed knobs, its dials, its groups of tensors."""

    label: str
    stages: tuple[tuple[str, Mapping[str, Any]], ...]
    dials: tuple[Dial, ...]
    groups: tuple[Group, ...] = ()

    def parameter(self, dial: Dial, alone: bool) -> str:
        """What a trial calls a dial: with the recipe's label when there are several recipes."""
        return dial.name if alone else f"{self.label}: {dial.name}"


@dataclass(frozen=True)
class Space:
    """Everything that a study may try. common: the keys all its recipes share, parents and all."""

    common: Mapping[str, Any]
    options: tuple[Option, ...]

    @property
    def alone(self) -> bool:
        """Whether there is one recipe only, so that no parameter has to choose."""
        return len(self.options) == 1

    def option(self, params: Params) -> Option:
        """The recipe that a trial's parameters choose."""
        if self.alone:
            return self.options[0]
        return next(one for one in self.options if one.label == params[WHICH])

    def dials(self, option: Option) -> dict[str, Dial]:
        """A recipe's dials by the names of their parameters."""
        return {option.parameter(dial, self.alone): dial for dial in option.dials}

    def recipe(self, params: Params) -> Recipe:
        """The plain recipe of a trial's parameters: what `laconic merge` takes."""
        option = self.option(params)
        values = {dial: dial.value(params[name]) for name, dial in self.dials(option).items()}
        plain: dict[str, dict[str, Any]] = {name: dict(knobs) for name, knobs in option.stages}
        for dial, value in values.items():
            if dial.group is None:
                plain[dial.method][dial.knob] = value
        rules = [*self.common.get("rules", ()), *_group_rules(option, values)]
        raw = {**self.common, "merge": [{name: knobs} for name, knobs in plain.items()]}
        return parse_recipe({**raw, "rules": rules} if rules else raw, where=option.label)


def make_space(common: Mapping[str, Any], recipes: Sequence[Any], units: Units | None) -> Space:
    """Check recipes with ranges against the methods' signatures.

    units: of the parents, for spaces of blocks. Raises LaconicError with all problems at once:
    unknown methods and knobs with a suggestion, ranges that leave a knob's domain, no range.
    """
    problems: list[str] = []
    options = []
    for number, raw in enumerate(recipes, 1):
        found, wrong = _option(raw, f"recipes[{number}]", units)
        problems += wrong
        if found is not None:
            options.append(found)
    if not recipes:
        problems.append("recipes: none; for example  recipes: [{ties: {trim: [0.2, 0.9]}}]")
    if problems:
        raise refusal("study", problems)
    space = Space(common, tuple(_named_apart(options)))
    for option in space.options:  # the ends of every range, as whole recipes
        for end in (0, 1):
            space.recipe(_end(space, option, end))
    return space


def needs_units(recipes: Sequence[Any]) -> bool:
    """Whether a study's recipes ask for blocks of layers."""
    return any(isinstance(raw, Mapping) and raw.get("blocks") for raw in recipes)


def _end(space: Space, option: Option, end: int) -> dict[str, Any]:
    """Parameters with every dial at its lowest or its highest value."""
    params: dict[str, Any] = {WHICH: option.label}
    for name, dial in space.dials(option).items():
        last = len(dial.choices) - 1 if dial.choices else dial.high
        params[name] = last if end else (0 if dial.choices else dial.low)
    return params


def _option(raw: Any, where: str, units: Units | None) -> tuple[Option | None, list[str]]:
    if not isinstance(raw, Mapping):
        return None, [f"{where}: {raw!r} is not {{method: {{knob: [low, high]}}}}"]
    chain = raw.get("merge")
    items = chain if chain is not None else [{k: v} for k, v in raw.items() if k not in SPECIAL]
    if chain is not None and (extra := [key for key in raw if key not in SPECIAL]):
        return None, [f"{where}: '{extra[0]}' beside merge; put it into the list"]
    stages: list[tuple[str, dict[str, Any]]] = []
    dials: list[Dial] = []
    problems: list[str] = []
    for item in items if isinstance(items, list) else [items]:
        name, knobs = _stage(item)
        if name not in methods():
            hint = did_you_mean(str(name), [*methods(), *SPECIAL])
            problems.append(f"{where}: unknown method '{name}'{hint} (laconic methods lists them)")
            continue
        fixed, ranges, wrong = _knobs(get_method(name), knobs)
        stages.append((name, fixed))
        dials += ranges
        problems += [f"{where}: {problem}" for problem in wrong]
    if not problems and not dials:
        problems.append(f"{where}: no knob has a range such as trim: [0.2, 0.9]")
    if problems:
        return None, problems
    try:
        groups = _groups(raw, units)
    except (LaconicError, TypeError, ValueError) as error:
        return None, [f"{where}: {error}"]
    label = str(raw.get("name") or _label([name for name, _ in stages], raw))
    return Option(label, tuple(stages), _spread(dials, groups), groups), []


def _stage(item: Any) -> tuple[str, Mapping[str, Any]]:
    if isinstance(item, Mapping) and len(item) == 1:
        ((name, knobs),) = item.items()
        return str(name), knobs if isinstance(knobs, Mapping) else {}
    return str(item), {}


def _knobs(method: Method, raw: Mapping[str, Any]) -> tuple[dict[str, Any], list[Dial], list[str]]:
    """Split a stage's knobs into fixed values and ranges, with what is wrong with them."""
    fixed: dict[str, Any] = {}
    dials: list[Dial] = []
    problems: list[str] = []
    defaults = {knob.name: knob.default for knob in method.knobs}
    for knob, value in raw.items():
        dial = _dial(method.name, knob, value, defaults.get(knob))
        if dial is None:
            fixed[knob] = value
            continue
        tried = dial.choices or (dial.low, dial.high)
        wrong = [p for end in tried for p in method.problems({knob: end})]
        if not dial.choices and dial.low >= dial.high:
            wrong.append(f"{dial.name}: the range {list(value)} is empty; low comes first")
        problems += dict.fromkeys(wrong)
        dials.append(dial)
    return fixed, dials, problems + knob_problems(method, fixed)


def _dial(method: str, knob: str, value: Any, default: Any) -> Dial | None:
    """The dial of a knob's range; None for a fixed value."""
    if isinstance(value, Mapping) and set(value) == {CHOICES} and value[CHOICES]:
        return Dial(method, knob, choices=tuple(value[CHOICES]))
    number = isinstance(default, int | float) and not isinstance(default, bool)
    pair = isinstance(value, list | tuple) and len(value) == 2
    if not (number or default is None) or not pair or not all(map(_is_number, value)):
        return None
    if default is None:
        return None  # a list is itself a value of such a knob, as linear's weights
    whole = isinstance(default, int)
    return Dial(method, knob, float(value[0]), float(value[1]), whole)


def _groups(raw: Mapping[str, Any], units: Units | None) -> tuple[Group, ...]:
    blocks, modules = raw.get("blocks"), raw.get("modules")
    if blocks and modules:
        raise LaconicError("give blocks or modules, not both")
    if modules:
        return tuple(Group(name, (rule,)) for name, rule in MODULES.items())
    if not blocks:
        return ()
    count = blocks.get("count") if isinstance(blocks, Mapping) else blocks
    if isinstance(blocks, Mapping) and set(blocks) != {"count"}:
        raise LaconicError(f"blocks: {dict(blocks)} is not {{count: 4}}")
    if not isinstance(count, int) or units is None:
        raise LaconicError(f"blocks: count is {count!r}; expected a whole number such as 4")
    cuts = partition(units.prior, count)
    return tuple(Group(f"block {i}", _matchers(cut, units)) for i, cut in enumerate(cuts, 1))


def _matchers(cut: tuple[int, int], units: Units) -> tuple[Mapping[str, Any], ...]:
    """The rules that name a block's tensors; what follows the layers is whatever is left."""
    first, last = cut
    found: list[Mapping[str, Any]] = []
    if first == 0:
        found.append({"role": ["embedding"]})
    low, high = max(first - 1, 0), min(last - 1, units.layers - 1)
    if low <= high and last > 0 and first <= units.layers:
        found.append({"layers": f"{low}-{high}"})
    if last == units.count - 1:
        found.append({"match": "*"})
    return tuple(found)


def _spread(dials: Sequence[Dial], groups: Sequence[Group]) -> tuple[Dial, ...]:
    """One dial per group for each."""
    if not groups:
        return tuple(dials)
    return tuple(replace(dial, group=group.name) for dial in dials for group in groups)


def _group_rules(option: Option, values: Mapping[Dial, Any]) -> Iterator[dict[str, Any]]:
    for group in option.groups:
        own = {
            f"{dial.method}.{dial.knob}": value
            for dial, value in values.items()
            if dial.group == group.name
        }
        yield from ({**matcher, "set": own} for matcher in group.matchers)


def _label(names: Sequence[str], raw: Mapping[str, Any]) -> str:
    kind = " blocks" if raw.get("blocks") else " modules" if raw.get("modules") else ""
    return "+".join(names) + kind


def _named_apart(options: Sequence[Option]) -> Iterator[Option]:
    """Number the labels that occur more than once."""
    seen: dict[str, int] = {}
    for option in options:
        count = seen[option.label] = seen.get(option.label, 0) + 1
        label = option.label if count == 1 else f"{option.label} {count}"
        yield replace(option, label=label)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

"""The plan: recipe and headers in, one step per output tensor out; every mismatch named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from laconic.diagnosis.doctor import Diagnosis, examine, refuse
from laconic.errors import LaconicError
from laconic.recipe import DTYPES, Recipe, Stage
from laconic.registry import get_method
from laconic.routers import split_routers
from laconic.tensors.header import FLOAT_DTYPES, StoredTensor, TensorSpec
from laconic.tensors.names import layer_of, natural_order, role_of
from laconic.tensors.source import EMBEDDING, HEAD, Source, open_source


@dataclass(frozen=True, slots=True)
class Input:
    """One parent's tensor that goes into a step; `stored` is None when weights weren't fetched."""

    role: str
    spec: TensorSpec
    stored: StoredTensor | None


@dataclass(frozen=True, slots=True)
class Step:
    """How one output tensor is made: the stages in order, or none of them for a plain copy."""

    number: int
    output: TensorSpec
    base: Input | None
    experts: tuple[Input, ...]
    stages: tuple[Stage, ...]

    @property
    def inputs(self) -> tuple[Input, ...]:
        """Base and experts."""
        return (self.base, *self.experts) if self.base else self.experts


@dataclass(frozen=True)
class Plan:
    """Everything a merge will do, fixed before a byte of weight is read."""

    recipe: Recipe
    sources: Mapping[str, Source]
    diagnosis: Diagnosis
    steps: tuple[Step, ...]

    @property
    def untied(self) -> bool:
        """Whether the output has a head of its own."""
        return any(step.output.name == HEAD for step in self.steps)

    @property
    def experts(self) -> tuple[str, ...]:
        """Roles of the parents that are merged, in order; none when every tensor is copied."""
        merged = next((step for step in self.steps if step.stages), None)
        return tuple(tensor.role for tensor in merged.experts) if merged else ()

    def input(self, role: str, name: str) -> Input:
        """A parent's tensor for an output's name, whether or not the merge reads it."""
        return _input(role, self.sources[role], name)

    @property
    def nbytes(self) -> int:
        """Bytes of tensor data the output will hold."""
        return sum(step.output.nbytes for step in self.steps)

    def lines(self) -> Iterator[str]:
        """Yield the lines of the plan for the terminal; equal chains are counted together."""
        for role, name in self.recipe.roles.items():
            yield f"{role:<9} {name}"
        chains = Counter(_chain_text(step) for step in self.steps)
        for chain, count in chains.most_common():
            yield f"{count:>9} tensors: {chain}"
        yield from (f"decision  {f.topic}: {f.action}" for f in self.diagnosis.decisions)
        yield (
            f"{len(self.steps)} tensors, {self.nbytes:,} bytes of {self.recipe.output.dtype}, "
            f"recipe {self.recipe.hash}"
        )

    def to_dict(self) -> dict[str, Any]:
        """The plan as data: totals, and per step its name, shape, dtype, inputs and stages."""
        return {
            "recipe_hash": self.recipe.hash,
            "tensors": len(self.steps),
            "bytes": self.nbytes,
            "untied": self.untied,
            "parents": self.recipe.roles,
            "findings": self.diagnosis.to_dict()["findings"],
            "steps": [_step_row(step) for step in self.steps],
        }


def make_plan(recipe: Recipe, *, weights: bool = False) -> Plan:
    """Plan a merge from headers, configs and tokenizers alone.

    weights: fetch the weights of Hub models too, as merging needs.
    Raises LaconicError naming every blocker and mismatch.
    """
    names = dict.fromkeys(recipe.roles.values())
    opened = {name: open_source(name, weights=weights) for name in names}
    sources = {role: opened[name] for role, name in recipe.roles.items()}
    output = recipe.output
    diagnosis = examine(
        sources, tie_policy=output.tie_policy, tokenizer=output.tokenizer, dtype=output.dtype
    )
    refuse(diagnosis)
    return Plan(recipe, sources, diagnosis, _checked_steps(recipe, sources))


def replanned(plan: Plan, recipe: Recipe) -> Plan:
    """Plan another recipe over the same parents and output, without examining them again.

    Raises LaconicError naming every mismatch.
    """
    before = plan.recipe
    if (before.roles, before.output) != (recipe.roles, recipe.output):
        raise LaconicError("a plan can be made again only for the same parents and output")
    return Plan(recipe, plan.sources, plan.diagnosis, _checked_steps(recipe, plan.sources))


def _checked_steps(recipe: Recipe, sources: Mapping[str, Source]) -> tuple[Step, ...]:
    steps = tuple(_steps(recipe, sources))
    problems = _knob_problems(recipe, steps) + list(_rule_problems(recipe, steps))
    if problems:
        raise LaconicError("\n".join(problems))
    return steps


def _steps(recipe: Recipe, sources: Mapping[str, Source]) -> Iterator[Step]:
    dtype = DTYPES[recipe.output.dtype]
    experts = _expert_roles(recipe)
    names = _output_names(recipe, sources)
    layers = 1 + max(map(layer_of, names), default=0)
    for number, name in enumerate(names):
        stages = recipe.stages_for(name, layers)
        if isinstance(stages, str):
            taken = stages if stages in sources else next(iter(sources))
            base, parents = None, [_input(taken, sources[taken], name)]
        else:
            based = "base" in sources and any("base" in _inputs(stage) for stage in stages)
            base = _input("base", sources["base"], name) if based else None
            parents = [_input(role, sources[role], name) for role in experts]
        output = TensorSpec(name, dtype, parents[0].spec.shape)
        chain = () if isinstance(stages, str) else stages
        yield Step(number, output, base, tuple(parents), chain)


def _inputs(stage: Stage) -> tuple[str, ...]:
    return get_method(stage.method).inputs


def _expert_roles(recipe: Recipe) -> list[str]:
    """Every parent; for a combiner of task vectors, every parent that isn't the base itself."""
    combiner = next(
        found for stage in recipe.merge if (found := get_method(stage.method)).kind == "combiner"
    )
    roles = [role for role in recipe.roles if role != "base"]
    if "base" in combiner.inputs:
        others = [role for role in roles if recipe.roles[role] != recipe.base]
        return others or roles
    return roles


def _output_names(recipe: Recipe, sources: Mapping[str, Source]) -> list[str]:
    first = next(iter(sources.values()))
    names = set(first.specs) - {HEAD}
    policy = recipe.output.tie_policy
    tied = first.tied if policy == "base" else all(source.tied for source in sources.values())
    return sorted(names if tied else names | {HEAD}, key=natural_order)


def _input(role: str, source: Source, name: str) -> Input:
    stored_name = EMBEDDING if name == HEAD and source.tied else name
    return Input(role, source.specs[stored_name], source.stored.get(stored_name))


def _knob_problems(recipe: Recipe, steps: tuple[Step, ...]) -> list[str]:
    merged = [step for step in steps if step.stages]
    problems = [
        f"tensor '{tensor.spec.name}' of {tensor.role}: dtype {tensor.spec.dtype} cannot be merged"
        for step in merged
        for tensor in step.inputs
        if tensor.spec.dtype not in FLOAT_DTYPES
    ]
    if not merged:
        return problems
    count = len(merged[0].experts)
    for stage in recipe.merge:
        method = get_method(stage.method)
        if method.parents is not None and method.parents != count:
            problems.append(
                f"{stage.method}: takes {method.parents} parents, the recipe has {count}"
            )
        if count < method.least:
            problems.append(
                f"{stage.method}: takes {method.least} parents or more beside the base, the recipe "
                f"has {count}"
            )
    return problems + sorted(
        {problem for step in merged for problem in _per_parent_problems(step, count)}
        | set(_global_problems(merged))
    )


def _per_parent_problems(step: Step, count: int) -> Iterator[str]:
    for stage in step.stages:
        for knob, value in stage.knobs.items():
            if isinstance(value, tuple | list) and len(value) != count:
                yield (
                    f"{stage.method}.{knob}: {len(value)} values for {count} parents "
                    f"({', '.join(parent.role for parent in step.experts)})"
                )


def _global_problems(steps: list[Step]) -> Iterator[str]:
    """A survey of the whole model needs one setting of its knobs for every tensor."""
    for stages in zip(*(step.stages for step in steps), strict=True):
        is_global = [stage.knobs.get("scope") == "global" for stage in stages]
        if any(is_global) and any(stage.knobs != stages[0].knobs for stage in stages):
            yield f"{stages[0].method}: with scope global, rules cannot change its knobs"


def _rule_problems(recipe: Recipe, steps: tuple[Step, ...]) -> Iterator[str]:
    names = [step.output.name for step in steps]
    for number, rule in enumerate(recipe.rules, 1):
        if not any(map(rule.matches, names)):
            yield f"rules[{number}]: matches no tensor of these models"
    yield from split_routers(recipe, {step.output.name: _chain_text(step) for step in steps})


def _chain_text(step: Step) -> str:
    if not step.stages:
        return f"copied from {step.experts[0].role}"
    texts = []
    for stage in step.stages:
        knobs = ", ".join(f"{key} {value}" for key, value in stage.knobs.items())
        texts.append(f"{stage.method}({knobs})")
    return f"{' -> '.join(texts)} of {', '.join(parent.role for parent in step.experts)}"


def _step_row(step: Step) -> dict[str, Any]:
    return {
        "tensor": step.output.name,
        "role": role_of(step.output.name),
        "dtype": step.output.dtype,
        "shape": list(step.output.shape),
        "base": step.base.role if step.base else None,
        "experts": [parent.role for parent in step.experts],
        "stages": [{stage.method: stage.knobs} for stage in step.stages] or "copy",
    }

"""Which methods can matter for this pair: where the parents differ, how much, and in what shape."""

from __future__ import annotations

import math
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from laconic.errors import LaconicError
from laconic.merging.apply import Context, Link, TensorInfo, run_chain
from laconic.merging.draws import Draws
from laconic.merging.methods.guard import share_left
from laconic.plan import Plan, Step, make_plan
from laconic.recipe import Recipe, Stage
from laconic.registry import get_method
from laconic.statistics.store import Statistics, open_statistics
from laconic.statistics.weights import read_input
from laconic.tensors.names import layer_of, role_of

TOP = 0.1
Key = tuple[int, str]


@dataclass(frozen=True)
class InspectionRow:
    """One module type of one layer; norms are Frobenius, over all its tensors together.

    `delta`: by parent, norm of its task vector over the norm of the base, None over a zero base.
    `cosine`: by pair of parents, between their task vectors, None where one is zero.
    `effective_rank`, `top_energy`: by parent, of the task vector's matrices: exp of the entropy of
    the shares of squared singular values, and the share of the largest tenth; means over matrices.
    `coefficients`: by method, what it multiplies the step from the base by, before any rules; for a
    guard the share of input directions that stay with the merge.
    """

    layer: int
    module: str
    parameters: int
    delta: dict[str, float | None]
    cosine: dict[str, float | None]
    effective_rank: dict[str, float]
    top_energy: dict[str, float]
    coefficients: dict[str, float]


@dataclass(frozen=True)
class Inspection:
    """What the parents of a recipe look like against their base, layer by layer."""

    base: str
    parents: dict[str, str]
    rows: tuple[InspectionRow, ...]

    def to_dict(self) -> dict[str, Any]:
        """The inspection as data."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """Yield the table for a terminal."""
        head = f"{'layer':>5}  {'module':<28}{'parent':<9}"
        yield f"{head}{'delta/base':>10}{'rank':>8}{'top 10%':>9}"
        for row in self.rows:
            extra = [f"{name} {value:.4f}" for name, value in row.coefficients.items()]
            extra += [f"cos {k} {v:.3f}" for k, v in row.cosine.items() if v is not None]
            for parent, ratio in row.delta.items():
                yield (
                    f"{row.layer:>5}  {row.module:<28}{parent:<9}{_number(ratio, 10)}"
                    f"{_number(row.effective_rank.get(parent), 8, 1)}"
                    f"{_number(row.top_energy.get(parent), 9, 3)}  {'  '.join(extra)}"
                ).rstrip()


def inspect(recipe: Recipe, *, spectrum: bool = True, progress: bool = True) -> Inspection:
    """Measure a recipe's parents against its base, per layer and module type.

    spectrum: compute effective rank and top energy too, which takes an eigenvalue decomposition
    per matrix (embedding and head excepted). The coefficients of layer-wise methods are given where
    the recipe names its statistics. Reads one tensor of each parent at a time.
    Raises LaconicError for anything wrong with the parents or the statistics.
    """
    plan = make_plan(recipe.model_copy(update={"rules": ()}), weights=True)
    if "base" not in plan.sources:
        raise LaconicError("inspect: the recipe has no base; name the common ancestor as `base`")
    statistics = None
    if recipe.statistics is not None:
        statistics = open_statistics(recipe, plan.sources, plan.experts)
    groups: dict[Key, list[Step]] = defaultdict(list)
    for step in plan.steps:
        groups[layer_of(step.output.name), module_of(step.output.name)].append(step)
    keys = sorted(groups, key=lambda key: (key[0] < 0, abs(key[0])))
    bar = tqdm(keys, disable=None if progress else True, file=sys.stderr)
    rows = tuple(_row(plan, key, groups[key], statistics, spectrum) for key in bar)
    names = {role: plan.recipe.roles[role] for role in _others(plan)}
    return Inspection(plan.recipe.roles["base"], names, rows)


def module_of(tensor: str) -> str:
    """Return the module type in a tensor's name: `self_attn.q_proj`, `mlp.experts.up_proj`, ..."""
    inside = re.sub(r"^.*?layers\.\d+\.|^model\.", "", tensor)
    return re.sub(r"\.\d+(?=\.)", "", inside).removesuffix(".weight").removesuffix(".bias")


def spectrum_of(matrix: Tensor) -> tuple[float, float] | None:
    """Return effective rank and share of energy in the top tenth; None for a matrix of zeros."""
    short = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    energy = torch.linalg.eigvalsh(short @ short.T).double().clamp(min=0)
    if energy.sum() == 0:
        return None
    share = energy / energy.sum()
    entropy = -(share * share.clamp(min=1e-300).log()).sum()
    top = share.sort(descending=True).values[: math.ceil(TOP * len(share))]
    return entropy.exp().item(), top.sum().item()


@dataclass
class _Sums:
    """Sums over the tensors of a group: squares of base and deltas, products of deltas."""

    parents: int
    base: float = 0.0
    dots: Tensor = field(init=False)
    spectra: list[list[tuple[float, float]]] = field(init=False)

    def __post_init__(self) -> None:
        self.dots = torch.zeros(self.parents, self.parents, dtype=torch.float64)
        self.spectra = [[] for _ in range(self.parents)]

    def add(self, base: Tensor, deltas: Sequence[Tensor], spectrum: bool) -> None:
        self.base += base.square().sum(dtype=torch.float64).item()
        for i, first in enumerate(deltas):
            for j, second in enumerate(deltas[: i + 1]):
                self.dots[i, j] += (first * second).sum(dtype=torch.float64)
            if spectrum and first.dim() == 2 and first.numel():
                found = spectrum_of(first)
                self.spectra[i] += [found] if found else []


def _row(
    plan: Plan, key: Key, steps: Sequence[Step], statistics: Statistics | None, spectrum: bool
) -> InspectionRow:
    roles = _others(plan)
    sums = _Sums(len(roles))
    for step in steps:
        name = step.output.name
        base = read_input(plan.input("base", name))
        deltas = [read_input(plan.input(role, name)) - base for role in roles]
        matrix = role_of(name) not in ("embedding", "head")
        sums.add(base, deltas, spectrum and matrix)
    norms = sums.dots.diagonal().sqrt().tolist()
    start = math.sqrt(sums.base)
    pairs = [(i, j) for i in range(len(roles)) for j in range(i)]
    return InspectionRow(
        *key,
        parameters=sum(step.output.numel for step in steps),
        delta={role: n / start if start else None for role, n in zip(roles, norms, strict=True)},
        cosine={
            f"{roles[j]}, {roles[i]}": _ratio(sums.dots[i, j].item(), norms[i] * norms[j])
            for i, j in pairs
        },
        effective_rank=_means(roles, sums.spectra, 0),
        top_energy=_means(roles, sums.spectra, 1),
        coefficients=_coefficients(plan, _weight_of(steps), statistics) if statistics else {},
    )


def _weight_of(steps: Sequence[Step]) -> Step:
    """The step of a module's weight: a bias has no channel means."""
    return next((step for step in steps if step.output.name.endswith(".weight")), steps[0])


def _others(plan: Plan) -> list[str]:
    """The parents that are not the base itself."""
    folder = plan.sources["base"].folder
    return [role for role in plan.experts if plan.sources[role].folder != folder]


def _coefficients(plan: Plan, step: Step, statistics: Statistics) -> dict[str, float]:
    """What each method that uses statistics does to a step of 1 from a base of 0, in this tensor.

    Sens scales the base too: what it does to a base of 1 is given beside it.
    """
    found = {}
    view = statistics.view(step.output.name)
    width = 1 if view.channel_means is None else len(view.channel_means)
    context = Context(Draws(), TensorInfo(step.output.name, (width,)), view)
    zero, one = torch.zeros(width), torch.ones(width)
    for stage in step.stages:
        method = get_method(stage.method)
        if "think_inputs" in method.needs:
            if view.think_inputs is not None:
                found[method.name] = share_left(view.think_inputs, stage.knobs["ridge"])
            continue
        if not method.needs:
            continue
        experts = torch.stack([zero] * (len(plan.experts) - 1) + [one])
        found[method.name] = _probe(stage, zero, experts, context)
        if method.name == "sens":
            found["sens base"] = _probe(stage, one, torch.ones(2, width), context)
    return found


def _probe(stage: Stage, base: Tensor, experts: Tensor, context: Context) -> float:
    method = get_method(stage.method)
    merged = experts[-1] if method.kind == "wrapper" else None
    out = run_chain([Link(method, stage.knobs)], base, experts, context, merged)
    return (out[-1] if method.kind == "sparsifier" else out).mean().item()


def _means(
    roles: Sequence[str], spectra: Sequence[Sequence[tuple[float, float]]], which: int
) -> dict[str, float]:
    return {
        role: sum(one[which] for one in found) / len(found)
        for role, found in zip(roles, spectra, strict=True)
        if found
    }


def _ratio(value: float, by: float) -> float | None:
    return value / by if by else None


def _number(value: float | None, width: int, digits: int = 5) -> str:
    return f"{'-':>{width}}" if value is None else f"{value:>{width}.{digits}f}"

"""Every method passes every test here; a new method adds one row to ROWS."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from laconic.errors import LaconicError
from laconic.merging.apply import Context, Link, TensorInfo, apply, or_zero, run_chain
from laconic.merging.draws import Draws
from laconic.merging.mixer import transparent
from laconic.merging.survey import Place
from laconic.registry import get_method, methods
from stand_in_card import CARD, waits
from views import only, view


@dataclass(frozen=True)
class Row:
    """A method under one setting, and which properties its setting breaks on purpose."""

    name: str
    knobs: dict[str, Any] = field(default_factory=dict)
    parents: int = 3
    symmetric: bool = True
    keeps_equal: bool = True

    def __str__(self) -> str:
        return f"{self.name}-{'-'.join(f'{k}={v}' for k, v in self.knobs.items())}"


ROWS = [
    Row("average"),
    Row("linear"),
    Row("linear", {"weights": (0.2, 0.5, 0.9)}, symmetric=False),
    Row("interpolation", {"weight": 0.3}, parents=2, symmetric=False),
    Row("task_arithmetic"),
    Row("task_arithmetic", {"alpha": (0.2, 0.5, -0.1)}, symmetric=False),
    Row("ties"),
    Row("ties", {"trim": 0.3, "alpha": 0.4, "rule": "exact"}),
    Row("ties", {"trim": 0.5, "zero_sign": "majority"}),
    Row("ties", {"trim": 0.0}, parents=1),
    Row("dare", {"drop": 0.4}, symmetric=False),
    Row("dare", {"drop": 1.0}),
    Row("dare", {"drop": 0.3, "rescale": False}, symmetric=False),
    Row("della", symmetric=False),
    Row("della", {"drop": 0.4, "window": 0.8, "rescale": False}, symmetric=False),
    Row("della", {"drop": 1.0, "window": 0.0}),
    Row("breadcrumbs", symmetric=False),
    Row("breadcrumbs", {"trim": 0.3, "outliers": 0.25}, symmetric=False),
    Row("breadcrumbs", {"trim": 0.0, "outliers": 0.0}, parents=1),
    Row("lore", parents=2, symmetric=False),
    Row("lore", {"mu": 0.5, "mu_mode": "fraction", "embeddings": True}, 2, symmetric=False),
    Row("lore", {"mu": 0.3, "weights": (0.2, 0.3, 0.6), "iters": 3}, symmetric=False),
    Row("lore", {"mu": 0.2, "mu_mode": "energy", "weights": (0.4, 0.4, 0.4), "iters": 2}),
    Row("lore_base"),
    Row("lore_base", {"mu": 0.4, "mu_mode": "energy", "alpha": (0.3, 0.2, 0.1)}, symmetric=False),
    Row("twin", parents=2, symmetric=False),
    Row("twin", {"gamma": 0.3, "ratio": 0.5, "embeddings": True}, parents=2, symmetric=False),
    Row("twin_base", {"ratio": 0.3}),
    Row("twin_base", {"alpha": (0.1, 0.2, 0.3)}, symmetric=False),
    Row("slerp", {"weight": 0.3}, parents=2, symmetric=False),
    Row("multislerp"),
    Row("multislerp", {"weights": (0.2, 0.5, 0.9)}, symmetric=False),
    Row("karcher"),
    Row("karcher", {"weights": (0.2, 0.5, 0.9), "iters": 3}, symmetric=False),
    Row("model_stock"),
    Row("model_stock", parents=2),
    Row("sce"),
    Row("sce", {"select": 0.3}),
    Row("sce", {"select": 0.6}, parents=2),
]

ROWS += [
    Row("aim"),
    Row("aim", {"omega": 0.0}, parents=2),
    Row("sens", parents=2, symmetric=False, keeps_equal=False),
    Row("sens", {"alpha": 0.4, "scale_base": False}, parents=2, symmetric=False),
    Row("sens_task", symmetric=False),
    Row("sens_task", {"alpha": (0.2, 0.5), "temperature": 3.0}, parents=2, symmetric=False),
    Row("acm"),
    Row("acm", {"shift": "none", "estimator": "hist"}),
    Row("acm", {"shift": "global", "level_matched": True}),
    Row("acm_paper", symmetric=False),
    Row("acm_paper", {"t": -1.8, "estimator": "hist", "level_matched": True}, symmetric=False),
    Row("fim"),
    Row("fim", {"recenter": 0.7, "level_matched": True}, parents=1),
    Row("guard", parents=2, symmetric=False),
    Row("guard", {"ridge": 1e-6, "rest": "slow"}, symmetric=False),
]

every_row = pytest.mark.parametrize("row", ROWS, ids=str)


def parents(row: Row, *shape: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A base and its fine-tunes; deltas on a coarse lattice, so that magnitudes tie."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(shape, generator=generator).bfloat16().float()
    deltas = torch.randn((row.parents, *shape), generator=generator) * 4
    return base, base + deltas.round() / 64


def run(row: Row, base: torch.Tensor, experts: torch.Tensor, **settings: Any) -> torch.Tensor:
    """Apply a row's method with the statistics that it says it needs, and no others."""
    return apply(row.name, base, experts, stats=statistics(row, tuple(base.shape)), **settings)


def statistics(row: Row, shape: tuple[int, ...]) -> Any:
    return only(*get_method(row.name).needs, of=view(shape, row.parents))


def test_every_method_has_a_row() -> None:
    assert {row.name for row in ROWS} == set(methods())


@every_row
def test_shape_dtype_and_finiteness(row: Row) -> None:
    for shape in [(7, 5), (12,), (2, 3, 4)]:
        base, experts = parents(row, *shape)
        merged = run(row, base, experts, **row.knobs)
        sparsifier = get_method(row.name).kind == "sparsifier"
        assert merged.shape == (experts.shape if sparsifier else base.shape)
        assert merged.dtype == torch.float32
        assert torch.isfinite(merged).all()


@every_row
@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1,)], ids=str)
def test_scalar_and_empty_tensors(row: Row, shape: tuple[int, ...]) -> None:
    base, experts = parents(row, *shape)
    merged = run(row, base, experts, **row.knobs)
    assert merged.shape[-len(shape) :] == shape if shape else True
    assert torch.isfinite(merged).all()


@every_row
def test_equal_parents_give_the_parent(row: Row) -> None:
    if not row.keeps_equal:
        pytest.skip("scales the base weights too")
    base, _ = parents(row, 6, 5)
    merged = run(row, base, torch.stack([base] * row.parents), **row.knobs)
    torch.testing.assert_close(merged, base.expand_as(merged), rtol=1e-6, atol=1e-7)


@every_row
def test_inputs_stay_unchanged(row: Row) -> None:
    base, experts = parents(row, 9, 4)
    before = base.clone(), experts.clone()
    run(row, base, experts, **row.knobs)
    assert torch.equal(base, before[0])
    assert torch.equal(experts, before[1])


@every_row
def test_order_of_parents(row: Row) -> None:
    base, experts = parents(row, 40, 30)
    merged = run(row, base, experts, **row.knobs)
    turned = run(row, base, experts.flip(0), **row.knobs)
    same = torch.allclose(merged, turned, rtol=1e-6, atol=1e-6)
    assert same == row.symmetric


@every_row
def test_same_seed_same_bytes_and_another_seed_another_draw(row: Row) -> None:
    base, experts = parents(row, 64, 32)
    first, second, other = (
        run(row, base, experts, seed=seed, tensor="w", **row.knobs) for seed in (1, 1, 2)
    )
    assert torch.equal(first, second)
    random = "rng" in get_method(row.name).inputs and row.knobs.get("drop", 0) < 1
    assert torch.equal(first, other) != random


@every_row
@pytest.mark.parametrize("size", [2, 14, 64, 1000])
def test_any_block_size_gives_the_same_bytes(row: Row, size: int) -> None:
    if not get_method(row.name).pointwise:
        pytest.skip("takes whole tensors")
    base, experts = parents(row, 333)
    whole = run(row, base, experts, tensor="w", **row.knobs)
    assert torch.equal(in_blocks(row, base, experts, size), whole)


def in_blocks(row: Row, base: torch.Tensor, experts: torch.Tensor, size: int) -> torch.Tensor:
    """Take a row's survey and apply its method block by block, as the mixer does."""
    survey = surveyed(row, base, experts, size)
    starts = range(0, len(base), size)
    pieces = [one_block(row, base, experts, start, size, survey) for start in starts]
    return torch.cat(pieces, dim=-1)


def surveyed(row: Row, base: torch.Tensor, experts: torch.Tensor, size: int) -> Any:
    method = get_method(row.name)
    survey = method.survey(**method.settings(row.knobs)) if method.survey else None
    while survey is not None:
        for start in range(0, len(base), size):
            some, part = experts[:, start : start + size], base[start : start + size]
            survey.see(or_zero(part, some), some, Place(0, start))
        if not survey.turn():
            break
    return survey


def one_block(
    row: Row, base: torch.Tensor, experts: torch.Tensor, start: int, size: int, survey: Any
) -> torch.Tensor:
    method, part = get_method(row.name), slice(start, start + size)
    found = survey.result(Place(0, start)) if survey else None
    shape = tuple(base.shape)
    context = Context(
        Draws(0, "w", start), TensorInfo("w", shape), statistics(row, shape), lambda _: found
    )
    merged = experts[:, part].mean(0) if method.kind == "wrapper" else None
    chain = [Link(method, method.settings(row.knobs))]
    return run_chain(chain, base[part], experts[:, part], context, merged)


@every_row
@pytest.mark.parametrize("shape", [(40, 30), (2, 3, 4), (), (0,)], ids=str)
def test_a_card_gives_what_the_processor_gives(row: Row, shape: tuple[int, ...]) -> None:
    base, experts = parents(row, *shape)
    expected = run(row, base, experts, tensor="w", **row.knobs)
    found = run(row, base.to(CARD), experts.to(CARD), tensor="w", **row.knobs)
    assert found.device == CARD
    # decompositions round by how many matrices they are given together
    slack = 1e-6 if row.name.startswith(("lore", "twin")) else 0
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=slack)


@every_row
def test_blocks_on_a_card_give_what_the_processor_gives(row: Row) -> None:
    if not get_method(row.name).pointwise:
        pytest.skip("takes whole tensors")
    base, experts = parents(row, 333)
    found = in_blocks(row, base.to(CARD), experts.to(CARD), 64)
    assert found.device == CARD
    assert torch.equal(found.cpu(), run(row, base, experts, tensor="w", **row.knobs))


@every_row
def test_the_host_seldom_waits_for_a_card_that_merges_a_block(row: Row) -> None:
    if not get_method(row.name).pointwise:
        pytest.skip("takes whole tensors")
    base, experts = (each.to(CARD) for each in parents(row, 100))
    survey = surveyed(row, base, experts, 64)
    with waits() as found:
        one_block(row, base, experts, 0, 64, survey)
    assert len(found) <= 2 * row.parents, found


@every_row
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_methods_whose_inputs_go_unchecked_show_what_is_not_finite(row: Row, value: float) -> None:
    method = get_method(row.name)
    if not transparent([Link(method, method.settings(row.knobs))]):
        pytest.skip("its inputs are checked before")
    for parent in range(row.parents):
        base, experts = parents(row, 9, 4)
        experts[parent, 3, 2] = value
        assert not torch.isfinite(run(row, base, experts, **row.knobs)[3, 2])
    if "base" in method.inputs:
        base, experts = parents(row, 9, 4)
        base[3, 2] = value
        assert not torch.isfinite(run(row, base, experts, **row.knobs)[3, 2])


@pytest.mark.parametrize("name", ["dare", "ties", "breadcrumbs", "lore", "sens"])
def test_methods_that_may_drop_entries_are_given_checked_inputs(name: str) -> None:
    method = get_method(name)
    assert not transparent([Link(method, method.settings({}))])


@pytest.mark.parametrize("name", sorted({row.name for row in ROWS}))
def test_docstring_tells_equation_shapes_and_source(name: str) -> None:
    method = get_method(name)
    text = inspect.getdoc(method.function) or ""
    assert "theta" in text
    assert " = " in text
    assert "shape)" in text
    assert "arXiv" in method.source
    for knob in method.knobs:
        assert f"{knob.name}:" in text, f"{name}: knob {knob.name} is not explained"


@pytest.mark.parametrize(
    ("name", "knobs", "message"),
    [
        ("ties", {"trim": 1.5}, r"ties\.trim: 1\.5 is not allowed"),
        ("ties", {"trim": -0.1}, r"ties\.trim"),
        ("ties", {"trimm": 0.5}, r"unknown knob 'trimm'; did you mean 'trim'\?"),
        ("ties", {"scope": "model"}, r"ties\.scope: 'model' is not allowed"),
        ("ties", {"alpha": float("nan")}, r"ties\.alpha"),
        ("tie", {}, r"unknown method 'tie'; did you mean 'ties'\?"),
        ("interpolation", {"weight": 2}, r"interpolation\.weight"),
        ("average", {"alpha": 1}, r"average: unknown knob 'alpha' \(it has none\)"),
    ],
)
def test_bad_names_and_values_are_refused(name: str, knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(LaconicError, match=message):
        apply(name, torch.zeros(3), torch.zeros(2, 3), **knobs)

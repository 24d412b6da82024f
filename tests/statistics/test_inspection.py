"""Inspection: numbers against a plain computation, coefficients against the methods' own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import thinkers
from checkpoints import pair as write_random_pair
from checkpoints import random_tensors, write_checkpoint
from laconic.errors import LaconicError
from laconic.recipe import parse_recipe
from laconic.statistics.calibrate import calibrate
from laconic.statistics.figure import write_figure
from laconic.statistics.inspection import inspect, module_of, spectrum_of


def test_norms_and_spectra(tmp_path: Path) -> None:
    quick, slow = (load_file(p / "model.safetensors") for p in write_random_pair(tmp_path))
    raw = {"quick": str(tmp_path / "quick"), "slow": str(tmp_path / "slow"), "merge": ["average"]}
    found = inspect(parse_recipe(raw), progress=False)
    assert len(found.rows) == 2 * 9 + 3
    rows = {(row.layer, row.module): row for row in found.rows}
    prefix = "model.layers.1.self_attn.q_proj."
    base = torch.cat([quick[prefix + end].float().flatten() for end in ("weight", "bias")])
    other = torch.cat([slow[prefix + end].float().flatten() for end in ("weight", "bias")])
    row = rows[1, "self_attn.q_proj"]
    assert row.delta["slow"] == pytest.approx(((other - base).norm() / base.norm()).item())
    assert row.parameters == 16 * 17
    delta = slow[prefix + "weight"].float() - quick[prefix + "weight"].float()
    energy = torch.linalg.svdvals(delta.double()).square()
    share = energy / energy.sum()
    rank = (-(share * share.log()).sum()).exp().item()
    assert row.effective_rank["slow"] == pytest.approx(rank, rel=1e-4)
    assert row.top_energy["slow"] == pytest.approx(share[:2].sum().item(), rel=1e-4)
    assert rows[-1, "embed_tokens"].effective_rank == {}
    assert [row.layer for row in found.rows[-3:]] == [-1, -2, -3]
    assert json.dumps(found.to_dict())
    assert len(list(found.lines())) == 1 + len(found.rows)


def test_cosine_of_several_task_vectors(tmp_path: Path) -> None:
    tensors = [{name: t.float() for name, t in random_tensors(seed).items()} for seed in (1, 2, 3)]
    moved = [
        {name: base + 0.1 * (tensors[1][name] + sign * tensors[2][name]) for name, base in
         tensors[0].items()}
        for sign in (1, -1)
    ]  # fmt: skip
    folders = [
        str(write_checkpoint(tmp_path / str(i), each))
        for i, each in enumerate([tensors[0], *moved])
    ]
    recipe = parse_recipe({"base": folders[0], "models": folders[1:], "merge": ["ties"]})
    row = next(row for row in inspect(recipe, progress=False).rows if "q_proj" in row.module)
    prefix = "model.layers.0.self_attn.q_proj."
    deltas = [
        torch.cat([(m[prefix + e] - tensors[0][prefix + e]).flatten() for e in ("weight", "bias")])
        for m in moved
    ]
    expected = torch.cosine_similarity(*deltas, dim=0).item()
    assert row.cosine == {"model 1, model 2": pytest.approx(expected, abs=1e-5)}


def test_spectrum_of_known_matrices() -> None:
    assert spectrum_of(torch.zeros(3, 4)) is None
    assert spectrum_of(torch.eye(20)) == pytest.approx((20, 0.1))
    rank, top = spectrum_of(torch.outer(torch.randn(30), torch.randn(20))) or (0, 0)
    assert rank == pytest.approx(1, abs=1e-3)
    assert top == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("model.layers.12.self_attn.q_proj.bias", "self_attn.q_proj"),
        ("model.layers.3.mlp.experts.17.up_proj.weight", "mlp.experts.up_proj"),
        ("model.embed_tokens.weight", "embed_tokens"),
        ("lm_head.weight", "lm_head"),
    ],
)
def test_module_types(name: str, module: str) -> None:
    assert module_of(name) == module


def test_coefficients_and_figure(tmp_path: Path) -> None:
    thinkers.write_pair(tmp_path)
    stats = tmp_path / "stats"
    chain = ["sens", {"acm": {"level_matched": True}}, {"fim": {"recenter": 0.7}}, "aim", "guard"]
    recipe = thinkers.recipe(tmp_path, *chain, statistics=str(stats))
    calibrate(recipe, stats, progress=False)
    found = inspect(recipe, spectrum=False, progress=False)
    inside = [row for row in found.rows if row.layer >= 0]
    for row in inside:
        linear = not row.module.endswith("norm")
        names = ["sens", "sens base", "acm", "fim", "aim", *["guard"] * linear]
        assert list(row.coefficients) == names
        # c_q + c_s = 2, and alpha is 0.7
        assert row.coefficients["sens base"] + row.coefficients["sens"] / 0.7 == pytest.approx(2)
        assert 0.4 <= row.coefficients["aim"] < 1
        assert 0 <= row.coefficients.get("guard", 0) < 0.6
    assert len({row.coefficients["acm"] for row in inside}) == 1
    layers = {row.layer: row.coefficients["fim"] for row in inside}
    assert sum(layers.values()) / 2 == pytest.approx(0.7)
    assert layers[0] != layers[1]
    figure = write_figure(found, tmp_path / "figure.svg")
    text = figure.read_text()
    assert text.count("<svg") == 1
    assert "coefficient of the step" not in text or "layer" in text
    assert write_figure(found, tmp_path / "again.svg").read_bytes() == figure.read_bytes()


def test_a_recipe_without_base_is_refused(tmp_path: Path) -> None:
    quick, slow = write_random_pair(tmp_path)
    recipe = parse_recipe({"models": [str(quick), str(slow)], "merge": ["average"]})
    with pytest.raises(LaconicError, match="inspect: the recipe has no base"):
        inspect(recipe, progress=False)

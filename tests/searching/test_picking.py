"""The merge that is picked: written by `merge`, equal to the candidate, with its card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from laconic.errors import LaconicError
from laconic.searching.picking import pick
from laconic.searching.search import Options, search
from searching.fakes import Live, study


class Keeping(Live):
    """Keeps a copy of every candidate's tensors, by its weight towards slow."""

    def __init__(self, pair: Path) -> None:
        super().__init__(pair)
        self.kept: dict[float, dict[str, torch.Tensor]] = {}

    def load(self, weights: Any) -> None:
        tensors = {name: tensor.clone() for name, tensor in weights}
        super().load(tensors.items())
        self.kept[round(self.weight, 2)] = tensors


@pytest.fixture
def found(tmp_path: Path) -> Path:
    raw = study(tmp_path, budget={"trials": 11}, objectives={"accuracy": ">= slow - 1 point"})
    raw |= {"output": {"dtype": "bfloat16"}}
    live = Keeping(tmp_path)
    search(raw, out=tmp_path / "out", options=Options(progress=False), runner=live)
    Path(tmp_path / "kept").mkdir()
    torch.save(live.kept[0.4], tmp_path / "kept" / "0.4")
    return tmp_path


def test_the_winner_equals_the_candidate_bit_for_bit(found: Path) -> None:
    picked = pick(found / "out", "accuracy", found / "model")
    assert picked.row["params"] == {"interpolation.weight": 0.4}
    kept = torch.load(found / "kept" / "0.4")
    written = load_file(found / "model" / "model.safetensors")
    assert kept.keys() == written.keys()
    for name, tensor in written.items():
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor.view(torch.int16), kept[name].view(torch.int16)), name


def test_the_card_has_recipe_figures_and_study(found: Path) -> None:
    picked = pick(found / "out", "knee", found / "model")
    card = (found / "model" / "README.md").read_text()
    assert picked.recipe_hash in card
    assert "weight: 0.4" in card
    assert "this merge (knee of study " in card
    assert "| slow | parent | validation |" in card
    assert "100.0%" in card


def test_a_floor_bounds_the_pick(found: Path) -> None:
    with pytest.raises(LaconicError, match="tokens=20: no merge of the front is within the bounds"):
        pick(found / "out", "tokens=20", found / "model")
    assert not (found / "model").exists()


def test_a_search_that_is_not_complete(found: Path, tmp_path: Path) -> None:
    (found / "out" / "front.json").unlink()
    with pytest.raises(LaconicError, match="the search is not complete: it has no front.json"):
        pick(found / "out", "knee", found / "model")
    with pytest.raises(LaconicError, match="not a search folder: it has no study.json"):
        pick(found / "quick", "knee", found / "model")

"""Live merges equal written ones bit for bit, whatever the method."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import thinkers
from laconic.errors import LaconicError
from laconic.merging import live
from laconic.merging.engine import merge
from laconic.merging.live import LiveMerge
from laconic.merging.memory import fit
from laconic.recipe import parse_recipe

CHAINS: dict[str, list[Any]] = {
    "interpolation": [{"interpolation": {"weight": 0.37}}],
    "ties": [{"ties": {"trim": 0.6, "alpha": 0.8}}],
    "global ties": [{"ties": {"trim": 0.6, "scope": "global"}}],
    "a chain": [{"dare": {"drop": 0.3}}, {"task_arithmetic": {"alpha": 0.7}}],
    "a whole-tensor method": [{"twin_base": {"ratio": 0.3}}],
}


def recipe(folder: Path, chain: list[Any], **extra: Any) -> Any:
    raw = {"quick": str(folder / "quick"), "slow": str(folder / "slow"), "merge": chain}
    return parse_recipe({**raw, **extra})


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return thinkers.write_pair(tmp_path_factory.mktemp("pair"))


@pytest.mark.parametrize("name", CHAINS)
def test_a_live_merge_equals_the_written_one(pair: Path, tmp_path: Path, name: str) -> None:
    rules = [{"layers": "0", "set": {f"{next(iter(CHAINS[name][-1]))}.{knob}": 0.21}}
             for knob in ("weight", "alpha") if knob in str(CHAINS[name][-1])]  # fmt: skip
    made = recipe(pair, CHAINS[name], rules=[] if "global" in str(CHAINS[name]) else rules, seed=3)
    merged = LiveMerge(recipe(pair, ["interpolation"]), threads=2)
    found = dict(merged.tensors(made))
    merge(made, tmp_path / "out", progress=False)
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert found.keys() == written.keys()
    for tensor, values in written.items():
        assert found[tensor].dtype == values.dtype == torch.bfloat16
        assert torch.equal(found[tensor].view(torch.int16), values.view(torch.int16)), tensor


def test_tensors_of_several_blocks(
    pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "fit", partial(fit, block=100))
    made = recipe(pair, CHAINS["ties"])
    found = dict(LiveMerge(made, threads=2).tensors(made))
    merge(made, tmp_path / "out", progress=False)
    for tensor, values in load_file(tmp_path / "out" / "model.safetensors").items():
        assert torch.equal(found[tensor], values), tensor


def test_merges_do_not_disturb_each_other(pair: Path) -> None:
    merged = LiveMerge(recipe(pair, ["interpolation"]), threads=2)
    half = recipe(pair, [{"interpolation": {"weight": 0.5}}])
    first = dict(merged.tensors(half))
    list(merged.tensors(recipe(pair, [{"ties": {"trim": 0.5}}])))
    assert all(torch.equal(t, first[name]) for name, t in merged.tensors(half))


def test_the_files_are_read_once(pair: Path, tmp_path: Path) -> None:
    moved = thinkers.write_pair(tmp_path / "moved")
    merged = LiveMerge(recipe(moved, ["interpolation"]), threads=1)
    for role in ("quick", "slow"):
        (moved / role / "model.safetensors").unlink()
    assert len(dict(merged.tensors(recipe(moved, [{"ties": {"trim": 0.5}}])))) > 10


def test_other_parents_are_refused(pair: Path, tmp_path: Path) -> None:
    merged = LiveMerge(recipe(pair, ["interpolation"]))
    for other in (
        recipe(pair, ["interpolation"], output={"dtype": "float32"}),
        parse_recipe({"quick": "a", "slow": "b", "merge": ["interpolation"]}),
    ):
        with pytest.raises(LaconicError, match="only for the same parents and output"):
            list(merged.tensors(other))


def test_the_digest_names_the_weights(pair: Path, tmp_path: Path) -> None:
    one = LiveMerge(recipe(pair, ["interpolation"])).digest
    same = thinkers.write_pair(tmp_path / "same")
    assert LiveMerge(recipe(same, ["interpolation"])).digest == one
    swapped = {"quick": str(pair / "slow"), "slow": str(pair / "quick"), "merge": ["interpolation"]}
    assert LiveMerge(parse_recipe(swapped)).digest != one

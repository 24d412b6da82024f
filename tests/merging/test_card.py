"""Merging on a card: the stand-in's results, and what goes to and fro."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from checkpoints import pair, random_tensors, write_checkpoint
from laconic.checkpoint.manifest import read_manifest, verify
from laconic.cli import main
from laconic.errors import LaconicError
from laconic.merging.card import Card, Landing, card_named
from laconic.merging.engine import merge, sweep
from laconic.merging.live import LiveMerge
from laconic.merging.memory import fit, whole_bytes
from laconic.merging.stream import BlockStream
from laconic.plan import make_plan
from laconic.recipe import Recipe, parse_recipe
from stand_in_card import CARD

NAME = str(CARD)
CHAINS: list[list[Any]] = [
    ["average"],
    [{"task_arithmetic": {"alpha": 0.7}}],
    [{"ties": {"trim": 0.4, "rule": "exact"}}],
    [{"ties": {"trim": 0.4, "rule": "exact", "scope": "global"}}],
    [{"dare": {"drop": 0.3}}, {"ties": {"trim": 0.8, "scope": "global"}}],
    ["slerp"],
    ["twin"],
]


class Event:
    """An event of the stand-in, whose work is always done at once; counts the waiting."""

    waited = 0

    def record(self, _: object) -> None: ...

    def synchronize(self) -> None:
        Event.waited += 1


@pytest.fixture(autouse=True)
def module(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What torch offers for a kind of card, beside its tensors."""
    made = SimpleNamespace(
        Event=Event,
        current_stream=lambda _: None,
        mem_get_info=lambda _: (8 << 30, 16 << 30),
    )
    monkeypatch.setattr(torch, "lazy", made, raising=False)
    return made


def recipe(folder: Path, chain: list[Any]) -> Recipe:
    models = {"quick": str(folder / "quick"), "slow": str(folder / "slow")}
    return parse_recipe({**models, "merge": chain, "seed": 5})


def weights(out: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(out / "model.safetensors"))


def close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], slack: float) -> bool:
    return found.keys() == expected.keys() and all(
        torch.allclose(found[name].float(), value.float(), rtol=slack, atol=slack)
        for name, value in expected.items()
    )


@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: json.dumps(chain))
@pytest.mark.parametrize(("block", "held"), [(1 << 18, True), (1000, False)])
def test_the_merge_is_that_of_the_processor(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    chain: list[Any],
    block: int,
    held: bool,
) -> None:
    if not held:
        monkeypatch.setattr("laconic.merging.stream._aligned", lambda _: 1 << 60)
    pair(tmp_path)
    made = recipe(tmp_path, chain)
    merge(made, tmp_path / "cpu", block=block, progress=False)
    merge(made, tmp_path / "card", block=block, device=NAME, progress=False)
    slack = 1e-2 if chain == ["twin"] else 0.0  # matrices are decomposed together on a card
    assert close(weights(tmp_path / "card"), weights(tmp_path / "cpu"), slack)
    assert verify(tmp_path / "card", inputs=True).ok
    cpu, card = (read_manifest(tmp_path / out) for out in ("cpu", "card"))
    assert cpu["parents"] == card["parents"]
    assert (cpu["plan"]["device"], card["plan"]["device"]) == ("cpu", "lazy")


@pytest.mark.parametrize("chain", [["ties"], ["twin"]])
def test_blocks_stand_on_the_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chain: list[Any]
) -> None:
    pair(tmp_path)
    plain, seen = BlockStream.blocks, []

    def blocks(self: BlockStream, *arguments: Any, **settings: Any) -> Any:
        for block in plain(self, *arguments, **settings):
            seen.append(block.experts.device)
            yield block

    monkeypatch.setattr(BlockStream, "blocks", blocks)
    merge(recipe(tmp_path, chain), tmp_path / "out", block=50, device=NAME, progress=False)
    assert set(seen) == {CARD}


def test_a_merge_of_the_processor_is_not_one_of_the_card(tmp_path: Path) -> None:
    pair(tmp_path)
    made = recipe(tmp_path, ["average"])
    merge(made, tmp_path / "out", progress=False)
    with pytest.raises(LaconicError, match="exists already"):
        merge(made, tmp_path / "out", device=NAME, progress=False)
    merge(made, tmp_path / "out", device=NAME, force=True, progress=False)
    again = merge(made, tmp_path / "out", device=NAME, progress=False)
    assert again.resumed == again.tensors


def test_a_sweep_on_a_card(tmp_path: Path) -> None:
    pair(tmp_path)
    made = recipe(tmp_path, [{"ties": {"trim": 0.5}}])
    for device in ("cpu", NAME):
        sweep(made, "alpha=0.3,0.6", tmp_path / device, device=device, progress=False)
    for name in ("alpha-0.3", "alpha-0.6"):
        assert close(weights(tmp_path / NAME / name), weights(tmp_path / "cpu" / name), 0.0)


def test_a_live_merge_stays_on_the_card(tmp_path: Path) -> None:
    pair(tmp_path)
    made = recipe(tmp_path, [{"ties": {"trim": 0.5}}])
    merge(made, tmp_path / "out", progress=False)
    live = LiveMerge(made, device=NAME)
    found = dict(live.tensors(made))
    assert {tensor.device for tensor in found.values()} == {CARD}
    assert {tensor.device for tensor in live._reader._held.values()} == {CARD}
    assert close({n: t.cpu() for n, t in found.items()}, weights(tmp_path / "out"), 0.0)
    assert live.digest == LiveMerge(made).digest


def test_weights_that_are_not_finite_are_named(tmp_path: Path) -> None:
    pair(tmp_path)
    tensors = random_tensors(1)
    tensors["model.norm.weight"][3] = float("nan")
    write_checkpoint(tmp_path / "slow", tensors)
    with pytest.raises(LaconicError, match=r"model\.norm\.weight.* nan at entry 3"):
        merge(recipe(tmp_path, ["average"]), tmp_path / "out", device=NAME, progress=False)


def test_a_buffer_is_filled_again_only_when_its_bytes_have_left() -> None:
    class Clock(Card):
        """Counts the marks; knows which of them were waited for."""

        marks = 0
        past: set[int]

        def mark(self) -> Any:
            number = self.marks = self.marks + 1
            return SimpleNamespace(synchronize=lambda: self.past.add(number))

    card = Clock(CARD)
    card.past = set()
    landing, into = Landing(card), torch.empty(64, dtype=torch.uint8, device=CARD)
    places = []
    for number in range(6):
        space = landing.space(64)
        places.append(space.data_ptr())
        assert card.past == set(range(1, number))  # all but the last one's
        space.fill_(number)
        landing.send(into)
        assert into.cpu().tolist() == [number] * 64
    assert places[0] != places[1]
    assert places == places[:2] * 3


def test_memory_of_the_card_is_shared_out(tmp_path: Path, module: SimpleNamespace) -> None:
    for seed, role in enumerate(("quick", "slow")):
        tensors = random_tensors(seed)
        tensors["model.layers.0.mlp.gate_proj.weight"] = torch.zeros(600, 600).bfloat16()
        write_checkpoint(tmp_path / role, tensors)
    plan, card = make_plan(recipe(tmp_path, ["twin"])), card_named(NAME)
    assert card
    found = fit(plan, None, threads=4, block=1 << 14, card=card)
    assert found.threads == 4
    assert found.whole
    assert 4 * found.held + found.whole <= card.free()
    largest = max(map(whole_bytes, plan.steps))
    module.mem_get_info = lambda _: (int(largest * 1.3) + (8 << 20), 0)
    less = fit(plan, None, threads=4, block=1 << 14, card=card)
    assert less.whole
    assert less.whole >= largest
    module.mem_get_info = lambda _: (largest // 2, 0)
    with pytest.raises(LaconicError, match=r"too little: .* for tensor 'model\.layers\.0\.mlp"):
        fit(plan, None, card=card)
    with pytest.raises(LaconicError, match="a cap is kept on the processor only"):
        fit(plan, 10**10, card=card)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cuda:99", "this machine has . CUDA devices"),
        ("meta", "runs on cpu or cuda"),
        ("toaster", "unknown device 'toaster'"),
    ],
)
def test_a_device_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    pair(tmp_path)
    parents = ["--quick", str(tmp_path / "quick"), "--slow", str(tmp_path / "slow")]
    with pytest.raises(SystemExit) as stopped:
        main(["merge", str(tmp_path / "out"), "--method", "average", *parents, "--device", name])
    assert stopped.value.code == 2
    with pytest.raises(LaconicError, match=message):
        card_named(name)
    assert message.split("'")[0].replace(".", "0") in capsys.readouterr().err.replace(" 1 ", " 0 ")
    assert not (tmp_path / "out").exists()


def test_pinned_memory_is_asked_for_on_cuda_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, asked = torch.empty, []

    def empty(*shape: int, pin_memory: bool = False, **settings: Any) -> torch.Tensor:
        asked.append(pin_memory)
        return plain(*shape, **settings)

    monkeypatch.setattr(torch, "empty", empty)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (0, 0))
    for device, pinned in ((torch.device("cuda"), True), (CARD, False)):
        landing = Landing(Card(device))
        asked.clear()
        landing.space(8)
        assert asked == [pinned]

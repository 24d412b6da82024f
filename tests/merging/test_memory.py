from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from checkpoints import folder_digest, pair, random_tensors, write_checkpoint
from laconic.errors import LaconicError
from laconic.merging.engine import merge
from laconic.merging.memory import Room, fit, resident, whole_bytes
from laconic.merging.stream import HELD
from laconic.plan import Plan, make_plan
from laconic.recipe import Recipe, parse_recipe

LARGE = "model.layers.0.mlp.gate_proj.weight"
MEASURED = """
import json, resource, sys
from laconic.merging import engine, memory
from laconic.recipe import parse_recipe
from laconic.registry import methods
methods()
floor, cap = memory.resident(), int(sys.argv[3])
recipe = parse_recipe(json.loads(sys.argv[1]))
result = engine.merge(recipe, sys.argv[2], memory=floor + cap if cap else None, threads=4,
                      progress=False)
print(json.dumps([floor, result.peak_memory]))
"""


def recipe(folder: Path, chain: list[Any]) -> Recipe:
    return parse_recipe(raw(folder, chain))


def raw(folder: Path, chain: list[Any]) -> dict[str, Any]:
    return {"quick": str(folder / "quick"), "slow": str(folder / "slow"), "merge": chain}


def planned(folder: Path, chain: list[Any]) -> Plan:
    return make_plan(recipe(folder, chain))


def large_pair(folder: Path, rows: int, columns: int) -> None:
    for seed, role in enumerate(("quick", "slow")):
        tensors = random_tensors(seed)
        generator = torch.Generator().manual_seed(seed)
        for layer in (0, 1):
            name = LARGE.replace(".0.", f".{layer}.")
            tensors[name] = torch.randn(rows, columns, generator=generator).bfloat16()
        write_checkpoint(folder / role, tensors)


def peak(folder: Path, chain: list[Any], out: str, megabytes: int) -> int:
    """Bytes above the imported package that a merge in a process of its own took at its peak."""
    arguments = [json.dumps(raw(folder, chain)), str(folder / out), str(megabytes * 10**6)]
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *arguments], check=True, capture_output=True, text=True
    )
    floor, most = json.loads(done.stdout)
    return int(most - floor)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chain", "megabytes"),
    [(["task_arithmetic"], 60), ([{"ties": {"scope": "global"}}], 250), (["lore"], 450)],
    ids=["task_arithmetic", "ties", "lore"],
)
def test_a_cap_is_kept_and_changes_no_byte(
    tmp_path: Path, chain: list[Any], megabytes: int
) -> None:
    large_pair(tmp_path, 2900, 900)
    assert peak(tmp_path, chain, "capped", megabytes) < megabytes * 10**6
    peak(tmp_path, chain, "free", 0)
    assert folder_digest(tmp_path / "capped") == folder_digest(tmp_path / "free")


def test_the_peak_is_this_process_own_not_that_of_the_one_that_started_it() -> None:
    ballast = torch.ones(150 << 20, dtype=torch.uint8)
    code = "from laconic.merging.memory import peak, resident; now = resident(); print(peak(), now)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    most, now = map(int, done.stdout.split())
    assert resident() > len(ballast)
    assert now <= most < now + (100 << 20)


def test_less_memory_holds_less_then_reads_smaller_blocks_then_takes_fewer_threads(
    tmp_path: Path,
) -> None:
    large_pair(tmp_path, 3000, 1000)
    plan = planned(tmp_path, ["ties"])
    found = [fit(plan, resident() + mb * 10**6, threads=4) for mb in (10_000, 500, 250)]
    keys = [(memory.threads, memory.block, memory.held) for memory in found]
    assert keys[0] == (4, 1 << 18, HELD)
    assert keys == sorted(keys, reverse=True)
    assert len(set(keys)) == len(keys)
    assert fit(plan, None, threads=4).whole is None


def test_a_tensor_that_must_be_whole_is_named_with_its_bytes(tmp_path: Path) -> None:
    large_pair(tmp_path, 3000, 1000)
    plan = planned(tmp_path, ["lore"])
    step = next(step for step in plan.steps if step.output.name == LARGE)
    with pytest.raises(LaconicError, match="memory: a cap of .* is too small") as error:
        fit(plan, resident() + 100 * 10**6)
    need = f"tensor '{LARGE}': is merged whole by its method, which needs {whole_bytes(step):,}"
    assert need in str(error.value)
    assert "embed_tokens" not in str(error.value)


def test_a_cap_below_the_libraries_is_refused_before_any_work(tmp_path: Path) -> None:
    pair(tmp_path)
    with pytest.raises(LaconicError, match=r"for Python and its libraries"):
        merge(recipe(tmp_path, ["average"]), tmp_path / "out", memory=1000)
    assert not [p for p in tmp_path.iterdir() if "out" in p.name]


def test_room_waits_until_enough_is_given_back() -> None:
    import threading

    room, order = Room(10), []
    first = room.take(8)
    first.__enter__()

    def second() -> None:
        with room.take(5):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    thread.join(0.05)
    assert not order
    first.__exit__(None, None, None)
    thread.join(5)
    assert order == ["second"]


@pytest.mark.parametrize("chain", [[{"della": {"drop": 0.4}}, "average"], ["lore"], ["twin"]])
def test_methods_that_stream_rows_or_dense_tensors_give_the_same_bytes(
    tmp_path: Path, chain: list[Any]
) -> None:
    pair(tmp_path)
    for number, block in enumerate((1 << 18, 48, 2)):
        merge(recipe(tmp_path, chain), tmp_path / f"out{number}", block=block, progress=False)
    first, *others = (folder_digest(tmp_path / f"out{number}") for number in range(3))
    assert others == [first, first]


def test_only_matrices_inside_the_layers_are_whole_for_low_rank(tmp_path: Path) -> None:
    large_pair(tmp_path, 300, 200)
    whole = [s.output.name for s in planned(tmp_path, ["lore"]).steps if whole_bytes(s)]
    assert whole == [LARGE, LARGE.replace(".0.", ".1.")]
    assert not any(map(whole_bytes, planned(tmp_path, ["ties"]).steps))


def test_a_bracket_with_too_many_ties_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from laconic.merging import bracket

    pair(tmp_path)
    merge(recipe(tmp_path, ["ties"]), tmp_path / "plain")
    counted: list[object] = []
    kept: list[int] = []
    close = bracket._Bracket.close

    def closing(self: Any, trim: float) -> bool:
        kept.append(sum(map(len, self._inside.values())))
        return close(self, trim)

    monkeypatch.setattr(bracket._Bracket, "close", closing)
    survey = bracket.TrimSurvey
    monkeypatch.setattr(bracket, "MOST_INSIDE", 0)
    monkeypatch.setattr(bracket, "TrimSurvey", lambda *a: counted.append(a) or survey(*a))
    merge(recipe(tmp_path, ["ties"]), tmp_path / "out", block=4)
    assert counted
    assert kept
    assert not any(kept)
    plain, out = (load_file(tmp_path / n / "model.safetensors") for n in ("plain", "out"))
    assert all(torch.equal(out[name], tensor) for name, tensor in plain.items())

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from checkpoints import folder_digest, pair, random_tensors, write_checkpoint
from laconic.checkpoint.manifest import verify
from laconic.errors import LaconicError
from laconic.merging.apply import Context, Link, TensorInfo, run_chain
from laconic.merging.draws import Draws
from laconic.merging.engine import merge
from laconic.recipe import Recipe, parse_recipe
from laconic.registry import get_method

CHAINS: list[list[Any]] = [
    ["average"],
    [{"interpolation": {"weight": 0.3}}],
    [{"task_arithmetic": {"alpha": 0.7}}],
    ["ties"],
    [{"ties": {"trim": 0.4, "rule": "exact", "scope": "global"}}],
    [{"dare": {"drop": 0.3}}, "average"],
    [{"dare": {"drop": 0.3}}, {"ties": {"trim": 0.8, "scope": "global"}}],
]


def recipe(folder: Path, chain: list[Any] | None = None, **extra: Any) -> Recipe:
    models = {"quick": str(folder / "quick"), "slow": str(folder / "slow")}
    return parse_recipe({**models, "merge": chain or ["task_arithmetic"], **extra})


def test_every_tensor_equals_the_method_on_whole_tensors(tmp_path: Path) -> None:
    quick, slow = (load_file(p / "model.safetensors") for p in pair(tmp_path))
    merge(recipe(tmp_path, [{"dare": {"drop": 0.3}}, "ties"], seed=3), tmp_path / "out")
    stages: list[tuple[str, dict[str, Any]]] = [("dare", {"drop": 0.3}), ("ties", {})]
    chain = [Link(get_method(name), get_method(name).settings(knobs)) for name, knobs in stages]
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert found.keys() == quick.keys()
    for name, base in quick.items():
        expert = slow[name].float()[None]
        context = Context(Draws(3, name), TensorInfo(name, tuple(base.shape)))
        expected = run_chain(chain, base.float(), expert, context)
        assert torch.equal(found[name], expected.bfloat16()), name


@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: json.dumps(chain))
def test_block_size_and_threads_change_no_byte(tmp_path: Path, chain: list[Any]) -> None:
    pair(tmp_path, shards=2)
    expected = None
    for number, (block, threads) in enumerate([(1 << 18, 1), (2, 3), (50, 8)]):
        out = tmp_path / f"out{number}"
        merge(recipe(tmp_path, chain), out, block=block, threads=threads, progress=False)
        digest = folder_digest(out)
        expected = expected or digest
        assert digest == expected


def test_output_dtype_and_shards(tmp_path: Path) -> None:
    pair(tmp_path)
    output = {"dtype": "float32", "shard_size": "2KB"}
    result = merge(recipe(tmp_path, output=output), tmp_path / "out")
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 3
    assert result.bytes == 2 * merge(recipe(tmp_path), tmp_path / "half").bytes
    assert verify(tmp_path / "out").ok


def test_rules_change_knobs_and_copy_parents(tmp_path: Path) -> None:
    quick, slow = (load_file(p / "model.safetensors") for p in pair(tmp_path))
    rules = [
        {"match": "lm_head.*", "take": "slow"},
        {"match": "*.mlp.*", "set": {"task_arithmetic.alpha": 1.0}},
        {"match": "*.layers.1.*", "take": "quick"},
    ]
    merge(recipe(tmp_path, [{"task_arithmetic": {"alpha": 0.0}}], rules=rules), tmp_path / "out")
    found = load_file(tmp_path / "out" / "model.safetensors")
    for name, tensor in found.items():
        expected = slow if "lm_head" in name or ".mlp." in name else quick
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize(
    ("policy", "quick_tied", "slow_tied", "head"),
    [
        ("untie_any", True, False, "mix"),
        ("untie_any", False, True, "mix"),
        ("untie_any", True, True, None),
        ("base", True, False, None),
        ("base", False, True, "mix"),
    ],
)
def test_tied_embeddings(
    tmp_path: Path, policy: str, quick_tied: bool, slow_tied: bool, head: str | None
) -> None:
    parents = {}
    for seed, (role, tied) in enumerate({"quick": quick_tied, "slow": slow_tied}.items()):
        parents[role] = random_tensors(seed, tied=tied)
        write_checkpoint(tmp_path / role, parents[role], tie_word_embeddings=tied)
    merge(recipe(tmp_path, ["average"], output={"tie_policy": policy}), tmp_path / "out")
    found = load_file(tmp_path / "out" / "model.safetensors")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["tie_word_embeddings"] == (head is None)
    assert ("lm_head.weight" in found) == (head is not None)
    if head:
        own = [p.get("lm_head.weight", p["model.embed_tokens.weight"]) for p in parents.values()]
        expected = torch.stack(own).float().mean(0).bfloat16()
        assert torch.equal(found["lm_head.weight"], expected)


def test_a_tie_mismatch_can_be_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "quick", random_tensors(0, tied=True), tie_word_embeddings=True)
    write_checkpoint(tmp_path / "slow", random_tensors(1))
    with pytest.raises(LaconicError, match="tie"):
        merge(recipe(tmp_path, output={"tie_policy": "error"}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("method", ["ties", "average"])
def test_weights_that_are_not_finite(tmp_path: Path, value: float, method: str) -> None:
    _, slow = pair(tmp_path)
    tensors = load_file(slow / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 2] = value
    save_file(tensors, slow / "model.safetensors")
    message = r"slow/model\.safetensors: tensor 'model\.layers\.1\.mlp\.up_proj\.weight' of slow"
    with pytest.raises(LaconicError, match=message + ".* at entry 50"):
        merge(recipe(tmp_path, [method]), tmp_path / "out", block=16)
    assert not (tmp_path / "out").exists()


def test_a_result_too_large_for_its_dtype(tmp_path: Path) -> None:
    tensors = {name: t.float() * 1e7 for name, t in random_tensors(0).items()}
    write_checkpoint(tmp_path / "quick", tensors)
    write_checkpoint(tmp_path / "slow", tensors)
    with pytest.raises(LaconicError, match="not finite in F16"):
        merge(recipe(tmp_path, output={"dtype": "float16"}), tmp_path / "out")


def test_output_inside_an_input_is_refused(tmp_path: Path) -> None:
    quick, slow = pair(tmp_path)
    before = folder_digest(tmp_path)
    link = tmp_path / "link"
    link.symlink_to(slow)
    for out in (quick, slow / "merged", link, tmp_path):
        with pytest.raises(LaconicError, match="choose another output folder"):
            merge(recipe(tmp_path), out, force=True)
    link.unlink()
    assert folder_digest(tmp_path) == before


def test_a_finished_output_needs_force(tmp_path: Path) -> None:
    pair(tmp_path)
    merge(recipe(tmp_path, output={"shard_size": "1KB"}), tmp_path / "out")
    with pytest.raises(LaconicError, match="exists already; --force"):
        merge(recipe(tmp_path, ["average"]), tmp_path / "out")
    merge(recipe(tmp_path, ["average"]), tmp_path / "out", force=True)
    merge(recipe(tmp_path, ["average"]), tmp_path / "fresh")
    assert folder_digest(tmp_path / "out") == folder_digest(tmp_path / "fresh")


def test_the_same_command_on_a_finished_output_changes_nothing(tmp_path: Path) -> None:
    pair(tmp_path)
    first = merge(recipe(tmp_path), tmp_path / "out")
    stamp = (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns
    again = merge(recipe(tmp_path), tmp_path / "out")
    assert (again.resumed, again.recipe_hash) == (again.tensors, first.recipe_hash)
    assert (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns == stamp
    quick = tmp_path / "quick"
    write_checkpoint(quick, {name: t * 2 for name, t in random_tensors(1).items()})
    with pytest.raises(LaconicError, match="exists already"):
        merge(recipe(tmp_path), tmp_path / "out")


def test_a_parent_changed_during_the_merge_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, slow = pair(tmp_path)
    from laconic.merging import engine

    plain = engine.parent_records

    def meddle(*arguments: Any) -> Any:
        os.utime(slow / "model.safetensors", ns=(1, 1))
        return plain(*arguments)

    monkeypatch.setattr(engine, "parent_records", meddle)
    with pytest.raises(LaconicError, match=r"slow/model\.safetensors: changed while"):
        merge(recipe(tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_eight_thousand_tensors_take_seconds(tmp_path: Path) -> None:
    tensors = random_tensors(0, layers=660)
    assert len(tensors) > 7900
    write_checkpoint(tmp_path / "quick", tensors, num_hidden_layers=660)
    write_checkpoint(tmp_path / "slow", tensors, num_hidden_layers=660)
    began = time.process_time()
    result = merge(recipe(tmp_path, ["ties"]), tmp_path / "out", progress=False)
    assert result.tensors == len(tensors)
    assert time.process_time() - began < 60  # quadratic work would take many minutes


KILLED = """
import sys, time
from laconic.merging import engine, stream
from laconic.recipe import parse_recipe
plain = stream.BlockStream.blocks
def slow(self, *arguments, **settings):
    for block in plain(self, *arguments, **settings):
        time.sleep(0.001)
        yield block
stream.BlockStream.blocks = slow
folder = sys.argv[1]
recipe = parse_recipe({"quick": f"{folder}/quick", "slow": f"{folder}/slow", "merge": ["ties"],
                       "output": {"shard_size": "4KB"}})
print("ready", flush=True)
engine.merge(recipe, f"{folder}/out", block=64, threads=2, progress=False)
"""


def test_killed_anywhere_it_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    pair(tmp_path)
    merge(recipe(tmp_path, ["ties"], output={"shard_size": "4KB"}), tmp_path / "unbroken")
    expected = folder_digest(tmp_path / "unbroken")
    chance = random.Random(11)
    kills = resumed = 0
    while kills < 5:
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(chance.uniform(0.0, 0.4))
        process.send_signal(signal.SIGKILL)
        if process.wait() == 0:
            break
        kills += 1
        finished = tmp_path / "out"
        assert not finished.exists() or folder_digest(finished) == expected
    result = merge(recipe(tmp_path, ["ties"], output={"shard_size": "4KB"}), tmp_path / "out")
    resumed = result.resumed
    assert kills
    assert folder_digest(tmp_path / "out") == expected
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert resumed > 0

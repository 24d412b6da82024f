from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from blake3 import blake3
from safetensors.torch import load_file, save_file

from checkpoints import pair
from laconic.checkpoint.manifest import parent_records, read_manifest, verify
from laconic.errors import LaconicError
from laconic.merging import engine
from laconic.merging.memory import Memory
from laconic.recipe import Recipe, parse_recipe
from laconic.tensors.digests import Digests, digest_tensor
from laconic.tensors.header import read_header
from laconic.tensors.sink import Sink
from laconic.tensors.source import open_source


def recipe(folder: Path, *chain: Any) -> Recipe:
    models = {"quick": str(folder / "quick"), "slow": str(folder / "slow")}
    rules = [{"match": "lm_head.*", "take": "slow"}]
    return parse_recipe({**models, "merge": list(chain), "rules": rules})


def test_a_files_digest_is_of_header_and_tensors(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(5), "a": torch.zeros(0), "c": torch.ones(2, 2)}
    path = tmp_path / "model.safetensors"
    save_file(tensors, path)
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    parts = [
        data[stored.offset : stored.offset + stored.spec.nbytes]
        for stored in read_header(path).values()
    ]
    expected = blake3(data[:start] + b"".join(blake3(part).digest() for part in parts))
    assert Digests().of_file(path) == expected.hexdigest()


def test_a_tensor_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(3)}, path)
    stored = read_header(path)["a"]
    path.unlink()
    with pytest.raises(LaconicError, match=r"model\.safetensors: cannot read tensor 'a': No such"):
        digest_tensor(stored)


def test_every_byte_of_a_file_counts(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(3), "bb": torch.ones(2)}, path, metadata={"x": "y"})
    whole, seen = path.read_bytes(), {Digests().of_file(path)}
    for at in (whole.index(b'"y"') + 1, len(whole) - 20, len(whole) - 1):
        data = bytearray(whole)
        data[at] ^= 1
        path.write_bytes(data)
        seen.add(Digests().of_file(path))
    assert len(seen) == 4


def test_what_was_noted_is_not_read_again(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(3), "b": torch.ones(2)}, path)
    first, second = read_header(path).values()
    digests = Digests()
    digests.put(first, "ab" * 32)
    assert digests.missing([path]) == [second]
    assert digests.of(first) == "ab" * 32
    assert digests.of_file(path) != Digests().of_file(path)


@pytest.mark.parametrize(
    "chain",
    [
        ["average"],
        ["ties"],
        [{"ties": {"scope": "global"}}],
        [{"dare": {"drop": 0.3}}, "average"],
        ["lore"],
    ],
    ids=str,
)
@pytest.mark.parametrize("block", [1 << 18, 64])
def test_a_merge_notes_the_digests_of_what_it_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chain: list[Any], block: int
) -> None:
    pair(tmp_path, shards=2)
    later: list[str] = []
    plain = Digests.missing

    def missing(self: Digests, files: Any) -> Any:
        found = plain(self, files)
        later.extend(tensor.spec.name for tensor in found)
        return found

    monkeypatch.setattr(Digests, "missing", missing)
    made = recipe(tmp_path, *chain)
    engine.merge(made, tmp_path / "out", block=block, progress=False)
    roles = {"base": "quick", "quick": "quick", "slow": "slow"}
    fresh = parent_records({role: open_source(tmp_path / name) for role, name in roles.items()})
    assert read_manifest(tmp_path / "out")["parents"] == fresh
    assert set(later) == {"lm_head.weight"}  # of the quick model, which the rule leaves out


def test_digests_of_tensors_that_are_read_for_every_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair(tmp_path)
    monkeypatch.setattr(engine, "fit", lambda *_, **__: Memory(1, 1 << 18, held=0))
    engine.merge(recipe(tmp_path, "ties"), tmp_path / "out", progress=False)
    assert verify(tmp_path / "out", inputs=True).ok


def test_a_merge_of_many_tensors_held_for_several_passes(tmp_path: Path) -> None:
    pair(tmp_path)
    engine.merge(recipe(tmp_path, "ties"), tmp_path / "out", threads=1, block=16, progress=False)
    assert verify(tmp_path / "out", inputs=True).ok


def test_a_resumed_merge_knows_what_was_read_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair(tmp_path)
    plain, done = Sink.finish, []

    def failing(self: Any, *rest: Any) -> None:
        if len(done) == 5:
            raise RuntimeError("power")
        done.append(1)
        plain(self, *rest)

    monkeypatch.setattr(Sink, "finish", failing)
    with pytest.raises(RuntimeError, match="power"):
        engine.merge(recipe(tmp_path, "ties"), tmp_path / "out", threads=1, progress=False)
    monkeypatch.setattr(Sink, "finish", plain)
    asked: list[int] = []
    missing = Digests.missing
    monkeypatch.setattr(
        Digests, "missing", lambda self, files: asked.append(len(f := missing(self, files))) or f
    )
    result = engine.merge(recipe(tmp_path, "ties"), tmp_path / "out", progress=False)
    assert result.resumed == 5
    assert asked == [1]
    assert verify(tmp_path / "out", inputs=True).ok


def test_a_changed_parent_is_found_by_verify(tmp_path: Path) -> None:
    _, slow = pair(tmp_path)
    engine.merge(recipe(tmp_path, "average"), tmp_path / "out", progress=False)
    tensors = load_file(slow / "model.safetensors")
    tensors["model.norm.weight"][0] += 1
    save_file(tensors, slow / "model.safetensors", metadata={"format": "pt"})
    problems = verify(tmp_path / "out", inputs=True).problems
    assert problems
    assert all("input of slow" in p and "changed since the merge" in p for p in problems)

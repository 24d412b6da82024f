from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from checkpoints import random_tensors, write_checkpoint
from laconic.errors import LaconicError
from laconic.tensors.source import Reader, open_source


def test_sharded_and_unsharded_folders_hold_the_same_tensors(tmp_path: Path) -> None:
    tensors = random_tensors(0)
    one = open_source(write_checkpoint(tmp_path / "one", tensors))
    many = open_source(write_checkpoint(tmp_path / "many", tensors, shards=3))
    assert one.specs == many.specs
    assert len(many.files) == 3
    with Reader() as reader:
        for name, tensor in tensors.items():
            flat = tensor.reshape(-1)
            into = torch.empty((flat.numel() - 3) * 2, dtype=torch.uint8)
            reader.read(many.stored[name], 3, into)
            assert torch.equal(into.view(torch.bfloat16), flat[3:])


def test_tied_by_config_or_by_absence(tmp_path: Path) -> None:
    absent = write_checkpoint(tmp_path / "absent", random_tensors(0, tied=True))
    unused = write_checkpoint(tmp_path / "unused", random_tensors(0), tie_word_embeddings=True)
    own = write_checkpoint(tmp_path / "own", random_tensors(0))
    assert [open_source(folder).tied for folder in (absent, unused, own)] == [True, True, False]


def test_missing_models_are_refused(tmp_path: Path) -> None:
    for name in ("./nowhere", str(tmp_path / "nowhere"), "a/b/c", "nowhere"):
        with pytest.raises(LaconicError, match="no such folder"):
            open_source(name)
    with pytest.raises(LaconicError, match="not a checkpoint"):
        open_source(tmp_path)


def test_pickles_are_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(LaconicError, match=r"pytorch_model\.bin.*save_pretrained"):
        open_source(tmp_path)


def test_an_index_that_names_a_missing_file(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", random_tensors(0), shards=2)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(LaconicError, match=r"tensor '.*' is said to be in model-00002"):
        open_source(folder)


def test_an_index_that_lies(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", random_tensors(0), shards=2)
    index = folder / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    index.write_text(json.dumps({"weight_map": {**weight_map, "ghost": "../x.safetensors"}}))
    with pytest.raises(LaconicError, match="tensor 'ghost'"):
        open_source(folder)
    index.write_text(
        json.dumps({"weight_map": {**weight_map, "ghost": "model-00001-of-00002.safetensors"}})
    )
    with pytest.raises(LaconicError, match="tensor 'ghost' .* lacks it"):
        open_source(folder)
    for text in ("{", "[]", '{"weight_map": [1]}'):
        index.write_text(text)
        with pytest.raises(LaconicError, match=r"index\.json"):
            open_source(folder)


def test_a_hub_id_without_weights_fetches_headers_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_checkpoint(tmp_path / "snapshot", random_tensors(0))
    wanted: list[Any] = []

    def snapshot_download(name: str, allow_patterns: list[str]) -> str:
        wanted.append((name, allow_patterns))
        return str(folder)

    info = SimpleNamespace(dtype="BF16", shape=[40, 16])
    metadata = SimpleNamespace(
        files_metadata={"model.safetensors": SimpleNamespace(tensors={"lm_head.weight": info})}
    )
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(
        huggingface_hub.HfApi, "get_safetensors_metadata", lambda self, name: metadata
    )
    light = open_source("owner/name", weights=False)
    assert light.specs["lm_head.weight"].shape == (40, 16)
    assert not light.stored
    assert not any("safetensors" in pattern for pattern in wanted[0][1])
    assert len(open_source("owner/name").stored) == len(random_tensors(0))


def test_a_hub_failure_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def fail(*_: Any, **__: Any) -> str:
        raise OSError("no connection")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(LaconicError, match="'owner/name': cannot be fetched .*: no connection"):
        open_source("owner/name")


def test_a_file_cut_while_reading_is_named(tmp_path: Path) -> None:
    source = open_source(write_checkpoint(tmp_path / "m", random_tensors(0)))
    tensor = source.stored["lm_head.weight"]
    with Reader() as reader:
        tensor.file.write_bytes(tensor.file.read_bytes()[: tensor.offset + 10])
        with pytest.raises(LaconicError, match=r"ends in the middle of tensor 'lm_head\.weight'"):
            reader.read(tensor, 0, torch.empty(tensor.spec.nbytes, dtype=torch.uint8))

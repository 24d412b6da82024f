from __future__ import annotations

import json
import random
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from laconic.errors import LaconicError
from laconic.tensors.header import TensorSpec, build_header, read_header


def write(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(dtype: str = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_reads_what_safetensors_writes(tmp_path: Path) -> None:
    tensors = {
        "a": torch.zeros(3, 2),
        "b": torch.ones(5, dtype=torch.bfloat16),
        "c": torch.ones(()),
    }
    save_file(tensors, tmp_path / "m.safetensors")
    found = read_header(tmp_path / "m.safetensors")
    assert {n: t.spec.shape for n, t in found.items()} == {"a": (3, 2), "b": (5,), "c": ()}
    assert found["b"].spec.dtype == "BF16"
    raw = (tmp_path / "m.safetensors").read_bytes()
    at = found["b"].offset
    assert raw[at : at + found["b"].spec.nbytes] == tensors["b"].view(torch.uint8).numpy().tobytes()


def test_safetensors_reads_what_is_built(tmp_path: Path) -> None:
    specs = [TensorSpec("x", "F32", (2, 3)), TensorSpec("ü", "F16", (4,))]
    header = build_header(specs, {"format": "pt"})
    assert len(header) % 8 == 0
    values = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    halves = torch.ones(4, dtype=torch.float16)
    (tmp_path / "m.safetensors").write_bytes(
        header + values.numpy().tobytes() + halves.numpy().tobytes()
    )
    loaded = load_file(tmp_path / "m.safetensors")
    assert torch.equal(loaded["x"], values)
    assert torch.equal(loaded["ü"], halves)


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        (b"{not json", b"", "not valid JSON"),
        ([1], b"", "not a JSON object"),
        ({"a": {"dtype": "F32"}}, b"", "tensor 'a': its header entry lacks"),
        ({"a": entry(dtype="F31")}, bytes(8), "tensor 'a': unknown dtype 'F31'"),
        ({"a": entry(shape=[-2])}, bytes(8), r"tensor 'a': shape \[-2\]"),
        ({"a": entry(shape=[True, 2])}, bytes(8), "tensor 'a': shape"),
        ({"a": entry(offsets=[8, 0])}, bytes(8), "tensor 'a': data_offsets"),
        ({"a": entry(offsets=[0, 12])}, bytes(12), "needs 8 bytes but its offsets span 12"),
        ({"a": entry(shape=[2**40], offsets=[0, 2**42])}, bytes(8), "truncated"),
        ({"a": entry(), "b": entry(offsets=[4, 12])}, bytes(12), "tensor 'b' starts at byte"),
        ({"a": entry(), "b": entry(offsets=[16, 24])}, bytes(24), "overlap or gap"),
        ({"a": entry()}, bytes(7), r"last tensor 'a'\): truncated"),
        ({"a": entry()}, bytes(9), "trailing bytes"),
    ],
)
def test_a_lying_header_is_refused(tmp_path: Path, header: Any, data: bytes, message: str) -> None:
    path = write(tmp_path / "lies.safetensors", header, data)
    with pytest.raises(LaconicError, match=message) as caught:
        read_header(path)
    assert "lies.safetensors" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\x01\x02", struct.pack("<Q", 2**63) + b"{}"])
def test_too_short_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "short.safetensors"
    path.write_bytes(content)
    with pytest.raises(LaconicError, match=r"short\.safetensors"):
        read_header(path)


def test_mutated_files_never_crash(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"a": torch.zeros(4, 4), "b": torch.ones(3)}, path)
    good = path.read_bytes()
    chance = random.Random(0)
    refused = 0
    for _ in range(300):
        raw = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            raw[chance.randrange(min(len(raw), 160))] = chance.randrange(256)
        path.write_bytes(raw[: chance.choice([len(raw), chance.randrange(len(raw))])])
        try:
            read_header(path)
        except LaconicError as error:
            assert "m.safetensors" in str(error)
            refused += 1
    assert refused > 200


def test_a_name_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    header = {"a\ud800": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}
    text = json.dumps(header).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"x")
    with pytest.raises(
        LaconicError, match=r"model\.safetensors: tensor name .*ud800.* not Unicode"
    ):
        read_header(path)

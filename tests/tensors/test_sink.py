from __future__ import annotations

import errno
import multiprocessing
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from laconic.errors import LaconicError
from laconic.tensors.header import TensorSpec
from laconic.tensors.sink import Sink
from laconic.tensors.source import open_source
from laconic.tensors.writer import PAGE, Stages

SPECS = [TensorSpec("a", "F32", (4, 3)), TensorSpec("b", "F32", ()), TensorSpec("c", "F32", (9,))]
VALUES = {s.name: torch.randn(s.shape, generator=torch.Generator().manual_seed(7)) for s in SPECS}


def opened(out: Path, *, shard_bytes: int = 10**6, identity: str = "one") -> Any:
    return Sink.open(out, SPECS, identity=identity, shard_bytes=shard_bytes)


def put(sink: Sink, name: str) -> None:
    values = VALUES[name].reshape(-1)
    with ThreadPoolExecutor(1) as hands:
        writer = sink.writer(name, Stages(PAGE), hands)
        for part in (values[: len(values) // 2], values[len(values) // 2 :]):
            writer.space(len(part)).view(torch.float32).copy_(part)
            writer.add(len(part))
        sink.finish(name, writer.finish())


def complete(out: Path, **settings: Any) -> None:
    with opened(out, **settings) as sink:
        for name in ("c", "a", "b"):
            if name not in sink.digests:
                put(sink, name)
        sink.publish(force=True)


def hidden(out: Path) -> list[Path]:
    return [path for path in out.parent.iterdir() if path.name.startswith(".")]


def test_one_file_in_any_order(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    complete(out)
    loaded = load_file(out / "model.safetensors")
    assert all(torch.equal(loaded[name], value) for name, value in VALUES.items())
    assert sorted(path.name for path in out.iterdir()) == ["model.safetensors"]
    assert not hidden(out)


def test_shards_hold_no_more_than_asked(tmp_path: Path) -> None:
    out = tmp_path / "out"
    complete(out, shard_bytes=52)
    source = open_source(out)
    assert list(source.specs) == ["a", "b", "c"]
    assert [file.name for file in source.files] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]


def test_a_smaller_merge_leaves_no_shard_of_the_earlier_one(tmp_path: Path) -> None:
    out = tmp_path / "out"
    complete(out, shard_bytes=1)
    assert len(list(out.iterdir())) == 4
    complete(out)
    assert [path.name for path in out.iterdir()] == ["model.safetensors"]


def test_an_error_leaves_no_output_and_the_next_run_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(RuntimeError, match="power"), opened(out) as sink:
        put(sink, "a")
        raise RuntimeError("power")
    assert not out.exists()
    with opened(out) as sink:
        assert set(sink.digests) == {"a"}
        put(sink, "b")
        put(sink, "c")
        sink.publish(force=False)
    other = tmp_path / "other"
    complete(other)
    assert (out / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


def test_another_merge_does_not_resume_this_one(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with opened(out) as sink:
        put(sink, "a")
    with opened(out, identity="two") as sink:
        assert not sink.digests


def test_a_torn_journal_and_damaged_bytes_are_done_again(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with opened(out) as sink:
        put(sink, "a")
        put(sink, "c")
        data = sink.folder / "model.safetensors"
    journal = next(tmp_path.glob(".out.partial/journal*"))
    journal.write_bytes(journal.read_bytes()[:-5])
    with opened(out) as sink:
        assert set(sink.digests) == {"a"}
    raw = bytearray(data.read_bytes())
    raw[-1 - SPECS[2].nbytes - 4] ^= 1  # the last byte of a
    data.write_bytes(raw)
    with opened(out) as sink:
        assert not sink.digests


def test_unfinished_output_is_not_published(tmp_path: Path) -> None:
    with opened(tmp_path / "out") as sink:
        put(sink, "a")
        with pytest.raises(LaconicError, match="2 tensors are missing"):
            sink.publish(force=True)
    assert not (tmp_path / "out").exists()


def test_a_replacement_killed_between_its_renames_is_undone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    complete(out)
    out.rename(tmp_path / ".out.replaced")
    with opened(out):
        assert (out / "model.safetensors").is_file()


def hold(out: Path, held: Any, leave: Any) -> None:
    with opened(out):
        held.set()
        leave.wait(20)


def test_two_processes_cannot_write_one_folder(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("fork")
    held, leave = spawn.Event(), spawn.Event()
    other = spawn.Process(target=hold, args=(tmp_path / "out", held, leave))
    other.start()
    assert held.wait(20)
    try:
        with pytest.raises(LaconicError, match="another process"), opened(tmp_path / "out"):
            pass
    finally:
        leave.set()
        other.join()
    complete(tmp_path / "out")


@pytest.mark.parametrize("call", ["posix_fallocate", "pwrite"])
def test_a_full_disk_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(LaconicError, match="the disk is full .* bytes free"):
        complete(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    complete(tmp_path / "out")


def test_a_really_full_disk(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(small)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    try:
        specs = [TensorSpec("a", "F32", (100_000,))]
        with (
            pytest.raises(LaconicError, match="the disk is full"),
            Sink.open(small / "out", specs, identity="x", shard_bytes=10**9),
        ):
            pass
        assert not list(small.iterdir())
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_read_only_place_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(LaconicError, match="cannot write"):
        complete(tmp_path / "file" / "out")

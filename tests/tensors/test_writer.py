"""What a tensor becomes in a file, whatever its offset, length, block size and file system."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from blake3 import blake3

from laconic.tensors.header import StoredTensor, TensorSpec
from laconic.tensors.writer import PAGE, Shard, Stages, TensorWriter

FILLING = 0xAA


def blank(path: Path, nbytes: int) -> Path:
    path.write_bytes(bytes([FILLING]) * nbytes)
    return path


@contextmanager
def opened(path: Path) -> Iterator[Shard]:
    shard = Shard(path)
    try:
        yield shard
    finally:
        shard.close()


def plainly(write: Callable[[], None]) -> None:
    write()


def write(shard: Shard, path: Path, data: torch.Tensor, offset: int, sizes: list[int]) -> str:
    """Write bfloat16 entries in blocks of these sizes, the last one repeated; the digest."""
    stored = StoredTensor(TensorSpec("t", "BF16", (len(data),)), path, offset)
    stages, start = Stages(2 * PAGE), 0
    with ThreadPoolExecutor(1) as hands:
        tensor = TensorWriter(shard, stored, stages, hands, plainly)
        while start < len(data):
            size = min(sizes[0] if len(sizes) == 1 else sizes.pop(0), len(data) - start)
            tensor.space(size).view(torch.bfloat16).copy_(data[start : start + size])
            assert tensor.add(size) == 2 * size
            start += size
        return tensor.finish()


def entries(count: int) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(count)).bfloat16()


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("offset", [0, 8, 9, 102, PAGE - 2, PAGE, 5 * PAGE + 640])
@pytest.mark.parametrize(
    ("count", "sizes"),
    [
        (0, [1]),
        (1, [1]),
        (30, [7]),
        (PAGE // 2, [PAGE // 2]),
        (3 * PAGE, [100]),
        (9 * PAGE + 13, [PAGE, 3, PAGE // 2]),
        (20 * PAGE + 1, [7 * PAGE, 10, 9 * PAGE, 1]),
    ],
)
def test_the_file_holds_just_these_bytes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    direct: bool,
    offset: int,
    count: int,
    sizes: list[int],
) -> None:
    if not direct:
        monkeypatch.delattr(os, "O_DIRECT")
    data = entries(count)
    path = blank(tmp_path / "file", offset + 2 * count + 77)
    with opened(path) as shard:
        digest = write(shard, path, data, offset, list(sizes))
    raw = data.view(torch.uint8).numpy().tobytes()
    before, after = bytes([FILLING]) * offset, bytes([FILLING]) * 77
    assert path.read_bytes() == before + raw + after
    assert digest == blake3(raw).hexdigest()


def test_neighbours_share_a_page(tmp_path: Path) -> None:
    """Two tensors written in turns by two threads meet inside a page: neither harms the other."""
    first, second = entries(5 * PAGE + 100), entries(6 * PAGE + 11)
    path = blank(tmp_path / "file", 2 * (len(first) + len(second)))
    with opened(path) as shard, ThreadPoolExecutor(2) as threads:
        jobs = [
            threads.submit(write, shard, path, data, offset, [333])
            for data, offset in ((first, 0), (second, 2 * len(first)))
        ]
        for job in jobs:
            job.result()
    assert path.read_bytes() == torch.cat([first, second]).view(torch.uint8).numpy().tobytes()


def test_whole_pages_go_past_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = blank(tmp_path / "file", 40 * PAGE)
    plain, seen = os.pwrite, []
    with opened(path) as shard:
        if shard._direct is None:
            pytest.skip("this file system has no direct writes")

        def pwrite(descriptor: int, data: Any, offset: int) -> int:
            if len(data):
                seen.append((descriptor == shard._direct, len(data), offset))
            return plain(descriptor, data, offset)

        monkeypatch.setattr(os, "pwrite", pwrite)
        write(shard, path, entries(8 * PAGE), 10, [PAGE])
    assert seen[0] == (False, PAGE - 10, 10)
    assert seen[-1] == (False, 10, 16 * PAGE)
    direct = [(size, offset) for past, size, offset in seen if past]
    assert sum(size for size, _ in direct) == 15 * PAGE
    assert all(size % PAGE == 0 and offset % PAGE == 0 for size, offset in direct)


def test_a_disk_with_larger_pages_is_written_through_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, plain = entries(8 * PAGE), os.pwrite
    path = blank(tmp_path / "file", 16 * PAGE)
    with opened(path) as shard:

        def pwrite(descriptor: int, data: Any, offset: int) -> int:
            if descriptor == shard._direct:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            return plain(descriptor, data, offset)

        monkeypatch.setattr(os, "pwrite", pwrite)
        write(shard, path, data, 0, [PAGE])
    assert path.read_bytes() == data.view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("at", [0, 2])
def test_a_failed_write_reaches_who_fills_the_tensor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    plain, seen = os.pwrite, []

    def pwrite(descriptor: int, data: Any, offset: int) -> int:
        seen.append(offset)
        if len(seen) > at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return plain(descriptor, data, offset)

    path = blank(tmp_path / "file", 16 * PAGE)
    with opened(path) as shard:
        monkeypatch.setattr(os, "pwrite", pwrite)
        with pytest.raises(OSError, match="No space left"):
            write(shard, path, entries(8 * PAGE), 0, [PAGE])


def test_stages_are_used_again() -> None:
    stages = Stages(4 * PAGE)
    first = stages.take()
    assert first.data_ptr() % PAGE == 0
    stages.give_back(first)
    assert stages.take().data_ptr() == first.data_ptr()
    large = stages.take(5 * PAGE)
    assert len(large) == 5 * PAGE
    stages.give_back(large)
    assert len(stages.take()) == 4 * PAGE


def test_a_cut_short_write_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = os.pwrite
    monkeypatch.setattr(
        os, "pwrite", lambda fd, data, at: plain(fd, data[: max(len(data) // 3, 1)], at)
    )
    data = entries(4 * PAGE)
    path = blank(tmp_path / "file", 8 * PAGE)
    with opened(path) as shard:
        write(shard, path, data, 0, [PAGE])
    assert path.read_bytes() == data.view(torch.uint8).numpy().tobytes()


def test_a_tensor_takes_two_or_three_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, made = Stages._make, []
    monkeypatch.setattr(Stages, "_make", lambda self, n: made.append(n) or plain(self, n))
    path = blank(tmp_path / "file", 200 * PAGE)
    with opened(path) as shard:
        write(shard, path, entries(100 * PAGE), 0, [100])
    assert len(made) <= 3

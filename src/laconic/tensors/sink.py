"""The output folder: headers first, tensors in any order, renamed into place only when complete.

While a merge runs, everything stands in a hidden sibling of the output folder: the checkpoint to
be, and a journal of the tensors that are done, from which a killed merge resumes.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from laconic.errors import LaconicError
from laconic.tensors.digests import digest_tensor
from laconic.tensors.header import StoredTensor, TensorSpec, build_header, read_header
from laconic.tensors.source import INDEX_FILE, SINGLE_FILE
from laconic.tensors.writer import Shard, Stages, TensorWriter


class Sink:
    """Writes a sharded safetensors checkpoint. Use `Sink.open` as a context manager."""

    def __init__(self, out: Path, specs: Sequence[TensorSpec], shard_bytes: int) -> None:
        self.out = out
        self._work = _work_folder(out)
        self._journal = self._work / "journal.jsonl"
        self.folder = self._work / "checkpoint"
        self.digests: dict[str, str] = {}
        self.inputs: dict[str, dict[str, str]] = {}
        self._shards = _assign(specs, shard_bytes)
        self._places: dict[str, StoredTensor] = {}
        self._files: dict[Path, Shard] = {}
        self._lock = threading.Lock()

    @classmethod
    @contextmanager
    def open(
        cls, out: Path, specs: Sequence[TensorSpec], *, identity: str, shard_bytes: int
    ) -> Iterator[Sink]:
        """Prepare the output of a merge, resuming one with the same `identity` that was killed.

        Raises LaconicError when another process is at it, or the disk cannot hold the output.
        On an error inside, what was done stays beside the output for the next attempt.
        """
        sink = cls(out, specs, shard_bytes)
        try:
            sink.folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(sink._work, os.O_RDONLY)
        except OSError as error:
            raise _write_error(sink.folder, error) from error
        try:
            _take_lock(lock, out)
            sink._restore_replaced()
            sink._start(identity)
            yield sink
        finally:
            sink._close()
            os.close(lock)

    def writer(self, name: str, stages: Stages, hands: Executor) -> TensorWriter:
        """Begin a tensor; tensors in any order, each in a thread of its own.

        stages: where its bytes are gathered. hands: who writes them, meanwhile. What the writer
        does raises LaconicError when the disk is full or fails.
        """
        place = self._places[name]
        guarded = partial(_guarded, place.file, name)
        return TensorWriter(self._files[place.file], place, stages, hands, guarded)

    def finish(self, name: str, digest: str, inputs: Mapping[str, str] | None = None) -> None:
        """Note in the journal that all bytes of a tensor, with this BLAKE3, are written.

        inputs: by role, the digests of what it was made of, for `inputs` of a resumed sink.
        """
        record = {"tensor": name, "blake3": digest, "inputs": dict(inputs or {})}
        line = json.dumps(record) + "\n"
        try:
            with self._lock, self._journal.open("a", encoding="utf-8") as journal:
                journal.write(line)
        except OSError as error:
            raise _write_error(self._journal, error) from error
        self.digests[name] = digest

    def publish(self, *, force: bool) -> None:
        """Make the folder durable and rename it to its final name, whole.

        With `force` a folder that stands there is replaced; nothing of it survives.
        """
        missing = self._places.keys() - self.digests.keys()
        if missing:
            raise LaconicError(f"{self.out}: not complete, {len(missing)} tensors are missing")
        try:
            for shard in self._files.values():
                shard.sync()
            if self.out.exists() and force:
                self._clear_replaced()
                self.out.rename(self._replaced)
            self.folder.rename(self.out)
            self._clear_replaced()
            shutil.rmtree(self._work)
        except OSError as error:
            raise _write_error(self.out, error) from error

    @property
    def _replaced(self) -> Path:
        return self.out.parent / f".{self.out.name}.replaced"

    def _restore_replaced(self) -> None:
        """Undo a replacement that was killed between its two renames."""
        if self._replaced.exists() and not self.out.exists():
            self._replaced.rename(self.out)

    def _clear_replaced(self) -> None:
        if self._replaced.exists():
            shutil.rmtree(self._replaced)

    def _start(self, identity: str) -> None:
        try:
            journal = self._read_journal(identity)
            if journal is None:
                self._begin(identity)
            self._open_shards()
        except OSError as error:
            self._discard()
            raise _write_error(self.folder, error) from error
        for name, record in (journal or {}).items():
            if name in self._places and digest_tensor(self._places[name]) == record["blake3"]:
                self.digests[name], self.inputs[name] = record["blake3"], record["inputs"]

    def _read_journal(self, identity: str) -> dict[str, dict[str, Any]] | None:
        """Return the records of the tensors done so far, or None when there is none to resume."""
        try:
            lines = self._journal.read_text(encoding="utf-8").split("\n")
        except (FileNotFoundError, UnicodeDecodeError):
            return None
        records = []
        for line in lines[:-1]:  # what follows the last newline is a torn record
            try:
                records.append(json.loads(line))
            except ValueError:
                break
        if not records or records[0] != {"identity": identity}:
            return None
        self._write_journal(records)
        return {record["tensor"]: record for record in records[1:]}

    def _begin(self, identity: str) -> None:
        """Empty the folder, reserve the disk space, and write every shard's header."""
        self._journal.unlink(missing_ok=True)
        shutil.rmtree(self.folder)
        self.folder.mkdir()
        for file, specs in self._shards.items():
            header = build_header(specs, {"format": "pt"})
            size = len(header) + sum(spec.nbytes for spec in specs)
            with (self.folder / file).open("wb") as shard:
                os.posix_fallocate(shard.fileno(), 0, size)
                shard.write(header)
        if len(self._shards) > 1:
            self._write_index()
        self._write_journal([{"identity": identity}])

    def _write_journal(self, records: list[dict[str, str]]) -> None:
        text = "".join(json.dumps(record) + "\n" for record in records)
        temporary = self._journal.with_suffix(".new")
        temporary.write_text(text, encoding="utf-8")
        temporary.rename(self._journal)

    def _write_index(self) -> None:
        weight_map = {spec.name: file for file, specs in self._shards.items() for spec in specs}
        total = sum(spec.nbytes for specs in self._shards.values() for spec in specs)
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        text = json.dumps(index, indent=2, ensure_ascii=False) + "\n"
        (self.folder / INDEX_FILE).write_text(text, encoding="utf-8")

    def _open_shards(self) -> None:
        for file in self._shards:
            path = self.folder / file
            self._places.update(read_header(path))
            self._files[path] = Shard(path)

    def _close(self) -> None:
        for shard in self._files.values():
            shard.close()
        self._files.clear()

    def _discard(self) -> None:
        self._close()
        shutil.rmtree(self._work, ignore_errors=True)


def check_disk(outputs: Iterable[tuple[Path, int]]) -> None:
    """Raise LaconicError when a disk cannot hold the outputs: folder and tensor bytes of each.

    What an earlier, killed run has reserved for an output counts as free.
    """
    needed: dict[int, int] = {}
    for out, nbytes in outputs:
        free, device = free_bytes(out), _existing(out).stat().st_dev
        needed[device] = needed.get(device, 0) + max(nbytes - _reserved(out), 0)
        if needed[device] > free:
            raise LaconicError(
                f"{out}: the disk cannot hold the output: {needed[device]:,} bytes needed, "
                f"{free:,} bytes free; free some, or merge onto another disk"
            )


def free_bytes(out: Path) -> int:
    """Return the bytes free on the disk of a folder that need not exist yet."""
    return shutil.disk_usage(_existing(out)).free


def _reserved(out: Path) -> int:
    work = _work_folder(out)
    return sum(path.stat().st_size for path in work.glob("checkpoint/*.safetensors"))


def _work_folder(out: Path) -> Path:
    return out.parent / f".{out.name}.partial"


def _assign(specs: Sequence[TensorSpec], shard_bytes: int) -> dict[str, list[TensorSpec]]:
    """Fill shards in order, none over `shard_bytes` unless a single tensor is."""
    shards: list[list[TensorSpec]] = [[]]
    filled = 0
    for spec in specs:
        if shards[-1] and filled + spec.nbytes > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(spec)
        filled += spec.nbytes
    if len(shards) == 1:
        return {SINGLE_FILE: shards[0]}
    count = len(shards)
    return {f"model-{i:05}-of-{count:05}.safetensors": shard for i, shard in enumerate(shards, 1)}


def _take_lock(lock: int, out: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LaconicError(
            f"{out}: another process is merging into this folder; wait for it or choose another"
        ) from None


def _guarded(path: Path, tensor: str, write: Callable[[], None]) -> None:
    try:
        write()
    except OSError as error:
        raise _write_error(path, error, tensor) from error


def _write_error(path: Path, error: OSError, tensor: str = "") -> LaconicError:
    what = f"{path}: cannot write" + (f" tensor '{tensor}'" if tensor else "")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = free_bytes(path)
        return LaconicError(f"{what}: the disk is full ({free:,} bytes free); free some and rerun")
    return LaconicError(f"{what}: {error.strerror}")


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())

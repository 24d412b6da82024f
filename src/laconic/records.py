"""Files that survive a kill: append-only JSONL journals, and JSON files that appear whole.

And the reading of YAML files, which people write.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from laconic.errors import LaconicError

Record = dict[str, Any]


def read_records(path: Path) -> list[Record]:
    """The records of a JSONL file; a torn last line (no line end) is left out, not changed.

    A missing file holds no records. Raises LaconicError for a corrupted line before the tail.
    """
    return list(_parse(path, _whole_lines(path)))


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write one JSON object, indented: the file appears whole or not at all."""
    _replace(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def write_records(path: Path, records: list[Record]) -> None:
    """Write a whole JSONL file: it appears whole or not at all."""
    _replace(path, b"".join(_line(record) for record in records))


def read_json(path: Path, why: str = "") -> Record:
    """The JSON object in a file.

    Raises LaconicError, which ends in `why` it is needed, when it is missing or is not one.
    """
    tail = f"; {why}" if why else ""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise LaconicError(f"{path}: not found{tail}") from None
    except (ValueError, OSError) as error:
        raise LaconicError(f"{path}: not readable as JSON: {error}{tail}") from error
    if not isinstance(value, dict):
        raise LaconicError(f"{path}: expected a JSON object, got {type(value).__name__}{tail}")
    return value


def read_yaml(path: Path, what: str) -> Any:
    """The value in a YAML file, which may be anything.

    Raises LaconicError, which begins with `what` was to be read, when the file cannot be read or
    is no UTF-8 or no YAML.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LaconicError(f"{what}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: bad bytes, a date such as 2026-13-1
        raise LaconicError(f"{what}: not valid YAML: {error}") from None


class Journal:
    """An append-only JSONL file, held by one process at a time.

    Opening it cuts a torn last line off the file; `records` is what it held then. Each `append`
    is one write to the file: a kill loses at most the record being written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.records: tuple[Record, ...] = ()

    def __enter__(self) -> Self:
        with _naming(self._path):
            self._file = open(self._path, "ab", buffering=0)
        try:
            self._lock()
            lines = _whole_lines(self._path)
            self.records = tuple(_parse(self._path, lines))
            with _naming(self._path):
                self._file.truncate(len(lines))
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one record. Raises LaconicError naming the file when it cannot be written."""
        line = _line(record)
        with _naming(self._path):
            written = self._file.write(line)
            if written != len(line):  # a full disk takes a part first and refuses the rest
                self._file.write(line[written:])

    def _lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # not POSIX: two processes on one file are then the user's to avoid
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LaconicError(
                f"{self._path}: another process is writing it; wait for it, or choose another "
                "folder"
            ) from None
        except OSError:  # a file system without locks
            return


def _line(record: Mapping[str, Any]) -> bytes:
    try:
        text = json.dumps(record, ensure_ascii=False, allow_nan=False)
        return text.encode() + b"\n"
    except UnicodeEncodeError:  # half a surrogate pair, which UTF-8 cannot hold
        return json.dumps(record, allow_nan=False).encode() + b"\n"


def _whole_lines(path: Path) -> bytes:
    """The bytes of a file up to and with its last line end."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise LaconicError(f"{path}: cannot be read: {error.strerror}") from error
    return data[: data.rfind(b"\n") + 1]


def _parse(path: Path, lines: bytes) -> Iterator[Record]:
    for number, line in enumerate(lines.split(b"\n")[:-1], start=1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            raise LaconicError(
                f"{path}, line {number}: corrupted: expected one JSON object, got "
                f"{line[:60].decode(errors='replace')!r}; restore the file, or delete that line "
                "to have its record made again"
            )
        yield record


def _replace(path: Path, data: bytes) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with _naming(path):
            with open(part, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LaconicError(
            f"{path}: cannot be written: {error.strerror}; what was written before is kept"
        ) from error

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from laconic.errors import LaconicError
from laconic.records import Journal, read_json, read_records, read_yaml, write_json


def _append(path: Path, *records: dict[str, object]) -> None:
    with Journal(path) as journal:
        for record in records:
            journal.append(record)


def test_records_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    records = [{"text": "→ line\nbreak\u2028"}, {"half": "\ud83d"}, {"n": 1}]
    _append(path, *records)
    assert read_records(path) == records
    with Journal(path) as journal:
        assert list(journal.records) == records


def test_missing_file_holds_nothing(tmp_path: Path) -> None:
    assert read_records(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize("torn", [b'{"n": 2', b'{"n": 2}', b"\0\0\0"])
def test_torn_tail_is_left_out_and_cut_before_appending(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "a.jsonl"
    whole = b'{"n": 1}\n'
    path.write_bytes(whole + torn)
    assert read_records(path) == [{"n": 1}]
    assert path.read_bytes() == whole + torn  # reading changes nothing
    _append(path, {"n": 3})
    assert path.read_bytes() == whole + b'{"n": 3}\n'


@pytest.mark.parametrize("line", [b'{"n": ', b"[1]", b""])
def test_corrupted_line_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"n": 1}\n' + line + b'\n{"n": 3}\n')
    with pytest.raises(LaconicError, match=r"a\.jsonl, line 2: corrupted"):
        read_records(path)
    with pytest.raises(LaconicError, match="line 2"), Journal(path):
        pass


def test_append_is_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    with Journal(path) as journal:
        journal.append({"n": 1})
        assert path.read_bytes() == b'{"n": 1}\n'  # already in the file, not in a buffer


def test_two_writers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with (
        Journal(path),
        pytest.raises(LaconicError, match="another process is writing"),
        Journal(path),
    ):
        pass


DISK_FULL = """
import resource, sys
from pathlib import Path
from laconic.errors import LaconicError
from laconic.records import Journal
path = Path(sys.argv[1])
with Journal(path) as journal:
    journal.append({"n": 1})
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50))
    try:
        journal.append({"text": "x" * 100})
    except LaconicError as error:
        print(error)
"""


def test_full_disk_names_the_file_and_keeps_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", DISK_FULL, str(path)], capture_output=True, text=True, check=True
    )
    assert f"{path}: cannot be written" in done.stdout
    assert read_records(path) == [{"n": 1}]
    assert not path.read_bytes().endswith(b"\n")  # the refused record was torn ...
    _append(path, {"n": 2})
    assert read_records(path) == [{"n": 1}, {"n": 2}]  # ... and is gone


def test_json_file_appears_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"n": 1})

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(LaconicError, match=r"a\.json: cannot be written: No space left"):
        write_json(path, {"n": 2})
    assert read_json(path) == {"n": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "not found"), (b"{", "not readable as JSON"), (b"[1]", "expected a JSON object")],
)
def test_bad_json_file(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LaconicError, match=message):
        read_json(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "recipe mine: cannot be read: No such file"),
        (b"a: [", "recipe mine: not valid YAML: while parsing"),
        (b"a: \xff", "recipe mine: not valid YAML: 'utf-8' codec can't decode"),
        (b"a: 2026-13-01", "recipe mine: not valid YAML: month must be in 1..12"),
    ],
)
def test_bad_yaml_file(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "a.yml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LaconicError, match=message):
        read_yaml(path, "recipe mine")

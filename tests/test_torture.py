"""A short count of `make torture`; bench/torture.py says what each trial does."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

import pytest

torture = pytest.importorskip("bench.torture", reason="run from the repository's folder")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tmp_path_factory.mktemp("torture")
    torture.make_pair(made)
    return made


def test_a_disk_that_fills_up_leaves_nothing_that_looks_done(folder: Path) -> None:
    assert torture.disk_full(folder, every=4) == []


def test_read_errors_name_the_tensor_and_can_be_resumed_from(folder: Path) -> None:
    assert torture.read_errors(folder, every=9) == []


def test_faults_are_met_at_every_kind_of_operation(folder: Path) -> None:
    out = folder / "counted"
    faults = torture.Faults(10**9, 28)
    with faults.writing(folder):
        torture.run(folder, out)
    assert faults.seen > 30


def test_a_trial_without_a_fault_is_bad(folder: Path) -> None:
    class Harmless(torture.Faults):  # type: ignore[misc, name-defined]
        def step(self, path: object = None) -> None: ...

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torture, "Faults", Harmless)
        assert torture.read_errors(folder, every=1) == ["position 0 (EIO): no fault was met"]


@pytest.mark.slow
def test_mutated_files_end_in_an_error_that_names_them(folder: Path) -> None:
    assert torture.mutations(folder, 40, seed=1) == []


def test_mutations_differ_from_the_file() -> None:
    text = json.dumps({"a": {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]}}).encode()
    whole = struct.pack("<Q", len(text)) + text + bytes(8)
    chance = random.Random(0)
    made = [torture.mutated(whole, chance) for _ in range(200)]
    assert {kind for kind, _ in made} == set(torture.KINDS)
    assert sum(data == whole for _, data in made) < 10


@pytest.mark.slow
def test_two_processes_and_a_changed_parent(folder: Path) -> None:
    assert torture.two_processes(folder, 1) == []
    assert torture.changed_parent(folder, 1) == []

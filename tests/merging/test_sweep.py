from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from checkpoints import folder_digest, pair
from laconic.checkpoint.manifest import verify
from laconic.errors import LaconicError
from laconic.merging.engine import merge, sweep
from laconic.merging.sweep import variants
from laconic.recipe import Recipe, parse_recipe
from laconic.tensors.sink import Sink
from laconic.tensors.source import Reader


def recipe(folder: Path, *chain: Any) -> Recipe:
    models = {"quick": str(folder / "quick"), "slow": str(folder / "slow")}
    return parse_recipe({**models, "merge": list(chain)})


@pytest.mark.parametrize(
    ("setting", "names"),
    [
        ("alpha=0.3:0.9:0.2", ["alpha-0.3", "alpha-0.5", "alpha-0.7", "alpha-0.9"]),
        ("alpha=0.1:0.35:0.1", ["alpha-0.1", "alpha-0.2", "alpha-0.3"]),
        ("alpha=1,0.50,-1e-2", ["alpha-1", "alpha-0.5", "alpha--0.01"]),
        ("ties.alpha=0.9:0.7:-0.1", ["ties.alpha-0.9", "ties.alpha-0.8", "ties.alpha-0.7"]),
    ],
)
def test_values_are_exact_and_name_the_folders(setting: str, names: list[str]) -> None:
    found = variants(recipe(Path("x"), "ties"), setting)
    assert list(found) == names
    for name, one in found.items():
        assert one.merge[0].knobs["alpha"] == float(name.split("-", 1)[1])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("alpha", "expected KNOB=FIRST:LAST:STEP"),
        ("alpha=a:b:c", "expected KNOB=FIRST:LAST:STEP"),
        ("alpha=1:2", "expected KNOB=FIRST:LAST:STEP"),
        ("alpha=1:0:0.1", "0 values; give from 1"),
        ("alpha=0:1:0", "0 values; give from 1"),
        ("alhpa=1", "no method of this recipe has that knob; did you mean 'alpha'"),
        ("dare.alpha=1", r"no method .* has that knob.*known: dare\.drop"),
        ("rescale=1", "is not a plain number"),
        ("trim=0.5,1.5", r"--sweep trim=0\.5,1\.5.*\n?.*ties\.trim: 1\.5 is not allowed"),
    ],
)
def test_bad_settings_are_refused(setting: str, message: str) -> None:
    with pytest.raises(LaconicError, match=message):
        variants(recipe(Path("x"), "dare", "ties"), setting)


def test_a_knob_of_several_methods_needs_the_method() -> None:
    chain = recipe(Path("x"), {"breadcrumbs": {"trim": 0.5}}, {"ties": {"trim": 0.1}})
    with pytest.raises(LaconicError, match=r"write breadcrumbs\.trim or ties\.trim"):
        variants(chain, "trim=0.5")
    found = variants(chain, "ties.trim=0.3")["ties.trim-0.3"]
    assert [stage.knobs["trim"] for stage in found.merge] == [0.5, 0.3]


@pytest.mark.parametrize(
    ("chain", "setting"),
    [
        (["task_arithmetic"], "alpha=0.3:0.9:0.3"),
        ([{"dare": {"drop": 0.3}}, "ties"], "trim=0.2,0.8"),
        ([{"ties": {"scope": "global"}}], "alpha=0.5,1"),
        (["lore"], "mu=0.1,0.2"),
    ],
)
def test_every_merge_of_a_sweep_is_the_single_merge(
    tmp_path: Path, chain: list[Any], setting: str
) -> None:
    pair(tmp_path, shards=2)
    results = sweep(recipe(tmp_path, *chain), setting, tmp_path / "sweep", progress=False)
    assert len(results) > 1
    for name, one in variants(recipe(tmp_path, *chain), setting).items():
        merge(one, tmp_path / "single" / name, block=64, threads=1, progress=False)
        assert verify(tmp_path / "sweep" / name, inputs=True).ok
    assert folder_digest(tmp_path / "sweep") == folder_digest(tmp_path / "single")


def test_a_sweep_reads_the_parents_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair(tmp_path)
    read: list[int] = []
    plain = Reader.read

    def counting(self: Reader, tensor: Any, start: int, into: Any) -> None:
        read.append(len(into))
        plain(self, tensor, start, into)

    monkeypatch.setattr(Reader, "read", counting)
    merge(recipe(tmp_path, "task_arithmetic"), tmp_path / "one", progress=False)
    single = sum(read)
    read.clear()
    sweep(recipe(tmp_path, "task_arithmetic"), "alpha=0.1:0.9:0.1", tmp_path / "k", progress=False)
    assert sum(read) == single


def test_a_killed_sweep_does_only_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair(tmp_path)
    swept = recipe(tmp_path, "task_arithmetic")
    sweep(swept, "alpha=0.2,0.4,0.6", tmp_path / "expected", progress=False)
    sweep(swept, "alpha=0.4", tmp_path / "k", progress=False)
    plain, done = Sink.finish, []

    def failing(self: Any, *rest: Any) -> None:
        if len(done) == 9:
            raise RuntimeError("power")
        done.append(1)
        plain(self, *rest)

    monkeypatch.setattr(Sink, "finish", failing)
    with pytest.raises(RuntimeError, match="power"):
        sweep(swept, "alpha=0.2,0.4,0.6", tmp_path / "k", threads=1, progress=False)
    assert not (tmp_path / "k" / "alpha-0.2").exists()
    made: list[int] = []
    monkeypatch.setattr(Sink, "finish", lambda self, *rest: made.append(1) or plain(self, *rest))
    results = sweep(swept, "alpha=0.2,0.4,0.6", tmp_path / "k", progress=False)
    assert len(made) == 2 * results[0].tensors - 9
    assert [r.resumed for r in results][1] == results[1].tensors
    assert results[0].resumed + results[2].resumed == 9
    assert folder_digest(tmp_path / "k") == folder_digest(tmp_path / "expected")

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from checkpoints import pair
from laconic.cli.making import merge as merge_command
from laconic.cli.making import plan as plan_command
from laconic.errors import LaconicError
from laconic.merging.engine import merge
from laconic.merging.forecast import forecast
from laconic.merging.memory import fit
from laconic.plan import make_plan
from laconic.recipe import parse_recipe
from laconic.tensors import sink
from laconic.tensors.header import TensorSpec


def written(folder: Path, chain: object) -> str:
    models = {"quick": str(folder / "quick"), "slow": str(folder / "slow")}
    path = folder / "r.yml"
    path.write_text(json.dumps({**models, "merge": chain}))
    return str(path)


@pytest.mark.parametrize("chain", [["average"], [{"dare": {"drop": 0.3}}, "ties"], ["lore"]])
def test_plan_forecasts_time_memory_and_disk(tmp_path: Path, chain: object) -> None:
    pair(tmp_path)
    file = written(tmp_path, chain)
    found = CliRunner().invoke(plan_command, [file, str(tmp_path / "out"), "--json"])
    cost = json.loads(found.stdout)["forecast"]
    assert 0 < cost["seconds"] < 60
    assert cost["disk"] == json.loads(found.stdout)["bytes"]
    assert cost["memory"] > 10**7
    assert cost["free"] > 0
    line = CliRunner().invoke(plan_command, [file]).stdout.splitlines()[-1]
    assert line.startswith("forecast")
    assert "s of CPU (timed now on noise" in line


def test_time_grows_with_the_model(tmp_path: Path) -> None:
    pair(tmp_path)
    models = {"quick": str(tmp_path / "quick"), "slow": str(tmp_path / "slow")}
    plan = make_plan(parse_recipe({**models, "merge": ["ties"]}))
    step = next(step for step in plan.steps if step.stages)
    cost = []
    for rows in (1 << 10, 1 << 15):
        larger = replace(step, output=TensorSpec(step.output.name, "BF16", (rows, 1 << 11)))
        one = replace(plan, steps=(larger,))
        cost.append(forecast(one, fit(one, None), tmp_path).seconds or 0)
    assert cost[1] > 10 * cost[0]


def test_time_is_unknown_where_a_method_needs_statistics(tmp_path: Path) -> None:
    pair(tmp_path)
    models = {"quick": str(tmp_path / "quick"), "slow": str(tmp_path / "slow")}
    plan = make_plan(parse_recipe({**models, "merge": ["average", "aim"]}))
    cost = forecast(plan, fit(plan, None), tmp_path)
    assert cost.seconds is None
    assert "time unknown" in cost.line()


def test_a_disk_that_cannot_hold_the_output_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair(tmp_path)
    recipe = parse_recipe(json.loads(Path(written(tmp_path, ["average"])).read_text()))
    needed = make_plan(recipe).nbytes
    usage = type("usage", (), {"free": needed - 1})
    monkeypatch.setattr(sink.shutil, "disk_usage", lambda _: usage)
    message = f"cannot hold the output: {needed:,} bytes needed, {needed - 1:,} bytes free"
    with pytest.raises(LaconicError, match=message):
        merge(recipe, tmp_path / "out")
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]
    file = written(tmp_path, ["average"])
    failed = CliRunner().invoke(plan_command, [file, str(tmp_path / "out")])
    assert message in str(failed.exception)
    assert "forecast" in CliRunner().invoke(plan_command, [file]).stdout


def test_what_a_killed_merge_reserved_counts_as_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair(tmp_path)
    out = tmp_path / "out"
    work = tmp_path / ".out.partial" / "checkpoint"
    work.mkdir(parents=True)
    with (work / "model.safetensors").open("wb") as file:
        os.truncate(file.fileno(), 1000)
    usage = type("usage", (), {"free": 10})
    monkeypatch.setattr(sink.shutil, "disk_usage", lambda _: usage)
    sink.check_disk([(out, 1010)])
    with pytest.raises(LaconicError, match="11 bytes needed, 10 bytes free"):
        sink.check_disk([(out, 1011)])


def test_memory_is_read_as_a_size(tmp_path: Path) -> None:
    pair(tmp_path)
    file = written(tmp_path, ["average"])
    failed = CliRunner().invoke(merge_command, [file, str(tmp_path / "out"), "--memory", "much"])
    assert "--memory: 'much' is not a size" in str(failed.exception)
    small = CliRunner().invoke(merge_command, [file, str(tmp_path / "out"), "--memory", "1MB"])
    assert "a cap of 1,000,000 bytes is too small" in str(small.exception)

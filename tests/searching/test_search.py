"""A whole search with a live model that answers from its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from laconic.errors import LaconicError
from laconic.records import read_json, read_records
from laconic.searching.search import Options, search
from searching.fakes import Live, study

QUIET = Options(progress=False)


def run(folder: Path, out: str = "out", runner: Any = None, **changes: Any) -> Any:
    raw = study(folder, **changes)
    live = runner or Live(folder)
    return search(raw, out=folder / out, options=QUIET, runner=live)


def test_a_search_finds_the_shortest_merge_that_is_right(tmp_path: Path) -> None:
    found = run(tmp_path, budget={"trials": 11})
    best = max(found.front, key=lambda row: row["accuracy"])
    assert best["params"] == {"interpolation.weight": 0.4}
    assert best["accuracy"] == 1.0
    assert found.record["reference"]["accuracy"] < 0.25
    assert 0 < found.record["hypervolume"] < 1
    assert best["test"]["accuracy"] == 1.0
    assert best["test"]["questions"] == 48
    trials = read_records(tmp_path / "out" / "trials.jsonl")
    assert len(trials) == 11
    assert {t["status"] for t in trials} <= {"complete", "dropped"}
    assert json.loads(json.dumps(found.to_dict())) == read_json(tmp_path / "out" / "front.json")


def test_a_finished_search_is_not_run_again(tmp_path: Path) -> None:
    first = run(tmp_path).to_dict()
    again = Live(tmp_path)
    assert run(tmp_path, runner=again).to_dict() == first
    assert again.generated == []


def test_the_same_merge_is_never_asked_twice(tmp_path: Path) -> None:
    recipes = [
        {"interpolation": {"weight": {"choices": [0.5, 0.0, 1.0]}}},
        {"name": "again", "interpolation": {"weight": {"choices": [0.5, 0.0, 1.0]}}},
    ]
    study(tmp_path)
    live = Live(tmp_path)
    found = run(tmp_path, runner=live, recipes=recipes, sampler="random", budget={"trials": 12})
    deciding = [key for key in live.generated if key[0].startswith("validation/validation")]
    assert len(deciding) <= 3 * 48
    assert found.record["curve"][-1]["generated"] == found.record["generated"]


def test_random_and_model_based_samplers(tmp_path: Path) -> None:
    space = [{"ties": {"trim": [0.0, 0.8], "alpha": [0.1, 1.0]}}]
    for sampler in ("random", "nsga2", "tpe", "gp"):
        found = run(
            tmp_path, sampler, recipes=space, sampler=sampler, budget={"trials": 10},
            racing={"on": False},
        )  # fmt: skip
        assert found.record["trials"] == {"complete": 10}
        params = [t["params"] for t in read_records(tmp_path / sampler / "trials.jsonl")]
        assert len({json.dumps(p) for p in params}) == 10


def test_the_usual_plan(tmp_path: Path) -> None:
    raw = study(tmp_path, budget={"trials": 16})
    del raw["recipes"]
    found = search(raw, out=tmp_path / "out", options=QUIET, runner=Live(tmp_path))
    phases = {t["trial"].split("/")[0] for t in read_records(tmp_path / "out" / "trials.jsonl")}
    assert phases == {"sweep", "ties", "blocks"}
    assert found.record["importances"] == {} or "blocks" in found.record["importances"]


def test_a_budget_of_tokens_ends_a_search(tmp_path: Path) -> None:
    whole = run(tmp_path, "whole", budget={"trials": 11}).record
    paid = whole["curve"][4]["generated"]
    short = run(tmp_path, "short", budget={"trials": 11, "tokens": paid}).record
    assert len(short["curve"]) == 5
    assert short["curve"] == whole["curve"][:5]


def test_a_larger_budget_extends_a_search(tmp_path: Path) -> None:
    space = {"recipes": [{"ties": {"trim": [0.0, 0.8], "alpha": [0.1, 1.0]}}], "sampler": "tpe"}
    run(tmp_path, **space, budget={"trials": 4})
    raw = study(tmp_path, **space, budget={"trials": 9})
    with pytest.raises(LaconicError, match=r"budget.trials: 4, 9 .*--extend goes on"):
        search(raw, out=tmp_path / "out", options=QUIET, runner=Live(tmp_path))
    found = search(raw, out=tmp_path / "out", options=QUIET, extend=True, runner=Live(tmp_path))
    whole = search(raw, out=tmp_path / "whole", options=QUIET, runner=Live(tmp_path))
    assert found.record["curve"] == whole.record["curve"]


def test_bounds_are_kept_and_marked(tmp_path: Path) -> None:
    found = run(tmp_path, budget={"trials": 11}, objectives={"tokens": "<= 25% of slow"})
    most = found.record["bounds"]["tokens"]
    assert most == pytest.approx(0.25 * found.record["parents"]["slow"]["tokens"])
    assert {row["within"] for row in found.front} == {True, False}
    assert all(row["within"] == (row["tokens"] <= most) for row in found.front)


def test_a_subset_ranks_and_the_front_is_asked_everything(tmp_path: Path) -> None:
    for way in ("random", "stratified", "entropy"):
        found = run(tmp_path, way, budget={"trials": 8}, questions={"count": 16, "choose": way})
        assert found.record["subset"]["questions"] == 16
        assert all(row["questions"] == 48 for row in found.front)
        assert found.record["parents"]["slow"]["questions"] == 48
        rows = read_records(tmp_path / way / "trials.jsonl")
        assert max(row["answered"] for row in rows) == 16
    assert found.record["subset"]["accuracy"] > 0.8

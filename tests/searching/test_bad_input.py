"""Studies that cannot be run: one message each, before anything is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from laconic.cli import main
from laconic.errors import LaconicError
from laconic.searching.search import Options, search
from laconic.searching.study_file import accuracy_floor, load_study, parse_study, token_ceiling
from searching.fakes import Live, study

QUIET = Options(progress=False)
LEAST = {"quick": "q", "slow": "s", "tasks": "arithmetic"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": []}, r"unknown key 'recipe'; did you mean 'recipes'\?"),
        ({"budget": {"trails": 4}}, r"unknown key 'budget.trails'; did you mean 'trials'\?"),
        ({"racing": {"frist": 8}}, r"unknown key 'racing.frist'; did you mean 'first'\?"),
        ({"sampler": "tpee"}, "sampler: 'tpee' is not allowed"),
        ({"holdout": 1.5}, "holdout: 1.5 is not allowed"),
        ({"objectives": {"accuracy": "slow"}}, "expected '>= 0.9' or '>= slow - 1 point'"),
        ({"objectives": {"tokens": ">= 60"}}, "expected '<= 60' or '<= 60% of slow'"),
        ({"budget": {"trials": 0}}, "budget.trials: 0 is not allowed"),
        ({"tasks": []}, "tasks: \\[\\] is not allowed"),
    ],
)
def test_a_study_is_read_strictly(change: dict[str, Any], message: str) -> None:
    with pytest.raises(LaconicError, match=message):
        parse_study({**LEAST, **change})


def test_what_bounds_mean() -> None:
    assert accuracy_floor(">= slow - 1 point", 0.9) == pytest.approx(0.89)
    assert accuracy_floor(">= slow - 2.5 points", 0.9) == pytest.approx(0.875)
    assert accuracy_floor(">= 0.85", 0.9) == 0.85
    assert accuracy_floor(">= slow", 0.9) == 0.9
    assert token_ceiling("<= 60% of slow", 200.0) == 120.0
    assert token_ceiling("<= 75", 200.0) == 75.0


def test_the_hash_names_everything_but_the_budget() -> None:
    one = parse_study(LEAST)
    assert parse_study({**LEAST, "budget": {"trials": 99}}).hash == one.hash
    assert parse_study({**LEAST, "seed": 1}).hash != one.hash
    assert parse_study({**LEAST, "racing": False}).hash != one.hash


def test_a_task_without_a_validation_split(tmp_path: Path) -> None:
    raw = study(tmp_path, tasks=[str(tmp_path / "test.jsonl")])
    with pytest.raises(LaconicError, match="has no validation split, .* give `holdout: 0.5`"):
        search(raw, out=tmp_path / "out", options=QUIET)
    assert not (tmp_path / "out").exists()
    found = search(
        raw | {"holdout": 0.5}, out=tmp_path / "out", options=QUIET, runner=Live(tmp_path)
    )
    assert found.record["questions"] == {"test": {"decide": 24, "report": 24}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipes": [{"ties": {"trim": [0.2, 1.9]}}]}, "ties.trim: 1.9 is not allowed"),
        ({"sampler": "grid", "recipes": [{"ties": {"trim": [0, 0.5], "alpha": [0, 1]}}]},
         "sampler grid: takes one knob, the study has 2"),
        ({"sampler": "gp", "recipes": [{"ties": {"trim": [0, 0.5]}}, {"sce": {"select": [0.1, 1]}}]},  # noqa: E501
         "sampler gp: takes the knobs of one recipe, the study has 2 recipes"),
        ({"tasks": ["arithmetik"]}, "unknown task 'arithmetik'"),
        ({"protocol": "l2s"}, "unknown protocol 'l2s'"),
        ({"quick": "nowhere"}, "model 'nowhere'"),
    ],
)  # fmt: skip
def test_nothing_is_made_for_a_study_that_cannot_run(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(LaconicError, match=message):
        search(study(tmp_path) | change, out=tmp_path / "out", options=QUIET)
    assert not (tmp_path / "out").exists()


def test_a_changed_study_is_refused(tmp_path: Path) -> None:
    raw = study(tmp_path)
    search(raw, out=tmp_path / "out", options=QUIET, runner=Live(tmp_path))
    other = raw | {"racing": False, "seed": 4}
    with pytest.raises(LaconicError, match=r"changed since .*: racing.on: true, false; seed: 0, 4"):
        search(other, out=tmp_path / "out", options=QUIET, extend=True)
    with pytest.raises(LaconicError, match="its trials are in storage journal"):
        search(raw, out=tmp_path / "out", options=Options("sqlite", progress=False))


def test_changed_parents_are_noticed(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    raw = study(tmp_path)
    search(raw, out=tmp_path / "out", options=QUIET, runner=Live(tmp_path))
    file = tmp_path / "slow" / "model.safetensors"
    tensors = load_file(file)
    save_file({n: t + torch.ones_like(t) for n, t in tensors.items()}, file, {"format": "pt"})
    with pytest.raises(LaconicError, match="changed since its storage was made: parents: "):
        search(raw, out=tmp_path / "out", options=QUIET, runner=Live(tmp_path))


def test_a_foreign_folder(tmp_path: Path) -> None:
    raw = study(tmp_path)
    with pytest.raises(LaconicError, match="exists and is no search folder"):
        search(raw, out=tmp_path / "quick", options=QUIET)


def test_a_study_file(tmp_path: Path) -> None:
    with pytest.raises(LaconicError, match="study none.yml: cannot be read: No such file"):
        load_study("none.yml")
    path = tmp_path / "mine.yml"
    path.write_text("quick: [")
    with pytest.raises(LaconicError, match="not valid YAML"):
        load_study(path)
    path.write_bytes(b"quick: \xff")
    with pytest.raises(LaconicError, match="study .*mine.yml: not valid YAML: 'utf-8' codec"):
        load_study(path)
    path.write_text("quick: q\nslow: s\nmerge: [ties]\n")
    with pytest.raises(LaconicError, match="looks like a recipe, .*`laconic merge` takes one"):
        load_study(path)
    path.write_text(yaml.safe_dump(LEAST))
    assert load_study(path).name == "mine"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["search"], "give STUDY, or --quick, --slow and --tasks; missing: --quick"),
        (["search", "none.yml", "--seed", "3"], "--seed cannot change a study"),
        (["search", "none.yml"], "study none.yml: cannot be read"),
        (["search", "--quick", "q", "--slow", "s", "--tasks", "t", "--pick", "knee"], "give --out"),
    ],
)
def test_the_command_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.out == ""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from grade.scripts import run
from laconic.cli.measuring import compare
from laconic.errors import LaconicError
from laconic.run.sample import Sample
from laconic.run.sampling import Sampling
from laconic.run.scripted import ScriptedRunner

FORMATS = ("terminal", "md", "csv", "latex", "json")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two runs under different protocols."""
    folder = tmp_path_factory.mktemp("runs")
    names = ("l2s-system1", "l2s-system2")
    for name in names:
        run(folder / name, protocol=name, sampling=Sampling(max_tokens=64), name=name)
    return [str(folder / name) for name in names]


def output(arguments: list[str]) -> str:
    done = CliRunner().invoke(compare, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_every_format_says_that_forced_runs_differ(pair: list[str]) -> None:
    with pytest.raises(LaconicError, match="cannot be compared: protocol: "):
        output([*pair, "--against", pair[0]])
    for name in FORMATS:
        shown = output([*pair, "--against", pair[0], "--force", "--format", name])
        words = shown.replace("\\_", "_").replace('""', '"').replace('\\"', '"')
        assert 'differ in protocol: "l2s-system1", "l2s-system2"' in " ".join(words.split()), name


def test_formats_hold_the_same_numbers(pair: list[str]) -> None:
    alone = pair[:1]
    found = json.loads(output([*alone, "--json"]))
    assert found == json.loads(output([*alone, "--format", "json"]))
    rows = list(csv.DictReader(io.StringIO(output([*alone, "--format", "csv"]))))
    assert [row["level"] for row in rows] == ["", "0", "1"]
    assert float(rows[0]["accuracy (share)"]) == found["rows"][0]["accuracy"] == 7 / 8
    assert float(rows[0]["tokens per correct (tokens)"]) == pytest.approx(23 / 7)
    words = float(rows[0]["reflection words in 1,000 tokens (per 1,000 tokens)"])
    assert words == pytest.approx(1000 * 7 / 23)
    for name in ("terminal", "md"):
        assert "87.5%" in output([*alone, "--format", name])
    assert r"87.5\%" in output([*alone, "--format", "latex"])


def test_several_draws_have_columns_of_their_own(tmp_path: Path) -> None:
    def half(sample: Sample, draw: int) -> str:
        number = int(sample.id.split("/")[1])
        return f"\\boxed{{{number + 1 if draw < 2 else 99}}}"

    sampling = Sampling(temperature=1.0, n=4)
    run(tmp_path / "run", ScriptedRunner(half), sampling=sampling)
    text = output([str(tmp_path / "run"), "--format", "csv"])
    row = next(csv.DictReader(io.StringIO(text)))
    expected = {
        "responses per question (count)": 4,
        "pass@1 (share)": 1 / 2,
        "pass@2 (share)": 1 - 1 / 6,
        "pass@4 (share)": 1,
        "majority (share)": 1 / 2,  # two against two
        "decoding-only standard error (share)": (0.25 / 3 / 8) ** 0.5,
    }
    assert {name: float(row[name]) for name in expected} == pytest.approx(expected)


def test_long_and_groups_show_more(pair: list[str]) -> None:
    alone = pair[:1]
    assert "90th percentile" not in output(alone)
    assert "90th percentile" in output([*alone, "--long"])
    assert "level" not in output(alone)
    assert "level" in output([*alone, "--groups"])


def test_one_name_for_each_format(pair: list[str]) -> None:
    done = CliRunner().invoke(compare, [*pair, "--format", "markdown"])
    assert done.exit_code == 2
    assert "'markdown' is not one of 'terminal', 'md', 'csv', 'latex', 'json'" in done.output

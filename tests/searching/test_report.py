"""What a finished search shows: the table, the page, the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from laconic.cli import main
from laconic.report.front import front_table, knobs
from laconic.report.page import report
from laconic.report.search_charts import hypervolume_chart, importance_chart
from laconic.searching.search import Options, search
from searching.fakes import Live, study


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("search")
    raw = study(made, budget={"trials": 6}, questions={"count": 24})
    search(raw, out=made / "out", options=Options(progress=False), runner=Live(made))
    return made


def test_the_table(folder: Path) -> None:
    record = json.loads((folder / "out" / "front.json").read_text())
    table = front_table(record)
    assert [row[0] for row in table.rows[:2]] == ["slow", "quick"]
    assert len(table.rows) == 2 + len(record["front"])
    assert sum("(knee)" in row[0] for row in table.rows) == 1
    assert table.rows[0][-1] == "reference"
    notes = " ".join(table.notes)
    assert f"hypervolume {record['hypervolume']:.4f}" in notes
    assert "trials were asked 24 questions" in notes


def test_a_recipe_in_few_words() -> None:
    chain = [{"dare": {"drop": 0.3}}, {"ties": {"trim": 0.25, "rule": "ge"}}]
    row = {"recipe": {"merge": chain}, "params": {"ties.trim": 0.25}}
    assert knobs(row) == "dare drop 0.3 -> ties trim 0.25"
    params = {f"interpolation.weight@block {i}": 0.1 for i in (1, 2, 3)}
    row = {"recipe": {"merge": [{"interpolation": {"weight": 0.5}}]}, "params": params}
    assert knobs(row) == "interpolation 0.1 | 0.1 | 0.1"


def test_the_page(folder: Path, tmp_path: Path) -> None:
    page = report([folder / "out"], tmp_path / "page.html").read_text()
    for heading in (
        "The front of search",
        "Hypervolume over the search",
        "Accuracy against length",
    ):
        assert heading in page
    assert "changes are against slow" in page
    assert len(re.findall(r"<title>trials/\d+ \((?:complete|dropped)\)", page)) == 6


def test_the_sweep_is_the_line_to_beat() -> None:
    curve = [
        {"trial": "sweep/0", "generated": 100, "hypervolume": 0.2},
        {"trial": "blocks/0", "generated": 200, "hypervolume": 0.5},
    ]
    drawn = hypervolume_chart({"curve": curve})
    assert "the grid of one knob alone" in drawn
    assert "the grid of one knob alone" not in hypervolume_chart({"curve": curve[:1]})


def test_importances_are_bars() -> None:
    drawn = importance_chart({"accuracy": {"ties.trim": 0.25}, "tokens": {"ties.trim": 0.75}})
    assert "ties.trim, accuracy: 25%" in drawn
    assert "ties.trim, tokens: 75%" in drawn


def test_picking_on_the_command_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(
            [
                "search",
                str(folder / "out"),
                "--pick",
                "accuracy",
                "--out",
                str(tmp_path / "m"),
                "--json",
            ]
        )
    assert end.value.code == 0
    picked = json.loads(capsys.readouterr().out)
    assert picked["row"]["accuracy"] == 1.0
    assert (tmp_path / "m" / "model.safetensors").is_file()

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from laconic.checkpoint.manifest import verify
from laconic.demo.families import Family
from laconic.demo.showcase import choose, demo
from laconic.grade.comparisons import Row

ROW = Row(
    name="a",
    method=None,
    task=None,
    level=None,
    questions=500,
    ungraded=0,
    accuracy=0.9,
    accuracy_interval=(0.8, 1.0),
    accuracy_change=0.0,
    accuracy_change_interval=(-0.1, 0.1),
    tokens=100.0,
    tokens_interval=(90.0, 110.0),
    tokens_change=0.0,
    tokens_change_interval=(-0.1, 0.1),
    reflection=0.5,
    reflections=1.0,
    cut=0.0,
)


def row(name: str, accuracy_change: float, tokens: float) -> Row:
    return replace(ROW, name=name, accuracy_change=accuracy_change, tokens=tokens)


def test_the_shortest_of_the_accurate_ones_is_chosen() -> None:
    rows = [row("long", 0.01, 90), row("short", -0.02, 50), row("wrong", -0.021, 20)]
    assert choose(rows).name == "short"


def test_a_difference_of_two_points_is_not_lost_to_rounding() -> None:
    assert choose([row("edge", 0.94 - 0.96, 50), row("long", 0.0, 90)]).name == "edge"


def test_without_an_accurate_one_the_most_accurate_is_chosen() -> None:
    rows = [row("b", -0.1, 60), row("a", -0.05, 90), row("c", -0.05, 80)]
    assert choose(rows).name == "c"


@pytest.mark.slow
def test_the_demo_leaves_what_it_says_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    families = (Family("TA + AIM", (({"task_arithmetic": {"alpha": 0.5}}, {"aim": {}}),)),)
    found = demo(tmp_path, families=families, progress=False)
    result = json.loads((tmp_path / "summary.json").read_text())
    assert result == json.loads(json.dumps(found.to_dict()))
    rows = {row["name"]: row for row in result["rows"]}
    wanted = {"name", "method", "accuracy", "accuracy_interval", "tokens", "tokens_change"}
    assert rows["slow"].keys() >= wanted | {"reflection", "cut"}
    assert result["best"] == "TA + AIM (alpha 0.5)"
    assert rows["slow"]["accuracy"] >= 0.9 > 0.6 >= rows["quick"]["accuracy"]
    assert rows[result["best"]]["effect"]
    assert verify(tmp_path / "best").ok
    assert "TA + AIM (alpha 0.5)" in (tmp_path / "best" / "README.md").read_text()
    (tmp_path / "summary.json").unlink()
    again = demo(tmp_path, families=families, progress=False)
    assert again.to_dict() == found.to_dict()

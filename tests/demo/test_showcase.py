from __future__ import annotations

from dataclasses import replace

from laconic.demo.showcase import choose
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

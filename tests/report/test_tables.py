from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest

from laconic.errors import LaconicError
from laconic.grade.comparisons import Comparison, Row
from laconic.report.tables import (
    comparison_table,
    to_markdown,
    write_comparison,
    write_table,
)

SLOW = Row(
    name="slow",
    method=None,
    task=None,
    level=None,
    questions=500,
    ungraded=0,
    accuracy=0.728,
    accuracy_interval=(0.69, 0.7655),
    accuracy_change=None,
    accuracy_change_interval=None,
    tokens=110.04,
    tokens_interval=(105.0, 115.26),
    tokens_change=None,
    tokens_change_interval=None,
    reflection=0.91,
    reflections=1.5,
    cut=0.002,
)
MERGED = replace(
    SLOW,
    name="a|b",
    accuracy=0.738,
    accuracy_change=0.01,
    accuracy_change_interval=(-0.012, 0.03),
    tokens=55.0,
    tokens_change=-0.5,
    tokens_change_interval=(-0.52, -0.484),
)
COMPARISON = Comparison("slow", (SLOW, MERGED), (), notes=("they differ in dtype",))


def test_cells_by_hand() -> None:
    table = comparison_table(COMPARISON)
    assert table.columns == (
        "name",
        "accuracy",
        "accuracy change",
        "mean tokens",
        "token change",
        "reflection",
        "cut",
    )
    assert table.rows == (
        (
            "slow",
            "72.8% [69.0, 76.5]",
            "reference",
            "110.0 [105.0, 115.3]",
            "reference",
            "91.0%",
            "0.2%",
        ),
        (
            "a|b",
            "73.8% [69.0, 76.5]",
            "+1.0 pp [-1.2, +3.0]",
            "55.0 [105.0, 115.3]",
            "-50.0% [-52.0, -48.4]",
            "91.0%",
            "0.2%",
        ),
    )


def test_columns_that_say_nothing_are_left_out() -> None:
    alone = comparison_table(Comparison(None, (SLOW,), ()))
    assert alone.columns == ("name", "accuracy", "mean tokens", "reflection", "cut")
    full = replace(SLOW, method="ties", level="3", ungraded=2, accuracy=None)
    table = comparison_table(Comparison(None, (), (full,)), groups=True)
    assert table.columns[:4] == ("name", "method", "level", "n")
    assert table.columns[-1] == "ungraded"
    assert table.rows[0][:5] == ("slow", "ties", "3", "500", "-")  # unknown is not zero
    assert table.rows[0][-1] == "2"


def test_markdown() -> None:
    lines = to_markdown(comparison_table(COMPARISON)).splitlines()
    assert lines[1] == "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    assert lines[3].startswith(r"| a\|b | 73.8% [69.0, 76.5] | +1.0 pp")
    assert lines[-1] == "Note: they differ in dtype."


def test_terminal_shows_every_cell_and_note_in_a_pipe() -> None:
    file = io.StringIO()
    write_comparison(COMPARISON, file=file)
    shown = file.getvalue()
    table = comparison_table(COMPARISON)
    assert all(cell in shown for row in table.rows for cell in row)
    assert "Note: they differ in dtype." in shown
    assert len(shown.splitlines()[1].split("  ")) > 5  # the header is one line


def test_json_is_the_comparison() -> None:
    file = io.StringIO()
    write_comparison(COMPARISON, "json", file)
    found = json.loads(file.getvalue())
    assert found == COMPARISON.to_dict()
    assert found["rows"][1]["tokens_change_interval"] == [-0.52, -0.484]


def test_unknown_format() -> None:
    with pytest.raises(LaconicError, match="unknown format 'markdwon'; did you mean 'markdown'"):
        write_table(comparison_table(COMPARISON), "markdwon")

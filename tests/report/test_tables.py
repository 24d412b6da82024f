from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from laconic.errors import LaconicError
from laconic.grade.bootstrap import Estimate
from laconic.grade.comparisons import Comparison, Row
from laconic.grade.efficiency import Across, LengthChange
from laconic.grade.pairing import AccuracyTest, BothRight, Paired
from laconic.report.tables import (
    comparison_table,
    long_table,
    write_comparison,
    write_table,
)

DETAILS = {
    "k": 1,
    "tokens_per_correct": 151.15,
    "loops": 0.004,
    "accuracy_finished": 0.7295,
    "tokens": {"mean": 110.04, "median": 101.0, "p90": 170.5},
    "missing_box": 0.012,
    "think": {"closed": 0.998, "open": 0.002},
    "sources": {"box": 494, "last number": 6},
    "reflection": {"paper": {"share": 0.93}},
}
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
    reflection_interval=(0.88, 0.93),
    details=DETAILS,
)
PAIRED = Paired(
    Estimate(0.01, -0.012, 0.03),
    Estimate(0.5, 0.48, 0.516),
    AccuracyTest("mcnemar", 12, 7, 0.0004, 0.0321),
    BothRight(350, 51.25, 101.5),
    Across(LengthChange(-0.53, -0.562), 0.545),
)
MERGED = replace(
    SLOW,
    name="a|b_1",
    accuracy=0.738,
    accuracy_change=0.01,
    accuracy_change_interval=(-0.012, 0.03),
    tokens=55.0,
    tokens_change=-0.5,
    tokens_change_interval=(-0.52, -0.484),
    paired=PAIRED,
    details=DETAILS | {"tokens_per_correct": 74.5, "loops": 0.0, "pass": {"1": 0.738, "2": 0.8}},
)
COMPARISON = Comparison("slow", (SLOW, MERGED), (), notes=("they differ in dtype",))


def printed(format: str, **options: bool) -> str:
    file = io.StringIO()
    write_comparison(COMPARISON, format, file, **options)
    return file.getvalue()


def test_cells_by_hand() -> None:
    table = comparison_table(COMPARISON)
    assert table.columns == (
        "name",
        "accuracy",
        "accuracy change",
        "mean tokens",
        "token change",
        "cut",
        "loops",
        "reflection",
        "tokens per correct",
    )
    assert table.rows == (
        (
            "slow",
            "72.8% [69.0, 76.5]",
            "reference",
            "110.0 [105.0, 115.3]",
            "reference",
            "0.2%",
            "0.4%",
            "91.0%",
            "151.2",
        ),
        (
            "a|b_1",
            "73.8% [69.0, 76.5]",
            "+1.0 pp [-1.2, +3.0]",
            "55.0 [105.0, 115.3]",
            "-50.0% [-52.0, -48.4]",
            "0.2%",
            "0.0%",
            "91.0%",
            "74.5",
        ),
    )


def test_tests_and_changes_over_tasks_are_columns_where_asked() -> None:
    table = comparison_table(COMPARISON, tests=True)
    assert table.columns[-4:] == (
        "token change, mean of tasks",
        "token change, tasks' means",
        "p (Holm)",
        "AES (weights 1, 3, 5)",
    )
    assert table.rows[1][-4:] == ("-53.0%", "-56.2%", "0.032", "0.545")
    assert table.rows[0][-4:] == ("-", "-", "-", "-")
    same = replace(PAIRED, across=Across(LengthChange(-0.5, -0.5), None))
    one = Comparison("slow", (SLOW, replace(MERGED, paired=same)), ())
    assert comparison_table(one, tests=True).columns[-2:] == ("p (Holm)", "AES (weights 1, 3, 5)")
    assert "token change, mean of tasks" not in comparison_table(one, tests=True).columns


def test_columns_that_say_nothing_are_left_out() -> None:
    bare = replace(SLOW, details={})
    alone = comparison_table(Comparison(None, (bare,), ()))
    assert alone.columns == ("name", "accuracy", "mean tokens", "cut", "reflection")
    full = replace(bare, method="ties", level="3", ungraded=2, accuracy=None)
    table = comparison_table(Comparison(None, (), (full,)), groups=True)
    assert table.columns[:4] == ("name", "method", "level", "n")
    assert table.columns[-1] == "ungraded"
    assert table.rows[0][:5] == ("slow", "ties", "3", "500", "-")  # unknown is not zero
    assert table.rows[0][-1] == "2"


def test_long_table_has_every_measure() -> None:
    table = long_table(COMPARISON)
    assert table.columns == ("measure", "slow", "a|b_1")
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["paired test"] == ("-", "mcnemar")
    assert rows["right here alone"] == ("-", "12")
    assert rows["right in the reference alone"] == ("-", "7")
    assert rows["p"] == ("-", "<0.001")
    assert rows["length ratio"] == ("-", "0.500 [0.480, 0.516]")
    assert rows["questions both get right"] == ("-", "350")
    assert rows["tokens where both are right"] == ("-", "51.2")
    assert rows["the reference's tokens there"] == ("-", "101.5")
    assert rows["90th percentile"] == ("170.5", "170.5")
    assert rows["accuracy of completed responses"] == ("73.0%", "73.0%")
    assert rows["without a box"] == ("1.2%", "1.2%")
    assert rows["think tags: open"] == ("0.2%", "0.2%")
    assert rows["answer from: last number"] == ("6", "6")
    assert rows["reflection"] == ("91.0% [88.0, 93.0]", "91.0% [88.0, 93.0]")
    assert rows["reflection, as the paper counts"] == ("93.0%", "93.0%")
    assert rows["pass@2"] == ("-", "80.0%")
    assert rows["AES (weights 1, 3, 5)"] == ("-", "0.545")
    assert "majority" not in rows  # no run has it


def test_markdown() -> None:
    lines = printed("md").splitlines()
    assert lines[1] == "| --- |" + " ---: |" * 8
    assert lines[3].startswith(r"| a\|b_1 | 73.8% [69.0, 76.5] | +1.0 pp")
    assert lines[-1] == "Note: they differ in dtype."


def test_csv_brings_every_number_back() -> None:
    group = replace(MERGED, task='math, "500"', level="3")
    comparison = replace(COMPARISON, groups=(group,))
    file = io.StringIO()
    write_comparison(comparison, "csv", file)
    slow, merged, level = csv.DictReader(io.StringIO(file.getvalue()))
    assert (slow["task"], level["task"], level["level"]) == ("", 'math, "500"', "3")
    expected = {
        "accuracy (share)": 0.738,
        "accuracy change low (difference of shares)": -0.012,
        "mean tokens high (tokens)": 115.26,
        "token change (relative)": -0.5,
        "length ratio high (ratio)": 0.516,
        "p (probability)": 0.0004,
        "p (Holm) (probability)": 0.0321,
        "right here alone (count)": 12,
        "tokens where both are right (tokens)": 51.25,
        "AES (weights 1, 3, 5) (score)": 0.545,
        "token change, mean of tasks (relative)": -0.53,
        "pass@2 (share)": 0.8,
        "tokens per correct (tokens)": 74.5,
    }
    assert {name: float(merged[name]) for name in expected} == expected
    assert slow["p (probability)"] == ""
    assert merged["paired test"] == "mcnemar"
    assert merged["notes"] == "they differ in dtype"


def test_latex_escapes_what_it_would_read_otherwise() -> None:
    name = r"[50%] a_b & c\d {#$^~<|>}"
    shown = Comparison("slow", (SLOW, replace(MERGED, name=name)), (), ("a_b differs",))
    file = io.StringIO()
    write_comparison(shown, "latex", file)
    lines = file.getvalue().splitlines()
    assert lines[:2] == [r"\begin{tabular}{lrrrrrrrr}", r"\toprule"]
    assert lines[5].startswith(
        r"{}[50\%] a\_b \& c\textbackslash{}d \{\#\$\textasciicircum{}\textasciitilde{}"
        r"\textless{}\textbar{}\textgreater{}\} & 73.8\% [69.0, 76.5] & +1.0 pp"
    )
    assert all(line.count(" & ") == 8 and line.endswith(r" \\") for line in (lines[2], *lines[4:6]))
    assert lines[6:8] == [r"\bottomrule", r"\end{tabular}"]
    assert lines[8] == r"\par\smallskip {\footnotesize Note: a\_b differs.}"


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="there is no pdflatex here")
def test_latex_compiles(tmp_path: Path) -> None:
    rows = (SLOW, *(replace(MERGED, name=name) for name in (r"[50%] a_b & c\d {#$^~<|>}", "*é")))
    with open(tmp_path / "t.tex", "w", encoding="utf-8") as file:
        print(r"\documentclass{article}\usepackage{booktabs}\begin{document}", file=file)
        write_comparison(replace(COMPARISON, rows=rows), "latex", file)
        print(r"\par", file=file)
        write_comparison(replace(COMPARISON, rows=rows), "latex", file, long=True)
        print(r"\end{document}", file=file)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-1500:]


def test_terminal_shows_every_cell_and_note_in_120_characters() -> None:
    names = ("Qwen2.5-Math-7B TIES (trim 0.6, alpha 0.9)", "TIES (trim 0.8)", "a" * 90)
    rows = tuple(replace(MERGED, name=name) for name in names)
    for comparison in (COMPARISON, replace(COMPARISON, rows=(SLOW, *rows))):
        file = io.StringIO()
        write_comparison(comparison, file=file)
        shown = file.getvalue()
        assert max(map(len, shown.splitlines())) <= 120
        words = " ".join(shown.split())
        table = comparison_table(comparison)
        cells = [part for row in table.rows for cell in row[1:] for part in cell.split(" [")]
        assert all(cell in words for cell in cells)
        assert "Note: they differ in dtype." in shown
    assert "TIES (trim 0.8)" in shown
    assert sum("72.8%" in line for line in shown.splitlines()) == 1


def test_a_run_is_named_once_above_its_groups() -> None:
    rows = [replace(MERGED, name=name, level=level) for name in ("m1", "m2") for level in "12"]
    file = io.StringIO()
    write_comparison(replace(COMPARISON, groups=tuple(rows)), file=file, groups=True)
    second = file.getvalue().split("Note:")[1]
    assert (second.count("m1"), second.count("m2")) == (1, 1)


def test_json_is_the_comparison() -> None:
    found = json.loads(printed("json"))
    assert found == json.loads(json.dumps(COMPARISON.to_dict()))
    assert found["rows"][1]["tokens_change_interval"] == [-0.52, -0.484]
    paired = found["rows"][1]["paired"]
    assert paired["test"]["p_holm"] == 0.0321
    assert paired["aes"] == {"value": 0.545, "weights": [1.0, 3.0, 5.0]}
    assert paired["length_change_by_task"] == {"mean_of_ratios": -0.53, "ratio_of_means": -0.562}
    assert found["rows"][0]["details"]["tokens"]["p90"] == 170.5


def test_unknown_format() -> None:
    with pytest.raises(LaconicError, match="unknown format 'markdown' .known: csv, json"):
        write_table(comparison_table(COMPARISON), "markdown")

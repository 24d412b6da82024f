"""Tables of runs: which columns they have, and in which format they are written."""

from __future__ import annotations

import csv
import io
import json
import sys
from typing import Any

from laconic.errors import unknown
from laconic.grade.comparisons import Comparison, Row
from laconic.grade.evaluation import RunSummary
from laconic.grade.metrics import Measures
from laconic.report.columns import (
    ACCURACY_CHANGE,
    LABELS,
    QUESTIONS,
    TOKEN_CHANGE,
    Column,
    every_column,
    short_columns,
    show,
    tested_columns,
)
from laconic.report.layouts import Table, print_terminal, to_latex, to_markdown

FORMATS = ("terminal", "md", "csv", "latex", "json")


def comparison_table(
    comparison: Comparison, *, groups: bool = False, methods: bool = True, tests: bool = False
) -> Table:
    """A comparison as a table: one line per run, or per run and group of questions.

    methods: whether the method has a column of its own beside the name. tests: whether the paired
    test, AES and the changes of length over tasks have theirs.
    """
    rows = comparison.groups if groups else comparison.rows
    labels = [
        label
        for label in LABELS
        if label.name == "name" or any(label.value(row) for row in rows)
        if methods or label.name != "method"
    ]
    grouped = any(label.name in ("level", "task") for label in labels)
    columns = [*[QUESTIONS] * grouped, *short_columns(comparison, rows)]
    columns += tested_columns(rows) if tests and comparison.reference is not None else []
    cells = [
        (
            *(label.value(row) or "" for label in labels),
            *(_cell(row, column, comparison.reference) for column in columns),
        )
        for row in rows
    ]
    names = tuple(column.name for column in (*labels, *columns))
    return Table(names, tuple(cells), len(labels), comparison.notes)


def long_table(comparison: Comparison) -> Table:
    """All that is measured: one line per measure, one column per run."""
    rows = comparison.rows
    columns = every_column(rows)
    shown = [column for column in columns if any(column.value(row) is not None for row in rows)]
    cells = [(column.name, *(column.text(row) for row in rows)) for column in shown]
    return Table(("measure", *(row.name for row in rows)), tuple(cells), 1, comparison.notes)


def _cell(row: Row, column: Column, reference: str | None) -> str:
    changes = column in (ACCURACY_CHANGE, TOKEN_CHANGE)
    return "reference" if changes and row.name == reference else column.text(row)


def summary_table(summary: RunSummary) -> Table:
    """One run as a table: all questions first, then each task and level."""
    columns = ("questions", "n", "accuracy", "mean tokens", "reflection", "cut", "ungraded")
    return Table(columns, tuple(_summary_row(measures) for measures in summary.measures))


def write_comparison(
    comparison: Comparison,
    format: str = "terminal",
    file: Any = None,
    *,
    groups: bool = False,
    long: bool = False,
) -> None:
    """Write a comparison in one of FORMATS, to standard output by default.

    groups: a second table, by task and level. long: every measure in place of the usual ones.
    `csv` and `json` hold everything, whatever these two say.
    """
    if format == "json":
        _write_json(comparison.to_dict(), file)
    elif format == "csv":
        (file or sys.stdout).write(to_csv(comparison))
    else:
        methods = format != "terminal"  # a terminal has no room for both name and method
        usual = comparison_table(comparison, methods=methods)
        write_table(long_table(comparison) if long else usual, format, file)
        if groups:
            write_table(comparison_table(comparison, groups=True, methods=methods), format, file)


def write_summary(summary: RunSummary, format: str = "terminal", file: Any = None) -> None:
    """Write one run's measures: `terminal`, `md` or `json`, to standard output by default."""
    if format == "json":
        _write_json(summary.to_dict(), file)
    else:
        write_table(summary_table(summary), format, file)


def write_table(table: Table, format: str = "terminal", file: Any = None) -> None:
    """Lay out a table: `terminal`, `md` or `latex`. Raises LaconicError for another format."""
    if format == "md":
        print(to_markdown(table), file=file or sys.stdout)
    elif format == "latex":
        print(to_latex(table), file=file or sys.stdout)
    elif format == "terminal":
        print_terminal(table, file or sys.stdout)
    else:
        raise unknown("format", format, FORMATS)


def to_csv(comparison: Comparison) -> str:
    """One line per run and group of questions: plain numbers, units in the header.

    An interval has two columns, `low` and `high`; what is not defined is empty. A line without
    task and level is over all questions.
    """
    rows = (*comparison.rows, *comparison.groups)
    columns = [*LABELS, *every_column(rows)]
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow([*(name for column in columns for name in column.headers()), "notes"])
    notes = "; ".join(comparison.notes)
    for row in rows:
        lines.writerow([*(value for column in columns for value in column.values(row)), notes])
    return text.getvalue()


def _summary_row(measures: Measures) -> tuple[str, ...]:
    group, accuracy = measures.group, measures.accuracy
    level = f"level {group.level}" if group.level is not None else ""
    tokens = measures.tokens
    return (
        " ".join(part for part in (group.task, level) if part) or "all",
        str(measures.questions),
        show("share", accuracy.value, (accuracy.low, accuracy.high)) if accuracy else "-",
        show("tokens", tokens.value, (tokens.low, tokens.high)),
        show("share", measures.reflection.value),
        show("share", measures.cut.value),
        str(measures.ungraded),
    )


def _write_json(value: dict[str, Any], file: Any) -> None:
    print(json.dumps(value, indent=2, allow_nan=False), file=file or sys.stdout)

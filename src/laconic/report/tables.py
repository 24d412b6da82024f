"""Tables of runs: on the terminal, in Markdown, as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any, Literal

from laconic.errors import unknown
from laconic.grade.comparisons import Comparison, Interval, Row
from laconic.grade.evaluation import RunSummary
from laconic.grade.metrics import Measures

Format = Literal["terminal", "markdown", "json"]
FORMATS: tuple[Format, ...] = ("terminal", "markdown", "json")
PIPE_WIDTH = 160
"""Characters per line when standard output is not a terminal."""


@dataclass(frozen=True)
class Table:
    """Text cells ready to be laid out; the first `labels` columns are words, the rest numbers."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    labels: int = 1
    notes: tuple[str, ...] = ()


def comparison_table(
    comparison: Comparison, *, groups: bool = False, methods: bool = True
) -> Table:
    """A comparison as a table: one line per run, or per run and group of questions.

    methods: whether the method has a column of its own beside the name.
    """
    rows = comparison.groups if groups else comparison.rows
    labels = tuple(label for label in _labels(rows) if methods or label != "method")
    return _without_empty(rows, labels, comparison.reference, comparison.notes)


def summary_table(summary: RunSummary) -> Table:
    """One run as a table: all questions first, then each task and level."""
    columns = ("questions", "n", "accuracy", "mean tokens", "reflection", "cut", "ungraded")
    return Table(columns, tuple(_summary_row(measures) for measures in summary.measures))


def write_comparison(comparison: Comparison, format: str = "terminal", file: Any = None) -> None:
    """Write a comparison: `terminal`, `markdown` or `json`, to standard output by default."""
    if format == "json":
        _write_json(comparison.to_dict(), file)
    else:
        write_table(comparison_table(comparison), format, file)


def write_summary(summary: RunSummary, format: str = "terminal", file: Any = None) -> None:
    """Write one run's measures: `terminal`, `markdown` or `json`, to standard output by default."""
    if format == "json":
        _write_json(summary.to_dict(), file)
    else:
        write_table(summary_table(summary), format, file)


def write_table(table: Table, format: str = "terminal", file: Any = None) -> None:
    """Lay out a table: `terminal` or `markdown`. Raises LaconicError for another format."""
    if format == "markdown":
        print(to_markdown(table), file=file or sys.stdout)
    elif format == "terminal":
        _print_rich(table, file or sys.stdout)
    else:
        raise unknown("format", format, FORMATS)


def to_markdown(table: Table) -> str:
    """The table as Markdown: words to the left, numbers to the right, notes below."""
    rules = ["---" if i < table.labels else "---:" for i in range(len(table.columns))]
    lines = [table.columns, tuple(rules), *table.rows]
    text = "\n".join(
        "| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines
    )
    return "\n".join([text, *(f"\nNote: {note}." for note in table.notes)])


def _print_rich(table: Table, file: IO[str]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    # A pipe has no width of its own: the same bytes wherever it is written.
    width = None if file.isatty() else PIPE_WIDTH
    console = Console(file=file, width=width, highlight=False)
    drawn = RichTable(box=SIMPLE_HEAD, pad_edge=False)
    for place, column in enumerate(table.columns):
        words = place < table.labels
        drawn.add_column(
            column, justify="left" if words else "right", no_wrap=words, overflow="fold"
        )
    for row in table.rows:
        drawn.add_row(*(Text(cell) for cell in row))
    console.print(drawn)
    for note in table.notes:
        console.print(Text(f"Note: {note}."))


def _labels(rows: Sequence[Row]) -> tuple[str, ...]:
    optional = ("method", "task", "level")
    return ("name", *(label for label in optional if any(getattr(row, label) for row in rows)))


def _without_empty(
    rows: Sequence[Row], labels: tuple[str, ...], reference: str | None, notes: tuple[str, ...]
) -> Table:
    """The columns that say something: changes only with a reference, ungraded only if any are."""
    columns = [*labels]
    if "level" in labels or "task" in labels:
        columns.append("n")
    columns.append("accuracy")
    if reference is not None:
        columns.append("accuracy change")
    columns.append("mean tokens")
    if reference is not None:
        columns.append("token change")
    columns += ["reflection", "cut"]
    if any(row.ungraded for row in rows):
        columns.append("ungraded")
    cells = tuple(tuple(_cell(row, column, reference) for column in columns) for row in rows)
    return Table(tuple(columns), cells, len(labels), notes)


def _cell(row: Row, column: str, reference: str | None) -> str:
    if column in ("name", "method", "task", "level"):
        return getattr(row, column) or ""
    if row.name == reference and column.endswith(" change"):
        return "reference"
    return {
        "n": str(row.questions),
        "accuracy": _with(row.accuracy, row.accuracy_interval, _percent),
        "accuracy change": _with(row.accuracy_change, row.accuracy_change_interval, _points),
        "mean tokens": _with(row.tokens, row.tokens_interval, _count),
        "token change": _with(row.tokens_change, row.tokens_change_interval, _signed_percent),
        "reflection": _percent(row.reflection),
        "cut": _percent(row.cut),
        "ungraded": str(row.ungraded),
    }[column]


def _summary_row(measures: Measures) -> tuple[str, ...]:
    group, accuracy = measures.group, measures.accuracy
    level = f"level {group.level}" if group.level is not None else ""
    tokens = measures.tokens
    return (
        " ".join(part for part in (group.task, level) if part) or "all",
        str(measures.questions),
        _with(accuracy.value, (accuracy.low, accuracy.high), _percent) if accuracy else "-",
        _with(tokens.value, (tokens.low, tokens.high), _count),
        _percent(measures.reflection.value),
        _percent(measures.cut.value),
        str(measures.ungraded),
    )


def _with(value: float | None, interval: Interval | None, show: Any) -> str:
    if value is None or interval is None:
        return "-"
    return f"{show(value)} [{show(interval[0], '')}, {show(interval[1], '')}]"


def _percent(value: float, unit: str = "%") -> str:
    return f"{100 * value:.1f}{unit}"


def _signed_percent(value: float, unit: str = "%") -> str:
    return f"{100 * value:+.1f}{unit}"


def _points(value: float, unit: str = " pp") -> str:
    return f"{100 * value:+.1f}{unit}"


def _count(value: float, unit: str = "") -> str:
    return f"{value:.1f}{unit}"


def _write_json(value: dict[str, Any], file: Any) -> None:
    print(json.dumps(value, indent=2, allow_nan=False), file=file or sys.stdout)

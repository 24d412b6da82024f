"""A table of text cells, and how it is laid out: on the terminal, in Markdown, in LaTeX."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import IO

PIPE_WIDTH = 120
"""Characters per line when standard output is not a terminal."""
GAP = 2
"""Characters between columns on the terminal."""
LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
}


@dataclass(frozen=True)
class Table:
    """Text cells ready to be laid out; the first `labels` columns are words, the rest numbers."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    labels: int = 1
    notes: tuple[str, ...] = ()


def print_terminal(table: Table, file: IO[str]) -> None:
    """Print a table; where it is wider than the terminal, intervals stand below their values."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    # A pipe has no width of its own: the same bytes wherever it is written.
    console = Console(file=file, width=None if file.isatty() else PIPE_WIDTH, highlight=False)
    fits = _width(table) <= console.width
    laid = table if fits else _stacked(table)
    drawn = RichTable(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for place, column in enumerate(laid.columns):
        if place < table.labels:
            drawn.add_column(Text(column), justify="left", no_wrap=fits, overflow="fold")
        else:
            drawn.add_column(Text(column), justify="right", no_wrap=True)
    for row in laid.rows:
        drawn.add_row(*(Text(cell) for cell in row))
    console.print(drawn)
    for note in table.notes:
        console.print(Text(f"Note: {note}."))


def _width(table: Table) -> int:
    """How many characters a line takes with each cell on one line."""
    lines = (table.columns, *table.rows)
    widest = [max(len(line[place]) for line in lines) for place in range(len(table.columns))]
    return sum(widest) + GAP * len(widest)


def _stacked(table: Table) -> Table:
    """The numbers' intervals below them, headings about as wide, each run's name once."""
    rows = []
    for above, row in zip([(), *table.rows], table.rows, strict=False):
        name = "" if above[:1] == row[:1] else row[0]
        numbers = (cell.replace(" [", "\n[") for cell in row[table.labels :])
        rows.append((name, *row[1 : table.labels], *numbers))
    columns = list(table.columns)
    for place in range(table.labels, len(columns)):
        widest = max(len(part) for row in rows for part in row[place].split("\n"))
        columns[place] = textwrap.fill(columns[place], max(widest, 10), break_long_words=False)
    return replace(table, columns=tuple(columns), rows=tuple(rows))


def to_markdown(table: Table) -> str:
    """The table as Markdown: words to the left, numbers to the right, notes below."""
    rules = ["---" if i < table.labels else "---:" for i in range(len(table.columns))]
    lines = [table.columns, tuple(rules), *table.rows]
    text = "\n".join(
        "| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines
    )
    return "\n".join([text, *(f"\nNote: {note}." for note in table.notes)])


def to_latex(table: Table) -> str:
    """The table for LaTeX with the package booktabs; notes below."""
    kinds = "l" * table.labels + "r" * (len(table.columns) - table.labels)
    lines = [
        rf"\begin{{tabular}}{{{kinds}}}",
        r"\toprule",
        _latex_line(table.columns),
        r"\midrule",
        *(_latex_line(row) for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\smallskip {{\footnotesize Note: {_escaped(note)}.}}" for note in table.notes),
    ]
    return "\n".join(lines)


def _latex_line(cells: Sequence[str]) -> str:
    # An empty group: after the last line's end a cell that begins with [ would be its argument.
    return "{}" + " & ".join(_escaped(cell) for cell in cells) + r" \\"


def _escaped(text: str) -> str:
    return "".join(LATEX.get(mark, mark) for mark in text)

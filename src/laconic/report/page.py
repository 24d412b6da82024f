"""One self-contained HTML page about runs: a table, figures, and every answer side by side."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from laconic.errors import LaconicError
from laconic.grade.comparisons import Comparison, Row, compare
from laconic.grade.folder import RunFolder
from laconic.report.charts import (
    Lengths,
    accuracy_and_tokens,
    budget_curve,
    by_group,
    length_distribution,
)
from laconic.report.front import front_runs, is_search, search_figures
from laconic.report.layouts import Table
from laconic.report.responses import collect
from laconic.report.svg import COLOURS
from laconic.report.tables import comparison_table

SHOWN_SETTINGS = ("dtype", "context_window", "weights", "tokenizer")


@dataclass(frozen=True)
class Figure:
    """A drawing with its heading, and a sentence that says how to read it."""

    title: str
    drawing: Markup
    caption: str
    wide: bool = False


def report(
    runs: Sequence[str | Path], out: str | Path, *, against: str | Path | None = None
) -> Path:
    """Write one HTML page about complete runs of the same questions; return its path.

    runs: run folders; the folder of a search stands for the runs of its front on the test
    questions, and adds figures of its own.
    against: the run folder of the reference, as a rule the slow parent's. The page needs no
    network and no other file. Raises LaconicError for runs that are not complete or cannot be
    compared, or a path that cannot be written.
    """
    searches = [run for run in runs if is_search(run)]
    runs = [path for run in runs for path in (front_runs(run) if is_search(run) else [run])]
    if searches and against is None:
        against = runs[0]
    comparison = compare(runs, against)
    names = [row.name for row in comparison.rows]
    folders = _folders(runs, against)
    records = [folder.read_run() for folder in folders]
    grades = [folder.read_grades() for folder in folders]
    lengths = [Lengths.of(name, own) for name, own in zip(names, grades, strict=True)]
    found = collect(names, folders, grades)
    html = _template().render(
        title=" · ".join(sorted(records[0]["settings"]["tasks"])),
        facts=_facts(records[0], comparison),
        names=names,
        numbers={name: number for number, name in enumerate(names)},
        colours=COLOURS,
        table=comparison_table(comparison, methods=False, tests=True),
        groups=_groups_table(comparison),
        figures=[
            *(Figure(*drawn) for drawn in search_figures(searches)),
            *_figures(comparison, lengths),
        ],
        measured=_measured(names, records),
        data=_embedded(found.data),
        note=found.note,
    )
    return _write(Path(out), html)


def _folders(runs: Sequence[str | Path], against: str | Path | None) -> list[RunFolder]:
    """The run folders in the order of a comparison's rows: each once, the reference first."""
    paths = {Path(run).resolve(): Path(run) for run in runs}
    if against is not None and Path(against).resolve() not in paths:
        paths = {Path(against).resolve(): Path(against)} | paths
    return [RunFolder(path) for path in paths.values()]


def _template() -> Any:
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return made.get_template("page.html.j2")


def _facts(record: dict[str, Any], comparison: Comparison) -> list[str]:
    settings, first = record["settings"], comparison.rows[0]
    sampling = settings["sampling"]
    decoding = (
        "greedy decoding"
        if sampling["temperature"] == 0
        else f"temperature {sampling['temperature']:g}, top-p {sampling['top_p']:g}, "
        f"top-k {sampling['top_k'] or 'off'}, {sampling['n']} responses per question"
    )
    facts = [
        ", ".join(f"{task} ({split})" for task, split in sorted(settings["tasks"].items())),
        f"{first.questions:,} questions",
        decoding,
        f"at most {sampling['max_tokens']:,} tokens per response",
    ]
    if comparison.reference is not None:
        facts.append(f"changes are against {comparison.reference}")
    return facts


def _groups_table(comparison: Comparison) -> Table | None:
    if not comparison.groups:
        return None
    return comparison_table(comparison, groups=True, methods=False)


def _figures(comparison: Comparison, lengths: Sequence[Lengths]) -> list[Figure]:
    names = [row.name for row in comparison.rows]
    figures = [
        Figure(
            "Accuracy against length",
            accuracy_and_tokens(comparison.rows),
            "Up and to the left is better. Bars: 95% intervals.",
        ),
        Figure(
            "Accuracy under a token budget",
            budget_curve(lengths),
            "The share of responses that are right and end within the budget. No new responses: "
            "those stored are cut, and one that is cut counts as not right.",
        ),
    ]
    for title, rows in _group_sets(comparison):
        figures += [
            Figure(
                f"Length {title}",
                by_group(rows, names, "tokens", "mean tokens"),
                "Mean tokens per response. Bars: 95% intervals.",
            ),
            Figure(
                f"Reflection {title}",
                by_group(rows, names, "reflection", "responses that reflect"),
                "The share of responses that go back over their own steps: wait, double-check, "
                "re-examine, recap, let me check, let me verify. Bars: 95% intervals.",
            ),
        ]
    spread = Figure(
        "Distribution of lengths",
        length_distribution(lengths),
        "All responses of each run, each row to its own height. The line is the median; to the "
        "right, the median and the 90th percentile.",
        wide=True,
    )
    return [*figures, spread]


def _group_sets(comparison: Comparison) -> list[tuple[str, list[Row]]]:
    """The rows of each task's levels, and of the tasks when there are several."""
    levels = [row for row in comparison.groups if row.level is not None]
    tasks = [row for row in comparison.groups if row.level is None]
    sets = [("by task", tasks)] if tasks else []
    for task in dict.fromkeys(row.task for row in levels):
        own = [row for row in levels if row.task == task]
        sets.append(("by level" if task is None else f"by level, {task}", own))
    return sets


def _measured(names: Sequence[str], records: Sequence[dict[str, Any]]) -> Table:
    """What was measured and with what: one line per run."""
    rows = []
    for name, record in zip(names, records, strict=True):
        settings = record["settings"]
        rows.append(
            (
                name,
                record["method"] or "-",
                record["model"],
                record["device"],
                *(_shortened(settings.get(key)) for key in SHOWN_SETTINGS),
                ", ".join(f"{name} {version}" for name, version in record["versions"].items()),
            )
        )
    columns = ("name", "method", "model", "device", *SHOWN_SETTINGS, "versions")
    return Table(tuple(c.replace("_", " ") for c in columns), tuple(rows), labels=len(columns))


def _shortened(value: object) -> str:
    """A digest by its first characters; anything else as it is."""
    text = "-" if value is None else str(value)
    return text[:12] if len(text) == 64 and text.isalnum() else text


def _embedded(data: dict[str, Any]) -> Markup:
    """JSON that cannot end the script element it stands in, whatever a model wrote."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _write(path: Path, html: str) -> Path:
    """The file appears whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        if path.is_dir():
            raise LaconicError(f"{path}: is a folder; expected the path of a page, such as a.html")
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(html, encoding="utf-8", errors="replace")
        os.replace(part, path)
    except OSError as error:
        raise LaconicError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    return path

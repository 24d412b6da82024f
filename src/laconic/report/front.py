"""A search's front: as a table, and as runs and figures of the report page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from laconic.records import read_json, read_records
from laconic.report.layouts import Table
from laconic.report.search_charts import front_chart, hypervolume_chart, importance_chart

Record = Mapping[str, Any]
FRONT, TRIALS, TESTS = "front.json", "trials.jsonl", "test"
"""Files of a search's folder."""
Drawn = tuple[str, Markup, str, bool]
"""A heading, a drawing, how to read it, and whether it is wide."""


def is_search(folder: str | Path) -> bool:
    """Whether a folder is that of a finished search."""
    return (Path(folder) / FRONT).is_file()


def front_runs(folder: str | Path) -> list[Path]:
    """The run folders of a search: slow, quick, then its front, on the questions that report."""
    record = read_json(Path(folder) / FRONT)
    rows = [record["parents"]["slow"], record["parents"]["quick"], *record["front"]]
    return [Path(folder) / TESTS / row["test"]["run"] for row in rows]


def search_figures(folders: Sequence[str | Path]) -> Iterator[Drawn]:
    """Yield the figures of each search."""
    for folder in folders:
        record = read_json(Path(folder) / FRONT)
        trials = read_records(Path(folder) / TRIALS)
        yield (
            f"The front of {record['study']}",
            front_chart(record, trials),
            "On the questions that decide; they flatter the front. Dots: every trial, where it was "
            "when it ended. Bars: 95% intervals.",
            True,
        )
        yield (
            "Hypervolume over the search",
            hypervolume_chart(record),
            "The share of the box from quick's accuracy and slow's tokens to 100% at 0 tokens. The "
            "level line is the grid of one knob, which the search has to beat.",
            False,
        )
        for phase, found in record["importances"].items():
            yield (
                f"What the knobs of {phase} decide",
                importance_chart(found),
                "PED-ANOVA over the trials: accuracy above, tokens below.",
                False,
            )


def front_table(record: Record) -> Table:
    """The parents and the front, on the questions that decide and on those that report.

    record: what front.json holds.
    """
    slow = record["parents"]["slow"]
    rows = [_row(role, "parent", record["parents"][role], slow) for role in ("slow", "quick")]
    for row in record["front"]:
        marks = [word for word in ("knee",) if row[word]]
        marks += [] if row["within"] else ["out of bounds"]
        name = row["trial"] + (f" ({', '.join(marks)})" if marks else "")
        rows.append(_row(name, knobs(row), row, slow))
    columns = ("merge", "recipe", "accuracy", "tokens", "test accuracy", "test tokens", "change")
    return Table(columns, tuple(rows), labels=2, notes=tuple(_notes(record)))


def knobs(row: Record) -> str:
    """A row's merge in few words: methods and numbers, or the values of its groups in order."""
    stages = row["recipe"]["merge"]
    grouped = [_short(value) for name, value in row["params"].items() if "@" in name]
    if grouped:
        return f"{' -> '.join(name for stage in stages for name in stage)} {' | '.join(grouped)}"
    return " -> ".join(f"{name} {_values(own)}" for stage in stages for name, own in stage.items())


def _values(own: Record) -> str:
    numbers = {k: v for k, v in own.items() if isinstance(v, int | float)}
    return " ".join(f"{key} {_short(value)}" for key, value in numbers.items())


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _row(name: str, recipe: str, found: Record, slow: Record) -> tuple[str, ...]:
    test = found["test"]
    change = test["tokens"] / slow["test"]["tokens"] - 1
    return (
        name,
        recipe,
        _share(found["accuracy"], found["accuracy_interval"]),
        _number(found["tokens"], found["tokens_interval"]),
        _share(test["accuracy"], test["accuracy_interval"]),
        _number(test["tokens"], test["tokens_interval"]),
        "reference" if found is slow else f"{100 * change:+.1f}%",
    )


def _share(value: float | None, interval: Any) -> str:
    if value is None or interval is None:
        return "-"
    return f"{100 * value:.1f}% [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def _number(value: float, interval: Any) -> str:
    return f"{value:.1f} [{interval[0]:.1f}, {interval[1]:.1f}]"


def _notes(record: Record) -> Iterator[str]:
    start, counts = record["reference"], record["trials"]
    yield (
        f"hypervolume {record['hypervolume']:.4f} of the box from quick's accuracy "
        f"({100 * start['accuracy']:.1f}%) and slow's tokens ({start['tokens']:.1f}) to 100% at 0"
    )
    done = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    yield f"trials: {done}; {record['generated']:,} tokens generated to decide"
    yield "accuracy and tokens chose the front and flatter it; the test figures did not"
    if subset := record["subset"]:
        yield (
            f"trials were asked {subset['questions']} questions; rank correlation with all of "
            f"them over {subset['merges']} merges: accuracy {_fidelity(subset['accuracy'])}, "
            f"tokens {_fidelity(subset['tokens'])}"
        )


def _fidelity(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"

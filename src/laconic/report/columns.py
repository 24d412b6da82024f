"""Every column that a table of runs can have: its name, its unit, and where its value stands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import attrgetter
from typing import Any

from laconic.grade.comparisons import Comparison, Interval, Row
from laconic.grade.efficiency import AES_WEIGHTS
from laconic.grade.thinking import STATES

Value = str | int | float | None
Read = Callable[[Row], Any]
WEIGHTS = ", ".join(f"{weight:g}" for weight in AES_WEIGHTS)
AES = f"AES (weights {WEIGHTS})"


@dataclass(frozen=True)
class Column:
    """A measure of a row. unit: a key of SHOW; empty for words and for numbers without a unit.

    value: None where it is not defined. interval: its 95% interval, in the same unit.
    """

    name: str
    unit: str
    value: Read
    interval: Read | None = None

    def text(self, row: Row) -> str:
        """The value as a reader wants it, with its interval; `-` where it is not defined."""
        value = self.value(row)
        return "-" if value is None else show(self.unit, value, self._bounds(row))

    def headers(self) -> list[str]:
        """The names of its columns in a CSV file, with the unit."""
        unit = f" ({self.unit})" if self.unit else ""
        bounds = ("", " low", " high") if self.interval else ("",)
        return [f"{self.name}{bound}{unit}" for bound in bounds]

    def values(self, row: Row) -> list[Value]:
        """The plain values for `headers`."""
        if self.interval is None:
            return [self.value(row)]
        return [self.value(row), *(self._bounds(row) or (None, None))]

    def _bounds(self, row: Row) -> Interval | None:
        found: Interval | None = self.interval(row) if self.interval else None
        return found


def show(unit: str, value: Any, interval: Interval | None = None) -> str:
    """A value in its unit as a reader wants it, with its interval."""
    write = SHOW[unit]
    if interval is None:
        return write(value, True)
    return f"{write(value, True)} [{write(interval[0], False)}, {write(interval[1], False)}]"


def _percent(value: float, unit: bool) -> str:
    return f"{100 * value:.1f}" + "%" * unit


def _signed_percent(value: float, unit: bool) -> str:
    return f"{100 * value:+.1f}" + "%" * unit


def _points(value: float, unit: bool) -> str:
    return f"{100 * value:+.1f}" + " pp" * unit


def _probability(value: float, unit: bool) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


SHOW: dict[str, Callable[[Any, bool], str]] = {
    "": lambda value, unit: str(value),
    "share": _percent,
    "difference of shares": _points,
    "relative": _signed_percent,
    "tokens": lambda value, unit: f"{value:.1f}",
    "count": lambda value, unit: str(value),
    "ratio": lambda value, unit: f"{value:.3f}",
    "probability": _probability,
    "score": lambda value, unit: f"{value:.3f}",
    "per response": lambda value, unit: f"{value:.2f}",
    "per 1,000 tokens": lambda value, unit: f"{value:.2f}",
}
"""How a value of each unit is written; the flag says whether the unit's own sign is added."""


def _detail(*path: str) -> Read:
    """A value of the row's details; None where they lack it."""

    def read(row: Row) -> Any:
        found: Any = row.details
        return reduce(lambda at, key: at.get(key) if isinstance(at, dict) else None, path, found)

    return read


def _paired(*path: str) -> Read:
    """A value of what is said against the reference; None from the first part that is None."""

    def read(row: Row) -> Any:
        return reduce(lambda at, key: None if at is None else getattr(at, key), path, row.paired)

    return read


def _ratio_bounds(row: Row) -> Interval | None:
    ratio = row.paired.length_ratio if row.paired else None
    return None if ratio is None else (ratio.low, ratio.high)


LABELS = tuple(Column(name, "", attrgetter(name)) for name in ("name", "method", "task", "level"))
QUESTIONS = Column("n", "count", attrgetter("questions"))
ACCURACY = Column("accuracy", "share", attrgetter("accuracy"), attrgetter("accuracy_interval"))
ACCURACY_CHANGE = Column(
    "accuracy change",
    "difference of shares",
    attrgetter("accuracy_change"),
    attrgetter("accuracy_change_interval"),
)
TOKENS = Column("mean tokens", "tokens", attrgetter("tokens"), attrgetter("tokens_interval"))
TOKEN_CHANGE = Column(
    "token change",
    "relative",
    attrgetter("tokens_change"),
    attrgetter("tokens_change_interval"),
)
CUT = Column("cut", "share", attrgetter("cut"))
LOOPS = Column("loops", "share", _detail("loops"))
REFLECTION = Column(
    "reflection", "share", attrgetter("reflection"), attrgetter("reflection_interval")
)
PER_CORRECT = Column("tokens per correct", "tokens", _detail("tokens_per_correct"))
UNGRADED = Column("ungraded", "count", attrgetter("ungraded"))
P_HOLM = Column("p (Holm)", "probability", _paired("test", "p_holm"))
BY_TASK = Column(
    "token change, mean of tasks", "relative", _paired("across", "length", "mean_of_ratios")
)
OF_MEANS = Column(
    "token change, tasks' means", "relative", _paired("across", "length", "ratio_of_means")
)
EFFICIENCY = Column(AES, "score", _paired("across", "aes"))


def every_column(rows: Sequence[Row]) -> list[Column]:
    """All that is measured, in the order in which it is read; pass@m only as far as drawn."""
    return [
        QUESTIONS,
        Column("responses per question", "count", _detail("k")),
        UNGRADED,
        *_accuracies(rows),
        *_lengths(),
        *_endings(rows),
        *_reflections(),
        EFFICIENCY,
    ]


def _accuracies(rows: Sequence[Row]) -> list[Column]:
    draws = sorted({int(m) for row in rows for m in row.details.get("pass", {})})
    return [
        ACCURACY,
        ACCURACY_CHANGE,
        Column("paired test", "", _paired("test", "test")),
        Column("right here alone", "count", _paired("test", "only_ours")),
        Column("right in the reference alone", "count", _paired("test", "only_theirs")),
        Column("p", "probability", _paired("test", "p")),
        P_HOLM,
        Column("decoding-only standard error", "share", _detail("decoding_error")),
        *(Column(f"pass@{m}", "share", _detail("pass", str(m))) for m in draws),
        Column("majority", "share", _detail("majority")),
        Column("accuracy of completed responses", "share", _detail("accuracy_finished")),
    ]


def _lengths() -> list[Column]:
    return [
        TOKENS,
        TOKEN_CHANGE,
        Column("length ratio", "ratio", _paired("length_ratio", "value"), _ratio_bounds),
        BY_TASK,
        OF_MEANS,
        Column("median tokens", "tokens", _detail("tokens", "median")),
        Column("90th percentile", "tokens", _detail("tokens", "p90")),
        PER_CORRECT,
        Column("tokens when right", "tokens", _detail("tokens_right")),
        Column("tokens when wrong", "tokens", _detail("tokens_wrong")),
        Column("tokens of completed responses", "tokens", _detail("tokens_finished")),
        Column("questions both get right", "count", _paired("both_right", "questions")),
        Column("tokens where both are right", "tokens", _paired("both_right", "tokens")),
        Column("the reference's tokens there", "tokens", _paired("both_right", "reference_tokens")),
        Column("tokens of thought", "tokens", _detail("think_tokens")),
        Column("tokens of answer", "tokens", _detail("answer_tokens")),
        Column("thoughts split by token ids", "share", _detail("think_by_ids")),
    ]


def _endings(rows: Sequence[Row]) -> list[Column]:
    sources = sorted({name for row in rows for name in row.details.get("sources", {})})
    return [
        CUT,
        Column("right although cut", "share", _detail("cut_right")),
        LOOPS,
        Column("without a box", "share", _detail("missing_box")),
        *(Column(f"think tags: {name}", "share", _detail("think", name)) for name in STATES),
        *(Column(f"answer from: {name}", "count", _detail("sources", name)) for name in sources),
    ]


def _reflections() -> list[Column]:
    paper = ", as the paper counts"
    found = [
        REFLECTION,
        Column(f"reflection{paper}", "share", _detail("reflection", "paper", "share")),
    ]
    for kind, tail in (("words", ""), ("paper", paper)):
        for key, name, unit in (
            ("per_response", "reflection words", "per response"),
            ("per_reflective", "reflection words where any", "per response"),
            ("per_1000_tokens", "reflection words in 1,000 tokens", "per 1,000 tokens"),
        ):
            found.append(Column(name + tail, unit, _detail("reflection", kind, key)))
    return found


def short_columns(comparison: Comparison, rows: Sequence[Row]) -> list[Column]:
    """The columns of the usual table: changes only with a reference, and what any row has."""
    changes = comparison.reference is not None
    found = [ACCURACY, *[ACCURACY_CHANGE] * changes, TOKENS, *[TOKEN_CHANGE] * changes, CUT]
    if any(LOOPS.value(row) is not None for row in rows):
        found.append(LOOPS)
    found.append(Column("reflection", "share", REFLECTION.value))
    if any(PER_CORRECT.value(row) is not None for row in rows):
        found.append(PER_CORRECT)
    return [*found, *[UNGRADED] * any(row.ungraded for row in rows)]


def tested_columns(rows: Sequence[Row]) -> list[Column]:
    """What the page adds: the paired test, AES, and both changes of length when they differ."""
    found = [P_HOLM, EFFICIENCY]
    tasks = any(OF_MEANS.value(row) != BY_TASK.value(row) for row in rows)
    return [*[BY_TASK, OF_MEANS] * tasks, *found]

"""Do a published merge again, and put the published figures beside one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from laconic.errors import LaconicError
from laconic.grade.benchmarks import BENCHMARKS
from laconic.grade.comparisons import Row, compare
from laconic.grade.evaluation import evaluate
from laconic.grade.protocols import get_protocol
from laconic.merging.engine import merge
from laconic.recipe import About, Recipe
from laconic.records import write_json
from laconic.run.engines import make_runner
from laconic.run.runner import Runner, closing
from laconic.statistics.calibrate import calibrate
from laconic.statistics.keys import needed_kinds

NAMES = {
    "GSM8K": "gsm8k",
    "MATH500": "math500",
    "Minerva": "minerva_math",
    "Olympiad": "olympiadbench",
    "College": "college_math",
    "AIME24": "aime24",
    "AIME25": "aime25",
}
"""The papers' names of benchmarks, and the tasks that they are here."""
TOTALS = ("average", "mean", "length_change", "tokens", "think_tags")
"""Published figures that are no benchmark's."""


@dataclass(frozen=True)
class Reproduced:
    """One benchmark, measured and published. Accuracies are shares in [0, 1]; tokens are means.

    published_tokens: None where the source gives none. agrees: whether the published accuracy lies
    in the measured one's 95% interval.
    """

    task: str
    questions: int
    accuracy: float | None
    accuracy_interval: tuple[float, float] | None
    tokens: float
    tokens_interval: tuple[float, float]
    tokens_change: float | None
    published_accuracy: float
    published_tokens: float | None
    agrees: bool | None


@dataclass(frozen=True)
class Reproduction:
    """A published merge done again: a row per benchmark, and the two totals of the paper's tables.

    average: mean of the benchmarks' accuracies. length_change: mean over benchmarks of the change
    of mean length against the slow parent (-0.5: half as long). Published totals are over the
    paper's own benchmarks, which may be more than those measured.
    """

    source: str
    protocol: str
    rows: tuple[Reproduced, ...]
    average: float | None
    published_average: float | None
    length_change: float | None
    published_length_change: float | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The reproduction as data."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """Yield a table for a terminal: the project's figures, then the published ones."""
        yield f"{self.source}; protocol {self.protocol}"
        yield f"{'':<16}{'n':>6}  {'accuracy':<22}{'published':>9}   {'tokens':>8}{'published':>11}"
        for row in self.rows:
            yield _line(row)
        yield f"{'mean':<24}{_percent(self.average):<22}{_percent(self.published_average):>9}"
        changes = (self.length_change, self.published_length_change)
        yield f"{'length change':<46}{_change(changes[0]):>17}{_change(changes[1]):>11}"
        yield from self.notes


def reproduce(
    recipe: Recipe,
    out: str | Path,
    *,
    tasks: Sequence[str] = (),
    protocol: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    runner: Callable[[str], Runner] | None = None,
    progress: bool = True,
) -> Reproduction:
    """Merge a published recipe, measure the merge and the slow parent, and compare the figures.

    recipe: one with `about.published`. out: a folder for statistics, merge, runs and
    reproduction.json; run again, it goes on where it stopped. tasks: names or NAME=FILE; every
    published benchmark that is known unless given. protocol: the recipe's own unless given. limit:
    questions per task. runner: opens a model's folder or Hub id; transformers unless given.
    Raises LaconicError for a recipe without published figures or without a protocol.
    """
    about = _published(recipe)
    way = protocol or about.protocol
    if way is None:
        raise LaconicError(
            f"{about.source}: the recipe names no protocol; give one, such as l2s-system2"
        )
    get_protocol(way)  # a wrong name, before anything is merged
    asked, unknown = _tasks(about, tasks)
    house = _House(Path(out), way, asked, limit, seed, runner, progress)
    merged = house.merge(recipe)
    slow = None if recipe.slow is None else house.measure("slow", recipe.slow)
    found = compare([house.measure("merged", merged)], slow)
    rows = [r for r in found.groups if r.name == "merged" and r.level is None]
    rows = rows or [replace(r, task=_plain(asked[0])) for r in found.rows if r.name == "merged"]
    notes = [f"not measured, for the task is not known here: {name}" for name in unknown]
    if limit is not None:
        notes.append(f"measured on {limit} questions per task at most, not on the whole sets")
    result = _reproduction(about, way, rows, notes)
    write_json(Path(out) / "reproduction.json", result.to_dict())
    return result


class _House:
    """The folder of a reproduction, and how models are measured in it."""

    def __init__(
        self,
        out: Path,
        protocol: str,
        tasks: Sequence[str],
        limit: int | None,
        seed: int,
        runner: Callable[[str], Runner] | None,
        progress: bool,
    ) -> None:
        self._out, self._protocol, self._tasks = out, protocol, tasks
        self._limit, self._seed, self._progress = limit, seed, progress
        self._open = runner or (lambda model: make_runner("transformers", model))

    def merge(self, recipe: Recipe) -> str:
        """Gather the statistics that the recipe needs, and merge it."""
        if needed_kinds(recipe) and recipe.statistics is None:
            file = self._out / "statistics.safetensors"
            recipe = recipe.model_copy(update={"statistics": str(file)})
            calibrate(recipe, file, progress=self._progress)
        return merge(recipe, self._out / "merged", progress=self._progress).path

    def measure(self, name: str, model: str) -> Path:
        """Evaluate a model into the run folder of that name."""
        folder = self._out / "runs" / name
        with closing(self._open(model)) as runner:
            evaluate(
                model,
                list(self._tasks),
                out=folder,
                protocol=self._protocol,
                limit=self._limit,
                seed=self._seed,
                runner=runner,
                name=name,
                progress=self._progress,
            )
        return folder


def _published(recipe: Recipe) -> About:
    about = recipe.about
    if about is None or not any(key not in TOTALS for key in about.published):
        raise LaconicError(
            "the recipe gives no published result of a benchmark; `laconic recipes` lists those "
            "that do, and a recipe of your own may have `about: {source: ..., published: ...}`"
        )
    return about


def _tasks(about: About, given: Sequence[str]) -> tuple[list[str], list[str]]:
    """The tasks to measure, and the published benchmarks that are none here."""
    names = {NAMES.get(key, key): key for key in about.published if key not in TOTALS}
    if given:
        strange = [one for one in given if _plain(one) not in names]
        if strange:
            raise LaconicError(
                f"task '{strange[0]}': the recipe has no published figure for it (it has: "
                f"{', '.join(names)})"
            )
        return list(given), []
    known = [name for name in names if name in BENCHMARKS]
    if not known:
        raise LaconicError(f"none of the published benchmarks is a task: {', '.join(names)}")
    return known, [key for name, key in names.items() if name not in BENCHMARKS]


def _plain(task: str) -> str:
    """A task's name without the file it is read from."""
    return task.partition("=")[0]


def _reproduction(
    about: About, protocol: str, rows: Sequence[Row], notes: Sequence[str]
) -> Reproduction:
    figures = {NAMES.get(key, key): value for key, value in about.published.items()}
    found = tuple(_reproduced(row, figures[str(row.task)]) for row in rows)
    changes = [row.tokens_change for row in found if row.tokens_change is not None]
    accuracies = [row.accuracy for row in found if row.accuracy is not None]
    return Reproduction(
        source=about.source,
        protocol=protocol,
        rows=found,
        average=_mean(accuracies),
        published_average=_share(about.published.get("average")),
        length_change=_mean(changes),
        published_length_change=_share(about.published.get("length_change")),
        notes=tuple(notes),
    )


def _reproduced(row: Row, published: float | list[float]) -> Reproduced:
    accuracy, tokens = published if isinstance(published, list) else (published, None)
    share, interval = accuracy / 100, row.accuracy_interval
    return Reproduced(
        task=str(row.task),
        questions=row.questions,
        accuracy=row.accuracy,
        accuracy_interval=interval,
        tokens=row.tokens,
        tokens_interval=row.tokens_interval,
        tokens_change=row.tokens_change,
        published_accuracy=share,
        published_tokens=tokens,
        agrees=None if interval is None else interval[0] <= share <= interval[1],
    )


def _line(row: Reproduced) -> str:
    span = ""
    if row.accuracy_interval:
        span = " [{:.1f}, {:.1f}]".format(*(100 * end for end in row.accuracy_interval))
    mark = " *" if row.agrees is False else "  "
    tokens = "" if row.published_tokens is None else f"{row.published_tokens:.0f}"
    return (
        f"{row.task:<16}{row.questions:>6}  {_percent(row.accuracy) + span:<22}"
        f"{_percent(row.published_accuracy):>9}{mark} {row.tokens:>8.0f}{tokens:>11}"
    )


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}%"


def _change(share: float | None) -> str:
    return "" if share is None else f"{100 * share:+.1f}%"


def _share(percent: Any) -> float | None:
    return None if percent is None else float(percent) / 100


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None

"""Compare runs on the same questions: every difference is paired, question by question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from laconic.errors import LaconicError
from laconic.grade.bootstrap import Estimate
from laconic.grade.folder import RunFolder, differences
from laconic.grade.grades import Grade
from laconic.grade.inference import holm
from laconic.grade.metrics import Group, Measures, grouped, measure
from laconic.grade.pairing import Paired, pair

Interval = tuple[float, float]

MUST_AGREE = ("protocol", "tasks", "questions", "sampling", "tokenizer", "grader")
"""Settings without which two runs measure different things."""
EXPLAINS_QUESTIONS = ("limit", "subset_seed")
WORTH_NOTING = ("context_window", "dtype", "first_prompt")
"""Settings in which models may differ, and a reader should know it."""


@dataclass(frozen=True)
class Row:
    """One model on one group of questions (task and level None: all of them).

    accuracy, cut and reflection are shares in [0, 1]; tokens is the mean response length;
    reflections the mean number of reflection words per response. Changes are against the
    reference on the same questions: accuracy_change is a difference of shares, tokens_change a
    relative change of mean length (-0.5: half as long). Intervals are 95%. None: undefined, or
    there is no reference, or this row is the reference. paired: all else that is said against the
    reference. details: all else that is measured, as `details` has it.
    """

    name: str
    method: str | None
    task: str | None
    level: str | None
    questions: int
    ungraded: int
    accuracy: float | None
    accuracy_interval: Interval | None
    accuracy_change: float | None
    accuracy_change_interval: Interval | None
    tokens: float
    tokens_interval: Interval
    tokens_change: float | None
    tokens_change_interval: Interval | None
    reflection: float
    reflections: float
    cut: float
    reflection_interval: Interval | None = None
    paired: Paired | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """This row as a JSON object; intervals are [low, high]."""
        flat = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return flat | {"paired": None if self.paired is None else self.paired.to_dict()}


@dataclass(frozen=True)
class Comparison:
    """Runs side by side: `rows` over all questions, `groups` per task and level, `notes` to read.

    reference: the name of the run that changes are against, or None.
    """

    reference: str | None
    rows: tuple[Row, ...]
    groups: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """This comparison as a JSON object."""
        return {
            "reference": self.reference,
            "rows": [row.to_dict() for row in self.rows],
            "groups": [row.to_dict() for row in self.groups],
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class _Run:
    name: str
    method: str | None
    folder: Path
    settings: Mapping[str, Any]
    groups: Mapping[Group, Sequence[Grade]]
    details: Mapping[Group, Mapping[str, Any]]
    notes: Sequence[str] = ()


def compare(
    runs: Sequence[str | Path], against: str | Path | None = None, *, force: bool = False
) -> Comparison:
    """Compare complete runs, with paired differences against one of them.

    against: the run folder of the reference (the slow parent); it becomes the first row if it is
    not among `runs`. Raises LaconicError, naming what differs, for runs with different questions,
    prompts, sampling or tokenizers; `force` turns that into a note.
    """
    loaded = _load(runs, against)
    reference = None if against is None else _find(loaded, Path(against))
    base = reference or loaded[0]
    notes = [note for run in loaded if run is not base for note in _check(base, run, force)]
    notes += [f"'{run.name}': {note}" for run in loaded for note in run.notes]
    rows = _adjusted(
        [
            _row(run, group, None if run is reference else reference)
            for run in loaded
            for group in run.groups
        ]
    )
    return Comparison(
        reference=reference.name if reference else None,
        rows=tuple(row for row in rows if row.task is None and row.level is None),
        groups=tuple(row for row in rows if row.task is not None or row.level is not None),
        notes=tuple(notes),
    )


def _load(runs: Sequence[str | Path], against: str | Path | None) -> list[_Run]:
    paths = {Path(run).resolve(): Path(run) for run in runs}
    if against is not None and Path(against).resolve() not in paths:
        paths = {Path(against).resolve(): Path(against)} | paths
    if not paths:
        raise LaconicError("no run given; expected at least one run folder")
    loaded = [_load_one(path) for path in paths.values()]
    names = [run.name for run in loaded]
    return [
        run if names.count(run.name) == 1 else replace(run, name=f"{run.name} ({run.folder})")
        for run in loaded
    ]


def _load_one(path: Path) -> _Run:
    folder = RunFolder(path)
    record = folder.read_run()
    grades = folder.read_grades()
    if not grades:
        raise LaconicError(f"{folder.grades}: holds no grades; grade the run again")
    return _Run(
        record["name"],
        record["method"],
        path,
        record["settings"] | {"grader": folder.read_grader()},
        grouped(grades),
        {Group(one["task"], one["level"]): one for one in folder.read_details()},
        record.get("notes", ()),
    )


def _find(runs: Sequence[_Run], folder: Path) -> _Run:
    return next(run for run in runs if run.folder.resolve() == folder.resolve())


def _check(base: _Run, run: _Run, force: bool) -> list[str]:
    """Notes on what differs; LaconicError for what must not."""
    refused = _differing(base, run, MUST_AGREE)
    if any(difference.startswith("questions") for difference in refused):
        refused += _differing(base, run, EXPLAINS_QUESTIONS)
    if refused and not force:
        raise LaconicError(
            f"runs '{base.name}' ({base.folder}) and '{run.name}' ({run.folder}) cannot be "
            f"compared: {'; '.join(refused)}; evaluate both with the same protocol, tasks, "
            "sampling and tokenizer, and grade both alike (laconic regrade --grader)"
        )
    differing = refused + _differing(base, run, WORTH_NOTING)
    return [f"'{base.name}' and '{run.name}' differ in {difference}" for difference in differing]


def _differing(base: _Run, run: _Run, keys: Sequence[str]) -> list[str]:
    left, right = ({k: r.settings.get(k) for k in keys} for r in (base, run))
    return differences(left, right)


def _row(run: _Run, group: Group, reference: _Run | None) -> Row:
    grades = run.groups[group]
    paired = None if reference is None else pair(grades, reference.groups.get(group, ()))
    return _flat(run, measure(grades, group), paired)


def _adjusted(rows: Sequence[Row]) -> list[Row]:
    """The rows with p-values adjusted for all runs compared on the same questions."""
    raw: dict[Group, dict[str, float]] = {}
    for row in rows:
        if row.paired and row.paired.test:
            raw.setdefault(Group(row.task, row.level), {})[row.name] = row.paired.test.p
    return [_with_holm(row, holm(raw.get(Group(row.task, row.level), {}))) for row in rows]


def _with_holm(row: Row, adjusted: Mapping[str, float]) -> Row:
    if row.paired is None or row.paired.test is None:
        return row
    test = replace(row.paired.test, p_holm=adjusted[row.name])
    return replace(row, paired=replace(row.paired, test=test))


def _flat(run: _Run, measures: Measures, paired: Paired | None) -> Row:
    accuracy = None if paired is None else paired.accuracy_change
    tokens = None if paired is None else paired.tokens_change
    return Row(
        name=run.name,
        method=run.method,
        task=measures.group.task,
        level=measures.group.level,
        questions=measures.questions,
        ungraded=measures.ungraded,
        accuracy=_value(measures.accuracy),
        accuracy_interval=_interval(measures.accuracy),
        accuracy_change=_value(accuracy),
        accuracy_change_interval=_interval(accuracy),
        tokens=measures.tokens.value,
        tokens_interval=(measures.tokens.low, measures.tokens.high),
        tokens_change=_value(tokens),
        tokens_change_interval=_interval(tokens),
        reflection=measures.reflection.value,
        reflections=measures.reflections.value,
        cut=measures.cut.value,
        reflection_interval=_interval(measures.reflection),
        paired=paired,
        details=run.details.get(measures.group, {}),
    )


def _value(found: Estimate | None) -> float | None:
    return None if found is None else found.value


def _interval(found: Estimate | None) -> Interval | None:
    return None if found is None else (found.low, found.high)

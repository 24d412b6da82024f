"""The demo: merge the bundled pair in several ways, choose on validation, report on test."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from laconic.checkpoint.card import add_results
from laconic.demo import QUICK
from laconic.demo.families import FAMILIES, Family, Setting
from laconic.demo.questions import LEVELS, Question, draw
from laconic.demo.traces import terse, written
from laconic.errors import LaconicError
from laconic.grade.comparisons import Comparison, Row, compare
from laconic.grade.evaluation import evaluate
from laconic.merging.engine import merge
from laconic.recipe import Recipe, parse_recipe
from laconic.records import write_json, write_records
from laconic.registry import get_method
from laconic.run.sampling import Sampling
from laconic.run.transformers import TransformersRunner
from laconic.statistics.calibrate import calibrate
from laconic.tags import THINK, THINK_END

PAIR = QUICK.parent
TASK = "arithmetic"
PARENT = "parent"
"""What the table says of a parent in place of its method."""
SAMPLING = Sampling(max_tokens=512)
SAMPLES = 100
"""Questions that statistics are taken from."""
FIELDS = {"question": "question", "short": "short", "long": "long"}
TOLERANCE = 0.02
"""How far below the slow parent's accuracy a merge may be, as a share of the questions."""
SAVING = 0.40
"""The share of the slow parent's tokens that a merge should save."""


@dataclass(frozen=True)
class Showcase:
    """What the demo found: the test-split comparison, the best merge, and where all of it is.

    best: the name of the row chosen on the validation split. effect: for each merge's name,
    whether it is within 2 points of the slow parent's accuracy with at least 40% fewer tokens.
    """

    comparison: Comparison
    best: str
    effect: dict[str, bool]
    out: Path

    def to_dict(self) -> dict[str, Any]:
        """The result as one JSON object: `rows`, `best`, and the paths of what is left behind."""
        rows = [
            row.to_dict() | {"effect": self.effect.get(row.name)} for row in self.comparison.rows
        ]
        return {
            "rows": rows,
            "best": self.best,
            "groups": [row.to_dict() for row in self.comparison.groups],
            "merged": str(self.out / "best"),
            "runs": str(self.out / "runs" / "test"),
        }

    def remarks(self) -> Iterable[str]:
        """Yield what a reader should know of the table, in sentences."""
        best = next(row for row in self.comparison.rows if row.name == self.best)
        yield (
            f"Best merge, chosen on the validation split: {self.best}. On the test split: "
            f"{_change(best)} against the slow parent."
        )
        slow = next(row for row in self.comparison.rows if row.name == self.comparison.reference)
        yield (
            f"Where the tokens went: {100 * slow.reflection:.0f}% of the slow parent's responses "
            f"double-check themselves, {100 * best.reflection:.0f}% of the merge's do."
        )
        for row in self.comparison.rows:
            if self.effect.get(row.name) is False:
                yield f"{row.name} does not show the effect on this pair: {_change(row)}."
        yield (
            "The effect: within 2 points of the slow parent's accuracy with at least 40% fewer "
            f"tokens. Merged model, completions and summary are in {self.out}."
        )


def demo(
    out: str | Path = "demo-out",
    *,
    pair: Path = PAIR,
    families: Sequence[Family] = FAMILIES,
    progress: bool = True,
) -> Showcase:
    """Merge the bundled pair with several recipes and measure parents and merges in one harness.

    Every setting is tried on the validation split. In each family the merge with the fewest tokens
    among those at most 2 points less accurate than the slow parent is taken (none: the most
    accurate); the test split is then answered once by the parents and the merges taken. Leaves
    OUT/best, OUT/merges, OUT/runs and OUT/summary.json. Run again, it goes on where it stopped.
    families: `FAMILIES`, or `EVERY` for every method; what needs statistics is calibrated first,
    on questions of the training split.
    """
    house = _House(Path(out), pair, progress)
    house.evaluate_all("validation", [s for family in families for s in family.settings])
    taken = [house.choose(family.settings) for family in families]
    test = house.evaluate_all("test", taken)
    best = house.choose(taken)
    effect = {row.name: _shows_effect(row) for row in test.rows if row.method != PARENT}
    found = Showcase(test, best.label, effect, Path(out))
    house.keep_best(best, test)
    write_json(Path(out) / "summary.json", found.to_dict())
    return found


class _House:
    """The folders of one demo, and the one live model that all weights are loaded into."""

    def __init__(self, out: Path, pair: Path, progress: bool) -> None:
        self._out, self._pair, self._progress = out, pair, progress
        if not (pair / "slow").is_dir():
            raise LaconicError(f"{pair}: the bundled pair is missing; install laconic again")
        self._runner = TransformersRunner(pair / "slow")

    def evaluate_all(self, split: str, settings: Sequence[Setting]) -> Comparison:
        """Answer a split by both parents and by the merges of the settings."""
        runs = [
            self._evaluate(split, role, PARENT, self._pair / role) for role in ("quick", "slow")
        ]
        for setting in settings:
            model = self._out / "merges" / slug(setting.label)
            merge(self._prepared(setting), model, progress=False)
            runs.append(self._evaluate(split, setting.label, setting.method, model))
        return compare(runs, against=runs[1])

    def choose(self, settings: Sequence[Setting]) -> Setting:
        """Choose, on the validation split, the shortest merge that is accurate enough."""
        folder = self._out / "runs" / "validation"
        by_label = {setting.label: setting for setting in settings}
        rows = compare([folder / slug(label) for label in by_label], folder / "slow").rows
        return by_label[choose(row for row in rows if row.name in by_label).name]

    def keep_best(self, setting: Setting, test: Comparison) -> None:
        """Leave the best merge in OUT/best, its results in its model card."""
        target = self._out / "best"
        merge(self._prepared(setting), target, force=target.exists(), progress=False)
        add_results(target, [row.to_dict() for row in test.rows])

    def _prepared(self, setting: Setting) -> Recipe:
        """Return the setting's recipe, the statistics it needs gathered."""
        raw = {role: str(self._pair / role) for role in ("quick", "slow")}
        plain = {**raw, "merge": list(setting.stages)}
        if not any(get_method(name).needs for stage in setting.stages for name in stage):
            return parse_recipe(plain)
        file = self._out / "statistics" / f"{slug(setting.label)}.safetensors"
        text = write_calibration_text(self._out / "statistics" / "text.jsonl")
        calibration = {"data": str(text), "samples": SAMPLES, "fields": FIELDS}
        recipe = parse_recipe({**plain, "calibration": calibration, "statistics": str(file)})
        calibrate(recipe, file, progress=False)
        return recipe

    def _evaluate(self, split: str, name: str, method: str, model: Path) -> Path:
        out = self._out / "runs" / split / slug(name)
        self._runner.load(model)
        evaluate(
            model,
            TASK,
            out=out,
            split=split,
            sampling=SAMPLING,
            runner=self._runner,
            name=name,
            method=method,
            progress=self._progress,
        )
        return out


def choose(rows: Iterable[Row]) -> Row:
    """Choose the row with the fewest tokens among those accurate enough, or the most accurate.

    rows: merges with changes against the slow parent; accurate enough is at most 2 points below.
    """
    candidates = list(rows)
    enough = [row for row in candidates if _points(row) >= -TOLERANCE]
    if enough:
        return min(enough, key=lambda row: (row.tokens, row.name))
    return max(candidates, key=lambda row: (_points(row), -row.tokens, row.name))


def _shows_effect(row: Row) -> bool:
    change = row.tokens_change if row.tokens_change is not None else 0.0
    return _points(row) >= -TOLERANCE and change <= -SAVING


def _points(row: Row) -> float:
    # a share of 500 questions is no binary fraction: 2 points must not fail by rounding
    return round(row.accuracy_change, 9) if row.accuracy_change is not None else -1.0


def _change(row: Row) -> str:
    tokens = row.tokens_change or 0.0
    return f"{100 * _points(row):+.1f} points of accuracy, {100 * tokens:+.1f}% tokens"


def write_calibration_text(path: Path) -> Path:
    """Write questions of the training split with a terse and a long answer, as JSONL."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = random.Random(0)
        questions = [draw(rng, level, "train") for level in LEVELS for _ in range(SAMPLES // 5)]
        rows = [
            {"question": q.text, "short": terse(q).text, "long": _thoughts(q)} for q in questions
        ]
        write_records(path, rows)
    return path


def _thoughts(question: Question) -> str:
    return written(question, 2).text.removeprefix(THINK).replace(THINK_END, "")


def slug(label: str) -> str:
    """Turn a label into the name of a folder."""
    kept = "".join(c if c.isalnum() or c in ".-" else "_" for c in label)
    return "_".join(part for part in kept.split("_") if part)

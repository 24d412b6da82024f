"""Ways of searching the bundled pair, side by side at equal generated tokens.

`python -m bench.search` prints the table of docs/search.md. Every way is given the tokens that the
full grid of one knob generates; what it would hand over is judged on questions it never saw.
Responses are remembered between ways, and charged to each of them all the same.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from scipy import stats

from laconic.demo import QUICK
from laconic.recipe import recipe_hash
from laconic.records import Journal
from laconic.run.runner import Key
from laconic.searching.blocks import measure_units
from laconic.searching.desk import Desk
from laconic.searching.examiner import (
    Examiner,
    LiveExaminer,
    Setting,
    ends,
    make_shell,
    pair_plan,
    shared,
)
from laconic.searching.finish import Merge, reference
from laconic.searching.front import Reference, hypervolume, pareto
from laconic.searching.outcomes import Outcome, answers, figures
from laconic.searching.phases import own_phase
from laconic.searching.questions import Exam, in_turn, load_splits, make_exam
from laconic.searching.responses import Responses
from laconic.searching.samplers import make_sampler
from laconic.searching.study_file import Study, parse_study
from laconic.searching.track import Race, Track
from laconic.searching.trials import Trial

MAX_TOKENS = 512
DECIDING = 100
"""Validation questions that decide; the other 150 judge."""
SUBSET = 48
"""Of the deciding ones, that a racing search asks."""
TRIALS = 40
GRID = 11
ONE = {"interpolation": {"weight": [0.0, 1.0]}}
TIES = {"ties": {"trim": [0.0, 0.8], "alpha": [0.0, 1.0]}}
BLOCKS = {"interpolation": {"weight": [0.0, 1.0]}, "blocks": {"count": 5}}
FULL = "grid of 11"


@dataclass(frozen=True)
class Way:
    """One way of searching."""

    name: str
    knobs: str
    space: Mapping[str, Any]
    sampler: str
    racing: bool = False
    trials: int = TRIALS


WAYS = (
    Way(FULL, "one", ONE, "grid", trials=GRID),
    Way("grid of 11", "one", ONE, "grid", True, GRID),
    Way("grid of 21", "one", ONE, "grid", True, 21),
    Way("random", "one", ONE, "random"),
    Way("random", "one", ONE, "random", True),
    Way("random", "TIES, two", TIES, "random"),
    Way("NSGA-II", "TIES, two", TIES, "nsga2"),
    Way("TPE", "TIES, two", TIES, "tpe"),
    Way("GP", "TIES, two", TIES, "gp"),
    Way("TPE", "TIES, two", TIES, "tpe", True),
    Way("random", "five blocks", BLOCKS, "random"),
    Way("TPE", "five blocks", BLOCKS, "tpe"),
    Way("GP", "five blocks", BLOCKS, "gp"),
    Way("TPE", "five blocks", BLOCKS, "tpe", True),
)


class Remembering:
    """An examiner that asks a merge a question once, whatever way of searching asks."""

    def __init__(self, inner: Examiner, journal: Journal) -> None:
        self._inner, self._journal = inner, journal
        self._known: dict[tuple[str, str], Outcome] = {}
        for record in journal.records:
            merge = record.pop("merge")
            self._known[merge, record["id"]] = Outcome(**record)

    def ask(
        self, recipe: Mapping[str, Any], ids: Sequence[str], limit: int, done: Collection[Key] = ()
    ) -> list[Outcome]:
        """Answer from memory, and ask the rest; a shorter limit cuts what was longer."""
        merge = recipe_hash({**recipe, "seed": 0})  # none of these methods draws
        asked = [id for id in ids if (id, 0) not in done]
        if new := [id for id in asked if (merge, id) not in self._known]:
            for outcome in self._inner.ask(recipe, new, MAX_TOKENS):
                self._known[merge, outcome.id] = outcome
                self._journal.append({"merge": merge, **outcome.to_record()})
        return [_cut(self._known[merge, id], limit) for id in asked]

    def close(self) -> None:
        """Nothing to end."""


@dataclass(frozen=True)
class Point:
    """What a way would hand over after a trial: tokens so far, hypervolume on new questions."""

    generated: int
    hypervolume: float


class Bench:
    """The pair, its questions, and the judge."""

    def __init__(self, folder: Path, journal: Journal) -> None:
        self._folder = folder
        self._study = _study(WAYS[0], 0, None)
        self._common = shared(self._study)
        exam = make_exam(load_splits(self._study).validation, self._study)
        order = in_turn(exam, 0)
        self._exam, self._judging = _part(exam, order[:DECIDING]), order[DECIDING:]
        shell = make_shell(self._common, folder / "shell")
        live = LiveExaminer(Setting(str(shell), self._common, exam))
        self._examiner = Remembering(live, journal)
        self._units = measure_units(pair_plan(self._common))

    def run(self, way: Way, seed: int, budget: int | None) -> list[Point]:
        """Search one way with one seed; the points after the parents and after every trial."""
        study = _study(way, seed, budget)
        with (
            tempfile.TemporaryDirectory() as folder,
            Responses(Path(folder) / "responses.jsonl") as responses,
        ):
            desk = Desk(study, shared(study), self._exam, self._examiner, responses)
            parents, limit = desk.parents()
            phase = own_phase(study, self._units)
            sampler = make_sampler(phase.sampler, phase.space, seed, phase.trials, None)
            optuna.logging.set_verbosity(optuna.logging.ERROR)
            found = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
            trials: list[Trial] = []

            def spent() -> bool:
                used = desk.paid() + sum(trial.result.generated for trial in trials)
                return budget is not None and used >= budget

            race = Race(
                desk.order(limit), limit, study.racing, responses, spent, rivals=dict(parents)
            )
            Track(phase, found, race, "", [], trials.append).run(
                self._examiner, lambda: self._examiner
            )
            return self._curve(trials, desk.paid(), self._reference(study))

    def _curve(self, trials: Sequence[Trial], paid: int, start: Reference) -> list[Point]:
        points, complete = [Point(paid, 0.0)], list[Trial]()
        for trial in trials:
            paid += trial.result.generated
            if trial.result.status == "complete":
                complete.append(trial)
            judged = [Merge(t, self._judge(t.result.recipe)) for t in pareto(complete)]
            points.append(Point(paid, hypervolume(judged, start)))
        return points

    def _judge(self, recipe: Mapping[str, Any]) -> Any:
        return answers(self._examiner.ask(recipe, self._judging, MAX_TOKENS))

    def _reference(self, study: Study) -> Reference:
        slow, quick = (
            figures(self._judge(ends(self._common)[role].to_dict())) for role in ("slow", "quick")
        )
        return reference(slow, quick)


def at(points: Sequence[Point], tokens: float) -> float:
    """The hypervolume that has been reached with so many tokens."""
    return max((p.hypervolume for p in points if p.generated <= tokens), default=0.0)


def reached(points: Sequence[Point], level: float) -> float:
    """The tokens after which a hypervolume is reached; infinite when it never is."""
    return min((float(p.generated) for p in points if p.hypervolume >= level), default=math.inf)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Lay rows out as Markdown."""
    lines = [
        "| knobs | way | racing | trials | at 25% of the tokens | at 100% | tokens for 95% of the "
        "grid |",
        "|---|---|---|---:|---|---|---:|",
    ]
    for row in rows:
        share = row["share"]
        cells = [
            row["knobs"],
            row["way"],
            "on" if row["racing"] else "off",
            f"{row['trials']:.0f}",
            _mean(row["quarter"]),
            _mean(row["whole"]),
            "not reached" if math.isinf(share) else f"{100 * share:.0f}%",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def run(seeds: int, memory: Path, names: Sequence[str]) -> tuple[list[dict[str, Any]], int]:
    """Run the ways; returns their rows and the tokens of the full grid."""
    with tempfile.TemporaryDirectory() as folder, Journal(memory) as journal:
        bench = Bench(Path(folder), journal)
        grid = bench.run(WAYS[0], 0, None)
        budget, level = grid[-1].generated, 0.95 * grid[-1].hypervolume
        rows = []
        for way in WAYS:
            if names and way.name not in names:
                continue
            curves = [bench.run(way, seed, budget) for seed in range(seeds)]
            rows.append(_row(way, curves, budget, level))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows, budget


def _row(way: Way, curves: Sequence[Sequence[Point]], budget: int, level: float) -> dict[str, Any]:
    shares = sorted(reached(points, level) / budget for points in curves)
    return {
        "knobs": way.knobs,
        "way": way.name,
        "racing": way.racing,
        "trials": sum(len(points) - 1 for points in curves) / len(curves),
        "quarter": [at(points, budget / 4) for points in curves],
        "whole": [at(points, budget) for points in curves],
        "share": shares[len(shares) // 2],
    }


def _mean(values: Sequence[float]) -> str:
    """The mean and Student's 95% interval of it over seeds."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return f"{mean:.3f}"
    error = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values))
    half = float(stats.t.ppf(0.975, len(values) - 1)) * error
    return f"{mean:.3f} ± {half:.3f}"


def _study(way: Way, seed: int, budget: int | None) -> Study:
    return parse_study(
        {
            "quick": str(QUICK.parent / "quick"),
            "slow": str(QUICK.parent / "slow"),
            "tasks": ["arithmetic"],
            "recipes": [way.space],
            "sampler": way.sampler,
            "sampling": {"max_tokens": MAX_TOKENS},
            "racing": way.racing,
            "questions": {"count": SUBSET if way.racing else None},
            "budget": {"trials": way.trials, "tokens": budget},
            "seed": seed,
        }
    )


def _part(exam: Exam, ids: Sequence[str]) -> Exam:
    wanted = set(ids)
    return replace(
        exam,
        samples=tuple(sample for sample in exam.samples if sample.id in wanted),
        asked=tuple(asked for asked in exam.asked if asked.id in wanted),
    )


def _cut(outcome: Outcome, limit: int) -> Outcome:
    if outcome.tokens <= limit:
        return outcome
    return replace(outcome, tokens=limit, cut=True, correct=False, closed=False)


def main() -> None:
    """Run the benchmark and print its table, or rows with --json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--ways", nargs="+", default=[], help="only these, by name")
    parser.add_argument("--memory", type=Path, help="a file that keeps responses between runs")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        memory = arguments.memory or Path(folder) / "memory.jsonl"
        rows, budget = run(arguments.seeds, memory, arguments.ways)
    if arguments.json:
        print(json.dumps({"tokens": budget, "rows": rows}, indent=2))
    else:
        print(f"{arguments.seeds} seeds; the full grid generates {budget:,} tokens\n")
        print(table(rows))


if __name__ == "__main__":
    main()

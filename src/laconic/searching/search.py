"""Search: try merges of a pair, race them on questions that decide, test the front once."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from laconic.run.runner import Runner
from laconic.searching import finish
from laconic.searching.blocks import Units, measure_units
from laconic.searching.desk import Desk
from laconic.searching.examiner import LiveExaminer, Setting, ends, make_shell, pair_plan, shared
from laconic.searching.finish import Merge, Search
from laconic.searching.folder import StudyFolder
from laconic.searching.front import hypervolume, pareto
from laconic.searching.outcomes import figures
from laconic.searching.phases import Phase, Swept, later_phases, own_phase, sweep_phase
from laconic.searching.questions import Exam, Splits, facts, load_splits, make_exam
from laconic.searching.racing import Answers
from laconic.searching.responses import Responses
from laconic.searching.samplers import make_sampler
from laconic.searching.space import needs_units
from laconic.searching.storage import is_shared, open_storage, open_study, unfinished
from laconic.searching.study_file import (
    Study,
    accuracy_floor,
    load_study,
    parse_study,
    token_ceiling,
)
from laconic.searching.track import Race, Track
from laconic.searching.trials import Trial, beyond
from laconic.searching.workers import Crew, open_crew


@dataclass(frozen=True)
class Options:
    """How, and not what, is searched: nothing here changes a trial.

    storage: `journal`, `sqlite` or a database's URL. workers: so many processes (1: this one), or
    `ray`. device, dtype, batch_size: of the live models.
    """

    storage: str = "journal"
    workers: int | str = 1
    device: str | None = None
    dtype: str | None = None
    batch_size: int | None = None
    progress: bool = True


def search(
    study: Study | str | Path | Mapping[str, Any],
    *,
    out: str | Path,
    options: Options | None = None,
    extend: bool = False,
    runner: Runner | None = None,
) -> Search:
    """Search a study's space for its Pareto front of accuracy against tokens.

    study: a Study, its YAML file, or its dictionary form. out: the folder of the search; the same
    call goes on with one that was killed, and ends with the trials of an unbroken run (same seed,
    one worker). extend: accept a changed budget. runner: a live model for this process, opened
    unless given. Raises LaconicError for bad input; a failed trial is recorded and never raised.
    """
    if not isinstance(study, Study):
        study = parse_study(study) if isinstance(study, Mapping) else load_study(study)
    preparation = _prepare(study)
    folder = StudyFolder(Path(out))
    options = options or Options()
    owner = folder.begin(study, options.storage, extend)["owner"]
    with Responses(folder.responses) as responses:
        storage = open_storage(options.storage, folder.path)
        shell = make_shell(preparation.common, folder.shell)
        setting = Setting(
            str(shell),
            preparation.common,
            preparation.exam,
            options.device,
            options.dtype,
            options.batch_size,
        )
        examiner = LiveExaminer(setting, runner)
        desk = Desk(study, preparation.common, preparation.exam, examiner, responses)
        run = _Run(preparation, desk, options, storage, owner, examiner.live.digest)
        with open_crew(options.workers, setting, examiner) as crew:
            run.run_all(crew)
        return run.finish(folder, examiner)


@dataclass(frozen=True)
class _Preparation:
    """What is checked before a folder is made. units: of the parents, when blocks are asked for."""

    study: Study
    common: Mapping[str, Any]
    splits: Splits
    exam: Exam
    units: Units | None
    first: Phase


def _prepare(study: Study) -> _Preparation:
    common = shared(study)
    splits = load_splits(study)
    plan = pair_plan(common)
    wanted = not study.recipes or needs_units(study.recipes)
    units = measure_units(plan) if wanted else None
    first = own_phase(study, units) if study.recipes else sweep_phase(study)
    make_sampler(first.sampler, first.space, study.seed, first.trials, None)
    exam = make_exam(splits.validation, study)
    return _Preparation(study, common, splits, exam, units, first)


class _Run:
    """The phases of one search, one after the other, and what they found."""

    def __init__(
        self,
        prepared: _Preparation,
        desk: Desk,
        options: Options,
        storage: Any,
        owner: str,
        weights: str,
    ) -> None:
        self._prepared, self._study, self._desk = prepared, prepared.study, desk
        self._options, self._storage, self._owner = options, storage, owner
        self._weights, self._tracks = weights, list[Track]()
        self._parents, limit = desk.parents()
        self._race = self._make_race(limit)

    def run_all(self, crew: Crew) -> None:
        """Run the study's own phase, or the sweep and what the usual plan makes of it."""
        self._run_phase(self._prepared.first, crew)
        if not self._study.recipes and self._prepared.units is not None:
            for phase in later_phases(self._study, self._prepared.units, self._swept()):
                self._run_phase(phase, crew)

    def finish(self, folder: StudyFolder, examiner: LiveExaminer) -> Search:
        """Ask the front everything, test it once, and write it down."""
        trials = self._trials()
        complete = [trial for trial in trials if trial.result.status == "complete"]
        finish.refuse_empty(complete, trials)
        front = pareto([self._whole(trial) for trial in pareto(complete)])
        self._parents = self._desk.whole_parents(self._race.limit)
        named = {role: ends(self._prepared.common)[role] for role in finish.PARENTS}
        named |= {merge.trial.name: merge.trial.recipe for merge in front}
        tests = finish.test(folder, self._study, self._prepared.splits, examiner, named)
        return finish.write(folder, self._record(front, trials, tests), trials)

    def _make_race(self, limit: int) -> Race:
        """Draw up what all trials share."""
        wanted, slow = self._study.objectives, figures(self._parents["slow"])
        return Race(
            self._desk.order(limit),
            limit,
            self._study.racing,
            self._desk.responses,
            self._spent,
            accuracy_floor(wanted.accuracy, slow.accuracy) if wanted.accuracy else None,
            token_ceiling(wanted.tokens, slow.tokens) if wanted.tokens else None,
            dict(self._parents),
        )

    def _run_phase(self, phase: Phase, crew: Crew) -> None:
        race = self._race
        heeded = beyond if race.least is not None or race.most is not None else None
        sampler = make_sampler(phase.sampler, phase.space, self._study.seed, phase.trials, heeded)
        study = open_study(self._storage, f"{self._study.name}/{phase.name}", self._spec(), sampler)
        left = unfinished(study, self._owner, is_shared(self._options.storage))
        with self._bar(phase) as bar:

            def told(trial: Trial) -> None:
                bar.update()
                bar.set_postfix_str(_said(trial), refresh=False)

            track = Track(phase, study, race, self._owner, left, told)
            self._tracks.append(track)
            done = track.done()
            bar.update(len(done))
            race.rivals |= {t.name: t.result.answers for t in done if t.result.status == "complete"}
            crew.run(track.run)

    def _spec(self) -> dict[str, Any]:
        """What a storage's trials were made from: the study but its budget, the parents' bytes."""
        return {**self._study.fixed(), "parents": self._weights}

    def _bar(self, phase: Phase) -> Any:
        return tqdm(
            total=phase.trials,
            desc=phase.name,
            unit="trial",
            file=sys.stderr,
            disable=not self._options.progress,
            dynamic_ncols=True,
        )

    def _trials(self) -> list[Trial]:
        return [trial for track in self._tracks for trial in track.done()]

    def _spent(self) -> bool:
        budget, trials = self._study.budget, self._trials()
        generated = self._desk.paid() + sum(trial.result.generated for trial in trials)
        hours = sum(trial.result.seconds for trial in trials) / 3600
        return bool(
            (budget.tokens and generated >= budget.tokens)
            or (budget.hours and hours >= budget.hours)
        )

    def _swept(self) -> Sequence[Swept]:
        """The sweep's merges with all they answered; good are those on its front."""
        trials = self._tracks[0].done()
        best = pareto([trial for trial in trials if trial.result.status == "complete"])
        return [
            Swept(
                trial.params["interpolation.weight"],
                self._desk.responses.all_of(trial.result.merge),
                trial in best,
            )
            for trial in trials
        ]

    def _whole(self, trial: Trial) -> Merge:
        asked = self._desk.ask_all(trial.recipe, f"front:{trial.name}", self._race.limit)
        return Merge(trial, asked)

    def _record(
        self, front: Sequence[Merge], trials: Sequence[Trial], tests: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What front.json holds."""
        draws, race = self._prepared.exam.sampling.n, self._race
        reached = {role: figures(own) for role, own in self._parents.items()}
        start = finish.reference(reached["slow"], reached["quick"])
        subset = self._desk.fidelity(tuple(race.order))
        return {
            "study": self._study.name,
            "hash": self._study.hash,
            "seed": self._study.seed,
            "questions": facts(self._prepared.splits),
            "subset": None if subset is None else subset.to_dict(),
            "limit": race.limit,
            "reference": {"accuracy": start.accuracy, "tokens": start.tokens},
            "hypervolume": hypervolume(front, start),
            "generated": self._desk.responses.generated(),
            "trials": finish.counted(trials),
            "bounds": {"accuracy": race.least, "tokens": race.most},
            "parents": _rows_of(self._parents, draws, tests),
            "front": finish.rows(front, reached, draws, tests, race.beyond),
            "curve": finish.curve(trials, start, self._desk.paid()),
            "importances": {
                track.phase.name: found
                for track in self._tracks
                if (found := finish.importances(track.study, track.phase.space))
            },
        }


def _rows_of(
    parents: Mapping[str, Answers], draws: int, tests: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        role: finish.intervals(own, draws) | {"test": tests[role]} for role, own in parents.items()
    }


def _said(trial: Trial) -> str:
    result = trial.result
    if result.accuracy is None:
        return result.status
    return f"{result.status} {100 * result.accuracy:.1f}% {result.tokens:.1f} tokens"

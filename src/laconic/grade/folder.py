"""A run folder: run.json, questions.jsonl, completions.jsonl, grades.jsonl, summary.json."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from laconic.errors import LaconicError
from laconic.grade.grades import Asked, Grade
from laconic.records import Record, read_json, read_records, write_json, write_records
from laconic.run.completion import Completion

LABELS = ("name", "method")
"""What a run is called in tables; it may change from one command to the next."""


@dataclass(frozen=True)
class RunFolder:
    """The files of one run. run.json is written before the first completion, summary.json last."""

    path: Path

    @property
    def run(self) -> Path:
        """What was asked of which model; `settings` in it is what decides the completions."""
        return self.path / "run.json"

    @property
    def questions(self) -> Path:
        """The questions asked, with their right answers: grading needs nothing else."""
        return self.path / "questions.jsonl"

    @property
    def completions(self) -> Path:
        """The responses, in the order in which they finished."""
        return self.path / "completions.jsonl"

    @property
    def grades(self) -> Path:
        """The verdicts, in the order of the questions."""
        return self.path / "grades.jsonl"

    @property
    def summary(self) -> Path:
        """The measures; it exists only when the run is complete and graded."""
        return self.path / "summary.json"

    def begin(
        self, settings: Mapping[str, Any], facts: Mapping[str, Any], asked: Sequence[Asked]
    ) -> None:
        """Create the folder, or go on with one that has the same settings.

        settings: what decides the completions. facts: what is only recorded. Raises LaconicError
        naming what differs, or when the folder holds something else.
        """
        if self.run.exists():
            self._go_on(settings, facts)
            return
        self._refuse_foreign()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LaconicError(f"{self.path}: cannot be made: {error.strerror}") from error
        write_records(self.questions, [question.to_record() for question in asked])
        write_json(self.run, {**facts, "settings": settings, "settings_sha256": digest(settings)})

    def read_run(self) -> Record:
        """run.json. Raises LaconicError when this is not a run folder."""
        if not self.run.is_file():
            raise LaconicError(
                f"{self.path}: not a run folder: it has no run.json; "
                "`laconic eval MODEL --tasks ... --out FOLDER` makes one"
            )
        run = read_json(self.run)
        if not isinstance(run.get("settings"), dict):
            raise LaconicError(f"{self.run}: expected an object 'settings'; was the file edited?")
        return run

    def read_questions(self) -> list[Asked]:
        """The questions asked, in order."""
        return [_built(Asked, record, self.questions) for record in read_records(self.questions)]

    def read_completions(self) -> list[Completion]:
        """The responses so far, in the order in which they finished."""
        return self.parse_completions(read_records(self.completions))

    def parse_completions(self, records: Iterable[Record]) -> list[Completion]:
        """Completions from records of this folder. Raises LaconicError naming the file."""
        try:
            return [Completion.from_record(record) for record in records]
        except LaconicError as error:
            raise LaconicError(f"{self.completions}: {error}") from None

    def read_grades(self) -> list[Grade]:
        """The verdicts of a complete run. Raises LaconicError when it is not complete."""
        self.read_run()
        if not self.summary.is_file():
            raise LaconicError(
                f"{self.path}: the run is not complete: it has no summary.json; give the same "
                "`laconic eval` command again, and it goes on where it stopped"
            )
        return [_built(Grade, record, self.grades) for record in read_records(self.grades)]

    def read_details(self) -> list[Record]:
        """What summary.json says of each group of questions beyond accuracy and length."""
        details = read_json(self.summary).get("details")
        if not isinstance(details, list):
            raise LaconicError(f"{self.summary}: holds no list 'details'; grade the run again")
        return [one for one in details if one.get("subject") is None]

    def read_grader(self) -> str:
        """By which rules the grades were made, with their version."""
        grader = read_json(self.summary).get("grader")
        if not isinstance(grader, dict):
            raise LaconicError(f"{self.summary}: names no grader; grade the run again")
        return " ".join(str(part) for part in grader.values())

    def _go_on(self, settings: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Refuse other settings; take over new labels."""
        record = self.read_run()
        differing = differences(record["settings"], json.loads(json.dumps(settings)))
        if differing:
            raise LaconicError(
                f"{self.path}: holds a run with other settings: {'; '.join(differing)} (there, "
                "then asked for now); choose another --out, or delete the folder"
            )
        labels = {key: facts[key] for key in LABELS}
        if labels != {key: record.get(key) for key in LABELS}:
            write_json(self.run, record | labels)

    def _refuse_foreign(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise LaconicError(f"{self.path}: is a file; expected a folder for the run")
        if not self.path.exists():
            return
        known = (self.questions.name,)  # a run killed before it wrote run.json
        for entry in sorted(self.path.iterdir()):
            if entry.name not in known and not entry.name.endswith(".part"):
                raise LaconicError(
                    f"{self.path}: holds '{entry.name}' and is not a run folder (no run.json); "
                    "choose a new or an empty folder for --out"
                )


def differences(left: Mapping[str, Any], right: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What differs between two settings, as `key: left, right`, nested keys joined by dots."""
    found = []
    for key in sorted(left.keys() | right.keys()):
        a, b = left.get(key), right.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key}: {_short(a)}, {_short(b)}")
    return found


def digest(value: Any) -> str:
    """sha256 of a JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:20] + "..."


def _built(kind: type[Any], record: Record, path: Path) -> Any:
    try:
        return kind(**record)
    except TypeError as error:
        raise LaconicError(f"{path}: a record does not fit: {error}; grade the run again") from None

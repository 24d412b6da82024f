"""The folder of a search: its study, the live model's shell, responses, trials, the front."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from laconic.errors import LaconicError
from laconic.grade.folder import differences
from laconic.records import Record, read_json, write_json
from laconic.searching.study_file import EXTENDABLE, Study, parse_study


@dataclass(frozen=True)
class StudyFolder:
    """The files of one search. study.json is written first, front.json last."""

    path: Path

    @property
    def study(self) -> Path:
        """What is searched, and the folder's own name among those that share a storage."""
        return self.path / "study.json"

    @property
    def shell(self) -> Path:
        """The checkpoint that live models open with."""
        return self.path / "shell"

    @property
    def responses(self) -> Path:
        """Every outcome, as it came."""
        return self.path / "responses.jsonl"

    @property
    def trials(self) -> Path:
        """The finished trials, a line each."""
        return self.path / "trials.jsonl"

    @property
    def front(self) -> Path:
        """The front and its figures; there when the search is complete."""
        return self.path / "front.json"

    @property
    def tests(self) -> Path:
        """The run folders of the test questions."""
        return self.path / "test"

    def begin(self, study: Study, storage: str, extend: bool) -> Record:
        """Create the folder, or go on with one of the same study; returns study.json.

        Raises LaconicError saying what differs, or when the folder holds something else.
        """
        asked = study.model_dump(mode="json")
        if self.study.is_file():
            return self._go_on(study, asked, storage, extend)
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise LaconicError(
                f"{self.path}: exists and is no search folder (no study.json); choose a new or an "
                "empty folder for --out"
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LaconicError(f"{self.path}: cannot be made: {error.strerror}") from error
        record = {"study": asked, "hash": study.hash, "storage": storage, "owner": uuid.uuid4().hex}
        write_json(self.study, record)
        return record

    def read(self) -> tuple[Study, Record]:
        """The study and study.json. Raises LaconicError when this is no search folder."""
        if not self.study.is_file():
            raise LaconicError(
                f"{self.path}: not a search folder: it has no study.json; `laconic search "
                "STUDY.yml --out FOLDER` makes one"
            )
        record = read_json(self.study)
        return parse_study(record["study"], where=str(self.study)), record

    def read_front(self) -> Record:
        """front.json. Raises LaconicError when the search is not complete."""
        self.read()
        if not self.front.is_file():
            raise LaconicError(
                f"{self.path}: the search is not complete: it has no front.json; give the same "
                "`laconic search` command again, and it goes on where it stopped"
            )
        return read_json(self.front)

    def _go_on(self, study: Study, asked: dict[str, Any], storage: str, extend: bool) -> Record:
        record = read_json(self.study)
        if record["storage"] != storage:
            raise LaconicError(
                f"{self.path}: its trials are in storage {record['storage'].split('://')[0]}; give "
                "the same --storage, or choose another --out"
            )
        changed = differences(record["study"], asked)
        fixed = [one for one in changed if one.split(":")[0].split(".")[0] not in EXTENDABLE]
        if fixed:
            raise LaconicError(
                f"{self.path}: the study changed since its storage was made: {'; '.join(fixed)} "
                f"(there, then now); only {', '.join(EXTENDABLE)} may change, with --extend; "
                "choose another --out, or undo the change"
            )
        if changed and not extend:
            raise LaconicError(
                f"{self.path}: the study changed since its storage was made: {'; '.join(changed)} "
                "(there, then now); --extend goes on with the new budget"
            )
        if changed:
            record = {**record, "study": asked, "hash": study.hash}
            write_json(self.study, record)
        return record

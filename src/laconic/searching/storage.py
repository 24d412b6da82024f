"""Where trials are kept: an Optuna storage, opened by name, checked against the study."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from laconic.errors import LaconicError, did_you_mean
from laconic.grade.folder import differences

SPEC, OWNER = "study", "owner"
"""Attributes: of a study, what may not change; of a trial, the folder it is run from."""
KINDS = ("journal", "sqlite")
ATTEMPTS = 5
"""To make the tables of a database that another search is making too."""
JOURNAL_FILE, SQLITE_FILE = "journal.log", "study.db"
DIRECTIONS = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE)
"""Of accuracy and tokens."""


def open_storage(kind: str, folder: Path) -> BaseStorage:
    """Open `journal` or `sqlite`, a file in the study's folder, or a database by its URL.

    Raises LaconicError, without the URL's password, for one that cannot be reached.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if kind == "journal":
        file = str(folder / JOURNAL_FILE)
        return JournalStorage(JournalFileBackend(file, lock_obj=JournalFileOpenLock(file)))
    if kind == "sqlite":
        return _database(f"sqlite:///{folder / SQLITE_FILE}", "sqlite")
    if "://" not in kind:
        raise LaconicError(
            f"storage '{kind}'{did_you_mean(kind, KINDS)}: expected journal, sqlite, or the URL of "
            "a database such as postgresql://user:password@host/name"
        )
    return _database(kind, _without_password(kind))


def is_shared(kind: str) -> bool:
    """Whether other machines may have trials of their own in a storage."""
    return kind not in KINDS


def open_study(
    storage: BaseStorage, name: str, spec: Mapping[str, Any], sampler: BaseSampler
) -> optuna.Study:
    """Create an Optuna study, or go on with the one of that name and the same `spec`.

    Raises LaconicError saying what differs for one that was made from something else.
    """
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        sampler=sampler,
        directions=list(DIRECTIONS),
        load_if_exists=True,
    )
    known = study.user_attrs.get(SPEC)
    asked = json.loads(json.dumps(spec))
    if known is None:
        study.set_user_attr(SPEC, asked)
    elif differing := differences(known, asked):
        raise LaconicError(
            f"study '{name}': changed since its storage was made: {'; '.join(differing)} (there, "
            "then now); only `budget` may change (with --extend): choose another folder, or undo "
            "the change"
        )
    return study


def unfinished(study: optuna.Study, owner: str, shared: bool) -> list[optuna.Trial]:
    """The trials that a killed run of the same folder left behind, to be gone on with.

    In a shared storage those of other folders, which may be alive, are left alone.
    """
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    own = [trial for trial in running if _is_own(trial, owner, shared)]
    return [optuna.Trial(study, trial._trial_id) for trial in own]


def _is_own(trial: FrozenTrial, owner: str, shared: bool) -> bool:
    by = trial.user_attrs.get(OWNER)
    return by == owner or (by is None and not shared)


def _database(url: str, shown: str) -> BaseStorage:
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        return _made(url)
    except ImportError as error:
        raise LaconicError(
            f"storage {shown}: its driver is missing ({error}); pip install laconic[postgres]"
        ) from None
    except (SQLAlchemyError, ArgumentError, NoSuchModuleError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise LaconicError(
            f"storage {shown}: cannot be reached: {reason}; is the server running, and the URL "
            "right?"
        ) from None


def _made(url: str) -> BaseStorage:
    """Open a database, and its tables anew when another search was just making them too."""
    from sqlalchemy.exc import IntegrityError, ProgrammingError

    for _ in range(ATTEMPTS - 1):
        try:
            return RDBStorage(url)
        except (IntegrityError, ProgrammingError):
            time.sleep(1.0)
    return RDBStorage(url)


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    credentials, at, host = rest.rpartition("@")
    user = credentials.partition(":")[0]
    return f"{scheme}://{user}{at}{host}"

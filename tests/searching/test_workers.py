"""Several workers: processes, a Ray cluster, machines that share a Postgres database."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import thinkers
from laconic.errors import LaconicError
from laconic.records import read_records
from laconic.searching.examiner import Setting, ends, make_shell, shared
from laconic.searching.questions import load_splits, make_exam
from laconic.searching.search import Options, search
from laconic.searching.storage import open_storage
from laconic.searching.study_file import parse_study
from laconic.searching.track import WorkerLostError
from laconic.searching.workers import ProcessExaminer
from searching.fakes import Live, study

POSTGRES = Path("/usr/lib/postgresql")
TINY = {"sampling": {"max_tokens": 6}, "budget": {"trials": 6}, "racing": {"first": 8}}


def tiny(folder: Path, **changes: Any) -> dict[str, Any]:
    """A study that a real, tiny model answers."""
    raw = study(folder, **{**TINY, **changes})
    rows = [{"question": row["question"], "answer": row["short"]} for row in thinkers.rows(12)]
    for split in ("validation", "test"):
        thinkers.write_rows(folder / f"{split}.jsonl", rows)
    return raw


def setting(folder: Path) -> Setting:
    made = parse_study(tiny(folder))
    common = shared(made)
    exam = make_exam(load_splits(made).validation, made)
    return Setting(str(make_shell(common, folder / "shell")), common, exam, threads=1)


@pytest.mark.slow
def test_two_processes_share_the_trials(tmp_path: Path) -> None:
    raw = tiny(tmp_path)
    alone = search(raw, out=tmp_path / "one", options=Options(progress=False)).record
    found = search(raw, out=tmp_path / "two", options=Options(workers=2, progress=False)).record
    assert sum(found["trials"].values()) == 6
    weights = [
        sorted(trial["params"]["interpolation.weight"] for trial in read_records(file))
        for file in (tmp_path / "one" / "trials.jsonl", tmp_path / "two" / "trials.jsonl")
    ]
    assert weights[0] == weights[1]
    assert found["parents"] == alone["parents"]


@pytest.mark.slow
def test_a_killed_process_is_a_lost_worker(tmp_path: Path) -> None:
    examiner = ProcessExaminer(setting(tmp_path))
    recipe = ends(shared(parse_study(tiny(tmp_path))))["slow"].to_dict()
    ids = ["validation/1", "validation/2"]
    assert {outcome.id for outcome in examiner.ask(recipe, ids, 4)} == set(ids)
    with pytest.raises(LaconicError, match="unknown method 'tiess'"):
        examiner.ask({**recipe, "merge": ["tiess"]}, ids, 4)
    assert examiner.pid is not None
    os.kill(examiner.pid, signal.SIGKILL)
    with pytest.raises(WorkerLostError, match="worker lost: its process ended with code -9"):
        examiner.ask(recipe, ids, 4)
    examiner.close()


def test_a_word_that_is_no_worker(tmp_path: Path) -> None:
    with pytest.raises(LaconicError, match="workers: 'rays'; expected a number, ray, or ray:N"):
        search(tiny(tmp_path), out=tmp_path / "out", options=Options(workers="rays"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A Ray cluster of this machine alone, started once: a loaded machine takes long over it."""
    ray = pytest.importorskip("ray", reason="ray is not installed (pip install laconic[ray])")
    ray.init(num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


@pytest.mark.slow
def test_two_workers_on_ray(tmp_path: Path, cluster: Any) -> None:
    options = Options(workers="ray:2", progress=False)
    found = search(tiny(tmp_path), out=tmp_path / "out", options=options).record
    assert sum(found["trials"].values()) == 6
    assert "failed" not in found["trials"]
    with pytest.raises(LaconicError, match="workers: 'ray:none'; expected ray, or ray:NUMBER"):
        search(tiny(tmp_path), out=tmp_path / "b", options=Options(workers="ray:none"))


@pytest.mark.slow
def test_a_lost_actor(tmp_path: Path, cluster: Any) -> None:
    from laconic.searching.cluster import ActorExaminer

    examiner = ActorExaminer(setting(tmp_path), 0.0)
    recipe = ends(shared(parse_study(tiny(tmp_path))))["slow"].to_dict()
    assert len(examiner.ask(recipe, ["validation/1"], 4)) == 1
    with pytest.raises(LaconicError, match="unknown method 'tiess'"):
        examiner.ask({**recipe, "merge": ["tiess"]}, ["validation/1"], 4)
    cluster.kill(examiner.actor)
    with pytest.raises(WorkerLostError, match="worker lost"):
        examiner.ask(recipe, ["validation/1"], 4)


@pytest.fixture
def database() -> Iterator[str]:
    """The URL of a Postgres server of its own, in a temporary folder."""
    programs = sorted(POSTGRES.glob("*/bin/initdb"))
    if not programs:
        pytest.skip("no Postgres server is installed (apt-get install postgresql)")
    pytest.importorskip("psycopg", reason="no driver (pip install laconic[postgres])")
    become: list[str] = []
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    # pytest's own folders are closed to the user that the server has to run as
    with tempfile.TemporaryDirectory(prefix="laconic-postgres-") as temporary:
        if os.geteuid() == 0:
            if shutil.which("runuser") is None:
                pytest.skip("Postgres does not run as root, and runuser is missing")
            become = ["runuser", "-u", "nobody", "--"]
            shutil.chown(temporary, "nobody")
        data = f"{temporary}/data"

        def run(program: str, *words: str) -> None:
            command = [*become, str(programs[-1].with_name(program)), "-D", data, *words]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=temporary)

        run("initdb", "-U", "searcher", "-A", "trust")
        options = f"-p {port} -c listen_addresses=127.0.0.1 -k {temporary} -F"
        run("pg_ctl", "-w", "-l", f"{temporary}/log", "-o", options, "start")
        try:
            yield f"postgresql://searcher:secret@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "-w", "-m", "immediate", "stop")


@pytest.mark.slow
def test_two_searches_share_a_postgres_study(tmp_path: Path, database: str) -> None:
    space = {"recipes": [{"ties": {"trim": [0.0, 0.8], "alpha": [0.1, 1.0]}}], "sampler": "tpe"}
    raw = study(tmp_path, **space, budget={"trials": 12})
    found: dict[str, Any] = {}

    def work(name: str) -> None:
        options = Options(storage=database, progress=False)
        found[name] = search(
            raw, out=tmp_path / name, options=options, runner=Live(tmp_path)
        ).record

    threads = [threading.Thread(target=work, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    trials = read_records(tmp_path / "one" / "trials.jsonl")
    assert sorted(t["trial"] for t in trials) == sorted(f"trials/{i}" for i in range(len(trials)))
    # the other search may still be in its last one, or have begun one at the same moment
    assert 11 <= len(trials) <= 13
    for name in ("one", "two"):  # each had trials of its own
        responses = read_records(tmp_path / name / "responses.jsonl")
        assert len({r["trial"] for r in responses if r["trial"].startswith("trials/")}) >= 2
    other = study(tmp_path, **space, budget={"trials": 12}, seed=5)
    with pytest.raises(LaconicError, match="changed since its storage was made: seed: 0, 5"):
        search(
            other, out=tmp_path / "other", options=Options(storage=database, progress=False),
            runner=Live(tmp_path),
        )  # fmt: skip


def test_a_storage_that_cannot_be_reached(tmp_path: Path) -> None:
    pytest.importorskip("psycopg", reason="no driver (pip install laconic[postgres])")
    url = "postgresql://me:secret@127.0.0.1:1/none"
    with pytest.raises(
        LaconicError, match=r"storage postgresql://me@127.0.0.1:1/none: cannot be"
    ) as e:
        open_storage(url, tmp_path)
    assert "secret" not in str(e.value)
    with pytest.raises(LaconicError, match="storage 'jornal'; did you mean 'journal'"):
        open_storage("jornal", tmp_path)

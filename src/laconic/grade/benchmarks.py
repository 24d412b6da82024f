"""Published benchmarks, in the layout their authors gave them; their text is never bundled.

A benchmark is read from a file (`gsm8k=PATH.jsonl`), from DATA/gsm8k.jsonl or
DATA/gsm8k/test.jsonl, with DATA the folder that LACONIC_DATA names, or else from the Hub.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from laconic.errors import LaconicError
from laconic.grade.extraction import extract
from laconic.grade.problems import (
    human_eval_answer,
    human_eval_question,
    live_code_bench_answer,
    live_code_bench_question,
)
from laconic.records import Record, read_records

FOLDER_VARIABLE = "LACONIC_DATA"
CLOSED_QUESTIONS = {
    "true": " (True or False)",
    "false": " (True or False)",
    "yes": " (Yes or No)",
    "no": " (Yes or No)",
}


@dataclass(frozen=True)
class Benchmark:
    """Where a benchmark comes from and how its rows are read.

    rows: how many a whole file has; releases: and its other releases. sha256: of the file as
    published, where it is known. hub: the Hub's data set, its configuration (None: the only one)
    and split; files: what to read of it instead, where it is no more than JSONL files. code:
    whether answers are programs. id: the field that names a row; None: its number.
    """

    name: str
    source: str
    licence: str
    rows: int
    question: str | Callable[[Record], str]
    answer: Callable[[Record], str]
    hub: tuple[str, str | None, str]
    sha256: str | None = None
    level: str | None = None
    subject: str | Callable[[Record], str] | None = None
    id: str | None = None
    releases: tuple[int, ...] = ()
    files: tuple[str, ...] = ()
    code: bool = False

    def read(self, path: Path | None) -> tuple[list[dict[str, Any]], list[str]]:
        """The rows as questions, their fields all text or None, and what to note about the file."""
        rows, notes = (self._from_hub(), []) if path is None else self._from_file(path)
        return self.questions(rows), notes

    def questions(self, rows: Sequence[Record]) -> list[dict[str, Any]]:
        """Rows in the published layout as `id`, `question`, `answer`, `level` and `subject`."""
        return [self._plain(row, line) for line, row in enumerate(rows, start=1)]

    def find(self) -> Path | None:
        """The file in the folder that LACONIC_DATA names, if there is one."""
        if not (folder := os.environ.get(FOLDER_VARIABLE)):
            return None
        places = [Path(folder) / f"{self.name}.jsonl", Path(folder) / self.name / "test.jsonl"]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            raise LaconicError(
                f"task '{self.name}': {FOLDER_VARIABLE} is {folder}, which has neither "
                f"{places[0].name} nor {self.name}/test.jsonl; put the file there, or give "
                f"{self.name}=PATH.jsonl"
            )
        return found

    def _from_file(self, path: Path) -> tuple[list[Record], list[str]]:
        if not path.is_file():
            raise LaconicError(f"task '{self.name}': {path}: no such file")
        rows = read_records(path)
        if len(rows) not in (self.rows, *self.releases):
            expected = " or ".join(map(str, sorted((self.rows, *self.releases))))
            raise LaconicError(
                f"task '{self.name}': {path}: expected {expected} questions, got {len(rows)}; for "
                "a part of a benchmark use --limit, or name the file by its path alone"
            )
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if self.sha256 in (None, digest):
            return rows, []
        return rows, [
            f"task '{self.name}': {path.name} is not the file that was published: sha256 {digest}, "
            f"expected {self.sha256}"
        ]

    def _from_hub(self) -> list[Record]:
        if self.files:
            return self._downloaded()
        try:
            import datasets
        except ImportError:
            raise LaconicError(
                f"task '{self.name}': give its file ({self.name}=PATH.jsonl, or the folder in "
                f"{FOLDER_VARIABLE}), or install the Hub's library: pip install 'laconic[datasets]'"
            ) from None
        name, configuration, split = self.hub
        try:
            rows = datasets.load_dataset(name, configuration, split=split)
        except Exception as error:  # it raises whatever the network and the Hub raise
            raise LaconicError(f"task '{self.name}': {name} cannot be loaded: {error}") from error
        return [dict(row) for row in rows]

    def _downloaded(self) -> list[Record]:
        from huggingface_hub import hf_hub_download

        rows = []
        for file in self.files:
            try:
                path = hf_hub_download(self.hub[0], file, repo_type="dataset")
            except Exception as error:  # it raises whatever the network and the Hub raise
                raise LaconicError(
                    f"task '{self.name}': {self.hub[0]}/{file} cannot be loaded: {error}; or give "
                    f"its file: {self.name}=PATH.jsonl"
                ) from error
            rows += read_records(Path(path))
        return rows

    def _plain(self, row: Record, line: int) -> dict[str, Any]:
        try:
            asked = self.question
            question = asked(row) if callable(asked) else str(row[asked])
            answer = self.answer(row)
            id, subject = _field(row, self.id), _field(row, self.subject)
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            raise LaconicError(
                f"task '{self.name}', question {line}: not in the published layout: {error!r}; "
                f"fields: {', '.join(row)}"
            ) from error
        return {
            "id": _text(id) or str(line),
            "question": question + CLOSED_QUESTIONS.get(answer.strip(". ").lower(), ""),
            "answer": answer,
            "level": _text(row.get(self.level)) if self.level else None,
            "subject": _text(subject),
        }


def _field(row: Record, of: str | Callable[[Record], str] | None) -> Any:
    """A field by its name, or what a function makes of the row; None where there is none."""
    return of(row) if callable(of) else row.get(of) if of else None


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _last_box(row: Record) -> str:
    return extract(row["solution"]).answer or ""


def _first_of_final(row: Record) -> str:
    return str(row["final_answer"][0]).strip("$ ")


def _answer(row: Record) -> str:
    return str(row["answer"])


def _benchmarks(found: Sequence[Benchmark]) -> dict[str, Benchmark]:
    return {one.name: one for one in found}


BENCHMARKS = _benchmarks(
    [
        Benchmark(
            "gsm8k",
            "Cobbe et al. 2021, arXiv:2110.14168",
            "MIT",
            1319,
            "question",
            lambda row: row["answer"].split("####")[1].strip(),
            ("openai/gsm8k", "main", "test"),
            "9f098df7ff4522078d6ccec27a5c38a454790fdb51131bedfaa0e490070d5394",
        ),
        Benchmark(
            "math500",
            "Lightman et al. 2023, arXiv:2305.20050",
            "MIT",
            500,
            "problem",
            _answer,
            ("HuggingFaceH4/MATH-500", None, "test"),
            "35dc41080a3680858b27fa7e0533d2d547825316fc5dafe5d316f4ccc5a06132",
            level="level",
            subject="subject",
        ),
        Benchmark(
            "minerva_math",
            "Lewkowycz et al. 2022, arXiv:2206.14858 (MIT OpenCourseWare)",
            "not stated",
            272,
            "problem",
            _last_box,
            ("math-ai/minervamath", None, "test"),
            "0e656b430d3a0a1dab6aa853f453ba3805e28e2cabe4fc72486a897cc09d8ba2",
            subject="type",
        ),
        Benchmark(
            "olympiadbench",
            "He et al. 2024, arXiv:2402.14008 (OE_TO_maths_en_COMP)",
            "MIT",
            675,
            "question",
            _first_of_final,
            ("Hothan/OlympiadBench", "OE_TO_maths_en_COMP", "train"),
            "bb8c1e38a16ea9eacb77530315a674d883f267fbff79183effc53681b4fcc416",
            subject="subfield",
        ),
        Benchmark(
            "college_math",
            "Tang et al. 2024, arXiv:2403.02884",
            "mixed, in each row",
            2818,
            "question",
            lambda row: row["answer"].replace("$", ""),
            ("realtreetune/college_math", None, "test"),
            "91131bc4a355b884fc63ef7c4f048c35adb030004a4cb07b1475698f120aa4a6",
            subject="data_topic",
        ),
        Benchmark(
            "aime24",
            "AIME 2024 I and II",
            "copyright MAA",
            30,
            "problem",
            _answer,
            ("HuggingFaceH4/aime_2024", None, "train"),
            "af2b8bd2aa911b6333ad0df32f3ca05c7ae8ed10f1731f4372c8ae26990bf7ac",
        ),
        Benchmark(
            "aime25",
            "AIME 2025 I and II",
            "copyright MAA",
            30,
            "problem",
            _answer,
            ("math-ai/aime25", None, "test"),
        ),
        Benchmark(
            "amc23",
            "AMC 12 2023",
            "copyright MAA",
            40,
            "question",
            _answer,
            ("math-ai/amc23", None, "test"),
        ),
        Benchmark(
            "humaneval",
            "Chen et al. 2021, arXiv:2107.03374; its tests are run",
            "MIT",
            164,
            human_eval_question,
            human_eval_answer,
            ("openai/openai_humaneval", None, "test"),
            id="task_id",
            code=True,
        ),
        Benchmark(
            "livecodebench",
            "Jain et al. 2024, arXiv:2403.07974 (code_generation_lite, release_v6); tests are run",
            "runner MIT; problems of LeetCode, AtCoder and Codeforces",
            1055,
            live_code_bench_question,
            live_code_bench_answer,
            ("livecodebench/code_generation_lite", None, "test"),
            level="difficulty",
            subject=lambda row: str(row["contest_date"])[:7],  # the month, for what a model knew
            id="question_id",
            releases=(400, 511, 612, 713, 880),
            files=("test.jsonl", *(f"test{n}.jsonl" for n in range(2, 7))),
            code=True,
        ),
    ]
)

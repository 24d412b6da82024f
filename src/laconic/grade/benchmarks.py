"""Published benchmarks, in the layout their authors gave them; their text is never bundled.

A benchmark is read from a file (`gsm8k=PATH.jsonl`), from DATA/gsm8k.jsonl or
DATA/gsm8k/test.jsonl, with DATA the folder that LACONIC_DATA names, or else from the Hub.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from laconic.errors import LaconicError
from laconic.grade.extraction import extract
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

    rows: how many a whole file has. sha256: of the file as published, where it is known. hub: the
    Hub's data set, its configuration (None: the only one) and split.
    """

    name: str
    source: str
    licence: str
    rows: int
    question: str
    answer: Callable[[Record], str]
    hub: tuple[str, str | None, str]
    sha256: str | None = None
    level: str | None = None
    subject: str | None = None

    def read(self, path: Path | None) -> list[dict[str, Any]]:
        """The rows as questions: `question`, `answer`, `level`, `subject`, all text or None."""
        rows = self._from_hub() if path is None else self._from_file(path)
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

    def _from_file(self, path: Path) -> list[Record]:
        if not path.is_file():
            raise LaconicError(f"task '{self.name}': {path}: no such file")
        rows = read_records(path)
        if len(rows) != self.rows:
            raise LaconicError(
                f"task '{self.name}': {path}: expected {self.rows} questions, got {len(rows)}; for "
                "a part of a benchmark use --limit, or name the file by its path alone"
            )
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if self.sha256 is not None and digest != self.sha256:
            print(
                f"laconic: task '{self.name}': {path} is not the published file: sha256 {digest}, "
                f"expected {self.sha256}",
                file=sys.stderr,
            )
        return rows

    def _from_hub(self) -> list[Record]:
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

    def _plain(self, row: Record, line: int) -> dict[str, Any]:
        try:
            question, answer = str(row[self.question]), self.answer(row)
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise LaconicError(
                f"task '{self.name}', question {line}: not in the published layout: {error!r}; "
                f"fields: {', '.join(row)}"
            ) from error
        return {
            "id": str(line),
            "question": question + CLOSED_QUESTIONS.get(answer.strip(". ").lower(), ""),
            "answer": answer,
            "level": _text(row.get(self.level)) if self.level else None,
            "subject": _text(row.get(self.subject)) if self.subject else None,
        }


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
    ]
)

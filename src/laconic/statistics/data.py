"""Calibration text: rows of a JSONL file in the s1K schema, or the paragraphs of a plain text."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from laconic.errors import LaconicError, did_you_mean
from laconic.recipe import Calibration

CLUSTERS = 20
FEATURES = 256
Matrix = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Row:
    """One sample: a question, and the answers that were asked for."""

    question: str
    short: str | None = None
    long: str | None = None

    def answer(self, which: str) -> str:
        """Return the `short` or the `long` answer."""
        return (self.short if which == "short" else self.long) or ""


def read_rows(calibration: Calibration, answers: frozenset[str], seed: int) -> list[Row]:
    """Read the samples that the calibration selects, with the `answers` (short, long) needed.

    Raises LaconicError naming the row and the field when one is missing.
    """
    path = Path(calibration.data)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LaconicError(f"calibration data {path}: cannot be read: {error}") from None
    if path.suffix in (".jsonl", ".json"):
        rows = _jsonl_rows(path, text, calibration, answers)
    elif answers:
        raise LaconicError(
            f"calibration data {path}: plain text has no {' and '.join(sorted(answers))} answers; "
            "give a .jsonl file with them (or calibration.answers: question where that is enough)"
        )
    else:
        rows = [Row(part.strip()) for part in text.split("\n\n") if part.strip()]
    if not rows:
        raise LaconicError(f"calibration data {path}: holds no samples")
    return _select(rows, calibration, seed)


def _jsonl_rows(
    path: Path, text: str, calibration: Calibration, answers: frozenset[str]
) -> list[Row]:
    names = calibration.fields.model_dump()
    wanted = {"question": names["question"]} | {key: names[key] for key in sorted(answers)}
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            raw = json.loads(line)
        except ValueError as error:
            raise LaconicError(f"{path}, line {number}: not valid JSON: {error}") from None
        rows.append(Row(**{key: _field(path, number, raw, key, n) for key, n in wanted.items()}))
    return rows


def _field(path: Path, number: int, raw: Any, key: str, name: str) -> str:
    if not isinstance(raw, dict) or not isinstance(raw.get(name), str):
        has = ", ".join(sorted(raw)) if isinstance(raw, dict) else "no object"
        hint = did_you_mean(name, raw) if isinstance(raw, dict) else ""
        raise LaconicError(
            f"{path}, line {number}: no text in field '{name}'{hint} (it has: {has}); "
            f"name it by calibration.fields.{key}"
        )
    return str(raw[name])


def _select(rows: Sequence[Row], calibration: Calibration, seed: int) -> list[Row]:
    count = calibration.samples
    if calibration.select == "first" or len(rows) <= count:
        return list(rows[:count])
    random = np.random.default_rng(seed)
    if calibration.select == "kmeans":
        chosen = _spread(_features(rows), count, random)
    else:
        chosen = random.permutation(len(rows))[:count].tolist()
    return [rows[index] for index in sorted(chosen)]


def _features(rows: Sequence[Row]) -> Matrix:
    """Hashed bags of words of the questions, of length 1: (rows, FEATURES)."""
    found = np.zeros((len(rows), FEATURES))
    for row, bag in zip(rows, found, strict=True):
        for word in row.question.lower().split():
            bag[zlib.crc32(word.encode()) % FEATURES] += 1
    norms: Matrix = np.linalg.norm(found, axis=1, keepdims=True)
    return found / np.maximum(norms, 1)


def _spread(features: Matrix, count: int, random: np.random.Generator) -> list[int]:
    """Take rows from k-means clusters in turn, 5 each for 100 samples, at random inside one."""
    from scipy.cluster.vq import kmeans2

    _, labels = kmeans2(features, min(CLUSTERS, count), minit="++", seed=random)
    order = random.permutation(len(features)).tolist()
    clusters = [[i for i in order if labels[i] == label] for label in range(CLUSTERS)]
    turns = [
        cluster[turn] for turn in range(len(order)) for cluster in clusters if turn < len(cluster)
    ]
    return turns[:count]

"""The task's splits: right answers, no question twice, the same bytes again."""

import json
import random
import re
from itertools import islice
from pathlib import Path

import pytest

from laconic.demo import questions
from laconic.demo.questions import FOLDER, LEVELS

FILES = {split: FOLDER / f"{split}.jsonl" for split in ("validation", "test")}


def read(split: str) -> list[dict[str, str | int]]:
    return [json.loads(line) for line in FILES[split].read_text(encoding="utf-8").splitlines()]


def solve(text: str) -> str:
    """The answer by substitution, sharing no code with the generator."""
    *definitions, asked = text.split("; ")
    known: dict[str, int] = {}
    for definition in definitions:
        name, body = definition.split("=")
        known[name] = sum(
            known[part.lstrip("+-")] if part.isalpha() else int(part)
            for part in re.findall(r"[a-z]|[+-]?\d+", body)
        )
    return str(known[asked.removesuffix("?")])


@pytest.mark.parametrize("split", FILES)
def test_every_answer_is_right(split: str) -> None:
    for row in read(split):
        assert solve(str(row["question"])) == row["answer"], row


@pytest.mark.parametrize(("split", "each"), [("validation", 50), ("test", 100)])
def test_levels_are_even_and_ids_unique(split: str, each: int) -> None:
    rows = read(split)
    assert [row["level"] for row in rows] == [level for level in LEVELS for _ in range(each)]
    assert len({row["id"] for row in rows}) == len(rows)
    for row in rows:
        assert len(re.findall("[+-]", str(row["question"]))) == row["level"] + 1


def test_splits_share_no_question() -> None:
    validation, test = ([row["question"] for row in read(split)] for split in FILES)
    assert len(set(validation)) == len(validation)
    assert len(set(test)) == len(test)
    assert not set(validation) & set(test)


def test_training_stream_meets_no_held_out_question() -> None:
    held = {row["question"] for split in FILES for row in read(split)}
    for question in islice(questions.stream(seed=5), 5000):
        assert question.text not in held


def test_committed_files_come_back_byte_for_byte(tmp_path: Path) -> None:
    for path in questions.write(tmp_path):
        assert path.read_bytes() == (questions.FOLDER / path.name).read_bytes()


def test_every_value_is_a_digit() -> None:
    rng = random.Random(1)
    for level in LEVELS:
        for _ in range(200):
            values = questions.draw(rng, level, "train").values
            assert len(values) == level + 2
            assert all(0 <= value <= 9 for value in values)


def test_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown split 'train'"):
        questions.fixed("train")

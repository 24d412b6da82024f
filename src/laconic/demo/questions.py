"""The task `arithmetic`: chains of definitions, one addition or subtraction per link.

A question reads `a=3; b=a+5; c=b-2; c?`. Level k has k + 1 operations, so 2 to 6. Every value
along the chain and every operand is one digit.

A digest of a question's numbers decides its split, so that no stream of training questions can
meet a validation or a test question. See `split_of`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LEVELS = (1, 2, 3, 4, 5)
LETTERS = "abcdefghijkl"
LOWEST, HIGHEST = 0, 9
LARGEST_MOVE = 9
PER_LEVEL = {"validation": 50, "test": 100}
FOLDER = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Question:
    """A chain of values: `start` is the first, `moves` are the signed operands in order."""

    start: int
    moves: tuple[int, ...]

    @property
    def level(self) -> int:
        """One less than the number of operations."""
        return len(self.moves) - 1

    @property
    def letters(self) -> str:
        """The names of the values, in order."""
        return LETTERS[: len(self.moves) + 1]

    @property
    def values(self) -> tuple[int, ...]:
        """The value of each letter, level + 2 of them."""
        values = [self.start]
        for move in self.moves:
            values.append(values[-1] + move)
        return tuple(values)

    @property
    def answer(self) -> str:
        """The last value, a digit."""
        return str(self.values[-1])

    @property
    def text(self) -> str:
        """What the models are asked: `a=3; b=a+5; c=b-2; c?`."""
        links = zip(self.letters[1:], self.letters, self.moves, strict=False)
        parts = [f"{self.letters[0]}={self.start}"]
        parts += [f"{name}={source}{move:+d}" for name, source, move in links]
        return "; ".join([*parts, f"{self.letters[-1]}?"])


def split_of(start: int, moves: tuple[int, ...]) -> str:
    """`validation`, `test` (a fifth each) or `train`, from a digest of the numbers."""
    digest = hashlib.sha256(repr((start, moves)).encode()).digest()
    return {0: "validation", 1: "test"}.get(digest[0] % 5, "train")


def draw(rng: random.Random, level: int, split: str) -> Question:
    """One question of this level and split."""
    while True:
        start = LOWEST + below(rng, HIGHEST - LOWEST + 1)
        moves = _draw_moves(rng, start, level)
        if split_of(start, moves) == split:
            return Question(start, moves)


def stream(seed: int, split: str = "train") -> Iterator[Question]:
    """Questions of one split without end, levels in turn."""
    rng = random.Random(seed)
    while True:
        for level in LEVELS:
            yield draw(rng, level, split)


def fixed(split: str) -> list[Question]:
    """The committed questions of `validation` or `test`: none occurs twice."""
    if split not in PER_LEVEL:
        raise ValueError(f"unknown split {split!r}: expected one of {', '.join(PER_LEVEL)}")
    chosen: list[Question] = []
    for question in stream(seed=0, split=split):
        room = sum(q.level == question.level for q in chosen) < PER_LEVEL[split]
        if room and question not in chosen:
            chosen.append(question)
        if len(chosen) == PER_LEVEL[split] * len(LEVELS):
            return sorted(chosen, key=lambda q: q.level)
    raise RuntimeError("unreachable: the stream has no end")


def rows(split: str) -> list[dict[str, str | int]]:
    """The rows of a committed file: id, level, question, answer."""
    return [
        {
            "id": f"{split}-{question.level}-{number % PER_LEVEL[split]:03d}",
            "level": question.level,
            "question": question.text,
            "answer": question.answer,
        }
        for number, question in enumerate(fixed(split))
    ]


def write(folder: Path) -> list[Path]:
    """Write validation.jsonl and test.jsonl into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for split in PER_LEVEL:
        path = folder / f"{split}.jsonl"
        text = "".join(json.dumps(row) + "\n" for row in rows(split))
        path.write_text(text, encoding="utf-8", newline="\n")
        paths.append(path)
    return paths


def below(rng: random.Random, n: int) -> int:
    """A whole number in [0, n). `random()` alone is promised to be stable over Pythons."""
    return int(rng.random() * n)


def _draw_moves(rng: random.Random, start: int, level: int) -> tuple[int, ...]:
    value = start
    moves: list[int] = []
    while len(moves) <= level:
        size = 1 + below(rng, LARGEST_MOVE)
        move = size if rng.random() < 0.5 else -size
        if LOWEST <= value + move <= HIGHEST:
            value += move
            moves.append(move)
    return tuple(moves)


def main() -> None:
    """Write the two files of the held-out splits."""
    parser = argparse.ArgumentParser(description="write validation.jsonl and test.jsonl")
    parser.add_argument("--out", type=Path, default=FOLDER)
    for path in write(parser.parse_args().out):
        print(path)


if __name__ == "__main__":
    main()

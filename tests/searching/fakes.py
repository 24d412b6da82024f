"""A live model that answers from its weights: how far they are from quick to slow says it all."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import thinkers
from laconic.run.sample import Sample
from laconic.run.scripted import ScriptedRunner

NORM = "model.norm.weight"


def write_pair(folder: Path) -> Path:
    return thinkers.write_pair(folder)


def write_questions(folder: Path, count: int = 48) -> dict[str, str]:
    """Validation and test files of questions whose level is how hard they are, 0 to 9."""
    paths = {}
    for split in ("validation", "test"):
        rows = [
            {"id": f"{split}-{i:03}", "question": f"{i}?", "answer": str(i), "level": i % 5 * 2}
            for i in range(count)
        ]
        path = folder / f"{split}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        paths[split] = str(path)
    return paths


class Live(ScriptedRunner):
    """Right on a question when its weights lie far enough towards slow; longer the farther.

    From 0.4 on every question is right, at 10 + 100 w**2 words or so.
    """

    def __init__(self, pair: Path) -> None:
        super().__init__(self._text)
        self._ends = [load_file(pair / role / "model.safetensors") for role in ("quick", "slow")]
        self.weight = 0.0
        self.loads = 0

    def load(self, weights: Iterable[tuple[str, torch.Tensor]] | Any) -> None:
        tensors = dict(weights)
        quick, slow = (end[NORM].double() for end in self._ends)
        now = tensors[NORM].double()
        self.weight = float(((now - quick) @ (slow - quick)) / ((slow - quick) @ (slow - quick)))
        self.loads += 1

    def _text(self, sample: Sample, draw: int) -> str:
        words = round(10 + 100 * self.weight**2 + int(sample.id[-3:]) % 7)
        right = self.weight * 25 >= int(sample.level or 0)
        answer = str(int(sample.id[-3:])) if right else "no"
        thought = " ".join(f"t{i}" for i in range(words))
        return f"<think> {thought} </think> \\boxed{{{answer}}}"


def study(folder: Path, **changes: Any) -> dict[str, Any]:
    """A study over a tiny pair and its questions, made in `folder` unless there."""
    if not (folder / "quick").is_dir():
        write_pair(folder)
        write_questions(folder)
    raw = {
        "quick": str(folder / "quick"),
        "slow": str(folder / "slow"),
        "output": {"dtype": "float32"},
        "tasks": [
            {
                "validation": str(folder / "validation.jsonl"),
                "test": str(folder / "test.jsonl"),
            }
        ],
        "recipes": [{"interpolation": {"weight": [0.0, 1.0]}}],
        "budget": {"trials": 6},
    }
    return raw | changes

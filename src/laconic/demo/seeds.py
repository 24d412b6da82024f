"""Does the effect hold: train the pair from several seeds, pick a merge on validation, test it.

    python -m laconic.demo.seeds --out DIR [--seeds 0 1 2]

Per seed DIR/seed-N/ holds the pair, every answer of every model (one JSONL file per model and
split), and `result.json`; DIR/table.md holds one line per seed. The rule of selection is
`pick`; it sees validation only, and the test split is not read before it has picked.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen2ForCausalLM

from laconic.demo import slips
from laconic.demo.answers import Answer, Score, ask, score
from laconic.demo.questions import LEVELS, fixed, rows
from laconic.demo.train import make, settle

ALPHAS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
KEPT = (0.3, 0.5, 0.7)
TOLERANCE = 0.02

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Merge:
    """quick + alpha * (the largest share `keep` of slow - quick, per tensor)."""

    alpha: float
    keep: float = 1.0

    @property
    def name(self) -> str:
        """As in the tables."""
        if self.keep == 1.0:
            return f"task arithmetic, alpha {self.alpha:g}"
        return f"TIES, keep {self.keep:g}, alpha {self.alpha:g}"

    def __call__(self, quick: Weights, slow: Weights) -> Weights:
        """The merged weights, in the order of quick's."""
        return {
            name: quick[name] + self.alpha * largest(slow[name] - quick[name], self.keep)
            for name in quick
        }


GRID = tuple(Merge(alpha) for alpha in ALPHAS) + tuple(Merge(1.0, keep) for keep in KEPT)


def largest(delta: Tensor, keep: float) -> Tensor:
    """The entries among the share `keep` of largest magnitude; zero elsewhere."""
    if keep >= 1.0:
        return delta
    count = max(1, round(keep * delta.numel()))
    least = delta.abs().flatten().kthvalue(delta.numel() - count + 1).values
    return torch.where(delta.abs() >= least, delta, torch.zeros_like(delta))


def pick(slow: Score, merges: dict[str, Score]) -> str:
    """The rule, fixed before the test split was opened; it sees validation scores only.

    Among the merges at most 2 points less accurate than slow, the one with the fewest tokens.
    If there is none, the most accurate.
    """
    close = [n for n, s in merges.items() if s.accuracy >= slow.accuracy - TOLERANCE - 1e-9]
    if close:
        return min(close, key=lambda name: merges[name].tokens)
    return max(merges, key=lambda name: merges[name].accuracy)


def result(folder: Path, seed: int) -> dict[str, object]:
    """The figures of one seed; a pair or a result already in `folder` is not made again."""
    done = folder / "result.json"
    if done.exists():
        return dict(json.loads(done.read_text(encoding="utf-8")))
    settle(seed)
    pair = {name: folder / name for name in ("quick", "slow")}
    if not all((path / "tokenizer.json").exists() for path in pair.values()):
        pair = make(folder, seed)
    return examine(folder, pair, seed)


def examine(folder: Path, pair: dict[str, Path], seed: int) -> dict[str, object]:
    """Validation of everything, the pick, then the test split; all answers stored in `folder`."""
    tokenizer = AutoTokenizer.from_pretrained(pair["slow"])
    parents = {name: Qwen2ForCausalLM.from_pretrained(path).eval() for name, path in pair.items()}
    quick, slow = (dict(parents[name].state_dict()) for name in ("quick", "slow"))
    body = Qwen2ForCausalLM(parents["slow"].config).eval()
    makers: dict[str, Callable[[], Weights]] = {
        merge.name: partial(merge, quick, slow) for merge in GRID
    }
    makers |= {"quick": lambda: quick, "slow": lambda: slow}

    def answers(name: str, split: str) -> list[Answer]:
        body.load_state_dict(makers[name]())
        found = ask(body, tokenizer, rows(split))
        _store(folder / f"{split}-{_slug(name)}.jsonl", found)
        return found

    validation = {name: score(answers(name, "validation")) for name in makers}
    merges = {merge.name: validation[merge.name] for merge in GRID}
    chosen = pick(validation["slow"], merges)
    _note(f"seed {seed}: validation picks {chosen}")
    test = {name: answers(name, "test") for name in makers}
    figures = {
        "seed": seed,
        "pick": chosen,
        "validation": {name: asdict(found) for name, found in validation.items()},
        "test": {name: asdict(score(found)) for name, found in test.items()},
        "test_levels": {name: _levels(found) for name, found in test.items()},
        "slips": _slips(test, ("slow", chosen), body, makers, tokenizer),
    }
    (folder / "result.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return figures


def table(results: list[dict[str, object]]) -> str:
    """One line per seed, on the test split."""
    lines = [
        "| seed | quick | slow | pick on validation | merge | accuracy | tokens |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        scores: dict[str, dict[str, float]] = result["test"]  # type: ignore[assignment]
        slow, merge = scores["slow"], scores[str(result["pick"])]
        lines.append(
            f"| {result['seed']} | {_cell(scores['quick'])} | {_cell(slow)} | {result['pick']} "
            f"| {_cell(merge)} | {100 * (merge['accuracy'] - slow['accuracy']):+.1f} points "
            f"| {100 * (merge['tokens'] / slow['tokens'] - 1):+.1f}% |"
        )
    return "\n".join(lines) + "\n"


def _cell(found: dict[str, float]) -> str:
    return f"{100 * found['accuracy']:.1f}% at {found['tokens']:.1f}"


def _levels(found: list[Answer]) -> dict[int, dict[str, float]]:
    return {level: asdict(score(a for a in found if a.level == level)) for level in LEVELS}


def _slips(
    test: dict[str, list[Answer]],
    names: tuple[str, ...],
    body: Qwen2ForCausalLM,
    makers: dict[str, Callable[[], Weights]],
    tokenizer: PreTrainedTokenizerFast,
) -> dict[str, dict[str, dict[str, int]]]:
    """Own and planted slips of the named models on the test split."""
    found = {}
    for name in names:
        body.load_state_dict(makers[name]())
        found[name] = {
            "own": asdict(slips.own(test[name], fixed("test"))),
            "planted": asdict(slips.planted(body, tokenizer, "test")),
        }
    return found


def _store(path: Path, answers: list[Answer]) -> None:
    text = "".join(json.dumps(answer.record()) + "\n" for answer in answers)
    path.write_text(text, encoding="utf-8")


def _slug(name: str) -> str:
    return name.lower().replace(", ", "-").replace(" ", "-")


def _note(text: str) -> None:
    print(text, file=sys.stderr)


def main() -> None:
    """Train, pick and test for each seed."""
    parser = argparse.ArgumentParser(description="train, pick on validation, test, per seed")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    results = [result(arguments.out / f"seed-{seed}", seed) for seed in arguments.seeds]
    (arguments.out / "table.md").write_text(table(results), encoding="utf-8")
    print(table(results), end="")


if __name__ == "__main__":
    main()

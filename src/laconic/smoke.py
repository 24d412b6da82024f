"""A quick look at a merged model: ten prompts, and whether what comes out is a response at all."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from laconic.errors import LaconicError
from laconic.grade.tasks import load_task
from laconic.run.completion import Completion
from laconic.run.loops import find_loop
from laconic.run.sample import Message, Sample
from laconic.run.sampling import Sampling
from laconic.run.transformers import TransformersRunner
from laconic.tags import THINK, THINK_END

PROMPTS = (
    "What is 17 + 25?",
    "A train goes 60 km in 45 minutes. How many km does it go in 2 hours?",
    "Which is larger, 9.11 or 9.9?",
    "Solve x^2 - 5x + 6 = 0.",
    "What is the sum of the first 20 odd numbers?",
    "Anna is older than Ben, and Ben is older than Carl. Who is the youngest?",
    "How many prime numbers are there below 30?",
    "Write a Python function that reverses a string.",
    "What day comes three days after Saturday?",
    "Explain in two sentences why the sky is blue.",
)
ALLOWANCE = 1
"""Responses out of ten that may fail a check beyond the worse parent's own."""
GIBBERISH = 2.0
"""In nats: how much less likely per token, on average, than a parent's own responses."""
CHECKS = {
    "empty": "no answer: nothing but white space, or nothing after </think>",
    "cut": "no end: stopped by the token limit",
    "tags": "think tags that do not form one pair",
    "loop": "the end is one block of tokens, three times or more",
    "gibberish": "less likely than the parents' own responses by 2 nats a token or more",
}


@dataclass(frozen=True)
class Check:
    """How many responses failed a check: the model's, and each parent's own.

    allowed: failures that still pass: the worse parent's own and one more. failed is None where
    the check could not be made (gibberish without parents).
    """

    name: str
    meaning: str
    failed: int | None
    parents: dict[str, int]
    allowed: int

    @property
    def ok(self) -> bool:
        """Whether the model passes."""
        return self.failed is None or self.failed <= self.allowed


@dataclass(frozen=True)
class SmokeRow:
    """One response of the model: its text, and the checks it failed.

    likelihood: for each parent, the mean log-probability of its tokens under that parent, minus
    the same of the parent's own responses (nats; about 0 is what the parent would say itself).
    """

    prompt: str
    text: str
    tokens: int
    failed: tuple[str, ...]
    likelihood: dict[str, float]


@dataclass(frozen=True)
class SmokeResult:
    """The checks and the responses they were made on."""

    model: str
    checks: tuple[Check, ...]
    rows: tuple[SmokeRow, ...]

    @property
    def ok(self) -> bool:
        """Whether every check passed."""
        return all(check.ok for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """This result as one JSON object."""
        checks = [asdict(check) | {"ok": check.ok} for check in self.checks]
        rows = [asdict(row) for row in self.rows]
        return {"model": self.model, "ok": self.ok, "checks": checks, "responses": rows}

    def lines(self) -> Iterator[str]:
        """Yield the checks, then each failed response, as lines to read."""
        for check in self.checks:
            word = "-   " if check.failed is None else "ok  " if check.ok else "FAIL"
            number = "not checked" if check.failed is None else f"{check.failed}/{len(self.rows)}"
            own = "".join(f", {name} {count}" for name, count in check.parents.items())
            yield f"{word}  {check.name:<10}{number}{own}  ({check.meaning})"
        for row in self.rows:
            if row.failed:
                yield f"\n{', '.join(row.failed)}: {row.prompt}\n  {_shown(row.text)}"


def smoke(
    model: str | Path,
    parents: Mapping[str, str | Path] | None = None,
    *,
    task: str | Path | None = None,
    max_tokens: int = 1024,
    device: str | None = None,
    dtype: str | None = None,
) -> SmokeResult:
    """Ask a model ten questions, greedily, and check its responses against its parents'.

    parents: folders or Hub ids by role, such as {"quick": ..., "slow": ...}. task: take ten of its
    questions (a task's name or a .jsonl file) instead of the general ones. One model is in memory
    at a time. Raises LaconicError for a model that cannot be opened.
    """
    samples = _samples(task)
    sampling = Sampling(max_tokens=max_tokens)
    own = _answers(TransformersRunner(model, device=device, dtype=dtype), samples, sampling)
    failures = [_failed(one) for one in own]
    theirs: dict[str, list[list[str]]] = {}
    likelihood: list[dict[str, float]] = [{} for _ in own]
    for name, parent in (parents or {}).items():
        runner = TransformersRunner(parent, device=device, dtype=dtype)
        answers = _answers(runner, samples, sampling)
        theirs[name] = [_failed(one) for one in answers]
        usual = _mean(runner.score(s, one.text) for s, one in zip(samples, answers, strict=True))
        for row, sample, one in zip(likelihood, samples, own, strict=True):
            row[name] = runner.score(sample, one.text) - usual
        del runner
    for failed, row in zip(failures, likelihood, strict=True):
        # Unlikely for one parent only is what a response in the other parent's manner is.
        if row and not max(row.values()) > -GIBBERISH:
            failed.append("gibberish")
    rows = tuple(
        SmokeRow(_prompt(sample), one.text, one.tokens, tuple(failed), row)
        for sample, one, failed, row in zip(samples, own, failures, likelihood, strict=True)
    )
    return SmokeResult(str(model), tuple(_checks(failures, theirs)), rows)


def think_tags_pair(text: str) -> bool:
    """Whether a text has no think tags, or one <think> and then one </think>.

    One </think> alone is well-formed too: some chat templates open the thought in the prompt.
    """
    opened, closed = text.count(THINK), text.count(THINK_END)
    if opened == 0:
        return closed <= 1
    return opened == closed == 1 and text.index(THINK) < text.index(THINK_END)


def _samples(task: str | Path | None) -> list[Sample]:
    count = len(PROMPTS)
    if task is None:
        return [Sample(f"smoke/{i}", (Message("user", text),)) for i, text in enumerate(PROMPTS)]
    loaded = load_task(task, limit=count)
    return [loaded.sample(question) for question in loaded.questions]


def _answers(
    runner: TransformersRunner, samples: Sequence[Sample], sampling: Sampling
) -> list[Completion]:
    found = {one.id: one for one in runner.generate(samples, sampling)}
    return [found[sample.id] for sample in samples]


def _failed(one: Completion) -> list[str]:
    """The checks that a response fails by itself."""
    tail = one.text.rpartition(THINK_END)[2].replace(THINK, "")
    cut = one.stop == "length"
    found = {
        "empty": not tail.strip(),
        "cut": cut,
        # A response that was cut may not have come to its closing tag.
        "tags": not think_tags_pair(one.text + THINK_END * (cut and THINK_END not in one.text)),
        "loop": find_loop(one.token_ids or ()) is not None,
    }
    return [name for name, failed in found.items() if failed]


def _mean(values: Iterator[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    if not known:
        raise LaconicError(
            "a parent's own ten responses are all empty or without finite probabilities, so there "
            "is nothing to compare with; is it the right model?"
        )
    return sum(known) / len(known)


def _checks(
    failures: Sequence[Sequence[str]], parents: Mapping[str, Sequence[Sequence[str]]]
) -> Iterator[Check]:
    for name, meaning in CHECKS.items():
        checked = bool(parents) or name != "gibberish"
        own = {role: sum(name in failed for failed in rows) for role, rows in parents.items()}
        yield Check(
            name,
            meaning,
            sum(name in failed for failed in failures) if checked else None,
            {} if name == "gibberish" else own,
            max(own.values(), default=0) + ALLOWANCE,
        )


def _prompt(sample: Sample) -> str:
    return "\n".join(message.content for message in sample.messages)


def _shown(text: str) -> str:
    short = " ".join(text.split())
    return short if len(short) <= 300 else f"{short[:200]} ... {short[-90:]}"

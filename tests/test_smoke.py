from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from laconic.errors import LaconicError
from laconic.run.completion import Completion
from laconic.run.sample import Message, Sample
from laconic.run.sampling import Sampling
from laconic.run.scripted import ScriptedRunner
from laconic.run.transformers import TransformersRunner
from laconic.smoke import (
    CHECKS,
    GIBBERISH,
    Check,
    SmokeResult,
    _answers,
    _checks,
    _failed,
    smoke,
    think_tags_pair,
)

PAIR = Path(__file__).parent.parent / "src" / "laconic" / "demo" / "pair"
PARENTS = {"quick": PAIR / "quick", "slow": PAIR / "slow"}


def answer(text: str, cut: bool = False, ids: tuple[int, ...] = (1, 2)) -> Completion:
    return Completion("a", 0, text, len(ids), "length" if cut else "stop", 1, "", ids)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("42", True),
        ("<think>a</think>42", True),
        ("a</think>42", True),  # the prompt had opened it
        ("<think></think>42", True),
        ("<think>42", False),
        ("a</think>b</think>42", False),
        ("<think>a<think>b</think>42", False),
        ("</think>a<think>42", False),
    ],
)
def test_think_tags(text: str, expected: bool) -> None:
    assert think_tags_pair(text) is expected


@pytest.mark.parametrize(
    ("one", "failed"),
    [
        (answer("<think>a</think>42"), []),
        (answer(""), ["empty"]),
        (answer("<think>a</think> \n"), ["empty"]),
        (answer("<think>"), ["empty", "tags"]),
        (answer("42", cut=True), ["cut"]),
        (answer("<think>so", cut=True), ["cut"]),  # it may yet have closed
        (answer("<think>a</think>b</think>c", cut=True), ["cut", "tags"]),
        (answer("<think>a"), ["tags"]),
        (answer("aaa", ids=(5,) * 64), ["loop"]),
    ],
)
def test_checks_of_one_response(one: Completion, failed: list[str]) -> None:
    assert _failed(one) == failed


def test_worse_parent_and_one_more_are_allowed() -> None:
    check = Check("cut", "", 4, {"quick": 0, "slow": 3}, 4)
    assert check.ok
    assert not Check("cut", "", 5, {}, 4).ok
    assert Check("gibberish", "", None, {}, 1).ok


def test_one_failure_beyond_the_worse_parent_is_one_too_few_to_fail() -> None:
    parents = {"quick": [["cut"], []], "slow": [[], []]}
    for failures, ok in ((2, True), (3, False)):
        checks = {c.name: c for c in _checks([["cut"]] * failures, parents)}
        assert (checks["cut"].allowed, checks["cut"].ok) == (2, ok)
        assert (checks["tags"].allowed, checks["tags"].ok) == (1, True)


def test_a_response_in_one_parents_manner_is_no_noise_though_the_other_finds_it_unlikely() -> None:
    found = smoke(PARENTS["quick"], PARENTS, task="arithmetic", max_tokens=40, device="cpu")
    assert min(row.likelihood["slow"] for row in found.rows) < -GIBBERISH
    assert next(check.failed for check in found.checks if check.name == "gibberish") == 0


def test_answers_stand_with_their_questions_whichever_finished_first() -> None:
    class Backwards(ScriptedRunner):
        def generate(self, *asked: Any) -> Iterator[Completion]:
            yield from reversed(list(super().generate(*asked)))

    asked = [Sample(id, text="?") for id in "abc"]
    runner: Any = Backwards(lambda sample, draw: sample.id)
    assert [one.text for one in _answers(runner, asked, Sampling())] == ["a", "b", "c"]


def test_score_is_the_mean_log_probability_of_the_response() -> None:
    runner = TransformersRunner(PAIR / "slow", device="cpu")
    sample = Sample("a", (Message("user", "a=7; b=a-4; c=b-3; c?"),))
    prompt = runner._tokenizer.prompt(sample).ids
    ids = [*prompt, *runner._tokenizer.ids("<think>b=7", special=False), 2]
    with torch.no_grad():
        logits = runner._model(torch.tensor([ids])).logits[0].log_softmax(-1)
    by_hand = [float(logits[i - 1, ids[i]]) for i in range(len(prompt), len(ids))]
    assert runner.score(sample, "<think>b=7") == pytest.approx(sum(by_hand) / len(by_hand))
    full = Sample("b", (Message("user", "a" * 3000),))
    assert math.isnan(runner.score(full, "1"))  # nothing left in the window


def test_likelihood_goes_over_long_responses_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = TransformersRunner(PAIR / "slow", device="cpu")
    sample = Sample("a", (Message("user", "a=7; c?"),))
    whole = runner.score(sample, "b=7-4=3, " * 20)
    monkeypatch.setattr("laconic.run.decoding.LOG_PROBABILITY_ROWS", 7)
    assert runner.score(sample, "b=7-4=3, " * 20) == pytest.approx(whole)


def test_parent_passes_and_reports_itself() -> None:
    found = smoke(PAIR / "slow", PARENTS, task="arithmetic", device="cpu")
    assert found.ok
    assert len(found.rows) == 10
    assert [check.name for check in found.checks] == list(CHECKS)
    likelihood = [row.likelihood["slow"] for row in found.rows]
    assert sum(likelihood) == pytest.approx(0, abs=1e-6)  # its own responses are the measure
    lines = list(found.lines())
    assert lines[0].startswith("ok    empty     0/10, quick 0, slow 0")
    assert json.loads(json.dumps(found.to_dict()))["ok"] is True


def damaged(folder: Path, noise: float) -> Path:
    """The slow parent with noise on its weights, in multiples of their own spread."""
    shutil.copytree(PAIR / "slow", folder)
    torch.manual_seed(0)
    tensors = load_file(folder / "model.safetensors")
    noisy = {
        name: t + noise * t.std() * torch.randn_like(t) if t.dim() == 2 else t
        for name, t in tensors.items()
    }
    save_file(noisy, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_noise_is_found(tmp_path: Path) -> None:
    model = damaged(tmp_path / "noise", 3.0)
    found = smoke(model, PARENTS, task="arithmetic", max_tokens=100, device="cpu")
    assert not found.ok
    failed = {check.name: check.failed for check in found.checks if not check.ok}
    assert failed["gibberish"] == 10
    assert any(line.startswith("FAIL  gibberish 10/10") for line in found.lines())
    alone = smoke(model, task="arithmetic", max_tokens=100, device="cpu")
    assert next(c for c in alone.checks if c.name == "gibberish").failed is None
    assert any("not checked" in line for line in alone.lines())


def test_general_prompts_and_a_missing_model(tmp_path: Path) -> None:
    found = smoke(PAIR / "quick", max_tokens=4, device="cpu")
    assert isinstance(found, SmokeResult)
    assert len(found.rows) == 10
    with pytest.raises(LaconicError, match="no such folder"):
        smoke(tmp_path / "nowhere")

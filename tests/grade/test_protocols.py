from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from grade.scripts import is_correct, run
from laconic.errors import LaconicError
from laconic.grade.comparisons import compare
from laconic.grade.protocols import DEMONSTRATIONS, PROTOCOLS, cut_at, get_protocol
from laconic.records import read_json, read_records
from laconic.run.completion import Completion
from laconic.run.runner import Identity, Key
from laconic.run.sample import Message, Sample
from laconic.run.sampling import Sampling
from laconic.run.scripted import ScriptedRunner


def test_prompts() -> None:
    few = PROTOCOLS["l2s-system1"].sample("a", "1+1?", None).text
    assert few is not None
    assert few.endswith("\n\n\nQuestion: 1+1?\nAnswer:")
    assert few.count("Question:") == 5
    markup = PROTOCOLS["l2s-system2"].sample("a", "1+1?", None).text
    assert markup is not None
    assert markup.endswith("<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n")
    chat = PROTOCOLS["r1-official"].sample("a", "1+1?", "3")
    assert chat.messages == (Message("user", "1+1?\n" + PROTOCOLS["r1-official"].instruction),)
    assert chat.level == "3"
    off = PROTOCOLS["qwen3-aime-off"].sample("a", "1+1?", None).text
    assert off is not None
    assert off.endswith("<think>\n\n</think>\n\n")


def test_demonstrations_end_as_a_grader_reads_them() -> None:
    answers = ("56", "144", "1/2", r"5\sqrt{5}")
    for (_, said), answer in zip(DEMONSTRATIONS, answers, strict=True):
        assert is_correct(answer, said) is True


def test_a_response_ends_where_its_protocol_says() -> None:
    assert cut_at("It is 4.\n\nQuestion: 5?\nAnswer: 6", ("</s>", "\n\nQuestion:")) == "It is 4."
    assert cut_at("It is 4.", ("</s>",)) == "It is 4."
    for stops in (("</s>", "\n\n"), ("\n\n", "</s>")):
        assert cut_at("4</s>5\n\n6", stops) == "4"
        assert cut_at("4\n\n5</s>6", stops) == "4"


class Deaf(ScriptedRunner):
    """An engine that knows no stop strings."""

    def generate(
        self, samples: Sequence[Sample], sampling: Sampling, done: Collection[Key] = ()
    ) -> Iterator[Completion]:
        for one in super().generate(samples, replace(sampling, stop=()), done):
            yield replace(one, think_tokens=one.tokens)


def test_a_protocol_is_recorded_and_cuts_before_grading(tmp_path: Path) -> None:
    def chatty(sample: Sample, draw: int) -> str:
        number = int(sample.id.split("/")[1])
        return f"The answer is {number + 1}.\n\nQuestion: 1?\nAnswer: The answer is 99."

    summary = run(tmp_path / "run", Deaf(chatty), protocol="l2s-system1")
    assert summary.overall.accuracy is not None
    assert summary.overall.accuracy.value == 1
    heard = run(tmp_path / "heard", ScriptedRunner(chatty), protocol="l2s-system1")
    assert (heard.overall.tokens.value, summary.overall.tokens.value) == (4, 12)
    grade = read_records(tmp_path / "run/grades.jsonl")[0]  # the thought is told of what is left
    assert (grade["think_tokens"], grade["think_split"]) == (0, "characters")
    record = read_records(tmp_path / "heard/completions.jsonl")[0]
    assert (record["text"], record["stop_string"]) == ("The answer is 1.", "\n\nQuestion:")
    settings = read_json(tmp_path / "run/run.json")["settings"]
    assert (settings["protocol"], settings["sampling"]["max_tokens"]) == ("l2s-system1", 8192)
    assert settings["sampling"]["stop"] == list(PROTOCOLS["l2s-system1"].stop)
    assert "Question: 0+1?" in read_records(tmp_path / "run/questions.jsonl")[0]["prompt"]
    assert "99" in read_records(tmp_path / "run/completions.jsonl")[0]["text"]  # kept whole


class Narrow(ScriptedRunner):
    """Says that its model has a small context window."""

    def __init__(self, window: int) -> None:
        super().__init__(lambda sample, draw: "\\boxed{1}")
        self._window = window

    def identity(self, first: Sample) -> Identity:
        return replace(super().identity(first), context_window=self._window, first_prompt=(1,) * 30)


def test_a_protocol_that_names_a_window_is_not_run_in_a_smaller_one(tmp_path: Path) -> None:
    wanted = r"10240 tokens beyond the prompt \(30 or more\), but model 'scripted' has 4096"
    with pytest.raises(LaconicError, match=wanted + r".*--max-tokens 4066 or less"):
        run(tmp_path / "run", Narrow(4096), protocol="l2s-system2")
    assert not (tmp_path / "run").exists()
    with pytest.raises(LaconicError, match="has 10269"):
        run(tmp_path / "run", Narrow(10269), protocol="l2s-system2")
    run(tmp_path / "run", Narrow(10270), protocol="l2s-system2")
    short = Sampling(max_tokens=4066)
    run(tmp_path / "short", Narrow(4096), protocol="l2s-system2", sampling=short)
    run(tmp_path / "quick", Narrow(4096), protocol="l2s-system1")  # names none


def test_other_protocols_are_refused_unless_forced(tmp_path: Path) -> None:
    same = {"sampling": Sampling(max_tokens=64)}
    for name in ("l2s-system1", "l2s-system2"):
        run(tmp_path / name, protocol=name, **same)
    pair = [tmp_path / "l2s-system1", tmp_path / "l2s-system2"]
    with pytest.raises(LaconicError, match='protocol: "l2s-system1", "l2s-system2"'):
        compare(pair)
    assert any("protocol" in note for note in compare(pair, force=True).notes)
    with pytest.raises(LaconicError, match="unknown protocol 'l2s'"):
        get_protocol("l2s")

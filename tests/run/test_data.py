"""Samples, sampling, completions, the scripted runner."""

from __future__ import annotations

import subprocess
import sys

import pytest

from laconic.errors import LaconicError
from laconic.run.completion import Completion
from laconic.run.runner import closing
from laconic.run.sample import Message, Sample
from laconic.run.sampling import Sampling
from laconic.run.scripted import ScriptedRunner


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"max_tokens": 0}, "max_tokens is 0; expected 1 or more"),
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"top_p": 0.0}, "top_p is 0.0; expected above 0"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"top_k": -1}, "top_k is -1"),
        ({"n": 0, "temperature": 1.0}, "n is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"n": 2}, "2 draws at temperature 0"),
        ({"stop": ("a", "")}, r"stop is .'a', ''.; expected a tuple of texts"),
        ({"stop": "Question:"}, "stop is 'Question:'; expected a tuple"),
    ],
)
def test_sampling_out_of_range(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(LaconicError, match=message):
        Sampling(**wrong)  # type: ignore[arg-type]


def test_a_runner_is_closed_whatever_happens() -> None:
    class Server(ScriptedRunner):
        closed = False

        def close(self) -> None:
            self.closed = True

    server = Server({})
    with pytest.raises(KeyboardInterrupt), closing(server):
        assert not server.closed
        raise KeyboardInterrupt
    assert server.closed
    with closing(ScriptedRunner({}, "plain")) as plain:  # one that has nothing to close
        assert plain.identity(Sample("a", (), "1+1?")).model == "plain"


def test_sampling_as_json_names_stop_texts_where_there_are_any() -> None:
    assert "stop" not in Sampling().to_dict()  # as runs before stop texts recorded it
    assert Sampling(stop=("a",)).to_dict() == Sampling().to_dict() | {"stop": ["a"]}


def test_sample_is_a_chat_or_a_text() -> None:
    for wrong in ({}, {"messages": (Message("user", "hi"),), "text": "hi"}):
        with pytest.raises(LaconicError, match="either messages or text"):
            Sample("q", **wrong)  # type: ignore[arg-type]


COMPLETION = Completion(
    "q",
    1,
    "a → b",
    4,
    "stop",
    7,
    "ab12",
    (1, 2, 3, 4),
    stop_string="\n\n",
    opened=True,
    think_tokens=3,
)


def test_completion_survives_its_record() -> None:
    record = COMPLETION.to_record() | {"token_ids": [1, 2, 3, 4]}  # as JSON brings it back
    assert Completion.from_record(record) == COMPLETION
    earlier = {key: record[key] for key in list(record)[:7]}  # of a run before these fields
    assert Completion.from_record(earlier) == Completion("q", 1, "a → b", 4, "stop", 7, "ab12")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": None}, "'q': expected field 'tokens'"),
        ({"text": 3}, "expected field 'text' .str., got 3"),
        ({"stop": "done"}, "stop is 'done'; expected 'stop' or 'length'"),
    ],
)
def test_bad_completion_record(change: dict[str, object], message: str) -> None:
    with pytest.raises(LaconicError, match=message):
        Completion.from_record(COMPLETION.to_record() | change)


def test_scripted_runner_counts_words_and_the_end() -> None:
    asked = [Sample(id, text="one two") for id in ("a", "b")]
    runner = ScriptedRunner({"a": "1 2 3", "b": "1 2 3 4"})
    short, cut = runner.generate(asked, Sampling(max_tokens=4))
    assert (short.tokens, short.stop, short.text) == (4, "stop", "1 2 3")
    assert (cut.tokens, cut.stop, cut.text) == (4, "length", "1 2 3 4")
    with pytest.raises(LaconicError, match="no answer for sample 'c'"):
        list(runner.generate([Sample("c", text="?")], Sampling()))


def test_scripted_runner_skips_what_is_done() -> None:
    asked = [Sample(id, text="?") for id in ("a", "b")]
    runner = ScriptedRunner(lambda sample, draw: f"{sample.id}{draw}")
    found = list(runner.generate(asked, Sampling(temperature=1.0, n=2), {("a", 1), ("b", 0)}))
    assert [one.text for one in found] == ["a0", "b1"]


def test_data_and_grading_do_not_import_torch() -> None:
    code = (
        "import sys, laconic.grade.evaluation, laconic.grade.comparisons, laconic.report.tables\n"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

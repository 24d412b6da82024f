from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tokenizers.processors import TemplateProcessing

from laconic.errors import LaconicError
from laconic.run.completion import Completion
from laconic.run.crowd import Patience
from laconic.run.runner import Key
from laconic.run.sample import Message, Sample
from laconic.run.sampling import Sampling
from laconic.run.server import ServerRunner, seed_of
from laconic.run.transformers import TransformersRunner
from laconic.run.wire import Address
from run.fake_server import FakeServer, serving
from run.tiny import samples, tokenizer

QUICKLY = Patience(retries=3, first=0.01, longest=0.02)
GREEDY = Sampling(max_tokens=100)
SAMPLED = Sampling(max_tokens=100, temperature=0.6, top_p=0.95, top_k=20, n=4, seed=5)
ASKED = [Sample(f"q{i}", text=f"{i}+{i}=") for i in range(12)]


def runner(server: FakeServer, **options: object) -> ServerRunner:
    settings = {"patience": QUICKLY, "dialect": "openai", "timeout": 5.0} | options
    return ServerRunner("m", url=server.url, **settings)  # type: ignore[arg-type]


def by_key(completions: list[Completion]) -> dict[Key, Completion]:
    found = {completion.key: completion for completion in completions}
    assert len(found) == len(completions)
    return found


def test_every_sample_is_answered_by_requests_side_by_side() -> None:
    with serving() as server:
        found = by_key(list(runner(server, concurrency=4).generate(ASKED, GREEDY)))
    assert {key[0]: one.text for key, one in found.items()} == {s.id: s.text[::-1] for s in ASKED}  # type: ignore[index]
    assert {one.stop for one in found.values()} == {"stop"}
    assert all(one.tokens == len(one.text) + 1 for one in found.values())
    assert len(server.bodies) == 12
    assert 1 < server.most_at_once <= 4


@pytest.mark.parametrize(
    "fault", ["drop", "half", "hang", "429", "500", "garbage", "list", "empty", "counts", "reason"]
)
def test_failures_that_pass_are_retried(fault: str) -> None:
    with serving(faults=[fault] * 2) as server:
        found = list(runner(server, concurrency=1, timeout=0.5).generate(ASKED[:2], GREEDY))
    assert [one.text for one in found] == ["=0+0", "=1+1"]
    assert len(server.bodies) == 4


def test_server_that_names_a_time_is_believed() -> None:
    start = time.monotonic()
    with serving(faults=["429"]) as server:
        assert list(runner(server).generate(ASKED[:1], GREEDY))
    assert time.monotonic() - start > 0.3  # where the patience alone would have waited 0.02 s


def test_retries_are_bounded_name_the_sample_and_lose_nothing() -> None:
    with serving(always={"3+3": "500"}) as server:
        found = runner(server, concurrency=2).generate(ASKED, GREEDY)
        kept: list[Completion] = []
        with pytest.raises(LaconicError, match=r"'q3', draw 0.*in 4 tries.*HTTP 500.*says 500"):
            kept.extend(found)
            raise AssertionError("no error")
    assert sum("3+3" in body["prompt"] for body in server.bodies) == 4


def test_what_finished_before_a_failure_is_yielded() -> None:
    with serving(always={"5+5": "500"}) as server:
        kept: list[str] = []
        with pytest.raises(LaconicError, match="'q5'"):
            for one in runner(server, concurrency=1).generate(ASKED, GREEDY):
                kept.append(one.id)
        assert kept == ["q0", "q1", "q2", "q3", "q4"]
        done = [(id, 0) for id in kept]
        server.always.clear()
        rest = [one.id for one in runner(server).generate(ASKED, GREEDY, done)]
    assert sorted(kept + rest) == sorted(sample.id for sample in ASKED)


def test_refusal_is_not_retried() -> None:
    with (
        serving(always={"0+0": "400"}) as server,
        pytest.raises(LaconicError, match=r"'q0', draw 0: .* refused the request: HTTP 400"),
    ):
        list(runner(server).generate(ASKED[:1], GREEDY))
    assert len(server.bodies) == 1


def test_no_server() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    lost = ServerRunner("m", url=url, patience=QUICKLY)
    with pytest.raises(LaconicError, match=r"no server answers at http://127.*check --url"):
        lost.identity(ASKED[0])


def test_draws_are_requests_of_their_own_with_seeds_of_their_own() -> None:
    with serving() as server:
        found = list(runner(server, dialect="vllm").generate(ASKED[:3], SAMPLED))
    assert {one.key for one in found} == {(s.id, draw) for s in ASKED[:3] for draw in range(4)}
    assert len({body["seed"] for body in server.bodies}) == 12
    assert seed_of(5, "q0", 1) in {body["seed"] for body in server.bodies}
    assert not any("n" in body for body in server.bodies)


@pytest.mark.parametrize(
    ("dialect", "expected"),
    [
        ("vllm", {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "repetition_penalty": 1.0}),
        ("sglang", {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "min_p": 0.0}),
    ],
)
def test_sampling_is_sent_in_full(dialect: str, expected: dict[str, object]) -> None:
    with serving() as server:
        list(runner(server, dialect=dialect).generate(ASKED[:1], SAMPLED))
        list(runner(server, dialect=dialect).generate(ASKED[:1], GREEDY))
    assert server.bodies[0].items() >= (expected | {"max_tokens": 100}).items()
    greedy = {"temperature": 0.0, "top_p": 1.0, "top_k": -1, "skip_special_tokens": False}
    assert server.bodies[-1].items() >= greedy.items()
    assert "seed" not in server.bodies[-1]


def test_transformers_is_told_all_generation_settings(checkpoint: Path) -> None:
    with serving() as server:
        served = runner(server, dialect="transformers", tokenizer=checkpoint)
        list(served.generate(ASKED[:1], SAMPLED))
        with pytest.raises(LaconicError, match="give the model's tokenizer"):
            list(runner(server, dialect="transformers").generate(ASKED[:1], SAMPLED))
    settings = json.loads(server.bodies[0]["generation_config"])
    assert settings["do_sample"] is True
    assert (settings["temperature"], settings["top_p"], settings["top_k"]) == (0.6, 0.95, 20)
    assert settings["eos_token_id"] == [0, 2]


def test_top_k_is_not_dropped_in_silence() -> None:
    with serving() as server, pytest.raises(LaconicError, match="top_k is 20.*--dialect"):
        list(runner(server).generate(ASKED[:1], SAMPLED))
    assert not server.bodies


def test_kind_of_server_is_found_out() -> None:
    with serving(card={"owned_by": "vllm", "max_model_len": 77}) as server:
        found = runner(server, dialect="auto").identity(ASKED[0])
    assert (found.versions["server"], found.context_window) == ("vllm 0.1", 77)
    assert found.weights == "served as m"
    with serving() as server:
        assert (
            runner(server, dialect="auto").identity(ASKED[0]).versions["server"] == "transformers"
        )


def test_server_that_cannot_list_its_models_can_be_used() -> None:
    with serving(card=None, lists=False) as server:
        assert runner(server, dialect="auto").identity(ASKED[0]).context_window is None


def test_list_of_models_in_another_form() -> None:
    with (
        serving(lists=None) as server,
        pytest.raises(LaconicError, match="not a JSON object"),
    ):
        runner(server, dialect="auto").identity(ASKED[0])


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("localhost:8000", "http://localhost:8000"),
        ("http://h:1/v1/", "http://h:1"),
        ("https://h/models/v1", "https://h/models"),
        ("http://[::1]:5", "http://[::1]:5"),
    ],
)
def test_urls(url: str, expected: str) -> None:
    assert str(Address.parse(url)) == expected


def test_end_token_left_on_the_text_is_taken_off(checkpoint: Path) -> None:
    with serving(extra_prompt_tokens=-3) as server:  # three of the six characters are words
        served = runner(server, tokenizer=checkpoint)
        (found,) = served.generate([Sample("a", text=">dne<1")], GREEDY)
    assert found.text == "1"


def test_token_that_the_server_will_add_is_left_to_it(tmp_path: Path) -> None:
    words = tokenizer()
    words._tokenizer.post_processor = TemplateProcessing(
        single="<turn> $A", special_tokens=[("<turn>", 1)]
    )
    words.save_pretrained(tmp_path)
    chat = Sample("chat", (Message("user", "1+2="),))
    with serving() as server, pytest.raises(LaconicError, match="as 6;"):
        list(runner(server, tokenizer=tmp_path).generate([chat], GREEDY))
    assert server.bodies[0]["prompt"] == "1+2=<turn>"


def test_think_tag_that_the_server_would_drop_is_refused(tmp_path: Path) -> None:
    words = tokenizer()
    words.add_special_tokens({"additional_special_tokens": ["</think>"]})
    words.save_pretrained(tmp_path)
    with serving() as server:
        with pytest.raises(LaconicError, match="</think> is one in model 'm'; use vLLM"):
            list(runner(server, tokenizer=tmp_path).generate(samples(1), GREEDY))
        assert list(runner(server, tokenizer=tmp_path, dialect="vllm").generate(samples(1), GREEDY))


def test_without_a_tokenizer_the_server_renders_the_chat() -> None:
    chat = Sample("chat", (Message("user", "1+2="),))
    with serving() as server:
        (found,) = runner(server, api_key="secret").generate([chat], GREEDY)
    assert server.paths == ["/v1/chat/completions"]
    assert server.keys == ["Bearer secret"]
    assert found.text == "<think>thought</think>=2+1"


def test_with_a_tokenizer_the_prompt_is_rendered_here(checkpoint: Path) -> None:
    chat = Sample("chat", (Message("user", "1+2="),))
    ids = [1, 4, 13, 5, 15, 1]  # <turn>1+2=<turn>
    with serving() as server:
        list(runner(server, tokenizer=checkpoint, dialect="vllm").generate([chat], GREEDY))
        with pytest.raises(LaconicError, match=r"read the prompt as 16 tokens.* as 6; give the"):
            list(runner(server, tokenizer=checkpoint).generate([chat], GREEDY))
    assert [body["prompt"] for body in server.bodies] == [ids, "<turn>1+2=<turn>"]


def test_context_window_bounds_the_request(checkpoint: Path) -> None:
    chat = Sample("chat", (Message("user", "1+2="),))
    with serving() as server:
        served = runner(server, tokenizer=checkpoint, dialect="vllm")
        list(served.generate([chat], Sampling(max_tokens=500)))
    assert server.bodies[0]["max_tokens"] == 64 - 6


def test_server_that_ignores_the_limit_is_refused() -> None:
    with serving(ignore_limit=True) as server, pytest.raises(LaconicError, match="ignores max_tok"):
        list(runner(server).generate(ASKED[:1], Sampling(max_tokens=2)))


def test_cut_response() -> None:
    with serving() as server:
        (found,) = runner(server).generate(ASKED[:1], Sampling(max_tokens=3))
    assert (found.tokens, found.stop, found.text) == (3, "length", "=0+")


@pytest.mark.parametrize("stops", ["cut", "leave"])
def test_stop_strings_are_sent_and_not_part_of_the_text(stops: str) -> None:
    sampling = Sampling(max_tokens=100, stop=("+1", "</s>"))
    with serving(stops=stops) as server:
        first, second = runner(server, concurrency=1).generate(ASKED[:2], sampling)
        list(runner(server).generate(ASKED[:1], GREEDY))
    assert (first.text, first.tokens, first.stop) == ("=0+0", 5, "stop")
    assert (second.text, second.tokens, second.stop) == ("=1", 4, "stop")  # as the server counts
    assert second.stop_string == ("+1" if stops == "leave" else None)  # it does not say
    assert server.bodies[0]["stop"] == ["+1", "</s>"]
    assert "stop" not in server.bodies[2]


def test_tokens_up_to_the_stop_string_where_the_server_tells_them(checkpoint: Path) -> None:
    card = {"owned_by": "vllm", "max_model_len": 99}
    sampling = Sampling(max_tokens=100, stop=("31",))
    with serving(card=card) as server:
        served = runner(server, dialect="vllm", tokenizer=checkpoint)
        (found,) = served.generate([Sample("a", text="1+2=")], sampling)
        (cut,) = served.generate([Sample("a", text="1+2=")], Sampling(max_tokens=2, stop=("31",)))
    # the ids 4, 13, 5, 15, joined and reversed, are 515314
    assert (found.text, found.stop, found.stop_string) == ("515", "stop", "31")
    assert (found.tokens, found.token_ids) == (3, (8, 4, 8))
    assert found.think_tokens == 0
    assert (cut.text, cut.stop, cut.stop_string, cut.tokens) == ("51", "length", None, 2)


def test_a_prompt_that_opens_a_thought_is_noted(checkpoint: Path) -> None:
    with serving() as server:
        served = runner(server, tokenizer=checkpoint, dialect="vllm")
        (found,) = served.generate([Sample("a", text="1<think>")], GREEDY)
    assert found.opened


def test_weights_behind_a_server_cannot_be_replaced(checkpoint: Path) -> None:
    with serving() as server:
        served = runner(server)
        for weights in (checkpoint, []):
            with pytest.raises(LaconicError, match=r"weights behind http://127.*merge to a folder"):
                served.load(weights)  # type: ignore[arg-type]
    assert not server.paths


def test_stopping_early_sends_no_more() -> None:
    with serving() as server:
        found = runner(server, concurrency=1).generate(ASKED, GREEDY)
        next(found)
        found.close()  # type: ignore[attr-defined]
        time.sleep(0.2)
        sent = len(server.bodies)
        time.sleep(0.2)
        assert len(server.bodies) == sent < 12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "ftp://x"}, "expected a URL"),
        ({"url": "http://x:port"}, "expected a URL"),
        ({"url": "x", "concurrency": 0}, "concurrency is 0"),
        ({"url": "x", "timeout": 0}, "timeout is 0"),
        ({"url": "x", "dialect": "vlm"}, "did you mean 'vllm'"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(LaconicError, match=message):
        ServerRunner("m", **options)  # type: ignore[arg-type]


@pytest.fixture
def transformers_server(checkpoint: Path, tmp_path: Path) -> Iterator[str]:
    """`transformers serve` of the tiny checkpoint, on the loopback interface."""
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).parent / "transformers"), "serve", str(checkpoint)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    log = tmp_path / "serve.log"
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    with open(log, "wb") as words:
        process = subprocess.Popen(
            command, stdout=words, stderr=words, start_new_session=True, env=environment
        )
    try:
        for _ in range(600):
            if process.poll() is not None:
                pytest.fail(f"transformers serve ended: {log.read_text()[-2000:]}")
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_transformers_serve_gives_the_same_greedy_completions(
    transformers_server: str, checkpoint: Path
) -> None:
    asked = samples(12)
    local = by_key(
        list(TransformersRunner(checkpoint, device="cpu").generate(asked, Sampling(max_tokens=30)))
    )
    served = ServerRunner(checkpoint, url=transformers_server, patience=QUICKLY, concurrency=4)
    found = by_key(list(served.generate(asked, Sampling(max_tokens=30))))
    assert found.keys() == local.keys()
    for key, one in found.items():
        same = local[key]
        assert (one.tokens, one.stop) == (same.tokens, same.stop)
        assert (one.prompt_tokens, one.prompt_sha256) == (same.prompt_tokens, same.prompt_sha256)
        # This server leaves special tokens out of the text.
        assert one.text == same.text.replace("<turn>", "")
    identity = served.identity(asked[0])
    theirs = TransformersRunner(checkpoint, device="cpu").identity(asked[0])
    assert identity.versions["server"] == "transformers"
    for name in ("weights", "tokenizer", "first_prompt", "context_window"):
        assert getattr(identity, name) == getattr(theirs, name)
    stopped = Sampling(max_tokens=30, stop=("65", "cc"))
    ours = TransformersRunner(checkpoint, device="cpu").generate(asked, stopped)
    said = {one.key: (one.text.replace("<turn>", ""), one.stop, one.stop_string) for one in ours}
    theirs = by_key(list(served.generate(asked, stopped)))
    assert {key: (one.text, one.stop, one.stop_string) for key, one in theirs.items()} == said
    drawn = list(served.generate(asked, Sampling(30, 1.0, top_k=5, n=2)))
    assert len({one.text for one in drawn}) > 12  # it does sample

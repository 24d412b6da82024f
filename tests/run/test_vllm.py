from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from laconic.errors import LaconicError
from laconic.run.engines import make_runner
from laconic.run.sample import Sample
from laconic.run.sampling import Sampling
from laconic.run.vllm import VllmRunner, VllmServerRunner, open_vllm
from run.tiny import samples, tokenizer

GREEDY = Sampling(max_tokens=20)
TESTS = Path(__file__).parent.parent

STAND_IN = """\
#!{python}
import argparse, json, os, pathlib, subprocess, sys, threading
sys.path.insert(0, {tests!r})
parser = argparse.ArgumentParser()
parser.add_argument("verb")
parser.add_argument("model")
parser.add_argument("--host")
parser.add_argument("--port", type=int)
parser.add_argument("--max-model-len", type=int)
asked, _ = parser.parse_known_args()
child = subprocess.Popen(["sleep", "100"])
path = pathlib.Path({note!r})
earlier = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
def state(pid):
    status = pathlib.Path(f"/proc/{{pid}}/stat")
    return status.read_text().rsplit(")", 1)[1].split()[0] if status.exists() else "Z"
alive = [pid for run in earlier for pid in run["pids"] if state(pid) != "Z"]
note = {{"arguments": sys.argv[1:], "pids": [os.getpid(), child.pid], "alive": alive}}
with open({note!r}, "a") as file:
    file.write(json.dumps(note) + "\\n")
print("loading weights")
print("no GPU left", file=sys.stderr)
if "--fail" in sys.argv:
    sys.exit(3)
if "--hang" in sys.argv:
    threading.Event().wait(100)
assert asked.host == "127.0.0.1"
from run.fake_server import FakeServer
card = {{"owned_by": "vllm", "max_model_len": asked.max_model_len}}
FakeServer(model=asked.model, port=asked.port, card=card).serve_forever()
"""


@pytest.fixture
def note(tmp_path: Path) -> Path:
    return tmp_path / "started.jsonl"


@pytest.fixture
def command(tmp_path: Path, note: Path) -> str:
    """A stand-in for the `vllm` program: it serves the tests' fake server."""
    path = tmp_path / "vllm"
    path.write_text(STAND_IN.format(python=sys.executable, tests=str(TESTS), note=str(note)))
    path.chmod(0o755)
    return str(path)


def started(note: Path) -> list[dict[str, Any]]:
    import json

    return [json.loads(line) for line in note.read_text().splitlines()]


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False


def ended(pids: list[int]) -> bool:
    for _ in range(100):
        if not any(alive(pid) for pid in pids):
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def served(command: str, checkpoint: Path) -> Iterator[VllmServerRunner]:
    made = open_vllm(
        checkpoint,
        command=command,
        tensor_parallel=2,
        max_model_len=48,
        arguments=["--pipeline-parallel-size", "2"],
        start_timeout=60,
    )
    assert isinstance(made, VllmServerRunner)
    yield made
    made.close()


def test_server_is_started_asked_and_ended(
    served: VllmServerRunner, checkpoint: Path, note: Path
) -> None:
    found = list(served.generate([Sample("a", text="1+2=")], GREEDY))
    assert [one.text for one in found] == ["515314"]  # the ids 4, 13, 5, 15, joined and reversed
    identity = served.identity(samples(1)[0])
    assert (identity.context_window, identity.versions["server"]) == (48, "vllm 0.1")
    (run,) = started(note)
    words = " ".join(run["arguments"])
    assert words.startswith(f"serve {checkpoint} --host 127.0.0.1 --port ")
    for option in ("--max-model-len 48", "--tensor-parallel-size 2", "--generation-config vllm"):
        assert option in words
    assert words.endswith("--pipeline-parallel-size 2")
    assert all(alive(pid) for pid in run["pids"])
    served.close()
    assert ended(run["pids"])  # and so did the process that the server had started


def test_load_starts_the_server_on_the_other_folder(
    served: VllmServerRunner, other: Path, note: Path
) -> None:
    before = served.identity(samples(1)[0])
    served.load(other)
    assert list(served.generate(samples(2), GREEDY))
    first, second = started(note)
    assert ended(first["pids"])
    assert second["alive"] == []  # the first had given its memory back before the second began
    assert second["arguments"][1] == str(other)
    assert served.identity(samples(1)[0]).weights != before.weights
    with pytest.raises(LaconicError, match="from a folder only"):
        served.load([("a", torch.zeros(1))])


def test_server_ends_when_its_owner_is_killed(command: str, checkpoint: Path, note: Path) -> None:
    owner = textwrap.dedent(f"""
        import time
        from laconic.run.vllm import open_vllm
        made = open_vllm({str(checkpoint)!r}, command={command!r}, start_timeout=60)
        print("up", flush=True)
        time.sleep(100)
    """)
    process = subprocess.Popen([sys.executable, "-c", owner], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"up\n"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    (run,) = started(note)
    assert ended(run["pids"])


def test_server_that_fails_to_start_shows_its_last_lines(
    command: str, checkpoint: Path, note: Path
) -> None:
    with pytest.raises(LaconicError, match=r"(?s)status 3; its last lines:.*no GPU left"):
        open_vllm(checkpoint, command=command, arguments=["--fail"], start_timeout=60)
    (run,) = started(note)
    assert ended(run["pids"])


def test_server_that_never_answers(command: str, checkpoint: Path, note: Path) -> None:
    began = time.monotonic()
    with pytest.raises(LaconicError, match=r"(?s)did not answer within 3 s .*no GPU left"):
        open_vllm(checkpoint, command=command, arguments=["--hang"], start_timeout=3)
    assert time.monotonic() - began < 30
    (run,) = started(note)
    assert ended(run["pids"])


def test_no_vllm(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LaconicError, match="command 'nowhere': no such program"):
        open_vllm(checkpoint, command="nowhere")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(LaconicError, match="no program `vllm` on PATH.*--vllm-command"):
        open_vllm(checkpoint)
    with pytest.raises(LaconicError, match="tensor parallel is 0"):
        open_vllm(checkpoint, tensor_parallel=0)


class FakeModel:
    """The model inside the stand-in engine: a transformers model that takes pairs."""

    def __init__(self, folder: str) -> None:
        self.live = AutoModelForCausalLM.from_pretrained(folder)

    def load_weights(self, pairs: Any) -> set[str]:
        given = dict(pairs)
        self.live.load_state_dict(given, strict=False)
        return set(given)

    def named_parameters(self) -> Any:
        return self.live.named_parameters()

    def state_dict(self) -> dict[str, torch.Tensor]:
        return self.live.state_dict()  # type: ignore[no-any-return]


class FakeEngine:
    """vLLM's engine interface, as far as it is used, over transformers' generate."""

    def __init__(self, model: FakeModel, window: int) -> None:
        self.model, self.waiting, self.aborted = model, {}, []  # type: ignore[var-annotated]
        self.words = tokenizer()
        self.model_config = SimpleNamespace(max_model_len=window)

    def add_request(self, name: str, prompt: dict[str, list[int]], parameters: Any) -> None:
        self.waiting[name] = (prompt["prompt_token_ids"], parameters)

    def has_unfinished_requests(self) -> bool:
        return bool(self.waiting)

    def abort_request(self, names: list[str]) -> None:
        self.aborted += names
        for name in names:
            self.waiting.pop(name)

    def step(self) -> list[Any]:
        name = list(self.waiting)[-1]  # not in the order asked
        ids, parameters = self.waiting.pop(name)
        out = self.model.live.generate(
            torch.tensor([ids]),
            do_sample=False,
            temperature=None,
            max_new_tokens=parameters.max_tokens,
            pad_token_id=0,
            stop_strings=parameters.stop or None,
            tokenizer=self.words,
        )[0, len(ids) :].tolist()
        text = self.words.decode(out)
        word = next((word for word in parameters.stop if word in text), None)
        assert parameters.detokenize or not parameters.stop  # vLLM refuses it
        reason = "stop" if word or out[-1] in (0, 2) else "length"
        response = SimpleNamespace(token_ids=out, finish_reason=reason, stop_reason=word)
        unfinished = SimpleNamespace(finished=False)
        done = SimpleNamespace(finished=True, request_id=name, outputs=[response])
        return [unfinished, done]


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A stand-in for the module `vllm`."""
    seen = SimpleNamespace(arguments={}, parameters=[], calls=[])

    class LLM:
        def __init__(self, **arguments: Any) -> None:
            seen.arguments = arguments
            if arguments.get("dtype") == "int3":
                raise ValueError("unknown dtype int3")
            self.model = FakeModel(arguments["model"])
            self.llm_engine = FakeEngine(self.model, arguments["max_model_len"])
            seen.engine = self.llm_engine

        def apply_model(self, function: Any) -> list[Any]:
            return [function(self.model)]

        def collective_rpc(self, method: str, kwargs: dict[str, str]) -> list[None]:
            seen.calls.append((method, kwargs))
            if "--refuse" in kwargs["weights_path"]:
                raise TypeError("unexpected keyword argument 'weights_path'")
            folder = Path(kwargs["weights_path"])
            self.model.load_weights(load_file(folder / "model.safetensors").items())
            return [None] * seen.arguments["tensor_parallel_size"]

    def parameters(**given: Any) -> SimpleNamespace:
        seen.parameters.append(given)
        return SimpleNamespace(**given)

    module = ModuleType("vllm")
    module.LLM, module.SamplingParams, module.__version__ = LLM, parameters, "0.0"  # type: ignore[attr-defined]
    module.__spec__ = SimpleNamespace()  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.delenv("VLLM_ENABLE_V1_MULTIPROCESSING", raising=False)
    return seen


def test_in_process(vllm: SimpleNamespace, checkpoint: Path) -> None:
    made = open_vllm(checkpoint, dtype="float32")
    assert isinstance(made, VllmRunner)
    assert vllm.arguments["max_model_len"] == 64  # said, not left to vLLM
    assert vllm.arguments["generation_config"] == "vllm"
    assert os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    found = {one.id: one for one in made.generate(samples(12), GREEDY)}
    expected = make_runner("transformers", checkpoint, device="cpu", batch_size=None)
    same = {one.id: one for one in expected.generate(samples(12), GREEDY)}
    assert found == same
    assert {(p["temperature"], p["top_p"], p["top_k"]) for p in vllm.parameters} == {(0.0, 1.0, -1)}
    theirs, ours = expected.identity(samples(1)[0]), made.identity(samples(1)[0])
    assert (ours.weights, ours.first_prompt) == (theirs.weights, theirs.first_prompt)


def test_in_process_load(vllm: SimpleNamespace, checkpoint: Path, other: Path) -> None:
    made = open_vllm(checkpoint, dtype="float32")
    made.load(load_file(other / "model.safetensors").items())
    assert not vllm.calls  # nothing is read from the disk
    fresh = make_runner("transformers", other, device="cpu")
    expected = {one.id: one for one in fresh.generate(samples(4), GREEDY)}
    assert {one.id: one for one in made.generate(samples(4), GREEDY)} == expected
    streamed = made.identity(samples(1)[0]).weights
    made.load(checkpoint)
    made.load(other)
    assert vllm.calls[-1] == ("reload_weights", {"weights_path": str(other)})
    assert {one.id: one for one in made.generate(samples(4), GREEDY)} == expected
    assert made.identity(samples(1)[0]).weights == fresh.identity(samples(1)[0]).weights
    assert streamed != made.identity(samples(1)[0]).weights  # of bytes in memory, not of files


def test_in_process_load_with_several_gpus(
    vllm: SimpleNamespace, checkpoint: Path, other: Path
) -> None:
    made = open_vllm(checkpoint, tensor_parallel=2)
    with pytest.raises(LaconicError, match="2 GPUs share the model.*merge to a folder"):
        made.load(load_file(other / "model.safetensors").items())
    assert list(made.generate(samples(1), GREEDY))  # nothing was touched
    made.load(other)
    assert vllm.calls == [("reload_weights", {"weights_path": str(other)})]


def test_in_process_load_that_fails_leaves_nothing_to_generate_with(
    vllm: SimpleNamespace, checkpoint: Path, other: Path, tmp_path: Path
) -> None:
    made = open_vllm(checkpoint)
    part = load_file(other / "model.safetensors")
    del part["lm_head.weight"]
    with pytest.raises(LaconicError, match=r"lack 1 of .* first 'lm_head\.weight'"):
        made.load(part.items())
    with pytest.raises(LaconicError, match="loaded in part only"):
        next(made.generate(samples(1), GREEDY))
    refused = shutil.copytree(other, tmp_path / "--refuse")
    with pytest.raises(LaconicError, match=r"vLLM 0\.0 cannot take these weights: unexpected"):
        made.load(refused)
    made.load(other)
    assert list(made.generate(samples(1), GREEDY))


def test_in_process_stop_strings(vllm: SimpleNamespace, checkpoint: Path) -> None:
    sampling = Sampling(max_tokens=20, stop=("7", "=c"))
    found = {one.id: one for one in open_vllm(checkpoint).generate(samples(12), sampling)}
    theirs = make_runner("transformers", checkpoint, device="cpu")
    assert found == {one.id: one for one in theirs.generate(samples(12), sampling)}
    assert len({one.stop_string for one in found.values()}) > 1
    assert vllm.parameters[0].items() >= {"stop": ["7", "=c"], "detokenize": True}.items()


def test_in_process_stopped_early_leaves_nothing_waiting(
    vllm: SimpleNamespace, checkpoint: Path
) -> None:
    found = open_vllm(checkpoint).generate(samples(5), GREEDY, done=[("q00", 0)])
    next(found)
    found.close()  # type: ignore[attr-defined]
    assert len(vllm.engine.aborted) == 3
    assert not vllm.engine.waiting


def test_in_process_sampling_and_failure(vllm: SimpleNamespace, checkpoint: Path) -> None:
    list(open_vllm(checkpoint).generate(samples(2), Sampling(9, 0.6, 0.95, 20, n=2)))
    assert len({p["seed"] for p in vllm.parameters}) == 4
    assert vllm.parameters[0].items() >= {"temperature": 0.6, "top_p": 0.95, "top_k": 20}.items()
    with pytest.raises(LaconicError, match="vLLM cannot open.*unknown dtype int3"):
        open_vllm(checkpoint, dtype="int3")


@pytest.mark.parametrize(
    ("engine", "options", "message"),
    [
        ("vlm", {}, "unknown engine 'vlm'; did you mean 'vllm'"),
        ("transformers", {"url": "x"}, r"'transformers' has no option 'url' \(it has: device,"),
        ("server", {}, "'server' needs the option 'url'"),
    ],
)
def test_engines(engine: str, options: dict[str, object], message: str, checkpoint: Path) -> None:
    with pytest.raises(LaconicError, match=message):
        make_runner(engine, checkpoint, **options)

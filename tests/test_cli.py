"""The command line: exit codes, one message per error, JSON on stdout."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from checkpoints import folder_digest, pair, random_tensors, write_checkpoint
from laconic.cli import main
from laconic.errors import LaconicError


def laconic(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return int(stopped.value.code or 0), captured.out, captured.err


def test_help_does_not_import_torch() -> None:
    code = "import sys; from laconic.cli import app; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"
    helped = subprocess.run(
        [sys.executable, "-m", "laconic", "--help"], capture_output=True, text=True, check=True
    )
    for command in ("doctor", "plan", "merge", "methods", "verify", "eval", "compare", "demo"):
        assert f"\n  {command} " in helped.stdout


def test_merge_by_options_and_by_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick, slow = pair(tmp_path)
    options = ("--method", "ties", "--quick", quick, "--slow", slow, "--set", "trim=0.5")
    code, out, _ = laconic(capsys, "merge", *options, tmp_path / "a", "--json")
    assert code == 0
    result = json.loads(out)
    assert result.keys() >= {"path", "recipe_hash", "tensors", "bytes", "seconds", "peak_memory"}
    recipe = tmp_path / "r.yml"
    recipe.write_text(
        json.dumps({"quick": str(quick), "slow": str(slow), "merge": [{"ties": {"trim": 0.5}}]})
    )
    code, out, _ = laconic(capsys, "merge", recipe, tmp_path / "b")
    assert code == 0
    assert result["recipe_hash"] in out
    assert folder_digest(tmp_path / "a") == folder_digest(tmp_path / "b")
    assert laconic(capsys, "verify", tmp_path / "a")[0] == 0


def test_verify_finds_a_changed_byte(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick, slow = pair(tmp_path)
    laconic(
        capsys, "merge", "--method", "average", "--quick", quick, "--slow", slow, tmp_path / "a"
    )
    weights = tmp_path / "a" / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    code, out, _ = laconic(capsys, "verify", tmp_path / "a", "--json")
    assert code == 2
    assert json.loads(out)["ok"] is False


def test_plan_reads_headers_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick, slow = pair(tmp_path)
    recipe = tmp_path / "r.yml"
    recipe.write_text(
        json.dumps(
            {
                "quick": str(quick),
                "slow": str(slow),
                "merge": ["ties"],
                "rules": [{"match": "lm_head.*", "take": "slow"}],
            }
        )
    )
    code, out, _ = laconic(capsys, "plan", recipe, "--json")
    assert code == 0
    plan = json.loads(out)
    steps = {step["tensor"]: step for step in plan["steps"]}
    assert len(steps) == plan["tensors"] == len(random_tensors(0))
    assert steps["lm_head.weight"]["stages"] == "copy"
    assert steps["model.norm.weight"]["stages"][0]["ties"]["trim"] == 0.8
    code, out, _ = laconic(capsys, "plan", recipe)
    assert "copied from slow" in out


def test_doctor_refuses_a_pair(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick = write_checkpoint(tmp_path / "quick", random_tensors(0))
    slow = write_checkpoint(tmp_path / "slow", random_tensors(0), rope_theta=1e6)
    code, out, _ = laconic(capsys, "doctor", "--quick", quick, "--slow", slow)
    assert code == 2
    assert "rope_theta" in out
    code, _, err = laconic(
        capsys, "merge", "--method", "ties", "--quick", quick, "--slow", slow, tmp_path / "out"
    )
    assert code == 2
    assert "rope_theta" in err
    assert not (tmp_path / "out").exists()


def test_methods(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = laconic(capsys, "methods", "--json")
    assert code == 0
    listed = {method["name"]: method for method in json.loads(out)}
    assert listed["ties"]["knobs"]["trim"]["default"] == 0.8
    code, out, _ = laconic(capsys, "methods", "ties")
    assert "elect a sign" in out
    code, _, err = laconic(capsys, "methods", "tie")
    assert (code, "did you mean 'ties'?" in err) == (2, True)


QUESTIONS = "questions.jsonl"
MEASURING = {
    "eval": ["eval", "q", "--tasks", QUESTIONS, "--out", "run"],
    "reproduce": ["reproduce", "l2s-7b-ties", "--out", "out"],
}


@pytest.mark.parametrize("command", MEASURING)
def test_engines_and_data_of_commands_that_measure(
    command: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def told(engine: str, model: str, **options: Any) -> Any:
        given = {name: value for name, value in options.items() if value is not None}
        raise LaconicError(json.dumps([engine, os.environ["LACONIC_DATA"], given]))

    monkeypatch.setattr("laconic.run.engines.make_runner", told)
    monkeypatch.setattr(
        "laconic.reproduction.reproduce", lambda recipe, out, *, runner, **rest: runner("q")
    )
    monkeypatch.setenv("LACONIC_DATA", "elsewhere")
    monkeypatch.chdir(tmp_path)
    Path("questions.jsonl").write_text('{"question": "1+1?", "answer": "2"}\n')
    engine = ("--engine", "vllm", "--tensor-parallel", 2, "--max-model-len", 64, "--batch-size", 8)
    words = ("--vllm-args", "--swap-space '4 5'", "--device", "cuda:1", "--dtype", "float16")
    code, out, err = laconic(capsys, *MEASURING[command], *engine, *words, "--data", "here")
    assert (code, out) == (2, "")
    assert json.loads(err.removeprefix("error: ")) == [
        "vllm",
        "here",
        {
            "tensor_parallel": 2,
            "max_model_len": 64,
            "arguments": ["--swap-space", "4 5"],
            "device": "cuda:1",
            "dtype": "float16",
            "batch_size": 8,
        },
    ]
    code, _, err = laconic(capsys, *MEASURING[command], "--vllm-args", "'4 5")
    assert code == 2
    assert "'--vllm-args'" in err
    assert "No closing quotation" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["merge", "nothing.yml", "out"], "recipe nothing.yml: cannot be read"),
        (["merge", "out"], "missing: --method, --quick, --slow"),
        (["merge", "--method", "ties", "--quick", "/no", "--slow", "/no", "out"], "no such folder"),
        (["merge", "--method", "ties", "--quick", "a", "--slow", "b", "--set", "x", "o"], "KNOB="),
        (["merge", "r.yml", "out", "--seed", "3"], "--seed cannot change a recipe file"),
        (["plan", "nothing"], "recipe nothing: cannot be read"),
        (["verify", "nothing"], "nothing"),
        (["doctor", "--quick", "/no", "--slow", "/no"], "no such folder"),
        (["eval", "/no", "--tasks", "arithmetic", "--out", "r"], "no such folder"),
        (["eval", "/no", "--tasks", "arithmatic", "--out", "r"], "did you mean 'arithmetic'"),
        (["compare", "/no"], "not a run folder"),
        (["frobnicate"], "No such command 'frobnicate'"),
    ],
)
def test_errors_are_one_message_and_exit_code_2(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = laconic(capsys, *arguments)
    assert code == 2
    assert message in err
    assert "Traceback" not in err
    assert not out
    assert not list(tmp_path.iterdir())


INTERRUPTED = """
import time
from laconic.merging import stream
plain = stream.BlockStream.blocks
def slow(self, *arguments, **settings):
    print("started", flush=True)
    time.sleep(0.2)
    yield from plain(self, *arguments, **settings)
stream.BlockStream.blocks = slow
from laconic.cli import main
main()
"""


def test_ctrl_c_is_exit_code_130_and_loses_nothing(tmp_path: Path) -> None:
    quick, slow = pair(tmp_path)
    merge: list[Any] = ["merge", "--method", "ties", "--quick", quick, "--slow", slow]
    command = [sys.executable, "-c", INTERRUPTED, *map(str, merge), str(tmp_path / "out")]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # a shell that runs the tests in the background makes its children ignore Ctrl-C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in err
    assert not (tmp_path / "out").exists()
    subprocess.run([sys.executable, "-m", "laconic", *command[3:]], check=True, capture_output=True)
    assert (tmp_path / "out" / "laconic.json").is_file()

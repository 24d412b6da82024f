from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from laconic.errors import LaconicError
from laconic.models import choose_device, choose_dtype, load_tokenizer, question_prompt
from laconic.records import read_json
from laconic.tensors.source import open_source

PAIR = Path(__file__).parent.parent / "src" / "laconic" / "demo" / "pair"

MERGE = f"""
import sys
from laconic.cli import main
sys.argv = ["laconic", "merge", "--method", "average", "--quick", {str(PAIR / "quick")!r},
            "--slow", {str(PAIR / "slow")!r}, sys.argv[1]]
try:
    main()
except SystemExit as end:
    assert end.code == 0
import laconic.models
sys.exit("transformers was imported" if "transformers" in sys.modules else 0)
"""


def test_a_merge_does_not_import_transformers(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MERGE, str(tmp_path / "merged")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "merged" / "model.safetensors").exists()


def test_one_tokenizer_serves_statistics_and_runs(tmp_path: Path) -> None:
    assert load_tokenizer(open_source(PAIR / "slow")).eos_token_id is not None
    with pytest.raises(LaconicError, match="unknown device 'gpu!'"):
        choose_device("gpu!")


def test_a_dtype_is_named_or_that_of_the_device() -> None:
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    assert choose_dtype(None, cpu, on_cuda="auto") == "float32"
    assert choose_dtype(None, cuda) == "bfloat16"
    assert choose_dtype(None, cuda, on_cuda="auto") == "auto"
    assert choose_dtype("float16", cuda) == "float16"
    with pytest.raises(LaconicError, match="unknown dtype 'half' .known: float32, bfloat16"):
        choose_dtype("half", cpu)


def test_a_question_is_a_line_where_there_is_no_chat_template() -> None:
    tokenizer = load_tokenizer(open_source(PAIR / "slow"))
    chat = "<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n"
    assert question_prompt(tokenizer, "1+1?") == chat
    tokenizer.chat_template = None
    assert question_prompt(tokenizer, "1+1?") == "1+1?\n"


def test_why_a_file_is_needed_ends_the_message(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    for text, message in ((None, "not found"), ("[1]", "expected a JSON object, got list")):
        if text:
            file.write_text(text)
        with pytest.raises(LaconicError, match=rf"a\.json: {message}; it says why$"):
            read_json(file, "it says why")
        with pytest.raises(LaconicError, match=rf"a\.json: {message}$"):
            read_json(file)

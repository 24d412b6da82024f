"""The tokenizer: exact round trip, whole words, the chat template, no custom code to load."""

import string
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from laconic.demo.tokenizer import build

SAID = "<think>b=37+5=42. Wait, let me double-check: b=37+5=42.</think>\\boxed{42}"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    build().save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize(
    "text",
    [
        SAID,
        string.printable.replace("\r", "").replace("\t", "").replace("\x0b", "").replace("\f", ""),
        "Wait ,  let me double-check. Waiting, user: ; <think",
        " leading and trailing \n\n",
    ],
)
def test_decoding_gives_the_text_back(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids) == text


def test_thinking_survives_skipping_special_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer(SAID + "<|im_end|>", add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == SAID


def test_fixed_phrases_and_digits_are_single_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.tokenize(SAID) == [
        "<think>", "b", "=", "3", "7", "+", "5", "=", "4", "2", ".",
        " Wait", ", let me double-check", ": ", "b", "=", "3", "7", "+", "5", "=", "4", "2", ".",
        "</think>", "\\boxed{", "4", "2", "}",
    ]  # fmt: skip


def test_chat_template(tokenizer: PreTrainedTokenizerFast) -> None:
    turns = [{"role": "user", "content": "b=37; b?"}]
    asked = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert asked == "<|im_start|>user\nb=37; b?<|im_end|>\n<|im_start|>assistant\n"
    turns.append({"role": "assistant", "content": "37"})
    told = tokenizer.apply_chat_template(turns, tokenize=False)
    assert told == asked + "37<|im_end|>\n"


def test_characters_beyond_ascii_are_left_out(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer("\u00e9", add_special_tokens=False)["input_ids"] == []

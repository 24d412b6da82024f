"""The weights in the package: they load, and have the properties docs/demo.md claims."""

import json
from functools import cache
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoTokenizer, Qwen2ForCausalLM

from laconic import demo
from laconic.demo.answers import Answer, ask, score
from laconic.demo.questions import LEVELS, rows
from laconic.demo.seeds import Merge
from laconic.demo.train import settle

PAIR = Path(demo.__file__).parent / "pair"
NAMES = ("quick", "slow")
EACH = 20


@cache
def model(name: str) -> Qwen2ForCausalLM:
    return Qwen2ForCausalLM.from_pretrained(PAIR / name).eval()


@cache
def answers(name: str) -> tuple[Answer, ...]:
    """To the first EACH validation questions of every level."""
    settle(0)
    asked = [row for row in rows("validation") if int(str(row["id"])[-3:]) < EACH]
    body = model("slow") if name == "slow" else model("quick")
    if name == "merge":
        quick, slow = (dict(model(parent).state_dict()) for parent in NAMES)
        body = Qwen2ForCausalLM(model("slow").config).eval()
        body.load_state_dict(Merge(0.5)(quick, slow))
    return tuple(ask(body, AutoTokenizer.from_pretrained(PAIR / "slow"), asked))


@pytest.mark.parametrize("name", NAMES)
def test_shape_and_size(name: str) -> None:
    config = AutoConfig.from_pretrained(PAIR / name)
    assert config.architectures == ["Qwen2ForCausalLM"]
    assert config.tie_word_embeddings is False
    assert config.max_position_embeddings == {"quick": 512, "slow": 2048}[name]
    assert (PAIR / name / "model.safetensors").stat().st_size < 2_000_000
    generation = json.loads((PAIR / name / "generation_config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(PAIR / name)
    assert generation["eos_token_id"] == tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_the_tokenizer_is_shared() -> None:
    assert (PAIR / "quick/tokenizer.json").read_bytes() == (
        PAIR / "slow/tokenizer.json"
    ).read_bytes()


def test_slow_is_accurate_on_every_level_and_checks_itself() -> None:
    for level in LEVELS:
        assert score(a for a in answers("slow") if a.level == level).accuracy >= 0.9
    assert score(answers("slow")).reflection >= 0.95
    assert score(answers("slow")).cut == 0


def test_quick_is_terse_and_weak_on_hard_levels() -> None:
    found = score(answers("quick"))
    assert 0.3 <= found.accuracy <= 0.6
    assert found.tokens <= 10
    easy, hard = (score(a for a in answers("quick") if a.level == n) for n in (1, 5))
    assert easy.accuracy - hard.accuracy >= 0.5


def test_a_merge_keeps_the_accuracy_at_fewer_tokens() -> None:
    slow, merge = score(answers("slow")), score(answers("merge"))
    assert merge.accuracy >= slow.accuracy - 0.02
    assert merge.tokens <= 0.6 * slow.tokens

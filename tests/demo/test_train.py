"""A short training run: loadable folders, the same bytes from the same seed."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from laconic.demo import train
from laconic.demo.answers import ask
from laconic.demo.questions import rows

NAMES = ("quick", "slow")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("pair")
    train.make(folder, seed=3, quickly=True)
    return folder


def digest(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_folders_load_and_answer(folder: Path) -> None:
    for name in NAMES:
        model = AutoModelForCausalLM.from_pretrained(folder / name)
        tokenizer = AutoTokenizer.from_pretrained(folder / name)
        assert type(model).__name__ == "Qwen2ForCausalLM"
        assert model.config.vocab_size >= len(tokenizer)
        assert len(ask(model.eval(), tokenizer, rows("validation")[:2])) == 2


def test_same_seed_same_bytes(folder: Path, tmp_path: Path) -> None:
    train.make(tmp_path, seed=3, quickly=True)
    assert digest(tmp_path) == digest(folder)


def test_another_seed_other_weights(folder: Path, tmp_path: Path) -> None:
    train.make(tmp_path, seed=4, quickly=True)
    name = "slow/model.safetensors"
    assert digest(tmp_path)[name] != digest(folder)[name]


def test_slow_starts_from_quick(folder: Path) -> None:
    quick, slow = (AutoModelForCausalLM.from_pretrained(folder / name) for name in NAMES)
    pairs = zip(quick.parameters(), slow.parameters(), strict=True)
    moved = [float((a - b).detach().abs().max()) for a, b in pairs]
    assert max(moved) > 0
    assert max(moved) < 0.05  # a few small steps of AdamW, not another initialisation


def test_loss_falls(tmp_path: Path) -> None:
    train.settle(0)
    tokenizer = train.build()
    model = train.Qwen2ForCausalLM(train.shape(tokenizer, 512))
    stage = train.replace(train.BASE, steps=12, rows=10, warmup=2)
    groups = next(train.batches.steps(tokenizer, train.random.Random(0), stage.mix, 20, 2))
    with torch.no_grad():
        before = sum(float(train._loss(model, group)) for group in groups)
    trained = train.train(model, tokenizer, stage, seed=0)
    with torch.no_grad():
        after = sum(float(train._loss(trained, group)) for group in groups)
    assert after < 0.8 * before

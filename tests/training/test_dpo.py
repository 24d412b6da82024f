"""The DPO baseline: what is preferred, what is trained, and what is left behind."""

from __future__ import annotations

import json
import math

import pytest
from safetensors.torch import load_file

from laconic.cli import main
from laconic.demo import QUICK
from laconic.demo.showcase import FIELDS, write_calibration_text
from laconic.errors import LaconicError
from laconic.recipe import Fields
from laconic.statistics.data import Row
from laconic.training.dpo import Dpo, preference_pairs, train_dpo

SLOW = QUICK.parent / "slow"
FEW = Dpo(samples=8, batch=4, epochs=2, rank=4, learning_rate=1e-3, max_length=256)

pytest.importorskip("trl", reason="the extra `train` is not installed")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_calibration_text(tmp_path_factory.mktemp("dpo") / "text.jsonl")


@pytest.fixture(scope="module")
def trained(text, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "dpo"
    found = train_dpo(SLOW, text, out, fields=Fields(**FIELDS), settings=FEW, progress=False)
    return found, out


class Template:
    """A tokenizer whose chat template ends as it is told."""

    chat_template = "some"

    def __init__(self, ending):
        self.ending = ending

    def apply_chat_template(self, messages, *, tokenize, add_generation_prompt):
        assert (tokenize, add_generation_prompt) == (False, True)
        return f"<user>{messages[0]['content']}<assistant>{self.ending}"


def test_an_opened_thought_is_closed_by_the_short_answer_and_continued_by_the_long_one():
    rows = [Row("1+1?", "two \\boxed{2}", "<think>Hm.</think>\n2")]
    (pair,) = preference_pairs(Template("<think>\n"), rows)
    assert pair["prompt"] == "<user>1+1?<assistant><think>\n"
    assert pair["chosen"] == "</think>\n\ntwo \\boxed{2}"
    assert pair["rejected"] == "Hm.</think>\n2"


def test_without_an_opened_thought_answers_stand_as_they_are():
    (pair,) = preference_pairs(Template(""), [Row("1+1?", "2", "<think>Hm.</think>2")])
    assert (pair["chosen"], pair["rejected"]) == ("2", "<think>Hm.</think>2")


def test_training_starts_from_no_preference_and_learns_one(trained):
    found, _ = trained
    # the adapter starts as zero: both answers gain nothing, and the loss is -log sigmoid(0)
    assert found.first_loss == pytest.approx(math.log(2), abs=1e-5)
    assert found.last_loss < found.first_loss - 0.05
    assert (found.pairs, found.steps, found.last_accuracy) == (8, 4, 1.0)


def test_the_adapter_is_merged_into_linear_layers_only(trained):
    _, out = trained
    before, after = load_file(SLOW / "model.safetensors"), load_file(out / "model.safetensors")
    assert before.keys() == after.keys()
    changed = {name for name in before if not before[name].float().equal(after[name].float())}
    assert any("q_proj" in name for name in changed)
    assert any("down_proj" in name for name in changed)
    assert not [name for name in changed if "norm" in name or "embed" in name or "head" in name]


def test_what_was_done_is_recorded(trained):
    found, out = trained
    record = json.loads((out / "dpo.json").read_text())
    assert record["model"] == str(SLOW)
    assert (record["beta"], record["rank"], record["samples"]) == (0.1, 4, 8)
    assert record["result"]["last_loss"] == found.last_loss
    assert (out / "tokenizer.json").is_file()
    assert (out / "chat_template.jinja").is_file()


def test_the_same_seed_gives_the_same_bytes(text, trained, tmp_path):
    _, first = trained
    again = tmp_path / "again"
    train_dpo(SLOW, text, again, fields=Fields(**FIELDS), settings=FEW, progress=False)
    assert (again / "model.safetensors").read_bytes() == (first / "model.safetensors").read_bytes()


def test_an_output_that_exists_is_left_alone(text, trained):
    with pytest.raises(LaconicError, match="exists already"):
        train_dpo(SLOW, text, trained[1], fields=Fields(**FIELDS), settings=FEW)


def test_a_field_that_is_missing_is_named_and_nothing_is_left(text, tmp_path, capsys):
    arguments = ["dpo", str(SLOW), str(tmp_path / "out"), "--data", str(text)]
    with pytest.raises(SystemExit, match="2"):
        main([*arguments, "--field", "short=terse", "--field", "long=long"])
    assert "no text in field 'terse'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_field_that_does_not_exist_is_refused(text, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["dpo", str(SLOW), str(tmp_path / "out"), "--data", str(text), "--field", "shrt=a"])
    assert "did you mean 'short'" in capsys.readouterr().err


def test_stdout_is_data(text, tmp_path, capsys):
    fields = [f"--field={key}={name}" for key, name in FIELDS.items()]
    options = ["--samples", "2", "--batch", "2", "--epochs", "1", "--json"]
    with pytest.raises(SystemExit, match="0"):
        main(["dpo", str(SLOW), str(tmp_path / "out"), "--data", str(text), *fields, *options])
    assert json.loads(capsys.readouterr().out)["pairs"] == 2


def test_without_trl_the_extra_is_named(text, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "trl", None)
    with pytest.raises(LaconicError, match=r"laconic\[train\]"):
        train_dpo(SLOW, text, tmp_path / "out", fields=Fields(**FIELDS), settings=FEW)

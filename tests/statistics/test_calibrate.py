"""From recipe and text to a statistics file, and from there into a merge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import thinkers
from checkpoints import folder_digest
from laconic.errors import LaconicError
from laconic.merging.engine import merge
from laconic.recipe import parse_recipe
from laconic.statistics.calibrate import CalibrationResult, calibrate
from laconic.statistics.channels import channel_means
from laconic.statistics.sensitivity import layer_sensitivity
from laconic.statistics.sequences import Tokens

HALF = {"task_arithmetic": {"alpha": 0.5}}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return thinkers.write_pair(tmp_path_factory.mktemp("pair"))


def run(recipe: Any, out: Path, **settings: Any) -> CalibrationResult:
    return calibrate(recipe, out, progress=False, **settings)


def ids(folder: Path, text: str) -> list[int]:
    from transformers import AutoTokenizer

    return list(AutoTokenizer.from_pretrained(folder)(text).input_ids)


def load(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype="float32").requires_grad_(False)


def test_aim_end_to_end(pair: Path, tmp_path: Path) -> None:
    out = tmp_path / "stats"
    recipe = thinkers.recipe(pair, HALF, "aim", statistics=str(out))
    result = run(recipe, out)
    assert result.kinds == ("channel_means",)
    assert result.samples == {"channel_means": 6}
    assert json.dumps(result.to_dict())
    texts = [
        Tokens(tuple(ids(pair / "quick", f"{r['question']}\n{r['short']}")))
        for r in thinkers.rows()
    ]
    means = channel_means(load(pair / "quick"), texts, batch_tokens=1)
    merge(recipe, tmp_path / "out", progress=False)
    found = load_file(tmp_path / "out" / "model.safetensors")
    quick, slow = (load_file(pair / p / "model.safetensors") for p in ("quick", "slow"))
    for name, base in quick.items():
        merged = base + 0.5 * (slow[name] - base)
        module = name.removesuffix(".weight")
        if module in means and name.endswith(".weight"):
            activity = (means[module] / means[module].max()).float()
            merged = base + (merged - base) * (1 - activity * 0.6)
        torch.testing.assert_close(found[name], merged.bfloat16(), rtol=1e-2, atol=1e-3, msg=name)
    relaxed = [name for name in quick if name.removesuffix(".weight") in means]
    assert len(relaxed) == len(quick) - 6 - 1  # all but the biases and the embedding


def test_sens_reads_crossed_answers(pair: Path, tmp_path: Path) -> None:
    run(thinkers.recipe(pair, "sens"), tmp_path / "stats")
    found = load_file(tmp_path / "stats")["crossed_sensitivity"]
    for row, (model, answer) in zip(found, (("quick", "long"), ("slow", "short")), strict=True):
        texts = []
        for sample in thinkers.rows():
            prompt = ids(pair / model, f"Question: {sample['question']}\n\nAnswer: ")
            texts.append(Tokens((*prompt, *ids(pair / model, sample[answer]), 0), len(prompt)))
        expected = layer_sensitivity(load(pair / model), texts)
        torch.testing.assert_close(row, expected, rtol=1e-5, atol=0)


CHAINS = [
    [HALF, "aim"],
    ["sens"],
    ["sens_task"],
    [HALF, {"acm": {"shift": "none"}}],
    ["acm_paper", HALF],
    [{"ties": {"trim": 0.3}}, {"fim": {"gate_scale": 0.7}}],
    [{"dare": {"drop": 0.3}}, "ties", "aim"],
    ["lore", "guard"],
    [HALF, "aim", "acm", "guard"],
]


@pytest.mark.parametrize("chain", CHAINS, ids=json.dumps)
def test_every_method_merges_with_its_statistics(
    pair: Path, tmp_path: Path, chain: list[Any]
) -> None:
    stats = tmp_path / "stats"
    recipe = thinkers.recipe(pair, *chain, statistics=str(stats))
    assert run(recipe, stats).reused is False
    first = folder_digest(tmp_path)
    assert run(recipe, stats).reused is True
    assert folder_digest(tmp_path) == first
    run(recipe, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == stats.read_bytes()
    merge(recipe, tmp_path / "one", progress=False)
    merge(recipe, tmp_path / "two", progress=False, block=6, threads=2)
    assert folder_digest(tmp_path / "one") == folder_digest(tmp_path / "two")
    plain = load_file(pair / "quick" / "model.safetensors")
    for name, tensor in load_file(tmp_path / "one" / "model.safetensors").items():
        assert torch.isfinite(tensor).all()
        assert not torch.equal(tensor, plain[name].bfloat16()) or chain[0] != HALF, name
    load(tmp_path / "one")


def test_acm_reads_the_merge_that_it_wraps(pair: Path, tmp_path: Path) -> None:
    for alpha in (0.0, 0.5):
        recipe = thinkers.recipe(pair, {"task_arithmetic": {"alpha": alpha}}, "acm")
        run(recipe, tmp_path / f"{alpha}", dtype="bfloat16")
    unmoved, moved = (
        load_file(tmp_path / name)["merged_information/0/exact"] for name in ("0.0", "0.5")
    )
    assert (unmoved >= moved).all()
    assert (unmoved.mean(1) > moved.mean(1)).any()
    assert not list(tmp_path.glob(".calibrate*"))


def test_guarded_outputs_equal_the_slow_models(pair: Path, tmp_path: Path) -> None:
    stats = tmp_path / "stats"
    calibration = {"samples": 1}
    recipe = thinkers.recipe(
        pair, HALF, {"guard": {"ridge": 1e-7}}, statistics=str(stats), calibration=calibration,
        output={"dtype": "float32"},
    )  # fmt: skip
    run(recipe, stats)
    merge(recipe, tmp_path / "out", progress=False)
    guarded = load_file(tmp_path / "out" / "model.safetensors")
    slow = load_file(pair / "slow" / "model.safetensors")
    inputs = load_file(stats)
    module = "model.layers.1.mlp.down_proj"
    x, weight = inputs[f"think_inputs/{module}"], f"{module}.weight"
    torch.testing.assert_close(x @ guarded[weight].T, x @ slow[weight].T, rtol=1e-3, atol=1e-3)
    # k_proj reads what q_proj reads, and its bias is the slow model's
    x, prefix = inputs["think_inputs/model.layers.0.self_attn.q_proj"], "model.layers.0.self_attn."
    for name in ("q_proj", "k_proj", "v_proj"):
        weight, bias = f"{prefix}{name}.weight", f"{prefix}{name}.bias"
        outputs = [x @ each[weight].T + each[bias] for each in (guarded, slow)]
        torch.testing.assert_close(*outputs, rtol=1e-3, atol=1e-3)
        assert not torch.equal(guarded[weight], slow[weight])


def test_changed_settings_data_and_models_are_named(tmp_path: Path) -> None:
    pair = thinkers.write_pair(tmp_path / "pair")
    out = tmp_path / "stats"
    run(thinkers.recipe(pair, HALF, "aim"), out)
    with pytest.raises(LaconicError, match=r"channel_means: samples 100, now 3\n--force"):
        run(thinkers.recipe(pair, HALF, "aim", calibration={"samples": 3}), out)
    with pytest.raises(LaconicError, match=r"channel_means: seed 0, now 1"):
        run(thinkers.recipe(pair, HALF, "aim", seed=1), out)
    with pytest.raises(LaconicError, match="channel_means: dtype 'float32', now 'bfloat16'"):
        run(thinkers.recipe(pair, HALF, "aim"), out, dtype="bfloat16")
    with pytest.raises(LaconicError, match=r"crossed_sensitivity: not in it \(it has: channel_m"):
        run(thinkers.recipe(pair, "sens"), out)
    assert run(thinkers.recipe(pair, {"ties": {"trim": 0.1}}, "aim"), out).reused
    thinkers.write_rows(pair / "text.jsonl", thinkers.rows(5))
    with pytest.raises(LaconicError, match="channel_means: data blake3 [0-9a-f]+, now"):
        run(thinkers.recipe(pair, HALF, "aim"), out)
    thinkers.write_rows(pair / "text.jsonl")
    thinkers.model(9).save_pretrained(pair / "quick")
    with pytest.raises(LaconicError, match="the base model is another"):
        run(thinkers.recipe(pair, HALF, "aim"), out)
    assert run(thinkers.recipe(pair, HALF, "aim"), out, force=True).reused is False


def test_a_merge_refuses_what_it_cannot_use(tmp_path: Path) -> None:
    pair = thinkers.write_pair(tmp_path / "pair")
    stats, out = tmp_path / "stats", tmp_path / "out"

    def refuse(message: str, *chain: Any, **extra: Any) -> None:
        with pytest.raises(LaconicError, match=message):
            merge(thinkers.recipe(pair, *chain, **extra), out, progress=False)
        assert not out.exists()

    named = {"statistics": str(stats)}
    refuse("aim: needs statistics .*names none.*`laconic calibrate RECIPE OUT`", HALF, "aim")
    refuse(r"stats: no such file; make it with `laconic calibrate RECIPE", HALF, "aim", **named)
    run(thinkers.recipe(pair, HALF, "aim"), stats)
    refuse("fisher: not in it", HALF, "fim", **named)
    refuse(
        "channel_means: skip_first_token False, now True",
        HALF, "aim", calibration={"skip_first_token": True}, **named,
    )  # fmt: skip
    thinkers.model(9).save_pretrained(pair / "quick")
    refuse("channel_means: the base model is another", HALF, "aim", **named)
    stats.write_bytes((pair / "slow" / "model.safetensors").read_bytes())
    refuse("not a statistics file", HALF, "aim", **named)


def test_statistics_of_another_chain_are_refused_for_acm(pair: Path, tmp_path: Path) -> None:
    stats = tmp_path / "stats"
    run(thinkers.recipe(pair, HALF, "acm"), stats)
    other = thinkers.recipe(pair, "task_arithmetic", "acm", statistics=str(stats))
    with pytest.raises(LaconicError, match="merged_information: merge before "):
        merge(other, tmp_path / "out", progress=False)
    # its own knobs may differ: they come after the statistics
    later = thinkers.recipe(pair, HALF, {"acm": {"t": 0.5}}, statistics=str(stats))
    merge(later, tmp_path / "out", progress=False)


def test_the_statistics_are_in_the_manifest_and_part_of_the_merge(
    pair: Path, tmp_path: Path
) -> None:
    stats, out = tmp_path / "stats", tmp_path / "out"
    recipe = thinkers.recipe(pair, HALF, "aim", statistics=str(stats))
    digest = run(recipe, stats).digest
    merge(recipe, out, progress=False)
    assert json.loads((out / "laconic.json").read_text())["plan"]["statistics"] == digest
    assert merge(recipe, out, progress=False).resumed == 27
    run(recipe, stats, dtype="bfloat16", force=True)
    with pytest.raises(LaconicError, match="exists already"):
        merge(recipe, out, progress=False)


def test_calibration_without_need_or_text(pair: Path, tmp_path: Path) -> None:
    with pytest.raises(LaconicError, match="no method of this recipe needs statistics"):
        run(thinkers.recipe(pair, "average"), tmp_path / "stats")
    models = {"quick": str(pair / "quick"), "slow": str(pair / "slow")}
    bare = parse_recipe({**models, "merge": [HALF, "aim"]})
    with pytest.raises(LaconicError, match="calibration: missing; channel_means need text"):
        run(bare, tmp_path / "stats")
    run(parse_recipe({**models, "merge": [HALF, "fim"]}), tmp_path / "fisher")
    with pytest.raises(LaconicError, match="unknown dtype 'int8'"):
        run(thinkers.recipe(pair, HALF, "aim"), tmp_path / "x", dtype="int8")


def test_bad_calibration_data(pair: Path, tmp_path: Path) -> None:
    def refuse(message: str, *chain: Any, **calibration: Any) -> None:
        recipe = thinkers.recipe(pair, *chain, calibration=calibration)
        with pytest.raises(LaconicError, match=message):
            run(recipe, tmp_path / "stats")
        assert not (tmp_path / "stats").exists()

    missing = thinkers.write_rows(
        tmp_path / "missing.jsonl", [*thinkers.rows(2), {"question": "a"}]
    )
    refuse(
        r"missing\.jsonl, line 3: no text in field 'short' \(it has: question\); name it by "
        r"calibration\.fields\.short",
        HALF, "aim", data=str(missing),
    )  # fmt: skip
    refuse("nowhere.jsonl: cannot be read", HALF, "aim", data="nowhere.jsonl")
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"question": "a"')
    refuse("line 1: not valid JSON", HALF, "acm", data=str(broken))
    plain = tmp_path / "plain.txt"
    plain.write_text("one text\n\nanother text\n")
    refuse("plain text has no long answers", HALF, "guard", data=str(plain))
    refuse("none of 6 samples leaves an answer token", "sens", max_length=4)
    question = thinkers.recipe(
        pair, HALF, "aim", calibration={"data": str(plain), "answers": "question"}
    )
    assert run(question, tmp_path / "plain").samples == {"channel_means": 2}


def test_samples_without_answer_tokens_are_skipped_and_counted(pair: Path, tmp_path: Path) -> None:
    rows = [*thinkers.rows(4), {"question": "q" * 90, "short": "1", "long": "2"}]
    data = str(thinkers.write_rows(tmp_path / "text.jsonl", rows))
    recipe = thinkers.recipe(pair, "sens", calibration={"data": data, "max_length": 80})
    result = run(recipe, tmp_path / "stats")
    assert result.samples == {"crossed_sensitivity": 8}
    assert result.skipped == {"crossed_sensitivity": 2}


def test_a_guard_without_think_tags_is_refused(tmp_path: Path) -> None:
    pair = thinkers.write_pair(tmp_path / "pair", slow_tags=())
    with pytest.raises(LaconicError, match="guard: the slow model's tokenizer has no token <think"):
        run(thinkers.recipe(pair, HALF, "guard"), tmp_path / "stats")


def test_recipe_keys_are_checked_together() -> None:
    raw = {
        "quick": "a", "slow": "b", "merge": ["average"],
        "calibration": {"data": "x", "sample": 3, "answers": "fast", "fields": {"shrt": "a"}},
    }  # fmt: skip
    with pytest.raises(LaconicError) as caught:
        parse_recipe(raw)
    text = str(caught.value)
    assert "unknown key 'calibration.sample'; did you mean 'samples'?" in text
    assert "unknown key 'calibration.fields.shrt'; did you mean 'short'?" in text
    assert "calibration.answers: 'fast' is not allowed" in text


@pytest.mark.parametrize("select", ["random", "kmeans", "first"])
def test_selection(tmp_path: Path, select: str) -> None:
    from laconic.recipe import Calibration
    from laconic.statistics.data import read_rows

    rows = [{"question": f"apples and pears in a basket {i}"} for i in range(37)]
    rows += [{"question": f"solve the integral of {i} dx"} for i in range(3)]
    data = str(thinkers.write_rows(tmp_path / "text.jsonl", rows))
    settings = Calibration(data=data, samples=4, select=select)  # type: ignore[arg-type]
    chosen = [row.question for row in read_rows(settings, frozenset(), 0)]
    assert len(set(chosen)) == 4
    assert chosen == [row.question for row in read_rows(settings, frozenset(), 0)]
    if select == "first":
        assert chosen == [row["question"] for row in rows[:4]]
    else:
        assert chosen != [row.question for row in read_rows(settings, frozenset(), 1)]
    rare = [text for text in chosen if "integral" in text]
    assert bool(rare) == (select == "kmeans")

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard, ModelCardData
from safetensors.torch import load_file, save_file

from laconic.checkpoint.card import NOT_MEASURED, add_results, write_card
from laconic.checkpoint.manifest import (
    parent_records,
    read_manifest,
    verify,
    write_manifest,
)
from laconic.checkpoint.sidecars import (
    merged_config,
    merged_generation_config,
    write_json,
    write_sidecars,
)
from laconic.diagnosis.doctor import examine
from laconic.errors import LaconicError
from laconic.provenance import versions
from laconic.recipe import recipe_hash
from laconic.tensors.digests import Digests, digest_tensor
from laconic.tensors.source import Source, open_source
from tiny_pair import CHATML, R1_TEMPLATE, edit, make_quick, make_slow, save_weights, weights

RECIPE = {"quick": "a", "slow": "b", "merge": [{"ties": {"trim": 0.8}}], "seed": 0}
Q = "model.layers.0.self_attn.q_proj.weight"


class Written:
    """What the card needs of a recipe."""

    hash = recipe_hash(RECIPE)

    def to_yaml(self):
        return yaml.safe_dump(RECIPE, sort_keys=False)


@pytest.fixture
def pair(tmp_path):
    return make_quick(tmp_path / "quick"), make_slow(tmp_path / "slow")


@pytest.fixture
def sources(pair):
    quick, slow = map(open_source, pair)
    return {"base": quick, "quick": quick, "slow": slow}


def build(folder, sources, *, tokenizer="base", untied=True, shards=1):
    """Write a whole output: weights, side files, card, manifest."""
    folder.mkdir()
    tensors = weights(tied=not untied, seed=3)
    if shards == 1:
        save_weights(folder, tensors)
    else:
        save_sharded(folder, tensors, shards)
    write_sidecars(folder, sources, tokenizer_role=tokenizer, untied=untied, dtype="bfloat16")
    card(folder, sources)
    write_manifest(
        folder,
        recipe=RECIPE,
        recipe_hash=recipe_hash(RECIPE),
        parents=parent_records(sources),
        tensors=tensor_digests(folder),
        facts={"untied": untied},
    )
    return folder


def tensor_digests(folder):
    return {name: digest_tensor(stored) for name, stored in open_source(folder).stored.items()}


def save_sharded(folder, tensors, shards):
    names = sorted(tensors)
    weight_map = {}
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        part = names[i::shards]
        save_file({n: tensors[n] for n in part}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def card(folder, sources, results=(), **options):
    write_card(
        folder,
        recipe=Written(),
        sources=sources,
        methods=[("ties", "Yadav et al. 2023, arXiv:2306.01708")],
        diagnosis=examine(sources, **options),
        results=results,
    )
    return (folder / "README.md").read_text()


# --- config and generation settings


def test_config_of_the_output(sources):
    config = merged_config(sources, tokenizer_role="base", untied=True, dtype="bfloat16")
    assert config["max_position_embeddings"] == 131072
    assert config["tie_word_embeddings"] is False
    assert config["dtype"] == "bfloat16"
    assert config["rope_theta"] == 10000
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (50, 50, 50)
    assert not {"torch_dtype", "_name_or_path"} & config.keys()


def test_config_takes_the_larger_limit_whoever_has_it(sources, pair):
    edit(pair[0] / "config.json", max_position_embeddings=262144)
    again = {role: open_source(source.folder) for role, source in sources.items()}
    config = merged_config(again, tokenizer_role="base", untied=False, dtype="float16")
    assert config["max_position_embeddings"] == 262144
    assert config["tie_word_embeddings"] is True
    assert config["dtype"] == "float16"


def test_config_does_not_change_the_parent(sources):
    before = dict(sources["base"].config)
    merged_config(sources, tokenizer_role="slow", untied=False, dtype="float16")
    assert sources["base"].config == before


def test_config_has_the_ids_of_the_chosen_tokenizer(sources):
    config = merged_config(sources, tokenizer_role="slow", untied=True, dtype="bfloat16")
    assert (config["bos_token_id"], config["eos_token_id"]) == (53, 50)


def test_generation_config_has_ids_and_nothing_else(sources):
    # 52 is <|im_end|>, which ends a turn in the quick model's template.
    expected = {"bos_token_id": 50, "pad_token_id": 50, "eos_token_id": [50, 52]}
    assert merged_generation_config(sources, "base") == expected
    expected = {"bos_token_id": 53, "pad_token_id": 50, "eos_token_id": 50}
    assert merged_generation_config(sources, "slow") == expected


def test_another_parents_stop_counts_where_it_is_the_same_token(sources, pair):
    shutil.copy(pair[0] / "tokenizer.json", pair[1] / "tokenizer.json")
    edit(pair[1] / "generation_config.json", eos_token_id=[50, 56])
    assert merged_generation_config(sources, "base")["eos_token_id"] == [50, 52, 56]


def test_another_parents_stop_does_not_count_where_it_is_another_token(sources, pair):
    edit(pair[1] / "generation_config.json", eos_token_id=[50, 56])  # </think> there
    assert merged_generation_config(sources, "base")["eos_token_id"] == [50, 52]


# --- side files


@pytest.mark.parametrize(("role", "folder"), [("base", 0), ("quick", 0), ("slow", 1)])
def test_tokenizer_files_are_those_of_the_chosen_parent(tmp_path, pair, sources, role, folder):
    (pair[folder] / "chat_template.jinja").write_text("x")
    (pair[folder] / "merges.txt").write_text("a b")
    (pair[folder] / "additional_chat_templates").mkdir()
    (pair[folder] / "additional_chat_templates" / "tool.jinja").write_text("y")
    out = build(tmp_path / "out", sources, tokenizer=role)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "merges.txt"):
        assert (out / name).read_bytes() == (pair[folder] / name).read_bytes()
    assert (out / "additional_chat_templates" / "tool.jinja").read_text() == "y"


@pytest.mark.parametrize("untied", [True, False])
def test_the_output_loads_in_transformers(tmp_path, sources, untied):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = build(tmp_path / "out", sources, untied=untied)
    model, info = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert model.dtype == torch.bfloat16
    assert model.config.max_position_embeddings == 131072
    assert model.config.rope_parameters["rope_theta"] == 10000
    shared = model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    assert shared is not untied
    assert torch.equal(
        model.model.layers[0].self_attn.q_proj.weight, load_file(out / "model.safetensors")[Q]
    )
    assert model.generation_config.eos_token_id == [50, 52]
    assert model.generation_config.temperature in (None, 1.0)
    assert model.generation_config.max_new_tokens is None
    tokenizer = AutoTokenizer.from_pretrained(out)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "h"}], tokenize=False, add_generation_prompt=True
    )
    assert prompt == "<|im_start|>user\nh<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer("<|im_start|>h", add_special_tokens=False).input_ids == [51, 7]
    made = model.generate(torch.tensor([[51, 7]]), max_new_tokens=3)
    assert made.shape[0] == 1


def test_the_slow_models_tokenizer_goes_with_its_template(tmp_path, sources):
    from transformers import AutoTokenizer

    out = build(tmp_path / "out", sources, tokenizer="slow")
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer.chat_template == R1_TEMPLATE != CHATML
    assert tokenizer.convert_tokens_to_ids("<think>") == 55


def test_a_full_or_missing_folder_is_one_error(tmp_path, sources):
    with pytest.raises(LaconicError, match="nowhere: cannot write the files of the output"):
        write_sidecars(
            tmp_path / "nowhere", sources, tokenizer_role="base", untied=True, dtype="bfloat16"
        )


# --- card


def on_hub(sources, **names):
    return {
        role: Source(names.get(role, names["base"]), s.folder, s.specs, s.stored)
        for role, s in sources.items()
    }


def test_card_front_matter_is_what_the_hub_reads(tmp_path, sources):
    hub = on_hub(sources, base="Qwen/Quick", quick="Qwen/Quick", slow="deepseek-ai/Slow")
    text = card(tmp_path, hub)
    front = yaml.safe_load(text.split("---\n")[1])
    assert front == {
        "base_model": ["Qwen/Quick", "deepseek-ai/Slow"],
        "base_model_relation": "merge",
        "library_name": "transformers",
        "tags": ["merge", "laconic", "long-to-short"],
    }
    assert ModelCardData(**front).to_dict() == front
    loaded = ModelCard.load(tmp_path / "README.md")
    assert loaded.data.base_model == front["base_model"]
    assert loaded.text.lstrip().startswith("# Merged model")


def test_card_of_local_parents_names_no_hub_model(tmp_path, sources):
    front = yaml.safe_load(card(tmp_path, sources).split("---\n")[1])
    assert "base_model" not in front


def test_a_relative_folder_is_no_hub_model(tmp_path, sources, monkeypatch):
    (tmp_path / "my" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    text = card(tmp_path, on_hub(sources, base="my/model", slow="deepseek-ai/Slow"))
    assert yaml.safe_load(text.split("---\n")[1])["base_model"] == ["deepseek-ai/Slow"]


def test_card_tells_recipe_methods_parents_and_decisions(tmp_path, sources, pair):
    text = card(tmp_path, sources)
    assert f"```yaml\n{Written().to_yaml()}```" in text
    assert f"Recipe `{Written.hash}`" in text
    assert "- `ties`: Yadav et al. 2023, arXiv:2306.01708\n" in text
    assert "A merge of 2 checkpoints" in text
    assert f"| base, quick | {pair[0]} | not known here |\n| slow | {pair[1]} |" in text
    assert "- **max_position_embeddings**: differs: quick 4096, slow 131072. The output" in text
    assert "sampling parameters (do_sample, temperature, top_p, top_k)" in text
    assert "&lt;think&gt;" in text
    assert "<think>" not in text  # it would be read as HTML and vanish
    assert NOT_MEASURED in text


@pytest.mark.parametrize(
    ("cards", "expected"),
    [
        (("license: mit", "license: mit"), "mit"),
        (("license: mit", "license: apache-2.0"), None),
        (("license: mit", None), None),
        (("license: [", "license: ["), None),
        (("tags: [x]", "tags: [x]"), None),
    ],
)
def test_a_licence_is_set_only_when_all_parents_state_it(tmp_path, sources, pair, cards, expected):
    for folder, front in zip(pair, cards, strict=True):
        if front:
            (folder / "README.md").write_text(f"---\n{front}\n---\n# Parent\n")
    text = card(tmp_path, sources)
    assert yaml.safe_load(text.split("---\n")[1]).get("license") == expected
    assert ("none is set above" in text) is (expected is None)


RESULTS = [
    {"name": "slow", "accuracy": 0.728, "accuracy_interval": [0.68, 0.77], "tokens": 110.2},
    {"name": "a|b", "accuracy": None, "tokens": 75.0, "tokens_change": -0.318, "cut": 0.0},
]


def test_results_are_a_table_and_unknown_is_not_zero(tmp_path, sources):
    text = card(tmp_path, sources, RESULTS)
    assert "| model | accuracy | mean tokens | change of tokens | cut |" in text
    assert "| slow | 72.8% [68.0%, 77.0%] | 110 | not known | not known |" in text
    assert "| a\\|b | not known | 75 | -31.8% | 0.0% |" in text
    assert NOT_MEASURED not in text


def test_results_are_added_later_and_edits_stay(tmp_path, sources):
    path = tmp_path / "README.md"
    path.write_text(card(tmp_path, sources).replace("# Merged model", "# My merge"))
    add_results(tmp_path, RESULTS)
    once = path.read_text()
    assert once.startswith("---\n")
    assert "# My merge" in once
    assert "72.8%" in once
    assert NOT_MEASURED not in once
    add_results(tmp_path, RESULTS)
    assert path.read_text() == once


def test_results_need_the_marks(tmp_path):
    (tmp_path / "README.md").write_text("# Mine")
    with pytest.raises(LaconicError, match=r"laconic results: begin -->.* are missing"):
        add_results(tmp_path, RESULTS)
    with pytest.raises(LaconicError, match=r"gone/README.md: cannot be read"):
        add_results(tmp_path / "gone", RESULTS)


def test_results_need_a_known_column(tmp_path, sources):
    with pytest.raises(LaconicError, match="no row has any of name, method"):
        card(tmp_path, sources, [{"acuracy": 1.0}])


# --- manifest


def test_two_runs_give_the_same_bytes(tmp_path, sources):
    first, second = (build(tmp_path / name, sources) for name in ("one", "two"))
    assert sorted(p.name for p in first.iterdir()) == sorted(p.name for p in second.iterdir())
    for file in first.iterdir():
        assert file.read_bytes() == (second / file.name).read_bytes(), file.name


def test_json_bytes_do_not_depend_on_the_order_of_keys(tmp_path):
    write_json(tmp_path / "a", {"x": 1, "y": "ü"})
    write_json(tmp_path / "b", {"y": "ü", "x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_manifest_holds_recipe_inputs_tensors_and_files(tmp_path, sources, pair):
    out = build(tmp_path / "out", sources)
    manifest = read_manifest(out)
    assert manifest["recipe"] == RECIPE
    assert manifest["recipe_hash"] == recipe_hash(RECIPE)
    files = manifest["parents"]["slow"]["files"]
    assert files["model.safetensors"] == {
        "bytes": (pair[1] / "model.safetensors").stat().st_size,
        "tensors": Digests().of_file(pair[1] / "model.safetensors"),
    }
    assert {"config.json", "generation_config.json", "tokenizer.json"} < files.keys()
    assert manifest["tensors"][Q]["dtype"] == "BF16"
    assert manifest["tensors"][Q]["shape"] == [32, 32]
    names = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}
    assert manifest["files"].keys() == names
    assert manifest["plan"] == {"untied": True}
    assert manifest["versions"] == versions()


def test_manifest_names_the_revision_of_a_hub_snapshot(tmp_path):
    folder = make_quick(tmp_path / "snapshots" / "abc123")
    opened = open_source(folder)
    assert parent_records({"base": opened})["base"]["revision"] == "abc123"


def test_manifest_refuses_digests_of_other_tensors(tmp_path, sources):
    out = build(tmp_path / "out", sources)
    with pytest.raises(LaconicError, match=r"differ in tensors: \['lm_head.weight'\]"):
        write_manifest(
            out,
            recipe=RECIPE,
            recipe_hash="",
            parents={},
            tensors={n: d for n, d in tensor_digests(out).items() if n != "lm_head.weight"},
            facts={},
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": None}, "'recipe' is missing or is no dict"),
        ({"tensors": 3}, "'tensors' is missing or is no dict"),
        ({"tensors": {"t": {}}}, "tensors: 't' has no blake3"),
        ({"format": 99}, "format 99, this laconic reads 2: update laconic"),
        ({"format": 1}, "format 1 of an older laconic: merge again"),
    ],
)
def test_a_damaged_manifest_is_refused(tmp_path, sources, change, message):
    out = build(tmp_path / "out", sources)
    edit(out / "laconic.json", **change)
    with pytest.raises(LaconicError, match=message):
        read_manifest(out)
    assert message in verify(out).problems[0]


# --- verify


@pytest.mark.parametrize("shards", [1, 3])
def test_an_untouched_output_verifies(tmp_path, sources, shards):
    result = verify(build(tmp_path / "out", sources, shards=shards), inputs=True)
    assert result.ok
    assert result.problems == result.unchecked == ()
    assert result.tensors == len(weights(tied=False))
    assert json.loads(json.dumps(result.to_dict()))["ok"] is True


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def shard(out: Path, number: int) -> Path:
    return out / f"model-0000{number}-of-00003.safetensors"


def flip_tensor(out):
    tensor = open_source(out).stored[Q]
    flip(tensor.file, tensor.offset + 5)


def relabel(out):
    """Same bytes, another dtype: float16 and bfloat16 both have two."""
    file = open_source(out).stored[Q].file
    data = file.read_bytes()
    file.write_bytes(data.replace(b'"BF16"', b'"F16" ', 1))


def stale_index_entry(out):
    index = out / "model.safetensors.index.json"
    raw = json.loads(index.read_text())
    files = sorted(set(raw["weight_map"].values()) - {raw["weight_map"][Q]})
    raw["weight_map"][Q] = files[0]
    index.write_text(json.dumps(raw))


def edit_recipe(out):
    manifest = json.loads((out / "laconic.json").read_text())
    manifest["recipe"]["seed"] = 1
    (out / "laconic.json").write_text(json.dumps(manifest))


DAMAGE = [
    (flip_tensor, rf"-of-00003.safetensors: tensor '{Q}': its bytes changed"),
    (relabel, r"tensor '.*': F16 \[.*\], expected BF16"),
    (lambda out: shard(out, 2).unlink(), r"00002-of-00003.safetensors: cannot be read: No such"),
    (lambda out: shard(out, 2).write_bytes(b"1234"), r"00002-of-00003.safetensors: not a safet"),
    (
        lambda out: shutil.copy(shard(out, 1), out / "model-00004-of-00004.safetensors"),
        r"model-00004-of-00004.safetensors: a weight file that the index does not name",
    ),
    (
        lambda out: shutil.copy(shard(out, 1), out / "model.safetensors"),
        r"out/model.safetensors: a weight file that the index does not name",
    ),
    (
        lambda out: (out / "pytorch_model.bin").write_bytes(b"x"),
        r"pytorch_model.bin: a weight file that the index does not name",
    ),
    (lambda out: edit(out / "config.json", rope_theta=1e6), r"config.json: changed: blake3"),
    (lambda out: (out / "tokenizer.json").unlink(), r"tokenizer.json: missing"),
    (
        lambda out: (out / "adapter_config.json").write_text("{}"),
        r"adapter_config.json: not written by the merge",
    ),
    (stale_index_entry, rf"tensor '{Q}': the index"),
    (
        lambda out: (out / "model.safetensors.index.json").write_text("{}"),
        r"index.json: no weight_map",
    ),
    (edit_recipe, r"laconic.json: the recipe was edited: it hashes to"),
    (lambda out: (out / "laconic.json").unlink(), r"laconic.json: not found; it is written by"),
    (lambda out: (out / "laconic.json").write_text("{"), r"laconic.json: not readable as JSON"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE)
def test_damage_is_found_and_named(tmp_path, sources, damage, message):
    out = build(tmp_path / "out", sources, shards=3)
    damage(out)
    result = verify(out)
    assert not result.ok
    with pytest.raises(LaconicError, match=message):
        raise LaconicError("\n".join(result.problems))


def test_a_missing_shard_names_its_tensors(tmp_path, sources):
    out = build(tmp_path / "out", sources, shards=3)
    names = set(load_file(shard(out, 2)))
    shard(out, 2).unlink()
    problems = "\n".join(verify(out).problems)
    assert all(f"tensor '{name}': missing" in problems for name in names)


def test_a_stale_shard_beside_a_single_file_is_found(tmp_path, sources):
    out = build(tmp_path / "out", sources)
    shutil.copy(out / "model.safetensors", out / "model-00001-of-00002.safetensors")
    assert "does not name" in verify(out).problems[0]


def test_files_that_no_loader_reads_are_no_damage(tmp_path, sources):
    out = build(tmp_path / "out", sources)
    (out / "run").mkdir()
    (out / "run" / "summary.json").write_text("{}")
    (out / "notes.md").write_text("good")
    assert verify(out).ok


def test_a_changed_additional_template_is_found(tmp_path, sources, pair):
    (pair[0] / "additional_chat_templates").mkdir()
    (pair[0] / "additional_chat_templates" / "tool.jinja").write_text("y")
    out = build(tmp_path / "out", sources)
    (out / "additional_chat_templates" / "tool.jinja").write_text("z")
    assert "tool.jinja: changed" in verify(out).problems[0]


def test_results_and_edits_in_the_card_are_no_damage(tmp_path, sources):
    out = build(tmp_path / "out", sources)
    add_results(out, RESULTS)
    assert verify(out).ok


def test_inputs_are_checked_only_when_asked(tmp_path, sources, pair):
    out = build(tmp_path / "out", sources)
    flip(pair[1] / "model.safetensors", -1)
    assert verify(out).ok
    (problem,) = verify(out, inputs=True).problems
    assert problem.startswith(f"input of slow: {pair[1]}: model.safetensors: changed")


def test_inputs_that_are_gone_are_not_problems(tmp_path, sources, pair):
    out = build(tmp_path / "out", sources)
    shutil.rmtree(pair[1])
    result = verify(out, inputs=True)
    assert result.ok
    assert f"input of slow: {pair[1]}: config.json" in result.unchecked


def test_inputs_of_the_hub_are_looked_up_in_the_cache(tmp_path, sources, pair, monkeypatch):
    import huggingface_hub

    asked = []

    def cached(name, file, *, revision):
        asked.append((name, revision))
        return str(pair[1] / file) if name == "deepseek-ai/Slow" else None

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", cached)
    hub = on_hub(sources, base="Qwen/Quick", quick="Qwen/Quick", slow="deepseek-ai/Slow")
    out = build(tmp_path / "out", hub)
    result = verify(out, inputs=True)
    assert result.ok
    assert ("deepseek-ai/Slow", None) in asked
    assert all("Qwen/Quick" in line for line in result.unchecked)


def test_verify_needs_a_folder(tmp_path):
    with pytest.raises(LaconicError, match="no such folder; give the output"):
        verify(tmp_path / "nowhere")

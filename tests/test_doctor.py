import json
import subprocess
import sys

import pytest
import torch

from laconic.diagnosis.blockers import rope
from laconic.diagnosis.doctor import doctor, examine, refuse
from laconic.errors import LaconicError
from laconic.tensors.source import open_source
from tiny_pair import (
    HIDDEN,
    QWEN_SPECIAL,
    ROWS,
    edit,
    make_quick,
    make_slow,
    save_tokenizer,
    save_weights,
    weights,
)


@pytest.fixture
def pair(tmp_path):
    return make_quick(tmp_path / "quick"), make_slow(tmp_path / "slow")


def sources(pair, **others):
    roles = {"base": pair[0], "quick": pair[0], "slow": pair[1], **others}
    return {role: open_source(folder) for role, folder in roles.items()}


def found(diagnosis, topic):
    matches = [finding for finding in diagnosis.findings if finding.topic == topic]
    assert matches, f"no finding on {topic}: {[f.topic for f in diagnosis.findings]}"
    return matches[0]


def test_a_pair_like_the_real_one_can_be_merged(pair):
    diagnosis = doctor(*pair)
    assert diagnosis.ok
    assert diagnosis.blockers == ()


def reshaped(folder, **changes):
    """Change some tensors: a tensor, or None to remove it."""
    tensors = weights(tied=False, seed=2) | changes
    save_weights(folder, {name: t for name, t in tensors.items() if t is not None})


CONFIG_BLOCKERS = [
    ("architecture", {"architectures": ["Qwen3ForCausalLM"]}, "quick Qwen2ForCausalLM, slow Qwen3"),
    ("model type", {"model_type": "llama"}, "quick qwen2, slow llama"),
    ("layers", {"num_hidden_layers": 3}, "quick 2, slow 3"),
    ("attention heads", {"num_attention_heads": 8}, "quick 4, slow 8"),
    ("key-value heads", {"num_key_value_heads": 4}, "quick 2, slow 4"),
    ("key-value heads", {"num_key_value_heads": None}, "quick 2, slow 4"),
    ("hidden size", {"hidden_size": 64}, "quick 32, slow 64"),
    ("intermediate size", {"intermediate_size": 96}, "quick 64, slow 96"),
    ("head size", {"head_dim": 16}, "quick 8, slow 16"),
    ("activation", {"hidden_act": "gelu"}, "quick silu, slow gelu"),
    ("rope_theta", {"rope_theta": 1000000.0}, "quick 10000.0, slow 1000000.0"),
    ("rope_theta", {"rope_theta": None, "rope_parameters": {"rope_theta": 5e5}}, "slow 500000.0"),
    ("rope_scaling", {"rope_scaling": {"type": "yarn", "factor": 4.0}}, "quick none, slow .*yarn"),
    ("rope_scaling", {"rope_parameters": {"rope_type": "linear", "factor": 2}}, "slow .*linear"),
    ("norm epsilon", {"rms_norm_eps": 1e-5}, "quick 1e-06, slow 1e-05"),
    ("attention bias", {"attention_bias": True}, "quick False, slow True"),
    ("sliding window", {"use_sliding_window": True}, "quick not in use, slow 4096, 2"),
    ("vocabulary rows", {"vocab_size": 65}, "slow: config.json says 65 rows, its embedding has 64"),
    ("quantised weights", {"quantization_config": {"quant_method": "gptq"}}, "slow .*gptq"),
]


@pytest.mark.parametrize(("topic", "change", "message"), CONFIG_BLOCKERS)
def test_config_blockers(pair, topic, change, message):
    edit(pair[1] / "config.json", **change)
    diagnosis = doctor(*pair)
    implied = {"head size"} if topic in ("attention heads", "hidden size") else set()
    assert {blocker.topic for blocker in diagnosis.blockers} == {topic} | implied
    with pytest.raises(LaconicError, match=rf"cannot be merged:\n  {topic}: .*{message}"):
        refuse(diagnosis)
    assert diagnosis.blockers[0].action


Q, NORM = "model.layers.1.self_attn.q_proj.weight", "model.norm.weight"
EXPERT = "model.layers.0.mlp.experts.0.up_proj.weight"
TENSOR_BLOCKERS = [
    ("parameter names", {Q: None}, rf"slow .*lacks {Q}$"),
    ("parameter names", {EXPERT: torch.ones(2)}, rf"has besides the base's {EXPERT}$"),
    ("shapes", {NORM: torch.ones(HIDDEN + 1)}, rf"1 of 27 .*{NORM}: \[32\] .*, \[33\] in slow"),
    ("quantised weights", {Q: torch.ones(HIDDEN, HIDDEN, dtype=torch.int8)}, rf"{Q} are I8"),
    (
        "quantised weights",
        {Q: torch.ones(HIDDEN, HIDDEN).to(torch.float8_e4m3fn)},
        rf"1 tensors such as {Q} are F8_E4M3",
    ),
]


@pytest.mark.parametrize(("topic", "change", "message"), TENSOR_BLOCKERS)
def test_tensor_blockers(pair, topic, change, message):
    reshaped(pair[1], **change)
    diagnosis = doctor(*pair)
    assert [blocker.topic for blocker in diagnosis.blockers] == [topic]
    with pytest.raises(LaconicError, match=rf"(?m){topic}: .*{message}"):
        refuse(diagnosis)


def test_vocabulary_rows_are_one_blocker_not_three(pair):
    more = torch.ones(ROWS + 8, HIDDEN)
    reshaped(pair[1], **{"model.embed_tokens.weight": more, "lm_head.weight": more.clone()})
    edit(pair[1] / "config.json", vocab_size=ROWS + 8)
    (blocker,) = doctor(*pair).blockers
    assert blocker.topic == "vocabulary rows"
    assert blocker.values == {"quick": 64, "slow": 72}


def test_a_head_of_another_height_than_the_embedding_is_seen(pair):
    reshaped(pair[1], **{"lm_head.weight": torch.ones(ROWS + 1, HIDDEN)})
    assert [b.topic for b in doctor(*pair).blockers] == ["shapes"]


def test_all_blockers_are_named_in_one_message(pair):
    edit(pair[1] / "config.json", rope_theta=1e6, rms_norm_eps=1e-5)
    with pytest.raises(LaconicError, match=r"(?s)norm epsilon.*rope_theta"):
        refuse(doctor(*pair))


SAME_ROPE = [
    {"rope_theta": 10000},
    {"rope_theta": None},
    {"rope_theta": 1e4, "rope_scaling": {"rope_type": "default"}},
    {"rope_theta": None, "rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}},
    {"rope_theta": None, "rope_parameters": {"rope_type": "default"}},
]


@pytest.mark.parametrize("spelling", SAME_ROPE)
def test_old_and_new_spellings_of_rope_are_the_same(pair, spelling):
    edit(pair[1] / "config.json", **spelling)
    assert doctor(*pair).ok


def test_rope_scaling_is_the_same_in_both_spellings():
    old = {"rope_theta": 1e6, "rope_scaling": {"type": "yarn", "factor": 4.0}}
    new = {"rope_parameters": {"rope_theta": 1e6, "rope_type": "yarn", "factor": 4.0}}
    assert rope(old) == rope(new)


def test_rope_by_kind_of_layer_is_compared():
    one = {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}
    found = rope({"rope_parameters": one})
    assert found["sliding_attention"]["rope_theta"] == 1e4
    assert found["full_attention"]["rope_theta"] == 1e6


def test_rope_theta_of_a_silent_config_is_its_types_default():
    assert rope({"model_type": "mixtral"})["all layers"]["rope_theta"] == 1e6
    assert rope({"model_type": "qwen2"})["all layers"]["rope_theta"] == 1e4


def test_an_unused_window_does_not_count(pair):
    edit(pair[1] / "config.json", sliding_window=99)
    assert doctor(*pair).ok


def test_a_window_without_a_switch_counts(pair):
    for folder, window in zip(pair, (4096, 8192), strict=True):
        edit(
            folder / "config.json",
            model_type="mistral",
            use_sliding_window=None,
            sliding_window=window,
        )
    assert [b.topic for b in doctor(*pair).blockers] == ["sliding window"]


def test_expert_counts_block(pair):
    for folder, count in zip(pair, (8, 16), strict=True):
        edit(folder / "config.json", num_experts=count)
    assert [b.topic for b in doctor(*pair).blockers] == ["experts"]


def test_what_one_config_leaves_out_is_a_note(pair):
    edit(pair[1] / "config.json", moe_intermediate_size=64)
    diagnosis = doctor(*pair)
    assert diagnosis.ok
    assert "not written in every config" in found(diagnosis, "expert size").message


def test_only_the_parent_that_differs_is_named(tmp_path, pair):
    third = make_slow(tmp_path / "third")
    edit(third / "config.json", rope_theta=1e6)
    models = {"base": pair[0], "model 1": pair[1], "model 2": third}
    diagnosis = examine({role: open_source(folder) for role, folder in models.items()})
    assert diagnosis.blockers[0].values == {"base": 1e4, "model 1": 1e4, "model 2": 1e6}


@pytest.mark.parametrize(
    ("policy", "action"),
    [
        ("untie_any", "head of quick is taken to be its embedding, the output is untied"),
        ("base", "head of slow is dropped, as in the paper's code; that costs about 8 points"),
    ],
)
def test_tied_and_untied_is_a_decision(tmp_path, policy, action):
    pair = make_quick(tmp_path / "q", tied=True), make_slow(tmp_path / "s")
    diagnosis = doctor(*pair, tie_policy=policy)
    assert diagnosis.ok
    finding = found(diagnosis, "tied embeddings")
    assert finding.level == "decision"
    assert action in finding.action
    assert finding.values == {"quick": True, "slow": False}


def test_base_policy_with_an_untied_base_keeps_its_head(tmp_path):
    pair = make_quick(tmp_path / "q", tied=False), make_slow(tmp_path / "s", tied=True)
    assert "output is untied" in found(doctor(*pair, tie_policy="base"), "tied embeddings").action


def test_tied_and_untied_is_a_blocker_under_error(tmp_path):
    pair = make_quick(tmp_path / "q", tied=True), make_slow(tmp_path / "s")
    (blocker,) = doctor(*pair, tie_policy="error").blockers
    assert blocker.topic == "tied embeddings"
    assert "tied: quick True, slow False" in blocker.message
    assert "untie_any" in blocker.action


def test_parents_tied_alike_leave_nothing_to_decide(tmp_path):
    pair = make_quick(tmp_path / "q", tied=True), make_slow(tmp_path / "s", tied=True)
    diagnosis = doctor(*pair, tie_policy="error")
    assert diagnosis.ok
    assert "tied embeddings" not in [finding.topic for finding in diagnosis.findings]


@pytest.mark.parametrize(("stored_tied", "words"), [(False, "left out"), (True, "files decide")])
def test_a_config_that_contradicts_the_files(tmp_path, stored_tied, words):
    pair = make_quick(tmp_path / "q", tied=stored_tied), make_slow(tmp_path / "s", tied=stored_tied)
    for folder in pair:
        edit(folder / "config.json", tie_word_embeddings=not stored_tied)
    finding = found(doctor(*pair), "tie flag")
    assert finding.level == "decision"
    assert words in finding.action


def test_positions_become_the_larger(pair):
    finding = found(doctor(*pair), "max_position_embeddings")
    assert finding.message == "differs: quick 4096, slow 131072"
    assert "131072" in finding.action


def test_same_ids_with_different_meaning_are_listed(pair):
    finding = found(doctor(*pair), "token meanings")
    assert finding.level == "decision"
    assert finding.message.startswith("7 of 57 ids mean another token in quick than in slow: ")
    assert "51 is <|im_start|> / <｜User｜>" in finding.message
    assert finding.values["slow"][51] == "<｜User｜>"


def test_two_unrelated_vocabularies_block(pair):
    core = json.loads((pair[1] / "tokenizer.json").read_text())
    core["model"]["vocab"] = {word: 49 - i for word, i in core["model"]["vocab"].items()}
    (pair[1] / "tokenizer.json").write_text(json.dumps(core))
    diagnosis = doctor(*pair)
    assert [b.topic for b in diagnosis.blockers] == ["token meanings"]
    levels = [finding.level for finding in diagnosis.findings]
    assert levels == sorted(levels, key=["blocker", "decision", "note"].index)


def test_think_tags_in_one_tokenizer_only(pair):
    finding = found(doctor(*pair), "think tags")
    assert finding.message == "<think> and </think> are tokens in slow, not in quick"
    assert "55 (<think>) <|box_start|>, 56 (</think>) <|box_end|>" in finding.action
    assert "output.tokenizer: slow keeps" in finding.action
    assert found(doctor(*pair, tokenizer="slow"), "think tags").action == "the output has them"


def test_think_tags_at_other_ids(pair):
    save_tokenizer(pair[0], ["<think>", "</think>"], None)
    finding = found(doctor(*pair), "think tags")
    assert "different ids" in finding.message


def test_tokens_of_one_parent_only(pair):
    finding = found(doctor(*pair), "tokens")
    assert "<|box_end|> and 2 more only in quick" in finding.message
    assert "</think> and 2 more only in slow" in finding.message


@pytest.mark.parametrize("role", ["quick", "slow"])
def test_which_tokenizer_is_taken(pair, role):
    finding = found(doctor(*pair, tokenizer=role), "tokenizer")
    assert finding.action.startswith(f"the tokenizer of {role} ({pair[role == 'slow']})")


def test_the_same_tokenizer_is_a_note(pair):
    save_tokenizer(pair[1], QWEN_SPECIAL, None)
    assert found(doctor(*pair), "tokenizer").level == "note"


def test_a_parent_without_a_tokenizer(pair):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (pair[0] / name).unlink()
    diagnosis = doctor(*pair)
    assert diagnosis.ok
    assert found(diagnosis, "tokenizer").message.startswith("quick has no tokenizer")


@pytest.mark.parametrize("as_file", [False, True])
def test_chat_templates_differ(pair, as_file):
    if as_file:
        edit(pair[1] / "tokenizer_config.json", chat_template=None)
        (pair[1] / "chat_template.jinja").write_text("<think> {{ messages }}")
    finding = found(doctor(*pair), "chat template")
    assert "quick ChatML" in finding.message
    assert "slow own style" in finding.message
    assert "writes <think>" in finding.message
    assert "that of quick" in finding.action


def test_a_missing_chat_template(pair):
    edit(pair[0] / "tokenizer_config.json", chat_template=None)
    finding = found(doctor(*pair), "chat template")
    assert "quick none" in finding.message
    assert "cannot be prompted as chat" in finding.action


def test_special_tokens(pair):
    finding = found(doctor(*pair), "bos_token")
    assert finding.values["quick"]["config"] == 50
    assert finding.values["slow"] == {
        "tokenizer": "<｜begin▁of▁sentence｜>",
        "tokenizer id": 53,
        "config": 53,
        "generation_config": 53,
    }
    assert found(doctor(*pair), "eos_token").level == "decision"
    assert found(doctor(*pair), "pad_token").level == "decision"


def test_add_bos(pair):
    finding = found(doctor(*pair), "add_bos_token")
    assert finding.values == {"quick": False, "slow": True}
    assert "does not add BOS" in finding.action


def test_add_bos_by_the_post_processor(pair):
    edit(pair[1] / "tokenizer_config.json", add_bos_token=None)
    steps = [{"SpecialToken": {"id": "x", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    inner = {"type": "TemplateProcessing", "single": steps}
    edit(pair[1] / "tokenizer.json", post_processor={"type": "Sequence", "processors": [inner]})
    assert found(doctor(*pair), "add_bos_token").values == {"quick": False, "slow": True}


def test_two_bos_are_warned_of(pair):
    notes = doctor(*pair, tokenizer="slow").of("note")
    assert any("add_special_tokens=False" in note.action for note in notes)


def test_sampling_is_dropped_and_stops_united(pair):
    diagnosis = doctor(*pair)
    sampling = found(diagnosis, "generation_config")
    assert sampling.values["slow"] == {"do_sample": True, "temperature": 0.6, "top_p": 0.95}
    assert "dropped" in sampling.action
    stops = found(diagnosis, "stop tokens")
    assert "the output stops at 50 (<|endoftext|>), 52 (<|im_end|>)" in stops.action


def test_stored_dtypes(pair):
    save_weights(pair[1], weights(tied=False, dtype=torch.float32))
    finding = found(doctor(*pair), "dtype")
    assert finding.level == "decision"
    assert finding.message == "stored as quick bfloat16, slow float32"


def test_padding_rows(pair):
    finding = found(doctor(*pair), "padding rows")
    assert finding.message == "64 embedding rows, 57 used: 7 are padding"


def test_token_ids_beyond_the_rows(pair):
    save_tokenizer(pair[0], [f"<{i}>" for i in range(20)], None)
    finding = found(doctor(*pair), "padding rows")
    assert finding.level == "decision"
    assert "ids up to 69, rows: 64" in finding.message


def test_an_instruct_base_is_hinted_at(tmp_path):
    pair = make_quick(tmp_path / "Qwen-1.5B-Instruct"), make_slow(tmp_path / "R1-Distill")
    assert found(doctor(*pair), "base").level == "note"
    plain = make_quick(tmp_path / "Qwen-1.5B-Instructive")
    assert "base" not in [f.topic for f in doctor(plain, pair[1]).findings]
    both = make_slow(tmp_path / "R1-Instruct")
    assert "base" not in [f.topic for f in doctor(pair[0], both).findings]


def test_size_counts_the_head_the_output_gets(tmp_path):
    pair = make_quick(tmp_path / "q", tied=True), make_slow(tmp_path / "s")
    kept = found(doctor(*pair), "size").values["output"]
    dropped = found(doctor(*pair, tie_policy="base"), "size").values["output"]
    assert kept - dropped == 2 * ROWS * HIDDEN
    total = sum(t.numel() for t in weights(tied=False).values())
    assert kept == 2 * total
    assert found(doctor(*pair, dtype="float32"), "size").values["output"] == 4 * total


def test_size_leaves_out_a_stored_head_that_the_config_ties(tmp_path):
    pair = make_quick(tmp_path / "q"), make_slow(tmp_path / "s")
    for folder in pair:
        edit(folder / "config.json", tie_word_embeddings=True)
    total = sum(t.numel() for t in weights(tied=True).values())
    assert found(doctor(*pair), "size").values["output"] == 2 * total


def test_base_of_its_own_is_compared_too(tmp_path, pair):
    base = make_quick(tmp_path / "base")
    edit(base / "config.json", rms_norm_eps=1e-5)
    (blocker,) = doctor(*pair, base).blockers
    assert list(blocker.values) == ["base", "quick", "slow"]


def test_without_a_base_the_first_parent_is_taken(pair):
    both = sources(pair)
    del both["base"]
    assert examine(both).ok


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tie_policy": "bas"}, r"unknown tie_policy 'bas'; did you mean 'base'\?"),
        ({"tokenizer": "slwo"}, r"unknown tokenizer role 'slwo'; did you mean 'slow'\?"),
    ],
)
def test_unknown_choices(pair, options, message):
    with pytest.raises(LaconicError, match=message):
        doctor(*pair, **options)


def test_damaged_tokenizer_names_the_file(pair):
    (pair[1] / "tokenizer.json").write_text("{")
    with pytest.raises(LaconicError, match=r"slow/tokenizer.json: not readable as JSON"):
        doctor(*pair)


def test_a_tokenizer_that_transformers_would_misread_is_noted(pair):
    assert "tokenizer class" not in [f.topic for f in doctor(*pair).findings]
    core = json.loads((pair[0] / "tokenizer.json").read_text())
    edit(pair[0] / "tokenizer.json", model=core["model"] | {"type": "WordLevel"})
    finding = found(doctor(*pair), "tokenizer class")
    assert "quick's tokenizer.json is a WordLevel" in finding.message
    for folder in pair:
        edit(folder / "config.json", model_type="qwen3")
    assert "tokenizer class" not in [f.topic for f in doctor(*pair).findings]


def test_malformed_added_tokens_name_the_folder(pair):
    edit(pair[1] / "tokenizer.json", added_tokens=[{"content": "<x>"}])
    with pytest.raises(LaconicError, match=r"slow: its list of added tokens is malformed"):
        doctor(*pair)


def test_report_as_lines_and_as_data(pair):
    edit(pair[1] / "config.json", rope_theta=1e6)
    diagnosis = doctor(*pair)
    lines = list(diagnosis.lines())
    assert lines[0] == "blocker   rope_theta: differs: quick 10000.0, slow 1000000.0"
    assert lines[1].startswith("          -> ")
    assert lines[-1].startswith("The parents cannot be merged as they are: 1 blockers, ")
    data = json.loads(json.dumps(diagnosis.to_dict()))
    assert data["ok"] is False
    assert data["findings"][0]["level"] == "blocker"


def test_a_hub_pair_is_examined_without_its_weights(pair, monkeypatch):
    import laconic.diagnosis.doctor as module

    asked = []

    def fake(name, *, weights):
        asked.append((name, weights))
        return open_source(pair[name == "deepseek-ai/slow"])

    monkeypatch.setattr(module, "open_source", fake)
    assert doctor("Qwen/quick", "deepseek-ai/slow").ok
    assert asked == [("Qwen/quick", False), ("deepseek-ai/slow", False)]


def test_weights_are_not_read(pair):
    code = (
        "import sys\nfrom laconic.diagnosis.doctor import doctor\n"
        f"assert doctor({str(pair[0])!r}, {str(pair[1])!r}).ok\n"
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"

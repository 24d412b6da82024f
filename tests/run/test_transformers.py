from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from laconic.errors import LaconicError
from laconic.run.completion import Completion
from laconic.run.picking import Noise
from laconic.run.runner import Key
from laconic.run.sample import Message, Sample
from laconic.run.sampling import Sampling
from laconic.run.transformers import TransformersRunner
from run.tiny import SPECIAL, samples, tokenizer, write_checkpoint

GREEDY = Sampling(max_tokens=30)
SAMPLED = Sampling(max_tokens=30, temperature=1.0, top_k=12, top_p=0.95, n=2, seed=3)
WINDOW = 64


def by_key(completions: Sequence[Completion]) -> dict[Key, Completion]:
    found = {completion.key: completion for completion in completions}
    assert len(found) == len(completions)
    return found


def reference(folder: Path, asked: Sequence[Sample]) -> dict[Key, tuple[int, ...]]:
    """transformers' own generate, one prompt at a time: no padding, no batch."""
    model, words = AutoModelForCausalLM.from_pretrained(folder), tokenizer()
    answers = {}
    for sample in asked:
        chat = [{"role": turn.role, "content": turn.content} for turn in sample.messages]
        prompt = words.apply_chat_template(
            chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        out = model.generate(
            **prompt, do_sample=False, temperature=None, max_new_tokens=30, pad_token_id=0
        )
        answers[sample.id, 0] = tuple(out[0, prompt["input_ids"].shape[1] :].tolist())
    return answers


def test_greedy_batches_equal_generate_one_by_one(
    runner: TransformersRunner, checkpoint: Path
) -> None:
    asked = samples(24)
    found = by_key(list(runner.generate(asked, GREEDY)))
    assert {key: one.token_ids for key, one in found.items()} == reference(checkpoint, asked)
    assert {one.stop for one in found.values()} == {"stop", "length"}  # both were tried
    assert len({one.tokens for one in found.values()}) > 4  # rows left and joined


def test_sampled_completions_do_not_depend_on_the_batch(
    runner: TransformersRunner, checkpoint: Path
) -> None:
    asked = samples(16)
    together = by_key(list(runner.generate(asked, SAMPLED)))
    alone = TransformersRunner(checkpoint, device="cpu", batch_size=1)
    assert by_key(list(alone.generate(asked[::-1], SAMPLED))) == together
    done = [key for key in together if key[1] == 0]
    rest = by_key(list(runner.generate(asked, SAMPLED, done)))
    assert rest == {key: one for key, one in together.items() if key not in done}


def test_each_step_uses_the_next_number_of_the_sample(
    runner: TransformersRunner, checkpoint: Path
) -> None:
    # A head of zeros makes all 26 tokens equally likely: the number u picks token 26 u.
    tensors = load_file(checkpoint / "model.safetensors")
    tensors["lm_head.weight"].zero_()
    runner.load(tensors.items())
    for one in runner.generate(samples(9), Sampling(20, 1.0, n=2, seed=3)):
        noise = Noise(3, one.id, one.draw)
        expected = [int(26 * noise[step]) for step in range(20)]
        end = next((i for i, token in enumerate(expected) if token in (0, 2)), 19)
        assert one.token_ids == tuple(expected[: end + 1])


def test_draws_and_seeds_give_other_completions(runner: TransformersRunner) -> None:
    asked = samples(8)
    first = by_key(list(runner.generate(asked, SAMPLED)))
    other = by_key(list(runner.generate(asked, Sampling(30, 1.0, 0.95, 12, 2, seed=4))))
    draws = {d: [first[s.id, d].token_ids for s in asked] for d in (0, 1)}
    assert draws[0] != draws[1]
    assert [other[s.id, 0].token_ids for s in asked] != draws[0]


def test_every_end_token_stops_is_counted_and_is_not_text(runner: TransformersRunner) -> None:
    words = (*SPECIAL, *"0123456789+-= abcdefghij")
    ends = set()
    completions = list(runner.generate(samples(60), Sampling(30, 1.0, n=3)))
    for one in completions:
        assert one.token_ids is not None
        assert one.tokens == len(one.token_ids)
        ended = one.token_ids[-1] in (0, 2)
        assert one.stop == ("stop" if ended else "length")
        kept = one.token_ids[:-1] if ended else one.token_ids
        assert not {0, 2} & set(kept)
        assert one.text == "".join(words[id] for id in kept)
        ends.add(one.token_ids[-1])
    assert {0, 2} <= ends
    assert any("<turn>" in one.text for one in completions)  # special tokens are kept


def test_token_limit_cuts(runner: TransformersRunner) -> None:
    completions = list(runner.generate(samples(12), Sampling(max_tokens=3)))
    assert max(one.tokens for one in completions) == 3
    assert all(one.tokens == 3 for one in completions if one.stop == "length")


def test_context_window_cuts(runner: TransformersRunner) -> None:
    completions = list(runner.generate(samples(12), Sampling(max_tokens=500)))
    cut = [one for one in completions if one.stop == "length"]
    assert {one.prompt_tokens + one.tokens for one in cut} == {WINDOW}


def test_prompt_larger_than_the_window_is_refused_before_anything(
    runner: TransformersRunner,
) -> None:
    long = Sample("long", (Message("user", "1" * WINDOW),))
    with pytest.raises(LaconicError, match=r"'long': its prompt has 66 tokens.*window of 64"):
        next(runner.generate([*samples(2), long], GREEDY))


def test_prompt_is_rendered_by_the_template_and_hashed(runner: TransformersRunner) -> None:
    sample = Sample("q", (Message("user", "1+1="),))
    assert runner.identity(sample).first_prompt == (1, 4, 13, 4, 15, 1)  # <turn>1+1=<turn>
    raw = Sample("raw", text="<turn>1+1=<turn>")
    chat, text = runner.generate([sample, raw], GREEDY)
    assert chat.prompt_tokens == 6
    assert (chat.prompt_sha256, chat.token_ids) == (text.prompt_sha256, text.token_ids)


def test_model_without_chat_template(tmp_path: Path) -> None:
    runner = TransformersRunner(write_checkpoint(tmp_path / "m", template=None), device="cpu")
    with pytest.raises(LaconicError, match=r"no chat template.*copy chat_template\.jinja"):
        next(runner.generate(samples(1), GREEDY))


@pytest.mark.parametrize("stream", [False, True])
def test_load_replaces_the_live_weights(
    runner: TransformersRunner, other: Path, stream: bool
) -> None:
    before = runner.identity(samples(1)[0])
    runner.load(load_file(other / "model.safetensors").items() if stream else other)
    fresh = TransformersRunner(other, device="cpu")
    assert by_key(list(runner.generate(samples(8), GREEDY))) == by_key(
        list(fresh.generate(samples(8), GREEDY))
    )
    after = runner.identity(samples(1)[0])
    assert after.weights != before.weights
    assert (after.weights == fresh.identity(samples(1)[0]).weights) is not stream


def test_load_of_a_part_is_refused_until_a_whole_comes(
    runner: TransformersRunner, checkpoint: Path
) -> None:
    tensors = load_file(checkpoint / "model.safetensors")
    part = {name: tensor for name, tensor in tensors.items() if name != "lm_head.weight"}
    with pytest.raises(LaconicError, match=r"lack 1 of \d+ parameters, first 'lm_head\.weight'"):
        runner.load(part.items())
    with pytest.raises(LaconicError, match="loaded in part only"):
        next(runner.generate(samples(1), GREEDY))
    runner.load(tensors.items())
    assert list(runner.generate(samples(1), GREEDY))


def test_load_refuses_other_names_and_shapes(runner: TransformersRunner) -> None:
    with pytest.raises(LaconicError, match=r"no parameter 'lm_head\.wait'; did you mean 'lm_head"):
        runner.load([("lm_head.wait", torch.zeros(1))])
    with pytest.raises(LaconicError, match=r"'lm_head\.weight' has shape \(2, 3\).*\(26, 32\)"):
        runner.load([("lm_head.weight", torch.zeros(2, 3))])


def test_load_refuses_a_folder_with_other_arithmetic_before_touching_weights(
    runner: TransformersRunner, tmp_path: Path
) -> None:
    before = by_key(list(runner.generate(samples(2), GREEDY)))
    with pytest.raises(LaconicError, match=r"config 'rms_norm_eps' is 0\.1"):
        runner.load(write_checkpoint(tmp_path / "eps", seed=1, rms_norm_eps=0.1))
    with pytest.raises(LaconicError, match="live model expects"):
        runner.load(write_checkpoint(tmp_path / "wide", intermediate_size=128))
    assert by_key(list(runner.generate(samples(2), GREEDY))) == before


def test_tied_model_refuses_two_different_tensors(tmp_path: Path) -> None:
    runner = TransformersRunner(
        write_checkpoint(tmp_path / "tied", tie_word_embeddings=True), device="cpu"
    )
    tensors = load_file(tmp_path / "tied" / "model.safetensors")
    assert "lm_head.weight" not in tensors
    runner.load(tensors.items())  # one tensor serves both names
    head = torch.zeros_like(tensors["model.embed_tokens.weight"])
    with pytest.raises(LaconicError, match="live model ties them"):
        runner.load([*tensors.items(), ("lm_head.weight", head)])


def test_checkpoint_that_lacks_a_parameter_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(LaconicError, match=r"lack 1 parameters, first 'lm_head\.weight'"):
        TransformersRunner(folder, device="cpu")


def test_nan_weights_are_refused(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(LaconicError, match="not numbers"):
        next(TransformersRunner(folder, device="cpu").generate(samples(1), GREEDY))


def test_checkpoint_without_tokenizer_or_config(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(LaconicError, match="no tokenizer in"):
        TransformersRunner(folder, device="cpu")
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(LaconicError, match="its tokenizer cannot be loaded"):
        TransformersRunner(folder, device="cpu")
    tokenizer().save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "nonsense"}))
    with pytest.raises(LaconicError, match="cannot be loaded from"):
        TransformersRunner(folder, device="cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "gpu!"}, "unknown device 'gpu!'"),
        ({"device": "cuda:99"}, "CUDA devices that torch can use"),
        ({"device": "cpu", "dtype": "int8"}, "unknown dtype 'int8'"),
        ({"device": "cpu", "batch_size": 0}, "batch size is 0"),
    ],
)
def test_bad_options(checkpoint: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(LaconicError, match=message):
        TransformersRunner(checkpoint, **options)  # type: ignore[arg-type]


def test_missing_model(tmp_path: Path) -> None:
    with pytest.raises(LaconicError, match="no such folder"):
        TransformersRunner(tmp_path / "nowhere")


def test_thread_count_is_put_back(runner: TransformersRunner) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        responses = runner.generate(samples(4), GREEDY)
        next(responses)
        assert torch.get_num_threads() == 1
        responses.close()  # type: ignore[attr-defined]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)

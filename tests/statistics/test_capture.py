"""What the hooks gather equals a plain loop over one sample at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn

import thinkers
from laconic.errors import LaconicError
from laconic.recipe import Calibration
from laconic.statistics.channels import channel_means
from laconic.statistics.data import Row
from laconic.statistics.fisher import layer_fisher
from laconic.statistics.hooks import watching_gradients, watching_inputs
from laconic.statistics.mutual_information import (
    exact_information,
    histogram_information,
    information,
)
from laconic.statistics.sensitivity import checkpointing, layer_sensitivity, logit_distances
from laconic.statistics.sequences import Tokens, answer_sequences, think_sequences
from laconic.statistics.think import think_inputs

TEXTS = [Tokens(tuple(range(3, 3 + n))) for n in (9, 2, 5, 1, 17)]
ANSWERS = [Tokens(tuple(range(1, 12)), 4), Tokens((5, 6, 7, 8), 1), Tokens((9, 9, 30), 2)]


@pytest.fixture(scope="module")
def model() -> Any:
    return thinkers.model().requires_grad_(False)


def hooks_on(model: nn.Module) -> int:
    modules = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
    return modules + sum(bool(p._post_accumulate_grad_hooks) for p in model.parameters())


def all_inputs(model: Any, texts: list[Tokens], skip: int = 0) -> dict[str, Tensor]:
    """The inputs of every module, one text at a time, (tokens, in), gathered whole."""
    found: dict[str, list[Tensor]] = {}
    for text in texts:
        handles = [
            module.register_forward_pre_hook(
                lambda _m, x, name=name: found.setdefault(name, []).append(x[0][0, skip:])
            )
            for name, module in model.named_modules()
            if isinstance(getattr(module, "weight", None), nn.Parameter) and "embed" not in name
        ]
        with torch.no_grad():
            model(torch.tensor([text.ids]))
        for handle in handles:
            handle.remove()
    return {name: torch.cat(rows) for name, rows in found.items()}


@pytest.mark.parametrize("batch_tokens", [1, 20, 10_000])
@pytest.mark.parametrize("skip", [False, True])
def test_channel_means_equal_a_loop_and_padding_never_counts(
    model: Any, batch_tokens: int, skip: bool
) -> None:
    expected = all_inputs(model, TEXTS, int(skip))
    found = channel_means(model, TEXTS, batch_tokens=batch_tokens, skip_first_token=skip)
    assert found.keys() == expected.keys()
    assert len(found) == 2 * 9 + 2
    for name, rows in expected.items():
        torch.testing.assert_close(
            found[name], rows.double().abs().mean(0), rtol=1e-5, atol=1e-7, msg=name
        )
        assert found[name].dtype == torch.float64


def test_hooks_come_off_after_an_error(model: Any) -> None:
    def fail(_: Tensor) -> None:
        raise RuntimeError("inside a hook")

    modules = [m for m in model.modules() if isinstance(m, nn.Linear)]
    with (
        pytest.raises(RuntimeError, match="inside a hook"),
        watching_inputs((m, fail) for m in modules),
    ):
        assert hooks_on(model) == len(modules)
        model(torch.tensor([[1, 2]]))
    assert hooks_on(model) == 0
    parameters = list(model.parameters())
    with (
        pytest.raises(RuntimeError, match="inside a hook"),
        watching_gradients((p, fail) for p in parameters),
    ):
        model(torch.tensor([[1, 2]])).logits.sum().backward()
    assert hooks_on(model) == 0
    assert all(p.grad is None and not p.requires_grad for p in parameters)


def test_hooks_come_off_when_one_cannot_be_put_on(model: Any) -> None:
    linear = model.lm_head
    with (
        pytest.raises(AttributeError),
        watching_inputs([(linear, print), (None, print)]),  # type: ignore[list-item]
    ):
        pass
    assert hooks_on(model) == 0


def gradients(model: Any, text: Tokens) -> dict[str, Tensor]:
    """The gradient of the mean loss over a text's answer, by plain autograd."""
    model.requires_grad_(True)
    labels = torch.tensor([[-100] * max(text.answer, 1) + list(text.ids[max(text.answer, 1) :])])
    model(torch.tensor([text.ids]), labels=labels).loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    model.requires_grad_(False)
    return found


def test_layer_sensitivity_equals_a_loop(model: Any) -> None:
    expected = torch.zeros(2, dtype=torch.float64)
    for text in ANSWERS:
        for name, gradient in gradients(model, text).items():
            if ".layers." in name:
                layer = int(name.split(".")[2])
                weight = model.get_parameter(name)
                expected[layer] += (weight * gradient).abs().sum(dtype=torch.float64)
    torch.testing.assert_close(layer_sensitivity(model, ANSWERS), expected, rtol=1e-5, atol=0)
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())
    assert not any(m.training for m in model.modules())


def test_layers_are_computed_again_in_the_backward_pass(model: Any) -> None:
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    # not after the forward: the second one ends as soon as all that is needed is there
    handle = model.model.layers[0].mlp.register_forward_pre_hook(count)
    layer_sensitivity(model, ANSWERS[:1])
    handle.remove()
    assert calls == 2
    with checkpointing(model):
        assert not model.model.layers[0].self_attn.training


def test_fisher_equals_a_loop(model: Any) -> None:
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(48, (8, 64), generator=generator).tolist()
    sums, entries = torch.zeros(2, dtype=torch.float64), torch.zeros(2)
    for row in ids:
        for name, gradient in gradients(model, Tokens(tuple(row))).items():
            if ".layers." in name:
                sums[int(name.split(".")[2])] += gradient.double().square().sum()
                entries[int(name.split(".")[2])] += gradient.numel()
    # entries were counted once per sequence: this is the mean over both
    torch.testing.assert_close(layer_fisher(model, 3), sums / entries, rtol=1e-4, atol=0)
    assert not torch.equal(layer_fisher(model, 3), layer_fisher(model, 4))


def test_logit_distances(model: Any) -> None:
    other = thinkers.model(5)
    found = logit_distances([model, other], [ANSWERS[:2], ANSWERS[2:]])
    with torch.no_grad():
        rows = [
            (model(ids).logits - other(ids).logits)[0, text.answer - 1 : -1].norm(dim=-1).mean()
            for text in ANSWERS
            for ids in [torch.tensor([text.ids])]
        ]
    expected = torch.tensor([[0.0, rows[2]], [(rows[0] + rows[1]) / 2, 0.0]]).double()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_think_inputs_are_those_at_the_marks(model: Any) -> None:
    texts = [Tokens(TEXTS[0].ids, 0, (0, 3, 4)), Tokens(TEXTS[4].ids, 0, (16,))]
    found = think_inputs(model, texts)
    whole = [all_inputs(model, [text]) for text in texts]
    assert "model.layers.1.self_attn.k_proj" not in found
    assert "model.norm" not in found
    assert len(found) == 2 * 4 + 1
    for name, rows in found.items():
        expected = torch.cat([whole[0][name][[0, 3, 4]], whole[1][name][[16]]])
        torch.testing.assert_close(rows, expected, msg=name)
    for name, stands in (("k_proj", "q_proj"), ("v_proj", "q_proj")):
        prefix = "model.layers.0.self_attn."
        assert torch.equal(whole[0][prefix + name], whole[0][prefix + stands])


# mutual information


def slow_information(first: list[int], second: list[int]) -> float:
    n = len(first)
    pairs = list(zip(first, second, strict=True))
    total = 0.0
    for a, b in set(pairs):
        both = pairs.count((a, b)) / n
        total += both * float(torch.tensor(both * n * n / (first.count(a) * second.count(b))).log())
    return total


def test_exact_information_counts_equal_values() -> None:
    random = torch.Generator().manual_seed(0)
    first = torch.randint(-3, 4, (200,), generator=random)
    second = (first + torch.randint(0, 3, (200,), generator=random)).clamp(max=4)
    expected = slow_information(first.tolist(), second.tolist())
    assert exact_information(first.float(), second.float()) == pytest.approx(expected, abs=1e-5)


def test_exact_information_edges() -> None:
    values = torch.tensor([1.0, 1.001, 2.0, -0.0, 0.0, 3.0])  # four bfloat16 values
    entropy = -(2 * (2 / 6) * torch.tensor(2 / 6).log() + 2 * (1 / 6) * torch.tensor(1 / 6).log())
    assert exact_information(values, values) == pytest.approx(entropy.item(), abs=1e-6)
    assert exact_information(values, torch.ones(6)) == 0.0
    independent = torch.tensor([0.0, 0, 1, 1]), torch.tensor([0.0, 1, 0, 1])
    assert exact_information(*independent) == 0.0


def test_histogram_information() -> None:
    first = torch.tensor([0.0, 0.1, 0.9, 1.0])
    assert histogram_information(first, first, bins=2) == pytest.approx(0.693147, abs=1e-5)
    assert histogram_information(first, torch.ones(4), bins=2) == pytest.approx(0, abs=1e-9)
    labels = [0, 0, 1, 1]
    second = torch.tensor([0.0, 1.0, 0.2, 0.9])
    expected = slow_information(labels, [0, 1, 0, 1])
    assert histogram_information(first, second, bins=2) == pytest.approx(expected, abs=1e-6)


def test_information_of_two_models(model: Any) -> None:
    other = thinkers.model(5)
    same, apart = information(model, [model, other], TEXTS[:2])
    assert same.groups == apart.groups == (-3, -2, -1, 0, 1)
    assert same.exact.shape == (5, 2)
    assert (same.exact >= apart.exact).all()
    assert (same.exact > apart.exact).any()
    kept: list[Tensor] = []
    for each in (model, other):
        handle = each.model.layers[1].mlp.down_proj.register_forward_hook(
            lambda _m, _x, y: kept.append(y.flatten())
        )
        with torch.no_grad():
            each(torch.tensor([TEXTS[0].ids]))
        handle.remove()
    assert apart.exact[4, 0].item() == exact_information(*kept)
    assert apart.hist[4, 0].item() == histogram_information(*kept)


def test_models_of_other_shapes_are_refused(model: Any) -> None:
    other = thinkers.model(1, num_hidden_layers=1)
    with pytest.raises(LaconicError, match="differ in layers or widths"):
        information(model, [other], TEXTS[:1])


# sequences


def calibration(**settings: Any) -> Calibration:
    return Calibration(data="unused", **settings)


def test_answer_sequences_skip_samples_that_leave_no_answer() -> None:
    rows = [Row("a", "12"), Row("a" * 50, "12"), Row("a", "")]
    tokenizer = thinkers.tokenizer()
    found = answer_sequences(tokenizer, rows, "short", calibration(max_length=40))
    assert len(found) == 1
    assert tokenizer.decode(found[0].ids[found[0].answer :]).replace(" ", "") == "12<end>"
    with pytest.raises(LaconicError, match="none of 3 samples leaves an answer token within"):
        answer_sequences(tokenizer, rows, "short", calibration(max_length=5))


def test_think_sequences_keep_both_tags_and_mark_their_neighbours() -> None:
    tokenizer = thinkers.tokenizer()
    tags = [tokenizer.get_vocab()[tag] for tag in thinkers.TAGS]
    rows = [Row("ab", long="<think>" + "x" * 100 + "</think> 12"), Row("b" * 90, long="x")]
    found = think_sequences(tokenizer, rows, calibration(max_length=30))
    assert len(found) == 1
    ids = found[0].ids
    assert len(ids) == 30
    positions = [ids.index(tag) for tag in tags]
    assert [ids.count(tag) for tag in tags] == [1, 1]
    assert found[0].marks == tuple(p + d for p in positions for d in (-1, 0, 1))


def test_only_a_plain_prompt_is_given_special_tokens() -> None:
    tokenizer = thinkers.tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<end> $A", special_tokens=[("<end>", 0)]
    )
    rows = [Row("ab", long="<think>12</think>")]
    templated = think_sequences(tokenizer, rows, calibration())[0].ids
    tokenizer.chat_template = None
    plain = think_sequences(tokenizer, rows, calibration())[0].ids
    assert (templated[0] == 0, plain[0] == 0) == (False, True)


def test_a_tokenizer_without_think_tags_is_refused() -> None:
    with pytest.raises(LaconicError, match="has no token <think> and no </think>"):
        think_sequences(thinkers.tokenizer(()), [Row("a", long="b")], calibration())


def test_one_gradient_is_alive_at_a_time(model: Any) -> None:
    parameters = list(model.model.layers.parameters())
    alive: list[int] = []

    def count(_: Tensor) -> None:
        alive.append(sum(p.grad is not None for p in model.parameters()))

    with watching_gradients((p, count) for p in parameters):
        model(torch.tensor([[1, 2, 3]])).logits.sum().backward()
    assert alive == [1] * len(parameters)

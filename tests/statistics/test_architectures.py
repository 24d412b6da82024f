"""The capture on other architectures: norms inside attention, no biases, mixtures of experts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from laconic.statistics.channels import channel_means
from laconic.statistics.fisher import layer_fisher
from laconic.statistics.mutual_information import information
from laconic.statistics.sensitivity import layer_sensitivity
from laconic.statistics.sequences import Tokens
from laconic.statistics.think import think_inputs

SMALL = {
    "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4,
}  # fmt: skip
MIXTURE = SMALL | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 12}
TEXTS = [Tokens(tuple(range(1, n)), 1, (1,)) for n in (9, 5, 12)]


def model(name: str, settings: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**settings)
    return getattr(transformers, f"{name}ForCausalLM")(config).eval().requires_grad_(False)


@pytest.mark.parametrize(
    ("name", "settings", "modules"),
    [
        ("Llama", SMALL, 2 * 9 + 2),
        ("Qwen3", SMALL, 2 * 11 + 2),  # q_norm and k_norm too
        ("Qwen3Moe", MIXTURE, 2 * (11 - 3 + 1) + 2),  # a router in place of three linear maps
    ],
)
def test_every_kind_of_statistics(name: str, settings: dict[str, Any], modules: int) -> None:
    made = model(name, settings)
    alone = channel_means(made, TEXTS, batch_tokens=1)
    together = channel_means(made, TEXTS, batch_tokens=1000)
    assert len(alone) == len(together) == modules
    for module, mean in alone.items():
        torch.testing.assert_close(together[module], mean, rtol=1e-4, atol=1e-6, msg=module)
        assert mean.shape == made.get_submodule(module).weight.shape[-1:]
    for values in (layer_sensitivity(made, TEXTS), layer_fisher(made, 0)):
        assert values.shape == (2,)
        assert (values > 0).all()
    (table,) = information(made, [made], TEXTS)
    assert table.groups == (-3, -2, -1, 0, 1)
    assert all(rows.shape[0] == 3 for rows in think_inputs(made, TEXTS).values())

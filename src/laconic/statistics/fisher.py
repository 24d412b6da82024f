"""Fisher information of layers on random tokens, and how far task vectors go in each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from laconic.statistics.sensitivity import layer_sums
from laconic.statistics.sequences import Tokens
from laconic.statistics.weights import read_tensor
from laconic.tensors.names import layer_of
from laconic.tensors.source import Source

SEQUENCES, LENGTH = 8, 64


def layer_fisher(model: Any, seed: int) -> Tensor:
    """Return, by layer, the mean over entries and sequences of g^2, (layers,) float64.

    g is the gradient of the mean next-token loss on one of 8 sequences of 64 uniform random ids.
    """
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(model.config.vocab_size, (SEQUENCES, LENGTH), generator=generator)
    sums = layer_sums(model, [Tokens(tuple(row)) for row in ids.tolist()], _square)
    entries = torch.zeros_like(sums)
    for name, parameter in model.named_parameters():
        if layer_of(name) >= 0:
            entries[layer_of(name)] += parameter.numel()
    return sums / entries / SEQUENCES


def delta_norms(base: Source, experts: Sequence[Source]) -> Tensor:
    """Return, by layer, ||delta||_F^2 summed over the task vectors; holds one tensor at a time."""
    norms = torch.zeros(max(map(layer_of, base.specs)) + 1, dtype=torch.float64)
    for name in base.specs:
        if layer_of(name) >= 0:
            start = read_tensor(base.stored[name])
            norms[layer_of(name)] += sum(
                (read_tensor(expert.stored[name]) - start).square().sum(dtype=torch.float64)
                for expert in experts
            )
    return norms


def _square(_theta: Tensor, gradient: Tensor) -> Tensor:
    return gradient.float().square()

"""Mutual information between what two models compute, group by group and prompt by prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from laconic.errors import LaconicError
from laconic.models import threads_for
from laconic.statistics.hooks import Watch, watching_outputs
from laconic.statistics.sequences import Tokens
from laconic.statistics.view import Information
from laconic.tensors.names import layer_of

BINS = 128
Values = np.ndarray[Any, np.dtype[Any]]


def information(base: Any, others: Sequence[Any], sequences: Sequence[Tokens]) -> list[Information]:
    """Return the mutual information of the base's outputs and each other model's.

    Groups are the decoder layers (outputs of down_proj), embedding, final norm and head. Outputs
    live for one prompt only. Raises LaconicError when the models differ in groups or shapes.
    """
    exact: list[dict[int, list[float]]] = [{} for _ in others]
    hist: list[dict[int, list[float]]] = [{} for _ in others]
    for sequence in sequences:
        start = outputs(base, sequence)
        for index, other in enumerate(others):
            found = start if other is base else outputs(other, sequence)
            _check_groups(start, found)
            for group, output in start.items():
                label = exact_information(output, found[group])
                exact[index].setdefault(group, []).append(label)
                binned = histogram_information(output, found[group])
                hist[index].setdefault(group, []).append(binned)
    return [_table(e, h) for e, h in zip(exact, hist, strict=True)]


def outputs(model: Any, sequence: Tokens) -> dict[int, Tensor]:
    """Return what the groups' modules put out for one prompt, by group, float32 on CPU."""
    found: dict[int, Tensor] = {}

    def watch(group: int) -> Watch:
        def keep(output: Tensor) -> None:
            found[group] = output.detach().float().cpu().flatten()

        return keep

    watches = [(module, watch(group)) for group, module in _groups(model).items()]
    with torch.no_grad(), threads_for(model), watching_outputs(watches):
        model(input_ids=torch.tensor([sequence.ids], device=model.device), use_cache=False)
    return dict(sorted(found.items()))


def exact_information(first: Tensor, second: Tensor) -> float:
    """Return the mutual information in nats with each bfloat16 value as a label of its own."""
    return _information(_bits(first), _bits(second), 1 << 16)


def histogram_information(first: Tensor, second: Tensor, bins: int = BINS) -> float:
    """Return the mutual information in nats of equal-width bins between each one's extremes."""
    return _information(_bin(first, bins), _bin(second, bins), bins)


def _groups(model: Any) -> dict[int, nn.Module]:
    """The module of each group; a layer of experts is watched at its whole MLP."""
    found: dict[int, nn.Module] = {}
    for name, module in model.named_modules():
        layer = layer_of(f"{name}.")
        if (layer >= 0 and name.endswith((".mlp", ".mlp.down_proj"))) or (
            layer < 0 and name.rpartition(".")[2] in ("embed_tokens", "norm", "lm_head")
        ):
            found[layer] = module
    return found


def _check_groups(first: dict[int, Tensor], second: dict[int, Tensor]) -> None:
    shapes = [{group: out.numel() for group, out in each.items()} for each in (first, second)]
    if shapes[0] != shapes[1]:
        raise LaconicError(
            "acm: base and the other model differ in layers or widths, so that their activations "
            "cannot be compared; give models of one architecture and vocabulary size"
        )


def _bits(values: Tensor) -> Values:
    rounded = values.bfloat16() + 0.0  # -0.0 is 0.0
    bits: Values = rounded.view(torch.int16).numpy().view(np.uint16)
    return bits.astype(np.int64)


def _bin(values: Tensor, bins: int) -> Values:
    low, high = values.min(), values.max()
    width = (high - low) / bins
    if width <= 0:
        return np.zeros(values.numel(), np.int64)
    found: Values = ((values - low) / width).long().clamp(0, bins - 1).numpy()
    return found


def _information(first: Values, second: Values, labels: int) -> float:
    """I = log n + (sum c_ab log c_ab - sum c_a log c_a - sum c_b log c_b) / n, c counts."""
    n = len(first)
    pairs = np.unique(first * labels + second, return_counts=True)[1]
    alone = [np.bincount(each) for each in (first, second)]
    total = _entropy_sum(pairs) - sum(_entropy_sum(counts[counts > 0]) for counts in alone)
    return max(float(np.log(n) + total / n), 0.0)


def _entropy_sum(counts: Values) -> float:
    return float((counts * np.log(counts)).sum())


def _table(exact: dict[int, list[float]], hist: dict[int, list[float]]) -> Information:
    groups = tuple(exact)
    tables = [
        torch.tensor([each[group] for group in groups], dtype=torch.float64)
        for each in (exact, hist)
    ]
    return Information(groups, *tables)

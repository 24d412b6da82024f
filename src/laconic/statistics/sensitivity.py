"""How much the loss of a model depends on each of its layers, and how far apart logits are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from laconic.errors import LaconicError
from laconic.models import threads_for
from laconic.statistics.hooks import Watch, watching_gradients
from laconic.statistics.sequences import Tokens
from laconic.tensors.names import layer_of

Reduce = Callable[[Tensor, Tensor], Tensor]


def layer_sensitivity(model: Any, sequences: Sequence[Tokens]) -> Tensor:
    """Return, by layer, the sum over parameters and samples of |theta * g|, (layers,) float64.

    g is the gradient of the mean loss over a sample's answer tokens.
    """
    return layer_sums(model, sequences, lambda theta, g: (theta.float() * g.float()).abs())


def layer_sums(model: Any, sequences: Sequence[Tokens], reduce: Reduce) -> Tensor:
    """Sum reduce(theta, gradient) over the entries of each layer and over samples, float64.

    Every gradient is reduced and freed as soon as it is whole.
    """
    layers = {name: layer_of(name) for name, _ in model.named_parameters()}
    sums = torch.zeros(max(layers.values(), default=-1) + 1, dtype=torch.float64)

    def watch(layer: int, parameter: Tensor) -> Watch:
        def add(gradient: Tensor) -> None:
            sums[layer] += reduce(parameter.detach(), gradient).sum(dtype=torch.float64).cpu()

        return add

    watches = [
        (parameter, watch(layers[name], parameter))
        for name, parameter in model.named_parameters()
        if layers[name] >= 0
    ]
    with threads_for(model), checkpointing(model), watching_gradients(watches):
        for sequence in sequences:
            _loss(model, sequence).backward()  # type: ignore[no-untyped-call]
    if not torch.isfinite(sums).all():
        raise LaconicError(
            f"model '{model.config.name_or_path}': gradients are not finite in {model.dtype}; "
            "calibrate with dtype float32"
        )
    return sums


@contextmanager
def checkpointing(model: Any) -> Iterator[None]:
    """Recompute activations in the backward pass, layer by layer; dropout stays off."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    _switch(model, "enable")
    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    try:
        for layer in layers:
            layer.training = True  # of the layer alone: what is inside it stays in evaluation
        yield
    finally:
        for layer in layers:
            layer.training = False
        _switch(model, "disable")


def _switch(model: Any, what: str) -> None:
    """Call transformers' switch; `gradient_...` is its name before 5.2 and gone in 6."""
    new = getattr(model, f"activation_checkpointing_{what}", None)
    (new or getattr(model, f"gradient_checkpointing_{what}"))()


def logit_distances(models: Sequence[Any], texts: Sequence[Sequence[Tokens]]) -> Tensor:
    """Return g (n, n): g_ij = mean over answer tokens of ||f_i(x) - f_j(x)||_2, x text of model j.

    Raises LaconicError when the models' vocabularies differ in size.
    """
    sizes = {model.config.vocab_size for model in models}
    if len(sizes) > 1:
        raise LaconicError(f"sens_task: logits of {sorted(sizes)} entries cannot be compared")
    found = torch.zeros(len(models), len(models), dtype=torch.float64)
    with torch.no_grad(), threads_for(models[0]):
        for j, sequences in enumerate(texts):
            for sequence in sequences:
                logits = [_answer_logits(model, sequence).float() for model in models]
                for i, other in enumerate(logits):
                    found[i, j] += (other - logits[j]).norm(dim=-1).mean().double().cpu()
            found[:, j] /= len(sequences)
    return found


def _loss(model: Any, sequence: Tokens) -> Tensor:
    logits = _answer_logits(model, sequence).float()
    start = max(sequence.answer, 1)
    return nn.functional.cross_entropy(
        logits, torch.tensor(sequence.ids[start:], device=logits.device)
    )


def _answer_logits(model: Any, sequence: Tokens) -> Tensor:
    """The logits that predict the answer's tokens, (tokens, vocabulary)."""
    ids = torch.tensor([sequence.ids], device=model.device)
    logits: Tensor = model(input_ids=ids, use_cache=False).logits
    return logits[0, max(sequence.answer, 1) - 1 : -1]

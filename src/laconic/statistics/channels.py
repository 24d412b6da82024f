"""Mean |x| of every input channel of a model's modules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from laconic.errors import LaconicError
from laconic.models import threads_for
from laconic.statistics.hooks import watching_inputs
from laconic.statistics.sequences import Tokens, batches


def channel_means(
    model: Any, sequences: Sequence[Tokens], *, batch_tokens: int, skip_first_token: bool = False
) -> dict[str, Tensor]:
    """Return, by module, the mean over all tokens of |x| per input channel, (in,) float64.

    Modules are those that own a `weight` and whose name lacks `embed`: linear maps, norms and the
    head. Padding never counts.
    """
    sums = {name: _Sum(name) for name, module in model.named_modules() if _watched(name, module)}
    modules = dict(model.named_modules())
    mask = _Mask()
    watches = [(modules[name], total.watch(mask)) for name, total in sums.items()]
    with torch.no_grad(), threads_for(model), watching_inputs(watches):
        for ids, real in batches(sequences, batch_tokens):
            mask.real = real.bool().to(model.device)
            if skip_first_token:
                mask.counted = mask.real.clone()
                mask.counted[:, 0] = False
            else:
                mask.counted = mask.real
            attention = real.to(model.device)
            model(input_ids=ids.to(model.device), attention_mask=attention, use_cache=False)
    means = {name: total.mean() for name, total in sums.items()}
    return {name: mean for name, mean in means.items() if mean is not None}


def _watched(name: str, module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, nn.Parameter) and weight.dim() in (1, 2) and "embed" not in name


@dataclass
class _Mask:
    """Which entries of the running batch are tokens, and which of them count; (rows, columns)."""

    real: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.bool))
    counted: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.bool))


@dataclass
class _Sum:
    module: str
    total: Tensor | None = None
    count: int = 0

    def watch(self, mask: _Mask) -> Any:
        def add(x: Tensor) -> None:
            rows = tokens_of(self.module, x, mask.counted, mask.real)
            part = rows.abs().sum(0, dtype=torch.float64)
            self.total = part if self.total is None else self.total + part
            self.count += len(rows)

        return add

    def mean(self) -> Tensor | None:
        return None if self.total is None or not self.count else (self.total / self.count).cpu()


def tokens_of(module: str, x: Tensor, counted: Tensor, real: Tensor) -> Tensor:
    """Return the counted tokens' rows of a module's input, (rows, in).

    x: (batch, columns, ..., in), (batch * columns, in), or the tokens a router sent to an expert,
    which can be told from padding only when there is none. Raises LaconicError when they cannot.
    """
    if x.shape[:2] == counted.shape:
        return x[counted].flatten(0, -2)
    if x.shape[0] == counted.numel():
        return x[counted.flatten()].flatten(0, -2)
    if bool(real.all()):
        return x.flatten(0, -2)
    raise LaconicError(
        f"module '{module}': its inputs {tuple(x.shape)} cannot be told from padding; "
        "calibrate with batch_tokens 1, which runs one sample at a time"
    )

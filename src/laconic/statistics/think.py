"""Inputs of a model's linear modules around think tags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from laconic.models import threads_for
from laconic.statistics.hooks import Watch, watching_inputs
from laconic.statistics.sequences import Tokens

SHARED = {"k_proj": "q_proj", "v_proj": "q_proj", "up_proj": "gate_proj"}
"""Modules that read the same input as another one, which stands for them in the file."""


def input_name(module: str) -> str:
    """Return the module under whose name the inputs of `module` are kept."""
    prefix, dot, last = module.rpartition(".")
    return f"{prefix}{dot}{SHARED.get(last, last)}"


def think_inputs(model: Any, sequences: Sequence[Tokens]) -> dict[str, Tensor]:
    """Return the inputs at the marked positions of all sequences by module, (rows, in).

    Modules that share an input are kept once, under `input_name`. One sequence runs at a time.
    """
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    kept: dict[str, list[Tensor]] = {name: [] for name in names if input_name(name) == name}
    modules = dict(model.named_modules())
    marks: list[int] = []

    def watch(rows: list[Tensor]) -> Watch:
        # a router sends an expert other tokens than those marked: it has no such inputs
        return lambda x: rows.append(_at(x, marks)) if x.dim() == 3 else None

    with (
        torch.no_grad(),
        threads_for(model),
        watching_inputs((modules[name], watch(rows)) for name, rows in kept.items()),
    ):
        for sequence in sequences:
            marks[:] = sequence.marks
            model(input_ids=torch.tensor([sequence.ids], device=model.device), use_cache=False)
    return {name: torch.cat(rows) for name, rows in kept.items() if rows}


def _at(x: Tensor, marks: Sequence[int]) -> Tensor:
    return x[0, list(marks)].cpu()

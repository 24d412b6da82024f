"""Think-guard: keep what the slow model does at its think tags."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from laconic.errors import LaconicError
from laconic.registry import method
from laconic.statistics.view import TensorStatistics

Ridge = Annotated[float, Field(gt=0, le=1)]


@method(
    source="Huang et al. 2026, arXiv:2602.22538",
    kind="wrapper",
    pointwise=False,
    needs=("think_inputs",),
)
def guard(
    experts: Tensor,
    merged: Tensor,
    stats: TensorStatistics,
    *,
    ridge: Ridge = 1e-4,
    rest: Literal["merged", "slow"] = "merged",
) -> Tensor:
    """Remove, from the step slow -> merge, what would change a module's output at think tags.

    theta* = theta_slow + Delta (I - Phi^T (Phi Phi^T + ridge I)^-1 Phi),
    Delta = theta_merged - theta_slow, Phi = inputs of the module around <think> and </think>

    experts: (n, *shape) float32, the slow model last; merged: (*shape) float32, the last axis being
    the input channels. Returns (*shape).
    stats: `think_inputs` (rows, in) of the tensor's module, from the slow model: at each tag, the
      token before it (which emits it) and the token after it.
    ridge: in (0, 1]; rows of Phi are scaled to length 1 first, which leaves their span as it is, so
      that this means the same for every module. What is left of a guarded output's change is about
      ridge of it. (The reference code solves with 1e-4 on unscaled rows.)
    rest: what tensors without think inputs (norms, embedding) are: `merged`, or `slow`, as in RAIN,
      which merges linear modules only.
    Stage 1 of RAIN-Merging, with the slow model as the anchor and any merge as the step; biases of
    guarded modules are the slow model's, and the head is guarded too. First order only: inputs
    of a module move with the modules before it. Packed expert tensors count as the rest.
    The more samples, the more directions are taken from the merge: with more of them than a small
    model has channels nothing is left of the step (`laconic inspect` tells the share that is).
    """
    if stats is None:
        raise LaconicError("guard: needs statistics 'think_inputs'; run `laconic calibrate`")
    slow = experts[-1]
    if stats.think_inputs is None:
        return (merged if rest == "merged" else slow).clone()
    if merged.dim() < 2:
        return slow.clone()
    if stats.think_inputs.shape[1] != merged.shape[-1]:
        raise LaconicError(
            f"guard: think inputs of {stats.think_inputs.shape[1]} channels for a tensor of shape "
            f"{tuple(merged.shape)}; the statistics are of another model"
        )
    rows = _unit_rows(stats.think_inputs)
    gram = rows @ rows.T + ridge * torch.eye(len(rows), dtype=rows.dtype, device=rows.device)
    step = merged - slow
    # (in, rows) and (rows, in): the projector itself would be in x in
    back: Tensor = torch.linalg.solve(gram, rows).float()
    return slow + step - (step @ rows.T.float()) @ back


def share_left(inputs: Tensor, ridge: float) -> float:
    """Return the share of a module's input directions that stay with the merge, 0 to 1.

    inputs: (rows, in).
    """
    rows = _unit_rows(inputs)
    short = rows if len(rows) <= rows.shape[1] else rows.T
    energy = torch.linalg.eigvalsh(short @ short.T).clamp(min=0)
    taken: float = (energy / (energy + ridge)).sum().item()
    return 1 - taken / max(rows.shape[1], 1)


def _unit_rows(inputs: Tensor) -> Tensor:
    return torch.nn.functional.normalize(inputs.double(), dim=1)

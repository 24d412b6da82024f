"""What a method is shown of the statistics while it works on one tensor."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from laconic.errors import LaconicError
from laconic.tensors.names import OTHER_LAYER


@dataclass(frozen=True)
class Information:
    """Mutual information of two models' activations in nats: `exact`, `hist` (groups, samples).

    `groups`: a decoder layer each, or -1 embedding, -2 final norm, -3 head.
    """

    groups: tuple[int, ...]
    exact: Tensor
    hist: Tensor


@dataclass(frozen=True)
class TensorStatistics:
    """The statistics for one tensor; a field is None when its kind was not asked for.

    `layer`: the tensor's decoder layer, negative outside the layers.
    `channel_means` (in,) float64: mean |x| of every input channel of the tensor's module; None
    too for a tensor that is no module's weight.
    `crossed_sensitivity`, `task_sensitivity` (n, layers) float64: layer sums of |theta * g| of each
    expert, on the other parent's answers and on its own.
    `logit_distances` (n, n): mean distance of the logits of experts i and j on the text of j.
    `merged_information`: base against the merge so far; `expert_information`: against each expert.
    `fisher`, `delta_norms` (layers,) float64: mean squared gradient of the base on random tokens,
    and squared norm of the task vectors.
    `think_inputs` (rows, in): inputs of the tensor's module around think tags.
    """

    layer: int = OTHER_LAYER
    channel_means: Tensor | None = None
    crossed_sensitivity: Tensor | None = None
    task_sensitivity: Tensor | None = None
    logit_distances: Tensor | None = None
    merged_information: Information | None = None
    expert_information: tuple[Information, ...] | None = None
    fisher: Tensor | None = None
    delta_norms: Tensor | None = None
    think_inputs: Tensor | None = None

    def on(self, device: torch.device) -> TensorStatistics:
        """Return the statistics with those of the tensor's own channels on a device.

        What belongs to the whole model stays on the host: methods make plain numbers of it.
        """
        means, inputs = self.channel_means, self.think_inputs
        return replace(
            self,
            channel_means=None if means is None else means.to(device),
            think_inputs=None if inputs is None else inputs.to(device),
        )


def required(statistics: TensorStatistics | None, kind: str, method: str) -> Any:
    """Return one field of the statistics; LaconicError naming the method when it is not there."""
    found = None if statistics is None else getattr(statistics, kind)
    if found is None:
        raise LaconicError(
            f"{method}: needs statistics '{kind}', which were not given; "
            "make them with `laconic calibrate RECIPE OUT`"
        )
    return found

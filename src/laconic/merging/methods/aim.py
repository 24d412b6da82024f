"""AIM: protect the base model's salient input channels."""

from __future__ import annotations

from torch import Tensor

from laconic.errors import LaconicError
from laconic.merging.knobs import Share
from laconic.registry import method
from laconic.statistics.view import TensorStatistics


@method(
    source="Nobari et al. 2025, arXiv:2502.02421",
    kind="wrapper",
    pointwise=False,
    needs=("channel_means",),
)
def aim(base: Tensor, merged: Tensor, stats: TensorStatistics, *, omega: Share = 0.4) -> Tensor:
    """Pull a merge back to the base where the base's input channels are most active.

    theta*[:, c] = theta_0[:, c] + (theta_m[:, c] - theta_0[:, c]) (1 - a_c (1 - omega)),
    a_c = A_c / max_c A_c, A_c = mean |x_c| over calibration tokens in the base model

    base, merged: (*shape) float32, the last axis being the input channels. Returns (*shape).
    stats: `channel_means` (in,) of the tensor's module, from the base model.
    omega: the multiplier at the most active channel, from 0 to 1; 1 changes nothing.
    Weights of linear modules (the head too) and of RMS norms, elementwise, are relaxed; biases,
    embeddings and packed expert tensors keep the merge. Means are token-weighted and summed in
    float64; the reference code sums block means in bfloat16. It keeps the first token, whose
    massive activations lower every other a_c; `calibration.skip_first_token` leaves it out.
    The tokenizer alignment of the reference code is left to `laconic doctor`.
    """
    means = None if stats is None else stats.channel_means
    if stats is None:
        raise LaconicError("aim: needs statistics 'channel_means'; run `laconic calibrate`")
    if means is None:
        return merged.clone()
    if merged.dim() == 0 or len(means) != merged.shape[-1]:
        raise LaconicError(
            f"aim: {len(means)} channel means for a tensor of shape {tuple(merged.shape)}; "
            "the statistics are of another model"
        )
    activity = means / means.max() if len(means) and means.max() > 0 else means
    multiplier = (1 - activity * (1 - omega)).float()
    return base + (merged - base) * multiplier

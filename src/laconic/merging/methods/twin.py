"""Twin-Merging without its router: a shared expert and low-rank exclusive knowledge."""

from __future__ import annotations

from torch import Tensor

from laconic.merging.apply import TensorInfo
from laconic.merging.blocks import weighted_sum
from laconic.merging.knobs import Ratio, Scale
from laconic.merging.methods.lore import has_matrix, stays_dense
from laconic.merging.spectrum import rank_of, truncate
from laconic.registry import method


@method(source="Lu et al. 2024, arXiv:2406.15479", pointwise=False, parents=2, streams=stays_dense)
def twin(
    experts: Tensor,
    tensor: TensorInfo,
    *,
    gamma: Scale = 0.5,
    weights: tuple[Scale, Scale] = (0.3, 0.7),
    ratio: Ratio = 0.1,
    embeddings: bool = False,
) -> Tensor:
    """Add what is each parent's own, at low rank and fixed weights, to what they share.

    theta_sh = theta_q + gamma delta, delta = theta_s - theta_q; v_t = SVD_r(theta_t - theta_sh);
    theta* = theta_sh + w_q v_q + w_s v_s
    theta* = theta_q + gamma delta + (w_s (1 - gamma) - w_q gamma) SVD_r(delta), in one SVD

    experts: (2, *shape) float32, quick then slow; the last two dimensions are a matrix. The quick
    model is the base.
    gamma: coefficient of the shared expert; 0.5 shares the average.
    weights: (w_q, w_s), fixed in place of the router's softmax.
    ratio: r = max(1, floor(ratio * min(m, n))) in exact arithmetic; the original code's
      int((1 - 0.9) * 1000) is 99.
    embeddings: truncate embedding and head too, as the original code would; without it they stay
      dense, as vectors and biases do.
    Equal weights with gamma = 0.5 are the average; full rank is task arithmetic. arXiv 2503.20641
    reports no setting; gamma 0.5 and weights (0.3, 0.7) are our reading of its results.
    Ranks up to a twentieth of a large matrix's short side come from a random subspace (arXiv
    1504.05477) whose error is proven to be within 1% of the least, in spectral norm.
    """
    delta = experts[1] - experts[0]
    extra = weights[1] * (1 - gamma) - weights[0] * gamma
    merged = experts[0] + gamma * delta
    if extra == 0:
        return merged
    if has_matrix(tensor, delta, embeddings):
        delta = truncate(delta, rank_of(ratio, delta.shape))
    return merged.add_(delta, alpha=extra)


@method(source="after Lu et al. 2024, arXiv:2406.15479", pointwise=False, streams=stays_dense)
def twin_base(
    base: Tensor,
    experts: Tensor,
    tensor: TensorInfo,
    *,
    alpha: Scale | tuple[Scale, ...] = 0.7,
    ratio: Ratio = 0.1,
    embeddings: bool = False,
) -> Tensor:
    """Add scaled task vectors of low rank to the base: Twin-Merging with nothing shared.

    theta* = theta_0 + sum_i alpha_i SVD_r(theta_i - theta_0)

    base: (*shape) float32; experts: (n, *shape) float32, the parents that are not the base; the
    last two dimensions are a matrix.
    alpha: one coefficient for the sum of all task vectors, or one per parent.
    ratio: r = max(1, floor(ratio * min(m, n))) in exact arithmetic.
    embeddings: truncate embedding and head too; without it they stay dense, as vectors do.
    Low ranks of large matrices come from a random subspace, as for `twin`.
    """
    deltas = experts - base
    if has_matrix(tensor, base, embeddings):
        deltas = truncate(deltas, rank_of(ratio, base.shape))
    return base + weighted_sum(deltas, alpha)

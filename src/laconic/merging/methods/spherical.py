"""Merges on a sphere: SLERP, multi-SLERP and the Karcher mean.

Every result is a sum of the parents; its coefficients follow from their inner products alone. A
quick and a slow model of one ancestor are a few degrees apart, so that all of these come out
within a few parts in ten thousand of the straight line.
"""

from __future__ import annotations

import torch
from torch import Tensor

from laconic.merging.blocks import weighted_sum
from laconic.merging.gram import GramSurvey, cosines
from laconic.merging.knobs import Count, Scale, Weight
from laconic.registry import method

_PARALLEL = 1e-7  # sine of an angle below which the sphere has no direction to go in


def _survey(**_: object) -> GramSurvey:
    return GramSurvey()


@method(source="Shoemake 1985; of models: arXiv:2403.13257", survey=_survey, parents=2)
def slerp(experts: Tensor, survey: Tensor, *, weight: Weight = 0.5) -> Tensor:
    """Interpolate between the quick and the slow model along the arc between them.

    omega = angle(theta_quick, theta_slow);
    theta* = (sin((1 - t) omega) theta_quick + sin(t omega) theta_slow) / sin(omega)

    experts: (2, *shape) float32, quick then slow, each tensor one vector. Returns (*shape).
    weight: t in [0, 1]; 0 is the quick model, 1 the slow one.
    A quick and a slow model are a few degrees apart (cosine about 0.9996), where this is
    interpolation to about one part in ten thousand. mergekit switches to the straight line at
    cosine 0.9995, we only where the sine vanishes.
    """
    cosine = cosines(survey)[0, -1]
    sine = (1 - cosine**2).clamp(min=0).sqrt()
    if sine < _PARALLEL:
        return weighted_sum(experts, (1 - weight, weight))
    omega = torch.atan2(sine, cosine)
    arc = torch.sin(omega * torch.tensor([1 - weight, weight], dtype=torch.float64)) / sine
    return weighted_sum(experts, tuple(arc.tolist()))


@method(source="Goddard et al. 2024, arXiv:2403.13257", survey=_survey)
def multislerp(
    experts: Tensor, survey: Tensor, *, weights: tuple[Scale, ...] | None = None
) -> Tensor:
    """Average the parents' directions and, apart from them, their norms.

    u_i = theta_i / |theta_i|; x = sum_i w_i u_i, normalised; theta* = (sum_i w_i |theta_i|) x

    experts: (n, *shape) float32, each tensor one vector. Returns (*shape).
    weights: w, one per parent, normalised to sum to one; none: equal.
    The method as told steps from x along v = sum_i w_i (u_i - <u_i, x> x), but that is 0 for every
    input, since x is the direction of sum_i w_i u_i. For parents a few degrees apart this is close
    to their average; where the directions cancel it is the straight average.
    """
    sphere = _Sphere(survey, weights)
    mean = sphere.mean()
    if mean is None:
        return weighted_sum(experts, sphere.weights_given)
    return weighted_sum(experts, sphere.coefficients(mean))


@method(source="Karcher 1977; of models: arXiv:2603.04972", survey=_survey)
def karcher(
    experts: Tensor,
    survey: Tensor,
    *,
    weights: tuple[Scale, ...] | None = None,
    iters: Count = 10,
) -> Tensor:
    """Find the point of the sphere with the smallest squared angles to all parents.

    u_i = theta_i / |theta_i|; from their mean, repeat v = sum_i w_i Log_x(u_i), x = Exp_x(v),
    Log_x(u) = (omega / sin(omega)) (u - cos(omega) x); theta* = (sum_i w_i |theta_i|) x

    experts: (n, *shape) float32, each tensor one vector. Returns (*shape).
    weights: w, one per parent, normalised to sum to one; none: equal.
    iters: most steps; it stops when |v| falls below 1e-9.
    For two parents with equal weights this is SLERP's midpoint but for the norm. Parents a few
    degrees apart make it their average of norms and directions: do not expect it to differ from
    `average`. Inner products are summed in float64, whatever the parents' dtype.
    """
    sphere = _Sphere(survey, weights)
    point = sphere.mean()
    if point is None:
        return weighted_sum(experts, sphere.weights_given)
    for _ in range(iters):
        tangent = sphere.tangent(point)
        point = sphere.walk(point, tangent)
        if sphere.norm(tangent) < 1e-9:
            break
    return weighted_sum(experts, sphere.coefficients(point))


class _Sphere:
    """Points written as coefficients (n,) of the parents' unit vectors, float64."""

    def __init__(self, gram: Tensor, weights: tuple[float, ...] | None) -> None:
        count = len(gram)
        raw = torch.tensor(weights or (1.0,) * count, dtype=torch.float64)
        given = raw / raw.sum()
        self._norms = gram.diagonal().sqrt()
        self._cosines = cosines(gram)
        self._length = float((given * self._norms).sum())
        # a parent of norm 0 has no direction; the others share its weight
        pointing = given * (self._norms > 0)
        self._weights = pointing / pointing.sum() if pointing.sum() else pointing
        self.weights_given = tuple(given.tolist())

    def norm(self, vector: Tensor) -> float:
        """Length of a vector given by its coefficients."""
        return float((vector @ self._cosines @ vector).clamp(min=0).sqrt())

    def mean(self) -> Tensor | None:
        """The normalised mean direction; None where directions cancel."""
        norm = self.norm(self._weights)
        return self._weights / norm if norm > _PARALLEL else None

    def tangent(self, point: Tensor) -> Tensor:
        """Log: the mean of the ways from `point` to the parents, each as long as its angle."""
        cosine = (self._cosines @ point).clamp(-1, 1)
        sine = (1 - cosine**2).clamp(min=0).sqrt()
        far = sine > _PARALLEL
        angle = torch.atan2(sine, cosine)
        factor = torch.where(far, angle / sine.clamp(min=_PARALLEL), torch.ones_like(sine))
        pull = self._weights * factor
        return pull - (pull * cosine).sum() * point

    def walk(self, point: Tensor, tangent: Tensor) -> Tensor:
        """Exp: follow a tangent vector along the sphere."""
        length = torch.tensor(self.norm(tangent), dtype=torch.float64)
        moved = torch.cos(length) * point + torch.sinc(length / torch.pi) * tangent
        return moved / self.norm(moved)

    def coefficients(self, point: Tensor) -> tuple[float, ...]:
        """What to multiply the parents with to get `point` at the parents' mean length."""
        units = torch.where(self._norms > 0, point / self._norms, torch.zeros_like(point))
        return tuple((self._length * units).tolist())

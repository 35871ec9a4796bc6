"""From logits to true density ratios: guided decoding takes the discriminator at its word.

A discriminator that tells held-out music from samples of equal number by the logit z says that the
odds are exp(z). Trained networks say so too boldly; a scale and a bias, fitted by likelihood to
logits of pieces that it has not learnt from, mend that, and leave the order of the pieces alone.

References:
    Guo et al., "On calibration of modern neural networks", 2017 (temperature scaling).
    Platt, "Probabilistic outputs for support vector machines", 1999 (scale and bias; targets).
"""

from __future__ import annotations

import torch
from torch import Tensor

from rnngan.discriminator.base import Calibration
from rnngan.errors import UserError

_MOST_STEPS = 100
_FLAT = 1e-10


def fit_calibration(real_logits: Tensor, fake_logits: Tensor) -> Calibration:
    """Scale and bias of the least logistic loss, each side weighing half.

    The targets are Platt's, (n + 1) / (n + 2) for n real pieces and 1 / (n + 2) for n fakes, so
    that the scale stays finite where the discriminator is never wrong.

    Args:
        real_logits: Of held-out pieces, `(real,)`.
        fake_logits: Of samples that it has not learnt from, `(fakes,)`.

    Raises:
        UserError: A side is empty, or a logit is not finite.
    """
    real, fake = (_checked(side) for side in (real_logits, fake_logits))
    logits = torch.cat([real, fake])
    target = torch.cat(
        [
            torch.full_like(real, (len(real) + 1) / (len(real) + 2)),
            torch.full_like(fake, 1 / (len(fake) + 2)),
        ]
    )
    weight = torch.cat([_shares(real), _shares(fake)])
    # Newton's method goes the same way whatever the unit of the logits.
    centre, spread = logits.mean(), logits.std(correction=0).clamp_min(1e-12)
    inputs = torch.stack([(logits - centre) / spread, torch.ones_like(logits)], dim=1)

    def loss(parameters: Tensor) -> Tensor:
        scores = inputs @ parameters
        return (weight * (torch.nn.functional.softplus(scores) - target * scores)).sum()

    parameters = logits.new_zeros(2)
    for _ in range(_MOST_STEPS):
        probs = (inputs @ parameters).sigmoid()
        gradient = inputs.T @ (weight * (probs - target))
        curvature = inputs.T @ (inputs * (weight * probs * (1 - probs))[:, None])
        curvature += 1e-12 * torch.eye(2, dtype=curvature.dtype)
        step = torch.linalg.solve(curvature, gradient)
        size = 1.0
        while size > 1e-6 and loss(parameters - size * step) > loss(parameters):
            size /= 2
        parameters = parameters - size * step
        if gradient.abs().max() < _FLAT:
            break
    scale = parameters[0] / spread
    return Calibration(scale=float(scale), bias=float(parameters[1] - scale * centre))


def expected_calibration_error(
    real_logits: Tensor, fake_logits: Tensor, *, num_bins: int = 10
) -> float:
    """Mean distance between the probability of being real and its frequency, 0 to 1.

    Each side weighs half. The bins are of equal weight in the order of the logits, equal logits in
    one bin. Even a perfect network's is above 0 by chance: about 0.1 for 200 pieces.

    References:
        Guo et al. 2017, eq. 3, with Nixon et al., "Measuring calibration in deep learning", 2019,
        for the equal bins.

    Raises:
        UserError: A side is empty, or a logit is not finite.
    """
    real, fake = (_checked(side) for side in (real_logits, fake_logits))
    logits = torch.cat([real, fake])
    values, which = logits.unique(return_inverse=True)  # type: ignore[no-untyped-call]
    weight = torch.cat([_shares(real), _shares(fake)])
    mass = values.new_zeros(len(values)).index_add_(0, which, weight)
    frequency = values.new_zeros(len(values)).index_add_(0, which[: len(real)], _shares(real))
    bins = ((mass.cumsum(0) - mass / 2) * num_bins).long().clamp(max=num_bins - 1)
    gap = values.new_zeros(num_bins).index_add_(0, bins, mass * values.sigmoid() - frequency)
    return float(gap.abs().sum())


def _checked(logits: Tensor) -> Tensor:
    if not len(logits) or not logits.isfinite().all():
        raise UserError("calibration needs finite logits of at least one piece on each side")
    return logits.detach().double()


def _shares(side: Tensor) -> Tensor:
    return torch.full_like(side, 0.5 / len(side))

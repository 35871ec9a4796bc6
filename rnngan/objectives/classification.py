"""What the discriminator is trained towards, what the generator makes of it, and how well it does.

Logits are positive for real. Every loss is a mean over pieces, to be made small.

References:
    Goodfellow et al., "Generative adversarial nets", 2014 (logistic; the generator's does not
    saturate).
    Salimans et al., "Improved techniques for training GANs", 2016, section 3.4 (one-sided label
    smoothing).
    Lim & Ye, "Geometric GAN", 2017 (hinge).
    Jolicoeur-Martineau, "The relativistic discriminator", 2018.
    Arjovsky, Chintala & Bottou, "Wasserstein GAN", 2017.
    Gulrajani et al., "Improved training of Wasserstein GANs", 2017, eq. 3 (interpolated penalty).
    Mescheder, Geiger & Nowozin, "Which training methods for GANs do actually converge?", 2018,
    eq. 9 (R1).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from rnngan.data.batches import Batch
from rnngan.discriminator.base import Discriminator

Loss = Literal["logistic", "hinge", "relativistic", "wasserstein"]
Penalty = Literal["r1", "interpolated"]


def discriminator_loss(
    kind: Loss, real_logits: Tensor, fake_logits: Tensor, *, label_smoothing: float = 0.0
) -> Tensor:
    """What the discriminator minimises; a scalar.

    Only the logistic one makes its logits log density ratios; the relativistic one up to a
    constant, the others not at all.

    Args:
        kind: Of loss.
        real_logits: `(real,)`.
        fake_logits: `(fakes,)`.
        label_smoothing: See `logistic_loss`; the other losses have no labels.
    """
    match kind:
        case "logistic":
            return logistic_loss(real_logits, fake_logits, label_smoothing=label_smoothing)
        case "hinge":
            return (torch.relu(1 - real_logits).mean() + torch.relu(1 + fake_logits).mean()) / 2
        case "relativistic":
            return F.softplus(-_margins(real_logits, fake_logits)).mean()
        case "wasserstein":
            return fake_logits.mean() - real_logits.mean()


def generator_loss(kind: Loss, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """What a generator minimises whose samples carry a gradient; a scalar.

    Args:
        kind: Of the loss that the discriminator minimises.
        real_logits: `(real,)`; the relativistic loss alone looks at them.
        fake_logits: `(fakes,)`.
    """
    match kind:
        case "logistic":
            return F.softplus(-fake_logits).mean()
        case "relativistic":
            return F.softplus(_margins(real_logits, fake_logits)).mean()
        case "hinge" | "wasserstein":
            return -fake_logits.mean()


def logistic_loss(real_logits: Tensor, fake_logits: Tensor, *, label_smoothing: float) -> Tensor:
    """Mean cross-entropy over both sides, each weighing half; log 2 for logits of 0.

    Only the real side is smoothed: its target is 1 − `label_smoothing`.
    """
    smoothed = torch.full_like(real_logits, 1 - label_smoothing)
    real = F.binary_cross_entropy_with_logits(real_logits, smoothed)
    fake = F.binary_cross_entropy_with_logits(fake_logits, torch.zeros_like(fake_logits))
    return (real + fake) / 2


def _margins(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """By how much each real piece is above each fake.

    The paper's plain relativistic loss (RSGAN) compares each real piece with one fake, drawn at
    random; this is its mean over all draws. Its average loss (RaSGAN) has another optimum, from
    which the density ratio cannot be read.
    """
    return real_logits[:, None] - fake_logits


def gradient_penalty(
    kind: Penalty, discriminator: Discriminator, real: Batch, fakes: Batch
) -> Tensor:
    """How steep the logit is in the embedded pieces; a scalar, to be weighted and added.

    - `r1`: half the squared norm of the gradient at real pieces;
    - `interpolated`: the squared distance of the norm from 1, at a random place, drawn from torch's
      own random numbers, between each real piece and the sample in the same row. Behind the end of
      the shorter one lies silence.

    The embedding is the ground that it is measured on and gets no gradient from it.

    Raises:
        ValueError: `interpolated`, and there are not as many samples as real pieces.
    """
    embedded, lengths = _embedded(discriminator, real)
    if kind == "interpolated":
        others, other_lengths = _embedded(discriminator, fakes)
        if len(others) != len(embedded):
            raise ValueError(f"cannot pair {len(embedded)} real pieces with {len(others)} samples")
        time = max(embedded.shape[1], others.shape[1])
        embedded, others = (F.pad(x, (0, 0, 0, time - x.shape[1])) for x in (embedded, others))
        embedded = torch.lerp(others, embedded, torch.rand(len(embedded), 1, 1).to(embedded))
        lengths = torch.maximum(lengths, other_lengths)
    embedded.requires_grad_()
    # cuDNN's recurrent networks cannot be differentiated twice; torch's own can.
    with torch.backends.cudnn.flags(enabled=False):
        logits = discriminator.judged(embedded, lengths)
        (gradient,) = torch.autograd.grad(logits.sum(), embedded, create_graph=True)
    squares = gradient.square().sum((1, 2))
    if kind == "r1":
        return squares.mean() / 2
    return (squares.clamp_min(1e-24).sqrt() - 1).square().mean()


def _embedded(discriminator: Discriminator, batch: Batch) -> tuple[Tensor, Tensor]:
    """Pieces embedded, without a gradient, and their lengths."""
    tokens, lengths = torch.from_numpy(batch.tokens), torch.from_numpy(batch.lengths)
    with torch.no_grad():
        return discriminator.embedded(tokens, lengths), lengths


def accuracy(real_logits: Tensor, fake_logits: Tensor) -> float:
    """Share judged right, each side weighing half; 0 to 1, a coin has 0.5."""
    real = (real_logits > 0).float().mean()
    fake = (fake_logits <= 0).float().mean()
    return float(real + fake) / 2


def auc(real_logits: Tensor, fake_logits: Tensor) -> float:
    """Chance that a real piece scores above a fake one, ties counting half; 0 to 1."""
    difference = real_logits[:, None] - fake_logits[None, :]
    return float((difference > 0).float().mean() + 0.5 * (difference == 0).float().mean())

"""What the discriminator is trained towards, and how well it does."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def logistic_loss(real_logits: Tensor, fake_logits: Tensor, *, label_smoothing: float) -> Tensor:
    """Mean cross-entropy over both sides, each weighing half; log 2 for logits of 0.

    Only the real side is smoothed (Salimans et al., "Improved techniques for training GANs", 2016,
    section 3.4): its target is 1 − `label_smoothing`.
    """
    smoothed = torch.full_like(real_logits, 1 - label_smoothing)
    real = F.binary_cross_entropy_with_logits(real_logits, smoothed)
    fake = F.binary_cross_entropy_with_logits(fake_logits, torch.zeros_like(fake_logits))
    return (real + fake) / 2


def accuracy(real_logits: Tensor, fake_logits: Tensor) -> float:
    """Share judged right, each side weighing half; 0 to 1, a coin has 0.5."""
    real = (real_logits > 0).float().mean()
    fake = (fake_logits <= 0).float().mean()
    return float(real + fake) / 2


def auc(real_logits: Tensor, fake_logits: Tensor) -> float:
    """Chance that a real piece scores above a fake one, ties counting half; 0 to 1."""
    difference = real_logits[:, None] - fake_logits[None, :]
    return float((difference > 0).float().mean() + 0.5 * (difference == 0).float().mean())

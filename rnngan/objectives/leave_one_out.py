"""Policy gradient on the piece logit with a leave-one-out baseline: the default objective.

For samples y_1 … y_B with rewards r_i (the discriminator's piece logit) the advantage of a sample
is its reward less the mean reward of the others, which leaves the gradient unbiased (Kool 2019,
eq. 8). Every token of a sample carries that advantage into a clipped surrogate (PPO, eq. 7), so
that a batch of samples serves for several updates. The divergence from the frozen
maximum-likelihood generator is added in full, summed over the vocabulary at every visited prefix.

Cost of a step: one batch of samples, one discriminator pass, two generator passes without gradient
(old and reference log-probabilities), and `epochs` generator passes with gradient.

References:
    Kool, van Hoof & Welling, "Buy 4 REINFORCE samples, get a baseline for free!", 2019.
    Ahmadian et al., "Back to basics: revisiting REINFORCE style optimization for learning from
    human feedback in LLMs" (RLOO), 2024.
    Schulman et al., "Proximal policy optimization algorithms", 2017 (clipping; adaptive KL weight,
    section 4).
    Williams, "Simple statistical gradient-following algorithms", 1992.
"""

from __future__ import annotations

import torch
from torch import Tensor


def leave_one_out_advantages(rewards: Tensor) -> Tensor:
    """Each reward less the mean of the others, `(batch,)` from `(batch,)`.

    Raises:
        ValueError: Fewer than two samples.
    """
    count = len(rewards)
    if count < 2:
        raise ValueError(f"a leave-one-out baseline needs at least 2 samples, got {count}")
    return (rewards - rewards.mean()) * (count / (count - 1))


def unit_deviation(advantages: Tensor) -> Tensor:
    """Advantages scaled to standard deviation 1; all zeros where they are all alike.

    The discriminator's logits have no natural scale, and grow as it learns; this keeps the step.
    """
    deviation = advantages.std(unbiased=False)
    return advantages / deviation if deviation > 1e-6 else torch.zeros_like(advantages)


def clipped_surrogate(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, *, clip: float
) -> Tensor:
    """PPO's loss, a mean over tokens: −min(ρA, clip(ρ, 1 ± clip)A) with ρ = π/π_old.

    Args:
        log_probs: Of the drawn tokens under the present generator, `(tokens,)`.
        old_log_probs: Under the generator that drew them, no gradient, `(tokens,)`.
        advantages: Of the samples that the tokens belong to, `(tokens,)`.
        clip: Half-width of the interval of ratios that still give a gradient.
    """
    ratio = (log_probs - old_log_probs).exp()
    clipped = ratio.clamp(1 - clip, 1 + clip)
    return -torch.minimum(ratio * advantages, clipped * advantages).mean()


def kl_divergence(log_probs: Tensor, reference_log_probs: Tensor) -> Tensor:
    """KL(generator ‖ reference) per prefix, nats: `(tokens,)` from two `(tokens, vocab)`.

    Both must forbid the same tokens; those weigh nothing.
    """
    probs = log_probs.exp()
    difference = (log_probs - reference_log_probs).masked_fill(log_probs == -torch.inf, 0.0)
    return (probs * difference).sum(-1)


def entropy(log_probs: Tensor) -> Tensor:
    """Entropy per prefix, nats: `(tokens,)` from `(tokens, vocab)`."""
    return -(log_probs.exp() * log_probs.masked_fill(log_probs == -torch.inf, 0.0)).sum(-1)


def adapted_kl_weight(weight: float, kl: float, target: float) -> float:
    """The weight for the next step: doubled above 1.5 times the target, halved below its 1.5th.

    Schulman et al. 2017, section 4.
    """
    if kl > 1.5 * target:
        return min(weight * 2, 1e3)
    if kl < target / 1.5:
        return max(weight / 2, 1e-4)
    return weight

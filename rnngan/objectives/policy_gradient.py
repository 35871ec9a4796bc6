"""Policy gradient: what the score-function objectives share.

The gradient of an expected reward is E[Σ_t A_t ∇ log π(y_t | y_<t)] (Williams 1992, REINFORCE); the
objectives differ in the advantage A. Each batch of samples serves for `epochs` passes in
`minibatches` parts, whose ratios to the policy that drew them are clipped (PPO, eq. 7). Every
update adds the divergence from the frozen maximum-likelihood generator, in full over the vocabulary
at every prefix visited, and the likelihood of real excerpts of its own.

Cost of a step beside the advantages: two generator passes without gradient (present and reference
log-probabilities), and `epochs` generator passes with gradient over samples and excerpts.

References:
    Williams, "Simple statistical gradient-following algorithms", 1992.
    Schulman et al., "Proximal policy optimization algorithms", 2017 (clipping; adaptive KL weight,
    section 4).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rnngan.data.batches import Batch
from rnngan.objectives.base import Objective, Players, Round
from rnngan.objectives.likelihood import (
    Targets,
    autocast,
    negative_log_likelihood,
    target_log_probs,
    targets_of,
)


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A part of a batch of samples, with what the policy that drew it and the reference say.

    Shapes: `advantages`, `old_log_probs` `(targets,)`; `reference_log_probs` `(targets, vocab)`.
    """

    targets: Targets
    advantages: Tensor
    old_log_probs: Tensor
    reference_log_probs: Tensor


class PolicyGradient(Objective):
    """Clipped policy gradient with a divergence from the reference; subclasses give advantages."""

    def __init__(self, players: Players) -> None:
        super().__init__(players)
        self.kl_weight = players.config.kl_weight

    @abstractmethod
    def advantages(self, game: Round) -> Tensor:
        """Of every sample `(batch,)`, or of every drawn token `(batch, time)`; no gradient.

        Column `time` belongs to token `time` of `game.fakes`; that of Start, which nobody drew, is
        not looked at.
        """

    def update(self, game: Round) -> dict[str, float]:
        """`epochs` passes over the samples, an update for each part; then the KL weight adapts."""
        config = self.players.config
        advantages = self.advantages(game)
        parts = self._parts(game.fakes, advantages)
        sums: dict[str, float] = {}
        for epoch in range(config.epochs):
            for part, excerpt in zip(parts, game.real[epoch * len(parts) :]):
                for name, value in self._learn(part, excerpt).items():
                    sums[name] = sums.get(name, 0.0) + value / (config.epochs * len(parts))
        self.kl_weight = adapted_kl_weight(
            self.kl_weight, sums["kl_to_reference"], config.kl_target
        )
        return sums | {"kl_weight": self.kl_weight}

    def state(self) -> dict[str, Any]:
        """The KL weight."""
        return {"kl_weight": self.kl_weight}

    def restore(self, state: Mapping[str, Any]) -> None:
        """The KL weight."""
        self.kl_weight = state["kl_weight"]

    @torch.no_grad()
    def _parts(self, fakes: Batch, advantages: Tensor) -> list[Drawn]:
        """The batch of samples in parts, with all that stays fixed while the generator moves."""
        players = self.players
        parts = []
        for rows in torch.arange(len(advantages)).chunk(players.config.minibatches):
            lengths = fakes.lengths[rows.numpy()]
            tokens = fakes.tokens[rows.numpy(), : int(lengths.max())]
            targets = targets_of(Batch(tokens=tokens, lengths=lengths), players.grammar)
            with autocast(players.precision):
                old = target_log_probs(players.generator, targets)
                reference = target_log_probs(players.reference, targets)
            part = advantages[rows]
            if part.ndim == 1:
                part = part[:, None].expand(-1, tokens.shape[1])
            parts.append(
                Drawn(
                    targets=targets,
                    advantages=part[:, 1 : tokens.shape[1]][targets.mask],
                    old_log_probs=chosen(old, targets),
                    reference_log_probs=reference,
                )
            )
        return parts

    def _learn(self, part: Drawn, excerpt: Targets) -> dict[str, float]:
        """One update, and its figures."""
        players, config = self.players, self.players.config
        with autocast(players.precision):
            log_probs = target_log_probs(players.generator, part.targets)
            likelihood = negative_log_likelihood(players.generator, excerpt)
        drawn = chosen(log_probs, part.targets)
        surrogate = clipped_surrogate(drawn, part.old_log_probs, part.advantages, clip=config.clip)
        kl = kl_divergence(log_probs, part.reference_log_probs).mean()
        loss = surrogate + self.kl_weight * kl + config.likelihood_weight * likelihood
        norm = self.descend(loss)
        ratio = (drawn.detach() - part.old_log_probs).exp()
        return {
            "generator_loss": loss.item(),
            "surrogate": surrogate.item(),
            "kl_to_reference": kl.item(),
            "train_likelihood_nats": likelihood.item(),
            "entropy": entropy(log_probs.detach()).mean().item(),
            "clipped_rate": float(((ratio - 1).abs() > config.clip).float().mean()),
            "generator_gradient_norm": norm,
        }


def chosen(log_probs: Tensor, targets: Targets) -> Tensor:
    """Log-probabilities of the targets themselves, `(targets,)` from `(targets, vocab)`."""
    return log_probs.gather(1, targets.tokens[:, None]).squeeze(1)


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

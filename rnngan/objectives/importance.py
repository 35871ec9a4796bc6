"""Importance weights from the discriminator's density ratio (MaliGAN), and their distillation.

The best discriminator's calibrated logit is log p_data(y) / p_G(y), so that samples weighted by

    w_i = r_i / Σ_j r_j,        r_i = exp(logit_i)

stand for real music. MaliGAN (Che 2017) climbs their likelihood,
Σ_i (w_i − 1/n) ∇ log π(y_i): the baseline 1/n takes away nothing but noise. As advantages of
`PolicyGradient`, whose gradient is a mean, that is n w_i − 1; they are left in this scale,
because it means something: 0 where the discriminator sees no difference.

With `offline` the samples are the frozen reference's, and so the target stays where it is: the
residual energy-based model p_reference(y) r(y) (Deng 2020). Every step draws `candidates` samples
for each that is learnt, resamples them by weight, and the generator learns the likelihood of what
came out, with dropout as in pretraining.

Self-normalised weights are biased by the order of one over their effective sample size,
1 / Σ w², which is in the log: near 1 a single sample is all that is learnt.

Cost of a step: one batch of samples, one discriminator pass, and what `PolicyGradient` costs.
Offline `candidates` times as many samples and discriminator passes, and then only `epochs` passes
of the generator with gradient over the resampled and the excerpts.

References:
    Che et al., "Maximum-likelihood augmented discrete generative adversarial networks" (MaliGAN),
    2017.
    Deng et al., "Residual energy-based models for text generation", 2020.
    Kitagawa, "Monte Carlo filter and smoother for non-Gaussian nonlinear state space models", 1996
    (systematic resampling).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rnngan.data.batches import Batch
from rnngan.objectives.base import Players, Round, draw, piece_logits
from rnngan.objectives.likelihood import Targets, autocast, negative_log_likelihood, targets_of
from rnngan.objectives.policy_gradient import PolicyGradient


class Importance(PolicyGradient):
    """Samples count as much as the discriminator finds them likelier in real music."""

    def __init__(self, players: Players) -> None:
        super().__init__(players)
        self.from_reference = players.config.offline

    def update(self, game: Round) -> dict[str, float]:
        """One step, weighted or, offline, resampled."""
        if self.from_reference:
            return self._distil(game)
        size = effective_sample_size(self._weights(game.logits)).item()
        return super().update(game) | {"effective_sample_size": size}

    def advantages(self, game: Round) -> Tensor:
        """`(batch,)`, of mean 0, the least −1."""
        return len(game.logits) * self._weights(game.logits) - 1

    def _weights(self, logits: Tensor) -> Tensor:
        """Of samples `(batch,)`, with a sum of 1."""
        return self.players.discriminator.log_ratio(logits).softmax(0)

    def _distil(self, game: Round) -> dict[str, float]:
        """An update for each part of the resampled, in `epochs` passes."""
        players, config = self.players, self.players.config
        pool = draw(
            players.reference,
            players.grammar,
            num=config.batch_size * config.candidates,
            max_length=config.max_length,
            seed=game.seed,
        )
        weights = self._weights(self._judge(pool))
        random = torch.Generator().manual_seed(game.seed)
        rows = systematic_resample(
            weights, config.batch_size, place=float(torch.rand((), generator=random))
        )
        # Copies of a sample come out side by side, and would all fall into one part.
        rows = rows[torch.randperm(len(rows), generator=random)]
        parts = [
            targets_of(rows_of(pool, part), players.grammar)
            for part in rows.chunk(config.minibatches)
        ]
        sums: dict[str, float] = {}
        players.generator.train()
        for update, excerpt in enumerate(game.real):
            for name, value in self._imitate(parts[update % len(parts)], excerpt).items():
                sums[name] = sums.get(name, 0.0) + value / len(game.real)
        players.generator.eval()
        return sums | {
            "effective_sample_size": effective_sample_size(weights).item(),
            "distinct_rate": len(np.unique(rows)) / len(rows),
        }

    @torch.no_grad()
    def _judge(self, pool: Batch) -> Tensor:
        """Logits of all candidates; in batches of the usual size, which some networks look at."""
        players = self.players
        return torch.cat(
            [
                piece_logits(players.discriminator, rows_of(pool, rows), players.precision)
                for rows in torch.arange(len(pool.lengths)).chunk(players.config.candidates)
            ]
        )

    def _imitate(self, part: Targets, excerpt: Targets) -> dict[str, float]:
        """One update of likelihood, and its figures."""
        players, config = self.players, self.players.config
        with autocast(players.precision):
            resampled = negative_log_likelihood(players.generator, part)
            likelihood = negative_log_likelihood(players.generator, excerpt)
        loss = resampled + config.likelihood_weight * likelihood
        return {
            "generator_gradient_norm": self.descend(loss),
            "generator_loss": loss.item(),
            "resampled_nats": resampled.item(),
            "train_likelihood_nats": likelihood.item(),
        }


def effective_sample_size(weights: Tensor) -> Tensor:
    """1 / Σ w²: how many equal weights would be as noisy, 1 to their number (Kish 1965).

    Args:
        weights: `(..., num)`, with a sum of 1.

    Returns:
        `(...,)`.
    """
    return 1 / weights.double().square().sum(-1)


def systematic_resample(weights: Tensor, num: int, *, place: float) -> Tensor:
    """Rows `(num,)`, ascending, each as often as its weight says: ⌊num w⌋ or ⌈num w⌉ times.

    Evenly spaced needles fall on the weights laid end to end, so that a row's expected count is
    exactly num w.

    Args:
        weights: `(batch,)`, with a sum of 1.
        num: How many to take.
        place: Where in its space every needle stands, at least 0 and below 1, drawn uniformly.
    """
    needles = (torch.arange(num, dtype=torch.float64) + place) / num
    ends = weights.double().cumsum(0)
    # Rounding may leave the last end below the last needle.
    return torch.searchsorted(ends, needles * ends[-1], right=True).clamp(max=len(weights) - 1)


def rows_of(batch: Batch, rows: Tensor) -> Batch:
    """These rows, as wide as the longest of them."""
    lengths = batch.lengths[rows.numpy()]
    return Batch(tokens=batch.tokens[rows.numpy(), : lengths.max()], lengths=lengths)

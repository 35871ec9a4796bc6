"""Feature matching with freezing (C-RNN-GAN), for notes as real numbers.

The gradient runs through the samples, which are a function of the noise z that they are made from,
into what the discriminator has pooled of a piece before its last layer, f:

    L = ‖E_x f(x) − E_z f(G(z))‖²                                       (Salimans 2016, section 3.1)

with means over a batch. C-RNN-GAN's own form, the mean of (f(x_i) − f(G(z_i)))² over pairs, has the
variances of both sides on top of that, and so is smallest when all samples are alike.

Freezing (Mogren 2016, section 3): the discriminator is not updated while its loss is below 70 % of
the generator's, and the generator not while the reverse holds. The losses compared are the
cross-entropies

    L_D = (E softplus(−D(x)) + E softplus(D(G(z)))) / 2,    L_G = E softplus(−D(G(z))),

both ln 2 where the discriminator knows nothing; the distance above has another scale.

The generator's way back is cut every `chunk` notes, as in `rnngan.objectives.gumbel`.

Cost of a step: a discriminator pass over real openings; and, unless the generator waits, `epochs`
batches of samples drawn anew with gradient, note by note, with a discriminator pass forth and back.

References:
    Mogren, "C-RNN-GAN: continuous recurrent neural networks with adversarial training", 2016.
    Salimans et al., "Improved techniques for training GANs", 2016.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rnngan.data.batches import Batch
from rnngan.discriminator.base import Discriminator
from rnngan.generator.tuples import TuplesGenerator, noise_of, written
from rnngan.objectives.base import AnyObjective, AnyPlayers, Round, frozen, piece_logits
from rnngan.objectives.classification import generator_loss, logistic_loss
from rnngan.objectives.likelihood import autocast


@dataclass(kw_only=True)
class TuplesPlayers(AnyPlayers):
    """Players with notes as real numbers."""

    generator: TuplesGenerator


class FeatureMatching(AnyObjective):
    """Samples are to look to the discriminator as real music does, on average."""

    openings = True
    freezes = True
    players: TuplesPlayers

    def update(self, game: Round) -> dict[str, float]:
        """`epochs` updates, each on samples of its own; none while the generator waits."""
        players, config = self.players, self.players.config
        with torch.no_grad():
            real_logits = piece_logits(players.discriminator, game.openings, players.precision)
            real = self._features(*_tensors(game.openings))
        losses = {
            "discriminator": float(logistic_loss(real_logits, game.logits, label_smoothing=0.0)),
            "generator": float(generator_loss("logistic", real_logits, game.logits)),
        }
        self.discriminator_waits, generator_waits = waiting(
            losses["discriminator"], losses["generator"], config.freeze_below
        )
        log = {
            "discriminator_cross_entropy": losses["discriminator"],
            "generator_cross_entropy": losses["generator"],
            "generator_waits": float(generator_waits),
        }
        if generator_waits:
            return log
        sums = {"generator_loss": 0.0, "generator_gradient_norm": 0.0}
        for epoch in range(config.epochs):
            first = epoch * config.batch_size
            noise, lengths = noise_of(
                players.generator,
                game.seed,
                range(first, first + config.batch_size),
                max_length=config.max_length,
            )
            with frozen(players.discriminator):
                fakes = written(players.generator, noise, lengths, chunk=config.chunk)
                loss = feature_distance(real, self._features(fakes, lengths))
            norm = self.descend(loss)
            sums["generator_loss"] += loss.item() / config.epochs
            sums["generator_gradient_norm"] += norm / config.epochs
        return log | sums

    def _features(self, notes: Tensor, lengths: Tensor) -> Tensor:
        discriminator: Discriminator = self.players.discriminator
        with autocast(self.players.precision):
            return discriminator.features(notes, lengths)


def _tensors(batch: Batch) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(batch.tokens), torch.from_numpy(batch.lengths)


def feature_distance(real: Tensor, fakes: Tensor) -> Tensor:
    """Squared distance of the means of features `(batch, width)` of the sides; a scalar."""
    return (real.mean(0) - fakes.mean(0)).square().sum()


def waiting(discriminator_loss: float, generator_loss: float, below: float) -> tuple[bool, bool]:
    """Whether the discriminator waits, and whether the generator does.

    Args:
        discriminator_loss: At least 0.
        generator_loss: Likewise, on the same scale.
        below: Share of the other's loss below which a network waits, 0 to 1; 0 for never.
    """
    return (
        discriminator_loss < below * generator_loss,
        generator_loss < below * discriminator_loss,
    )

"""Control: the same number of further likelihood updates, on the same real excerpts.

What refinement must beat: time spent on plain training.

Cost of a step: as many generator passes with gradient as the other objectives spend on excerpts; no
samples, no discriminator.
"""

from __future__ import annotations

from rnngan.objectives.base import Objective, Round
from rnngan.objectives.likelihood import autocast, negative_log_likelihood


class Likelihood(Objective):
    """Maximum likelihood goes on."""

    plays = False

    def update(self, game: Round) -> dict[str, float]:
        """One update per excerpt."""
        players = self.players
        nats, norm = 0.0, 0.0
        players.generator.train()  # with dropout, as in pretraining
        for excerpt in game.real:
            with autocast(players.precision):
                loss = negative_log_likelihood(players.generator, excerpt)
            norm += self.descend(loss) / len(game.real)
            nats += loss.item() / len(game.real)
        players.generator.eval()
        return {"train_likelihood_nats": nats, "generator_gradient_norm": norm}

"""No objective at all: the generator stays as it was pretrained.

What remains of refinement are a discriminator, trained against the generator's samples, and the
residual that every objective with a discriminator fits at its end (`rnngan.training.residual`);
the guide `chains` draws by both. Rounds of committees against what the chains write, each trained
on where the ones before have led, are the adversarial game here, and its player is the way of
drawing instead of the generator's weights.

Cost: none per step, since there are no steps.
"""

from __future__ import annotations

from typing import ClassVar

from rnngan.objectives.base import Objective, Round


class Residual(Objective):
    """Leaves the generator alone."""

    moves: ClassVar[bool] = False

    def update(self, game: Round) -> dict[str, float]:
        """There are no steps to call it."""
        raise AssertionError(f"step {game.step} of an objective without steps")

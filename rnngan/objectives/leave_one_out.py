"""Leave-one-out policy gradient on piece logits (RLOO with PPO's clipping), the default.

For samples y_1 … y_n with rewards r_i (the discriminator's piece logit) the advantage of a sample
is its reward less the mean reward of the others, which leaves the gradient unbiased (Kool 2019,
eq. 8); every token of the sample carries it. What follows is `PolicyGradient`.

Cost of a step: one batch of samples, one discriminator pass, and what `PolicyGradient` costs.

References:
    Kool, van Hoof & Welling, "Buy 4 REINFORCE samples, get a baseline for free!", 2019.
    Ahmadian et al., "Back to basics: revisiting REINFORCE style optimization for learning from
    human feedback in LLMs" (RLOO), 2024.
"""

from __future__ import annotations

from torch import Tensor

from rnngan.objectives.base import Round
from rnngan.objectives.policy_gradient import PolicyGradient, unit_deviation


class LeaveOneOut(PolicyGradient):
    """The reward of a sample is its piece logit."""

    def advantages(self, game: Round) -> Tensor:
        """`(batch,)`, of standard deviation 1."""
        return unit_deviation(leave_one_out_advantages(self.rewards(game)))

    def rewards(self, game: Round) -> Tensor:
        """`(batch,)`."""
        return game.logits


def leave_one_out_advantages(rewards: Tensor) -> Tensor:
    """Each reward less the mean of the others, `(batch,)` from `(batch,)`.

    Raises:
        ValueError: Fewer than two samples.
    """
    count = len(rewards)
    if count < 2:
        raise ValueError(f"a leave-one-out baseline needs at least 2 samples, got {count}")
    return (rewards - rewards.mean()) * (count / (count - 1))

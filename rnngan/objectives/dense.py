"""Dense rewards from a causal head (ScratchGAN).

The head gives every beginning of a piece a potential φ(y_≤t). A token's reward is what it adds,

    r_t = φ(y_≤t) − φ(y_<t),        R_t = Σ_{s≥t} γ^{s−t} r_s        (γ is `discount`),

and its advantage A_t = R_t − b, with b a moving average of earlier steps' R. At γ = 1 the sum is
φ(y) − φ(y_<t), the verdict on the whole less a baseline that is known before token t, so that the
gradient is that of E[φ(y)]. Below 1 it is biased towards what a token does to its neighbourhood.
What follows is `PolicyGradient`.

The paper's reward is 2 D(y_t | y_<t) − 1, with a label for every token; a sum of those grows with
the length of a piece, and ours does not.

Cost of a step: one batch of samples, one discriminator pass for the log and one of the causal head,
and what `PolicyGradient` costs.

References:
    de Masson d'Autume et al., "Training language GANs from scratch" (ScratchGAN), 2019.
    Ng, Harada & Russell, "Policy invariance under reward transformations", 1999 (potentials).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rnngan.errors import UserError
from rnngan.layers import length_mask
from rnngan.objectives.base import Players, Round
from rnngan.objectives.likelihood import autocast
from rnngan.objectives.policy_gradient import PolicyGradient, unit_deviation

_MEMORY = 0.9  # of the moving average, per step


class Dense(PolicyGradient):
    """Every token's advantage is what it and those after it add to the potential."""

    def __init__(self, players: Players) -> None:
        """Begin without a baseline: that of the first step is its own mean.

        Raises:
            UserError: The discriminator has no causal head.
        """
        super().__init__(players)
        if not players.discriminator.config.causal_head:
            raise UserError(
                "objective dense needs a discriminator that judges beginnings: "
                "discriminator.causal_head must be true, got false"
            )
        self.baseline: float | None = None

    def advantages(self, game: Round) -> Tensor:
        """`(batch, time)`, of standard deviation 1 over all that was drawn; 0 elsewhere."""
        players = self.players
        tokens, lengths = torch.from_numpy(game.fakes.tokens), torch.from_numpy(game.fakes.lengths)
        with torch.no_grad(), autocast(players.precision):
            potentials = players.discriminator.potentials(tokens, lengths)
        rewards = rewards_to_go(potentials.float(), lengths, discount=players.config.discount)
        drawn = length_mask(lengths, tokens.shape[1])
        drawn[:, 0] = False
        mean = float(rewards[drawn].mean())
        baseline = mean if self.baseline is None else self.baseline
        self.baseline = _MEMORY * baseline + (1 - _MEMORY) * mean
        advantages = torch.zeros_like(rewards)
        advantages[drawn] = unit_deviation(rewards[drawn] - baseline)
        return advantages

    def state(self) -> dict[str, Any]:
        """The KL weight and the baseline."""
        return super().state() | {"baseline": self.baseline}

    def restore(self, state: Mapping[str, Any]) -> None:
        """The KL weight and the baseline."""
        super().restore(state)
        self.baseline = state["baseline"]


def rewards_to_go(potentials: Tensor, lengths: Tensor, *, discount: float) -> Tensor:
    """Discounted sums of the rewards from each token on, `(batch, time)`; 0 for Start and padding.

    Args:
        potentials: Of the beginnings that end with each token, `(batch, time)`.
        lengths: `(batch,)`.
        discount: Weight of a reward one token later.
    """
    inside = length_mask(lengths, potentials.shape[1])
    rewards = potentials.diff(dim=1) * inside[:, 1:]
    to_go = torch.zeros_like(potentials)
    later = torch.zeros_like(potentials[:, 0])
    for time in range(potentials.shape[1] - 1, 0, -1):
        later = rewards[:, time - 1] + discount * later
        to_go[:, time] = later
    return to_go

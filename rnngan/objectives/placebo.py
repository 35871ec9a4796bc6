"""Placebos: leave-one-out with rewards that say nothing of the sample.

Whatever they gain, the discriminator did not give: regularisation, the likelihood that is mixed in,
or more updates. SeqGAN's gains were matched by a constant reward (its issue 21).

Cost of a step: that of leave-one-out; the discriminator is trained all the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rnngan.objectives.base import Round
from rnngan.objectives.leave_one_out import LeaveOneOut


class PlaceboConstant(LeaveOneOut):
    """The reward is 1, so that the baseline leaves nothing of it."""

    def rewards(self, game: Round) -> Tensor:
        """`(batch,)`."""
        return torch.ones_like(game.logits)


class PlaceboRandom(LeaveOneOut):
    """The reward is standard normal noise."""

    def rewards(self, game: Round) -> Tensor:
        """`(batch,)`."""
        return torch.randn(len(game.logits), generator=torch.Generator().manual_seed(game.seed))


class PlaceboShuffled(LeaveOneOut):
    """The reward is the logit of another sample of the batch: right in distribution, and wrong."""

    def rewards(self, game: Round) -> Tensor:
        """`(batch,)`, no sample with its own (a random cyclic permutation; Sattolo 1986)."""
        order = torch.randperm(len(game.logits), generator=torch.Generator().manual_seed(game.seed))
        shuffled = torch.empty_like(game.logits)
        shuffled[order] = game.logits[order.roll(1)]
        return shuffled

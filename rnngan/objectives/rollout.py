"""Monte-Carlo action values: every beginning is judged by how it may go on (SeqGAN).

The reward of a whole piece is the probability D that the discriminator gives it of being real. The
value of token t is its mean over `rollouts` completions of the piece up to t by the generator
itself, and of the last token the reward itself (Yu 2017, eq. 4):

    Q(y_≤t) = 1/N Σ_k D(completion k of y_≤t),    gradient E[Σ_t Q(y_≤t) ∇ log π(y_t | y_<t)]

The paper has no baseline. Here the advantage of token t is its value less the mean of the other
samples' values at t, those that have ended by then counting with their rewards; like any baseline
that does not look at the sample, it leaves the expected gradient as it is. What follows is
`PolicyGradient`.

Cost of a step, for samples of T tokens: one batch of samples; at most `rollouts` · T²/2 generator
steps and `rollouts` · T discriminator passes per sample (`rnngan.generator.rollouts` leaves out
those that would come twice); and what `PolicyGradient` costs. By far the dearest objective: its
cost grows with the square of the length.

Memory: a step never holds more than `_WAITING` completions and those that grow at the time.

References:
    Yu, Zhang, Wang & Yu, "SeqGAN: sequence generative adversarial nets with policy gradient", 2017.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from rnngan.data.batches import Batch
from rnngan.discriminator.base import Discriminator
from rnngan.generator.rollouts import Completions, completions
from rnngan.generator.sampling import uniforms
from rnngan.layers import length_mask
from rnngan.objectives.base import Round, piece_logits
from rnngan.objectives.leave_one_out import leave_one_out_advantages
from rnngan.objectives.policy_gradient import PolicyGradient, unit_deviation

_WAITING = 4096
"""Completions gathered, at the least, before they are sorted by length and judged."""
_JUDGED = 512
"""Completions that the discriminator takes at once; more gain nothing and leave the caches."""


class Rollout(PolicyGradient):
    """The value of a token is the mean probability of its completions."""

    def advantages(self, game: Round) -> Tensor:
        """`(batch, time)`, of standard deviation 1 over the tokens drawn."""
        values = self.values(game)
        advantages = torch.stack([leave_one_out_advantages(now) for now in values.T], dim=1)
        drawn = length_mask(torch.from_numpy(game.fakes.lengths), values.shape[1])
        drawn[:, 0] = False
        advantages[drawn] = unit_deviation(advantages[drawn])
        return advantages

    def values(self, game: Round) -> Tensor:
        """Of every token, `(batch, time)`, 0 to 1; behind the end the value of the last.

        Column 0 means nothing: nobody chose Start.
        """
        players, fakes = self.players, game.fakes
        (batch, time), num = fakes.tokens.shape, players.config.rollouts
        # The numbers below `batch` have drawn the samples, if the seed was the same.
        draws = uniforms(game.seed, range(batch, batch + batch * num), players.config.max_length)
        found = completions(
            players.generator,
            players.grammar,
            torch.from_numpy(fakes.tokens),
            torch.from_numpy(fakes.lengths),
            draws.reshape(batch, num, -1),
        )
        values = game.logits.sigmoid()[:, None, None].repeat(1, time, num)
        left = torch.zeros(values.shape, dtype=torch.bool)
        for some, probs in judged(players.discriminator, found, players.precision):
            left[some.pieces, some.time, some.numbers] = True
            values[some.pieces, some.time, some.numbers] = probs
        for now in reversed(range(time - 1)):
            values[:, now] = torch.where(left[:, now], values[:, now], values[:, now + 1])
        return values.mean(2)


def judged(
    discriminator: Discriminator, found: Iterable[Completions], precision: str
) -> Iterator[tuple[Completions, Tensor]]:
    """The completions, each with its probability of being real `(num,)`.

    Like lengths are judged together, so that little of it is padding.
    """
    waiting: list[Completions] = []

    def probs() -> Iterator[tuple[Completions, Tensor]]:
        lengths = torch.cat([some.lengths for some in waiting])
        tokens = torch.cat([some.tokens for some in waiting])
        logits = torch.empty(len(lengths))
        for rows in torch.split(lengths.argsort(descending=True), _JUDGED):
            longest = int(lengths[rows[0]])
            batch = Batch(tokens=tokens[rows, :longest].numpy(), lengths=lengths[rows].numpy())
            with torch.inference_mode():
                logits[rows] = piece_logits(discriminator, batch, precision)
        counts = [len(some.lengths) for some in waiting]
        yield from zip(waiting, torch.split(logits.sigmoid(), counts))

    for some in found:
        waiting.append(some)
        if sum(len(each.lengths) for each in waiting) >= _WAITING:
            yield from probs()
            waiting = []
    if waiting:
        yield from probs()

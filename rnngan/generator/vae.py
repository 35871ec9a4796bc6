"""A recurrent variational autoencoder: music to a point in a space, and points back to music."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rnngan.config import GeneratorConfig
from rnngan.generator.cells import LSTM
from rnngan.generator.clock import Clock
from rnngan.generator.encoder import Encoded, Encoder, EncoderDecoder, picked
from rnngan.generator.recurrent import State
from rnngan.layers import length_mask, reset_recurrent
from rnngan.music.tokenizers.events import Events

_LOUD, _QUIET = 4.0, 0.2
"""How much more than usual a latent counts in the decoder before anything is learnt, and the
deviation of the noise on it."""
_MOST_BARS = 64
"""Bars that the upper decoder plans; what comes later stands under the last plan."""


class VAE(EncoderDecoder):
    """Reads a piece, keeps a few numbers of it, and writes it again from those.

    The encoder reads in both directions and tells mean μ and log-variance ln σ² of a normal
    distribution q(z|x). From z = μ + σ ε come the states that the decoder begins with, and z stands
    beside the tokens that it reads. What is to be made small is the bound

        −ln p(x) ≤ −E_q ln p(x|z) + KL(q(z|x) ‖ N(0, 1)).

    z has slots, each for an equal share of the time of `config.bars` bars. What the encoder tells
    of a slot is what it has read forwards up to the slot's end, and backwards down to its
    beginning; beside a token stand the slot in which it is and the next one. So no note has far to
    go from encoder to decoder. A single slot, read at both ends of the piece and standing
    beside every token, is the autoencoder of Bowman et al., which learns to use it slowly if at
    all.

    With `hierarchical` an upper LSTM makes a plan of every bar from z, and the plan of the open bar
    stands beside the tokens in place of z. The lower decoder goes on over bar lines, where that of
    MusicVAE begins anew.

    A generator of the kind `autoencoder` tells μ alone, and pays nothing for it.

    Args:
        config: Of the network.
        tokenizer: Of the tokens.

    References:
        Kingma & Welling, "Auto-encoding variational Bayes", 2014. Bowman et al., "Generating
        sentences from a continuous space", 2016, with its dropout of the decoder's words. Roberts
        et al., "A hierarchical latent vector model for learning long-term structure in music"
        (MusicVAE), 2018.
    """

    def __init__(self, config: GeneratorConfig, tokenizer: Events) -> None:
        hidden, latent = config.hidden_size, config.latent_size
        of_slot = latent // config.latent_slots
        super().__init__(
            config,
            len(tokenizer.vocabulary),
            cell=LSTM,
            told_size=hidden if config.hierarchical else min(2 * of_slot, latent),
        )
        self.bar = tokenizer.bar
        self.clock = Clock(tokenizer)
        self.encoder = Encoder(config.embedding_size, hidden)
        self.mean = nn.Linear(2 * hidden, of_slot)
        self.log_variance: nn.Linear | None = None
        if config.kind == "vae":
            self.log_variance = nn.Linear(2 * hidden, of_slot)
        # As torch begins, a latent is small beside noise and tokens of deviation 1, and the decoder
        # learns to do without it before it has learnt to read it.
        nn.init.normal_(self.mean.weight, std=_LOUD / hidden**0.5)
        if self.log_variance is not None:
            nn.init.constant_(self.log_variance.bias, 2 * math.log(_QUIET))
        self.layers()[0][0].data[:, config.embedding_size :] *= _LOUD
        self.bridge = nn.Linear(latent, config.num_layers * hidden)
        self.plan: nn.LSTM | None = None
        if config.hierarchical:
            self.plan = nn.LSTM(latent, hidden, batch_first=True)
            reset_recurrent(self.plan)

    def posterior(self, source: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of what is kept of pieces, both `(batch, latent)`.

        Of an autoencoder the log-variance is −∞.
        """
        embedded = self.embedding_dropout(self.embedding(source))
        states, _ = self.encoder(embedded, lengths)
        slots, _ = self._slots(source, self.clock.start(len(source)))
        ends = ends_of_slots(states, slots, lengths, self.config.latent_slots)
        mean = self.mean(ends).float().flatten(1)
        if self.log_variance is None:
            return mean, torch.full_like(mean, -torch.inf)
        return mean, self.log_variance(ends).float().flatten(1)

    def _slots(self, tokens: Tensor, clock: Tensor) -> tuple[Tensor, Tensor]:
        """Slot in which each token stands `(batch, time)`, and the clock after them."""
        num_slots, num_bars = self.config.latent_slots, self.config.bars
        ticks, after = self.clock(tokens, clock)
        length = self.clock.bar_sizes(tokens, clock) * num_bars
        return (ticks * num_slots // length.clamp(min=1)).clamp(max=num_slots - 1), after

    def encode(
        self, source: Tensor, lengths: Tensor, random: torch.Generator | None = None
    ) -> Encoded:
        """Read pieces; z is drawn from q, or without `random` its mean."""
        mean, log_variance = self.posterior(source, lengths)
        latent = mean
        if random is not None:
            noise = torch.randn(mean.shape, generator=random, device=mean.device)
            latent = mean + (log_variance / 2).exp() * noise
        divergence = mean[:, :0]
        if self.log_variance is not None:
            divergence = divergence_from_prior(mean, log_variance)
        return Encoded(self.begin(latent), divergence)

    def begin(self, latent: Tensor) -> State:
        """State before the first token of pieces from latents `(batch, latent)`."""
        hidden = self.bridge(latent).tanh().chunk(self.config.num_layers, dim=1)
        source: tuple[Tensor, ...] = (latent, self.clock.start(len(latent)))
        if self.plan is not None:
            zeros = (torch.zeros_like(hidden[0]),) * 2
            inputs = latent[:, None].expand(-1, _MOST_BARS, -1)
            plans, *_ = LSTM.scan(inputs, zeros, list(self.plan.all_weights[0]), self.training)
            source = (plans, torch.zeros(len(latent), dtype=torch.long, device=latent.device))
        return (
            super()
            .start(len(latent))
            ._replace(
                layers=tuple((part, torch.zeros_like(part)) for part in hidden), source=source
            )
        )

    def start(self, batch_size: int) -> State:
        """State before the first token at the middle of the space, z = 0."""
        return self.begin(self.mean.weight.new_zeros(batch_size, self.config.latent_size))

    def _told(self, inputs: Tensor, tokens: Tensor, source: tuple[Tensor, ...]) -> Tensor:
        if self.training and self.config.token_dropout:
            kept = inputs.new_empty(*inputs.shape[:2], 1).bernoulli_(1 - self.config.token_dropout)
            inputs = inputs * kept
        if self.plan is None:
            latent, clock = source
            parts = latent.reshape(len(latent), self.config.latent_slots, -1)
            # Behind the last slot comes none.
            pairs = torch.cat([parts, F.pad(parts[:, 1:], (0, 0, 0, 1))], dim=2)
            slots, _ = self._slots(tokens, clock)
            told = picked(pairs if len(parts[0]) > 1 else parts, slots)
        else:
            plans, num_open = source
            bar = (num_open[:, None] + (tokens == self.bar).cumsum(1) - 1).clamp(0, _MOST_BARS - 1)
            told = picked(plans, bar)
        return torch.cat([inputs, told.to(inputs.dtype)], dim=2)

    def _found(
        self,
        states: Tensor,  # noqa: ARG002
        tokens: Tensor,
        source: tuple[Tensor, ...],
    ) -> tuple[list[Tensor], tuple[Tensor, ...]]:
        told, place = source
        if self.plan is not None:
            return [], (told, place + (tokens == self.bar).sum(1))
        return [], (told, self.clock(tokens, place)[1])


def ends_of_slots(states: Tensor, slots: Tensor, lengths: Tensor, num_slots: int) -> Tensor:
    """What has been read of each slot from both sides: `(batch, slots, 2 * hidden)`.

    Args:
        states: Of both directions, `(batch, time, 2 * hidden)`.
        slots: Of each token, which never go down, `(batch, time)`.
        lengths: `(batch,)`; what stands behind is not looked at.
        num_slots: Slots in all; one without tokens has read nothing of its own.
    """
    forwards, backwards = states.chunk(2, dim=2)
    numbers = torch.arange(num_slots, device=slots.device)
    known = length_mask(lengths, slots.shape[1])[..., None]
    num_before = (known & (slots[..., None] < numbers)).sum(1)
    num_until = (known & (slots[..., None] <= numbers)).sum(1)
    first, last = num_before.minimum(lengths[:, None] - 1), (num_until - 1).clamp(min=0)
    return torch.cat([picked(forwards, last), picked(backwards, first)], dim=2)


def divergence_from_prior(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(μ, σ²) ‖ N(0, 1)) = (μ² + σ² − 1 − ln σ²) / 2 of each number, in nats."""
    return (mean.square() + log_variance.exp() - 1 - log_variance) / 2


def with_free_bits(divergence: Tensor, free_bits: float) -> Tensor:
    """What a batch pays for its latents, nats per piece: Σ_j max(λ, mean over the batch of KL_j).

    Args:
        divergence: `(batch, latent)`, nats.
        free_bits: λ, bits for each number.

    References:
        Kingma et al., "Improving variational inference with inverse autoregressive flow", 2016,
        equation 15.
    """
    return divergence.mean(0).clamp(min=free_bits * float(np.log(2))).sum()


def annealed_weight(weight: float, warmup_steps: int, step: int) -> float:
    """Weight of the divergence after so many steps: it rises from 0 in a line (Bowman 2016)."""
    return weight * min(1.0, step / max(warmup_steps, 1))


def latents_from_prior(seed: int, indices: Sequence[int], size: int) -> Tensor:
    """A latent for each index, `(num, size)`, of N(0, 1); it follows from (seed, index) alone.

    They have nothing to do with the numbers that `uniforms` gives.
    """
    rows = [
        np.random.Generator(
            np.random.Philox(key=np.array([seed, index], dtype=np.uint64)).jumped()
        ).standard_normal(size, dtype=np.float32)
        for index in indices
    ]
    return torch.from_numpy(np.stack(rows))


def slerp(one: Tensor, other: Tensor, shares: Sequence[float]) -> Tensor:
    """Points on the arc from one vector to another, `(shares, size)`.

    slerp(a, b; t) = sin((1 − t) Ω) / sin Ω a + sin(t Ω) / sin Ω b, with Ω the angle between them;
    along the line where they point the same way, or away from each other.

    Args:
        one: `(size,)`.
        other: `(size,)`.
        shares: t of each point; 0 is the one, 1 the other.

    References:
        Shoemake, "Animating rotation with quaternion curves", 1985; White, "Sampling generative
        networks", 2016.
    """
    t = one.new_tensor(shares)[:, None]
    cosine = F.cosine_similarity(one, other, dim=0).clamp(-1, 1)
    angle = cosine.acos()
    if angle.sin() < 1e-4:
        return (1 - t) * one + t * other
    return (((1 - t) * angle).sin() * one + (t * angle).sin() * other) / angle.sin()

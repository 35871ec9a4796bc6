"""Straight-through Gumbel-softmax (RelGAN): gradients that run through the samples.

A token is drawn as one_hot(argmax(o + g)), with o the log-probabilities that the grammar leaves and
g Gumbel noise, and so from the generator's own distribution. Backwards it counts as

    softmax(β (o + g))                                                           (Jang 2017, eq. 2)

so that the discriminator's gradient reaches the generator through every token, both as the
discriminator sees it and as the generator's next input. That gradient is biased, the less the
larger β, and its variance grows with β: β rises exponentially from 1 to `inverse_temperature` over
the steps. The loss is the counterpart of the discriminator's, RelGAN's being `relativistic`,
softplus(D(real) − D(fake)); the divergence from the reference and the likelihood of excerpts are
added as in `PolicyGradient`.

The generator's part of the way back is cut every `chunk` tokens, counted from Start: there its
state, what its attention remembers, and the token that it reads next pass no gradient. A token
therefore has the whole of the gradient that the discriminator sends it, and of its effect on later
tokens that within its chunk; what a token does across the border is what is lost.

Cost of a step: `epochs` batches of samples drawn anew, token by token with gradient, each with one
discriminator pass forth and back, one generator pass with gradient and one reference pass over what
was drawn, and the generator's over the excerpts; once, a discriminator pass over real openings.

References:
    Nie, Narodytska & Patel, "RelGAN: Relational generative adversarial networks for text
    generation", 2019.
    Jang, Gu & Poole, "Categorical reparameterization with Gumbel-softmax", 2017.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from rnngan.data.batches import Batch
from rnngan.errors import UserError
from rnngan.generator.recurrent import RecurrentGenerator, State
from rnngan.layers import grammar_log_softmax
from rnngan.music.vocabulary import END, PAD, START, Grammar
from rnngan.objectives.base import Objective, Players, Round, frozen, piece_logits
from rnngan.objectives.classification import generator_loss
from rnngan.objectives.likelihood import (
    Targets,
    autocast,
    negative_log_likelihood,
    target_log_probs,
    targets_of,
)
from rnngan.objectives.policy_gradient import adapted_kl_weight, entropy, kl_divergence


class Gumbel(Objective):
    """The discriminator's gradient runs through relaxed samples."""

    openings = True

    def __init__(self, players: Players) -> None:
        """Begin with the KL weight of the settings.

        Raises:
            UserError: The discriminator sees more than tokens.
        """
        super().__init__(players)
        views = players.discriminator.config.views
        if views != "tokens":
            raise UserError(
                "objective gumbel needs a discriminator with a gradient by every token: "
                f"discriminator.views must be tokens, got {views}"
            )
        self.kl_weight = players.config.kl_weight

    def update(self, game: Round) -> dict[str, float]:
        """For every excerpt an update on samples of its own; then the KL weight adapts."""
        players, config = self.players, self.players.config
        beta = annealed(config.inverse_temperature, game.step, config.steps)
        random = torch.Generator().manual_seed(game.seed)
        with torch.no_grad():
            real = piece_logits(players.discriminator, game.openings, players.precision)
        sums: dict[str, float] = {}
        for excerpt in game.real:
            for name, value in self._learn(real, excerpt, beta, random).items():
                sums[name] = sums.get(name, 0.0) + value / len(game.real)
        self.kl_weight = adapted_kl_weight(
            self.kl_weight, sums["kl_to_reference"], config.kl_target
        )
        return sums | {"kl_weight": self.kl_weight, "inverse_temperature": beta}

    def state(self) -> dict[str, Any]:
        """The KL weight."""
        return {"kl_weight": self.kl_weight}

    def restore(self, state: Mapping[str, Any]) -> None:
        """The KL weight."""
        self.kl_weight = state["kl_weight"]

    def _learn(
        self, real: Tensor, excerpt: Targets, beta: float, random: torch.Generator
    ) -> dict[str, float]:
        """One update, and its figures.

        Args:
            real: Logits of real pieces, `(batch,)`.
            excerpt: Real music whose likelihood is mixed in.
            beta: Inverse temperature.
            random: Of the noise.
        """
        players, config = self.players, self.players.config
        with autocast(players.precision), frozen(players.discriminator):
            drawn = relaxed_samples(
                players.generator, players.grammar, num=config.batch_size // config.minibatches,
                max_length=config.max_length, inverse_temperature=beta, chunk=config.chunk,
                random=random,
            )  # fmt: skip
            fake = players.discriminator.soft(drawn.one_hot, torch.from_numpy(drawn.batch.lengths))
            targets = targets_of(drawn.batch, players.grammar)
            log_probs = target_log_probs(players.generator, targets)
            with torch.no_grad():
                reference = target_log_probs(players.reference, targets)
            likelihood = negative_log_likelihood(players.generator, excerpt)
        adversarial = generator_loss(config.discriminator_loss, real, fake)
        kl = kl_divergence(log_probs, reference).mean()
        loss = adversarial + self.kl_weight * kl + config.likelihood_weight * likelihood
        norm = self.descend(loss)
        return {
            "generator_loss": loss.item(),
            "adversarial_loss": adversarial.item(),
            "kl_to_reference": kl.item(),
            "train_likelihood_nats": likelihood.item(),
            "entropy": entropy(log_probs.detach()).mean().item(),
            "generator_gradient_norm": norm,
        }


def annealed(last: float, step: int, steps: int) -> float:
    """Inverse temperature of a step: 1 at the first, `last` at the last, exponential between."""
    return float(last ** (step / max(steps - 1, 1)))


@dataclass(frozen=True, kw_only=True)
class Relaxed:
    """Samples through which a gradient runs.

    Attributes:
        one_hot: `(num, time, vocab)`, each row one token.
        batch: The same as tokens.
    """

    one_hot: Tensor
    batch: Batch


def relaxed_samples(
    generator: RecurrentGenerator,
    grammar: Grammar,
    *,
    num: int,
    max_length: int,
    inverse_temperature: float,
    chunk: int,
    random: torch.Generator,
) -> Relaxed:
    """Pieces drawn from the generator at temperature 1, cut at `max_length` tokens.

    Args:
        generator: In evaluation mode.
        grammar: Of its tokens.
        num: How many.
        max_length: Of a piece, at least 2.
        inverse_temperature: β of the relaxation; it does not change what is drawn.
        chunk: Tokens between two cuts of the generator's way back.
        random: Of the noise.
    """
    allowed = torch.from_numpy(grammar.allowed)
    next_state = torch.from_numpy(grammar.next_state).long()
    token = torch.full((num,), START)
    one_hot = F.one_hot(token, generator.vocab_size).float()
    place = next_state[0].index_select(0, token)
    state = generator.start(num)
    rows, tokens = [one_hot], [token]
    for time in range(1, max_length):
        logits, state = step_from(generator, one_hot, state)
        log_probs = grammar_log_softmax(logits, allowed[place])
        one_hot = straight_through(log_probs, inverse_temperature, random)
        token = one_hot.argmax(1)
        place = next_state[place, token]
        rows.append(one_hot)
        tokens.append(token)
        if bool(((token == END) | (token == PAD)).all()):
            break
        if time % chunk == 0:
            one_hot, state = one_hot.detach(), state.map(Tensor.detach)
    drawn = torch.stack(tokens, 1)
    batch = Batch(tokens=drawn.numpy(), lengths=(drawn != PAD).sum(1).numpy())
    return Relaxed(one_hot=torch.stack(rows, 1), batch=batch)


def step_from(generator: RecurrentGenerator, rows: Tensor, state: State) -> tuple[Tensor, State]:
    """Logits `(batch, vocab)` after weighted tokens `(batch, vocab)`, and the state to go on.

    Every row becomes a vocabulary of its own: one token, whose embedding is the weighted mean.
    """
    embedded = {"embedding.weight": rows @ generator.embedding.weight}
    own = torch.arange(len(rows))[:, None]
    # Untied, so that an output layer that shares the embedding's weights keeps them.
    logits, state = functional_call(generator, embedded, (own, state), tie_weights=False)
    return logits[:, 0], state


def straight_through(
    log_probs: Tensor, inverse_temperature: float, random: torch.Generator
) -> Tensor:
    """One-hot draws whose gradient is that of the Gumbel-softmax, `(batch, vocab)` as given."""
    exponential = torch.empty(log_probs.shape).exponential_(generator=random)
    noisy = log_probs - exponential.clamp(min=torch.finfo().tiny).log()
    soft = (inverse_temperature * noisy).softmax(-1)
    hard = F.one_hot(noisy.argmax(-1), noisy.shape[-1]).to(soft.dtype)
    return hard + (soft - soft.detach())  # in this order exactly one-hot

"""Cooperative training (CoT): towards a mediator that has learned real music and samples alike.

A mediator M, of the generator's architecture, learns the likelihood of a mixture, half real
openings and half samples. At its best it is M = (P + G) / 2, and then half of the
divergence

    KL(G ‖ M) = E_{y∼G} Σ_t k_t,        k_t = KL(G(· | y_<t) ‖ M(· | y_<t)),

has the gradient of the Jensen–Shannon divergence between real music P and the generator G. Each k_t
is summed in full over the vocabulary, and no discriminator has to be fooled. Its gradient is

    E_{y∼G} [ Σ_t ∇k_t  +  λ Σ_t ∇log G(y_t | y_<t) Σ_{s>t} k_s ],

with λ = 1. The second part is what a token does to the prefixes behind it, a score function with
the mean of the other samples at the same time as baseline; the paper's experiments leave it out
(λ = 0), for less variance and some bias. λ is `prefix_weight`.

Mediator and generator take turns, as often as the other objectives update the generator; the
samples of a step serve all of its updates, so that those after the first see prefixes of a
generator a few updates old. Every update mixes in the likelihood of real excerpts of its own.

Cost of a step: one batch of samples, and `epochs` times: two mediator passes with gradient (over
samples and openings), one without, and the generator's passes with gradient over samples and
excerpts. No discriminator.

References:
    Lu et al., "CoT: Cooperative training for generative modeling of discrete data", 2019.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rnngan.data.batches import Batch, padded
from rnngan.errors import UserError
from rnngan.objectives.base import Objective, Players, Round, need_finite
from rnngan.objectives.importance import rows_of
from rnngan.objectives.likelihood import (
    Targets,
    autocast,
    negative_log_likelihood,
    target_log_probs,
    targets_of,
)
from rnngan.objectives.policy_gradient import chosen, entropy, kl_divergence


class Cooperative(Objective):
    """The generator follows a mediator between itself and real music.

    Attributes:
        prefix_weight: λ, 0 to 1.
    """

    plays = False
    samples = True
    openings = True
    prefix_weight = 1.0

    def __init__(self, players: Players) -> None:
        """The mediator begins as the reference.

        Raises:
            UserError: The parts of a batch have a single sample.
        """
        super().__init__(players)
        config = players.config
        if config.batch_size // config.minibatches < 2:
            raise UserError(
                "objective cooperative compares samples: refine.batch_size must be at least twice "
                f"refine.minibatches, {config.minibatches}, got {config.batch_size}"
            )
        self.mediator = copy.deepcopy(players.reference).requires_grad_(True)
        self.optimizer = torch.optim.AdamW(
            self.mediator.parameters(), lr=config.learning_rate, betas=(0.9, 0.99), weight_decay=0.0
        )

    def update(self, game: Round) -> dict[str, float]:
        """For every excerpt an update of the mediator, and then one of the generator."""
        parts = torch.arange(len(game.fakes.lengths)).chunk(self.players.config.minibatches)
        sums: dict[str, float] = {}
        for update, excerpt in enumerate(game.real):
            rows = parts[update % len(parts)]
            fakes = rows_of(game.fakes, rows)
            log = self._mediate(mixture(rows_of(game.openings, rows), fakes))
            log |= self._learn(targets_of(fakes, self.players.grammar), excerpt)
            for name, value in log.items():
                sums[name] = sums.get(name, 0.0) + value / len(game.real)
        return sums

    def state(self) -> dict[str, Any]:
        """The mediator and its optimiser."""
        return {
            "mediator": self.mediator.state_dict(),
            "mediator_optimizer": self.optimizer.state_dict(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """The mediator and its optimiser."""
        self.mediator.load_state_dict(state["mediator"])
        self.optimizer.load_state_dict(state["mediator_optimizer"])

    def _mediate(self, mixed: Batch) -> dict[str, float]:
        """One update of the mediator, with dropout as in pretraining, and its figures."""
        players = self.players
        self.mediator.train()
        with autocast(players.precision):
            loss = negative_log_likelihood(self.mediator, targets_of(mixed, players.grammar))
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        parameters = self.mediator.parameters()
        norm = float(nn.utils.clip_grad_norm_(parameters, players.config.gradient_clip))
        need_finite(mediator_loss=loss.item(), mediator_gradient_norm=norm)
        self.optimizer.step()
        self.mediator.eval()
        return {"mediator_nats": loss.item(), "mediator_gradient_norm": norm}

    def _learn(self, targets: Targets, excerpt: Targets) -> dict[str, float]:
        """One update of the generator, and its figures."""
        players, config = self.players, self.players.config
        with autocast(players.precision):
            with torch.no_grad():
                mediator_log_probs = target_log_probs(self.mediator, targets)
            log_probs = target_log_probs(players.generator, targets)
            likelihood = negative_log_likelihood(players.generator, excerpt)
        kl = kl_divergence(log_probs, mediator_log_probs)
        behind = less_the_others(sums_behind(kl.detach(), targets.mask))[targets.mask]
        prefixes = (behind * chosen(log_probs, targets)).mean()
        loss = kl.mean() + self.prefix_weight * prefixes + config.likelihood_weight * likelihood
        norm = self.descend(loss)
        return {
            "generator_loss": loss.item(),
            "kl_to_mediator": kl.mean().item(),
            "train_likelihood_nats": likelihood.item(),
            "entropy": entropy(log_probs.detach()).mean().item(),
            "generator_gradient_norm": norm,
        }


def mixture(real: Batch, fakes: Batch) -> Batch:
    """Both in one batch: every piece weighs the same, however long it is."""
    return padded(
        [
            row[:length].astype(np.uint16)
            for batch in (real, fakes)
            for row, length in zip(batch.tokens, batch.lengths)
        ]
    )


def sums_behind(costs: Tensor, mask: Tensor) -> Tensor:
    """For every place of a row the sum of what comes later, `(batch, time)`.

    Args:
        costs: Of the places in the mask, in its order, `(targets,)`.
        mask: Boolean, `(batch, time)`.
    """
    table = torch.zeros(mask.shape).masked_scatter(mask, costs)
    return table.flip(1).cumsum(1).flip(1) - table


def less_the_others(values: Tensor) -> Tensor:
    """Each value less the mean of the other rows' in its column; two rows or more."""
    return (values - values.mean(0)) * (len(values) / (len(values) - 1))

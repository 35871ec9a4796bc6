"""The discriminator in training: how it learns, judges, waits and is calibrated."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rnngan.config import RefineConfig
from rnngan.data.augment import Augmentation, augmented
from rnngan.data.batches import Batch, padded
from rnngan.discriminator.base import Discriminator
from rnngan.layers import length_mask
from rnngan.music.tokenizers.base import Codec
from rnngan.objectives.base import need_finite, piece_logits
from rnngan.objectives.calibration import expected_calibration_error, fit_calibration
from rnngan.objectives.classification import (
    accuracy,
    auc,
    discriminator_loss,
    gradient_penalty,
    logistic_loss,
)
from rnngan.objectives.likelihood import autocast
from rnngan.objectives.replay import Replay
from rnngan.progress import Progress
from rnngan.training.optimizers import optimizer_of
from rnngan.training.seeds import reseed_torch, seed_for

_WARMUP = 20  # updates over which the rate rises
_LAST_RATE = 0.1  # share of it that is left when training before the game ends
_GATE_MEMORY = 0.8  # of the running mean of the AUC that opens and closes the gate
_LOOK_EVERY = 10  # updates, in training before the game
_PATIENCE = 4  # looks without progress


class Critic:
    """A discriminator with its optimiser, its memory of older samples, and its manners.

    Args:
        discriminator: To be trained.
        codec: Of what it reads.
        config: Settings of the refinement.
        precision: Of the matrix products.
        seed: Of transposition and of the choice of older samples.
    """

    def __init__(
        self,
        discriminator: Discriminator,
        codec: Codec,
        config: RefineConfig,
        *,
        precision: str,
        seed: int,
    ) -> None:
        self.discriminator = discriminator
        self.codec = codec
        self.config = config
        self.precision = precision
        self.seed = seed
        self.optimizer = optimizer_of(
            discriminator, learning_rate=config.discriminator_learning_rate, weight_decay=0.01
        )
        self.replay = Replay(rate=config.replay_rate, seed=seed_for(seed, "replay"))
        self.smoothed_auc = 0.5

    @property
    def waits(self) -> bool:
        """Whether it is so far ahead that it should not learn now."""
        return self.smoothed_auc > self.config.discriminator_gate

    def learn(self, real: Batch, fakes: Batch, update: int) -> dict[str, float]:
        """One update towards telling this real batch from these fakes; figures for the log.

        Both sides are transposed at random, so that keys and places in the corpus tell nothing.

        Args:
            real: Beginnings of real pieces.
            fakes: Samples.
            update: Number of the update, from which all that is random follows.

        Raises:
            Diverged: The loss or its gradient is NaN or infinite; the weights are as before.
        """
        config, network = self.config, self.discriminator
        reseed_torch(self.seed, "discriminator update", update)
        rng = np.random.default_rng(seed_for(self.seed, "transposition", update))
        real, fakes = self._transposed(real, rng), self._transposed(fakes, rng)
        network.train()
        real_logits = piece_logits(network, real, self.precision)
        fake_logits = piece_logits(network, fakes, self.precision)
        loss = discriminator_loss(
            config.discriminator_loss,
            real_logits,
            fake_logits,
            label_smoothing=config.label_smoothing,
        )
        if network.causal_head is not None:
            loss = loss + causal_loss(network, real, fakes, self.precision)
        if config.gradient_penalty != "none":
            penalty = gradient_penalty(config.gradient_penalty, network, real, fakes)
            loss = loss + config.penalty_weight * penalty
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = float(nn.utils.clip_grad_norm_(network.parameters(), config.gradient_clip))
        need_finite(discriminator_loss=loss.item(), discriminator_gradient_norm=norm)
        self.optimizer.step()
        network.eval()
        return {
            "discriminator_loss": loss.item(),
            "discriminator_gradient_norm": norm,
            "discriminator_train_accuracy": accuracy(real_logits.detach(), fake_logits.detach()),
        }

    def _transposed(self, batch: Batch, rng: np.random.Generator) -> Batch:
        change = Augmentation(transpose=self.config.discriminator_transpose)
        return padded(
            [
                augmented(row[:length], self.codec, change, rng)
                for row, length in zip(batch.tokens, batch.lengths)
            ]
        )

    @torch.no_grad()
    def judge(self, fakes: Batch, held_out: Batch) -> tuple[Tensor, dict[str, float]]:
        """Logits of samples it has not learnt from, and how well it tells them from held-out music.

        Returns:
            Piece logits of the fakes `(batch,)`, and figures for the log.
        """
        self.discriminator.eval()
        fake = piece_logits(self.discriminator, fakes, self.precision)
        real = piece_logits(self.discriminator, held_out, self.precision)
        return fake, {
            "discriminator_auc": auc(real, fake),
            "discriminator_accuracy": accuracy(real, fake),
            "discriminator_held_out_loss": float(logistic_loss(real, fake, label_smoothing=0.0)),
            "discriminator_calibration_error": expected_calibration_error(
                self.discriminator.log_ratio(real), self.discriminator.log_ratio(fake)
            ),
            "logit_real": float(real.mean()),
            "logit_fake": float(fake.mean()),
        }

    @torch.no_grad()
    def calibrate(self, fakes: Batch, held_out: Batch) -> None:
        """Fit what turns its logits into log density ratios, on music it has not learnt from."""
        self.discriminator.eval()
        fake = piece_logits(self.discriminator, fakes, self.precision)
        real = piece_logits(self.discriminator, held_out, self.precision)
        self.discriminator.set_calibration(fit_calibration(real, fake))

    def remember_auc(self, value: float) -> None:
        """Let a new AUC into the running mean that opens and closes the gate."""
        self.smoothed_auc = _GATE_MEMORY * self.smoothed_auc + (1 - _GATE_MEMORY) * value

    def pretrain(
        self,
        real: Callable[[int], Batch],
        fakes: Callable[[int], Batch],
        held_out: Batch,
        *,
        progress: Progress,
    ) -> dict[str, float]:
        """Train before the game begins, on fresh samples in every update.

        It stops early, and goes back to where it was best, when it stops getting better at
        telling held-out pieces from fresh samples.

        Args:
            real: Real batch of an update.
            fakes: Samples of an update; those behind the last are for judging.
            held_out: Real pieces to be judged by.
            progress: Shows it.

        Returns:
            Its figures on held-out pieces and unseen samples.

        Raises:
            Diverged: See `learn`.
        """
        total = self.config.discriminator_pretrain_steps
        unseen = fakes(total)
        best, best_loss, waited = copy.deepcopy(self.discriminator.state_dict()), np.inf, 0
        with Progress("judge", total, inside=progress) as inner:
            for update in range(total):
                warmth = min(1.0, (update + 1) / min(_WARMUP, total))
                cosine = 0.5 + 0.5 * math.cos(math.pi * update / total)
                share = warmth * (_LAST_RATE + (1 - _LAST_RATE) * cosine)
                self.set_rate(self.config.discriminator_learning_rate * share)
                log = self.learn(real(update), fakes(update), update)
                inner.update(update + 1, f"loss {log['discriminator_loss']:.3f}")
                if (update + 1) % _LOOK_EVERY == 0 or update + 1 == total:
                    loss = self.judge(unseen, held_out)[1]["discriminator_held_out_loss"]
                    if loss < best_loss:
                        best, best_loss, waited = (
                            copy.deepcopy(self.discriminator.state_dict()), loss, 0,
                        )  # fmt: skip
                    else:
                        waited += 1
                    if waited == _PATIENCE:
                        break
        self.discriminator.load_state_dict(best)
        self.calibrate(unseen, held_out)
        _, figures = self.judge(fakes(total + 1), held_out)
        self.smoothed_auc = figures["discriminator_auc"]
        return figures

    def set_rate(self, rate: float) -> None:
        """Learning rate from now on."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def state(self) -> dict[str, Any]:
        """Tensors and plain types, the network apart, from which `restore` goes on exactly."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "replay": self.replay.state(),
            "smoothed_auc": self.smoothed_auc,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.replay.restore(state["replay"])
        self.smoothed_auc = state["smoothed_auc"]


def causal_loss(network: Discriminator, real: Batch, fakes: Batch, precision: str) -> Tensor:
    """Logistic loss of the causal head, a mean over the beginnings of each side, the sides even.

    Its minimum at every time is the logarithm of the density ratio of beginnings, which is what
    rewards along the way and particle filters want.
    """

    def side(batch: Batch, sign: float) -> Tensor:
        tokens, lengths = torch.from_numpy(batch.tokens), torch.from_numpy(batch.lengths)
        with autocast(precision):
            potentials = network.potentials(tokens, lengths)
        inside = length_mask(lengths, tokens.shape[1])
        return nn.functional.softplus(-sign * potentials)[inside].mean()

    return (side(real, 1.0) + side(fakes, -1.0)) / 2

"""Pretraining of generators that are told something: what they learn, and how they are examined."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from rnngan.data.batches import Batch, padded
from rnngan.data.store import Store
from rnngan.generator.encoder import EncoderDecoder
from rnngan.generator.plain import without_dropout
from rnngan.generator.sampling import sample, uniforms
from rnngan.generator.vae import (
    VAE,
    annealed_weight,
    divergence_from_prior,
    latents_from_prior,
    with_free_bits,
)
from rnngan.music.parts import accompanied
from rnngan.music.piece import Piece
from rnngan.objectives.likelihood import (
    autocast,
    encoded_source,
    target_log_probs,
    targets_of,
    tensors_of,
)
from rnngan.training.pretrain import LikelihoodLesson
from rnngan.training.run import Run
from rnngan.training.samples import NUM_WATCHED
from rnngan.training.seeds import seed_for

_ACTIVE = 0.01


class AutoencoderLesson(LikelihoodLesson):
    """The bound that a variational autoencoder makes small, or what an autoencoder loses.

    Of the likelihood the bound, in bits per token, decides, with the whole divergence from the
    first step on: what training weighs and forgives makes no model better. An autoencoder's figure
    bounds nothing: it says how well music is written again, given its latent.
    """

    generator: VAE

    def loss(self, batch: Batch) -> tuple[Tensor, int]:
        """Nats per token, the weighted divergence among them."""
        targets = targets_of(batch, self._tokenizer.grammar)
        config, num_tokens = self._run.config.pretrain, len(targets.tokens)
        with autocast(self._precision):
            encoded = encoded_source(self.generator, targets, torch.default_generator)
            log_probs = target_log_probs(self.generator, targets, encoded)
        loss = F.nll_loss(log_probs, targets.tokens)
        assert encoded is not None
        paid = with_free_bits(encoded.divergence, config.free_bits)
        weight = annealed_weight(config.kl_weight, config.kl_warmup_steps, self.step)
        return loss + weight * paid * len(batch.lengths) / num_tokens, num_tokens

    def held_out(self) -> dict[str, float]:
        """The bound, and what it is made of: writing again, and divergence.

        `kl_nats_per_piece` and `active_units`: numbers whose mean differs from piece to piece by a
        variance above 0.01 (Burda, Grosse & Salakhutdinov, "Importance weighted autoencoders",
        2016, section 5.1).
        """
        figures = super().held_out()
        means, divergence = [], 0.0
        with torch.no_grad(), without_dropout(self.generator):
            for batch in self._validation:
                mean, log_variance = self.generator.posterior(*tensors_of(batch))
                means.append(mean)
                if self.generator.log_variance is not None:
                    divergence += float(divergence_from_prior(mean, log_variance).double().sum())
        latents = torch.cat(means)
        num_tokens = sum(int((batch.lengths - 1).sum()) for batch in self._validation)
        variances = latents.var(0, unbiased=False)
        return figures | {
            "val_reconstruction_bits_per_token": figures["val_bits_per_token"]
            - divergence / math.log(2) / num_tokens,
            "val_kl_nats_per_piece": divergence / len(latents),
            "val_active_units": float((variances > _ACTIVE).sum()),
        }

    def drawn(self) -> list[Piece]:
        """What the generator writes from latents of the prior, at temperature 1."""
        seed = seed_for(self._run.config.seed, "watch")
        size = self.generator.config.latent_size
        with torch.inference_mode(), without_dropout(self.generator):
            start = self.generator.begin(latents_from_prior(seed, range(NUM_WATCHED), size))
        drawn = sample(
            self.generator,
            self._tokenizer.grammar,
            uniforms(seed, range(NUM_WATCHED), self._max_length),
            start=start,
        )
        return [self._tokenizer.decode(row) for row in drawn.tokens.numpy()]


class MelodiesLesson(LikelihoodLesson):
    """Likelihood of what accompanies a melody; heard with held-out melodies."""

    generator: EncoderDecoder

    def __init__(self, run: Run, store: Store) -> None:
        super().__init__(run, store)
        held_out = store.indices("validation", limit=NUM_WATCHED).tolist()
        rows = [store.piece_tokens(i)[: self._max_length] for i in held_out]
        told = padded(rows, self.division).source
        assert told is not None
        self._told = told

    def drawn(self) -> list[Piece]:
        """Held-out melodies, and what the generator writes to them, at temperature 1."""
        told = self._told
        with torch.inference_mode(), without_dropout(self.generator):
            begin = self.generator.encode(*tensors_of(told))
        drawn = sample(
            self.generator,
            self._tokenizer.grammar,
            uniforms(
                seed_for(self._run.config.seed, "watch"), range(len(told.tokens)), self._max_length
            ),
            start=begin.state,
        )
        decode = self._tokenizer.decode
        pairs = zip(told.tokens, drawn.tokens.numpy())
        return [accompanied(decode(melody), decode(others)) for melody, others in pairs]

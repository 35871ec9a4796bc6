"""Pretraining and refinement of the generator of notes as real numbers (C-RNN-GAN).

All that does not ask what a piece is made of is shared with tokens: the loops, checkpoints, log,
discriminators, guard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from rnngan.data.batches import MAX_HELD_OUT, Batch, held_out_batches
from rnngan.data.store import Store
from rnngan.errors import UserError
from rnngan.generator.tuples import TuplesGenerator, draw
from rnngan.music.piece import Piece
from rnngan.music.tokenizers.tuples import COLUMNS, Tuples
from rnngan.objectives.feature_matching import FeatureMatching, TuplesPlayers
from rnngan.objectives.likelihood import Targets, autocast
from rnngan.objectives.squared_error import held_out_squared_errors, squared_errors
from rnngan.progress import Progress
from rnngan.training.adversarial import (
    GUARDED_SAMPLES,
    AnyRefinement,
    discriminator_of,
    played,
)
from rnngan.training.checkpoint import AnyModel, Checkpoints, TuplesModel
from rnngan.training.guard import diversity_figures
from rnngan.training.monitor import Monitor
from rnngan.training.optimizers import optimizer_of
from rnngan.training.pretrain import Lesson, teach
from rnngan.training.run import Run
from rnngan.training.samples import NUM_WATCHED, sample_evaluation, show
from rnngan.training.seeds import reseed_torch, seed_for


def pretrain(run: Run, store: Store, *, progress: Progress, resume: bool = False) -> AnyModel:
    """Train the run's generator on the squared error of the next note; the best is returned.

    Raises:
        UserError: The store holds no tuples, a checkpoint is damaged beyond use, or the disk takes
            no more.
    """
    return teach(SquaredErrorLesson(run, store), run, store, progress=progress, resume=resume)


def refine(run: Run, store: Store, *, progress: Progress, resume: bool = False) -> AnyModel:
    """Refine the run's generator by feature matching; the last that passed the guard is returned.

    Raises:
        UserError: The run has not been pretrained, or not with tuples; a checkpoint is damaged
            beyond use, or the disk takes no more.
    """

    def begin(pretrained: AnyModel, checkpoints: Checkpoints) -> TuplesRefinement:
        if not isinstance(pretrained, TuplesModel):
            raise UserError("the pretrained generator writes tokens, not tuples")
        return TuplesRefinement(run, store, pretrained, checkpoints, progress=progress)

    return played(begin, run, progress=progress, resume=resume)


def tuples_of(store: Store) -> Tuples:
    """The codec of a store.

    Raises:
        UserError: It makes tokens.
    """
    if not isinstance(store.codec, Tuples):
        raise UserError(
            f"{store.folder} holds {store.codec.name}, tokens, which the generator tuples cannot "
            "learn; prepare with --tokenizer tuples"
        )
    return store.codec


class SquaredErrorLesson(Lesson):
    """Squared error of the next note."""

    deciding, unit, rows = "val_squared_error", "squared error", "notes"

    def __init__(self, run: Run, store: Store) -> None:
        self._run, self._codec = run, tuples_of(store)
        self._max_length = run.config.data.max_length
        reseed_torch(run.config.seed, "generator")
        self.generator: TuplesGenerator = TuplesGenerator(run.config.generator)
        self.generator.set_lengths(np.diff(store.offsets)[store.indices("train")])
        self._validation = held_out_batches(store, "validation")
        self._pieces = store.pieces("validation", limit=MAX_HELD_OUT)
        self._evaluation = sample_evaluation(run, store, max_length=self._max_length)

    def loss(self, batch: Batch) -> tuple[Tensor, int]:
        """Mean over notes and columns."""
        with autocast(self._run.config.pretrain.precision):
            errors = squared_errors(self.generator, batch, torch.default_generator)
        return errors.mean(), len(errors)

    def figure_of(self, loss: float) -> dict[str, float]:
        """As it is."""
        return {"train_squared_error": loss}

    def held_out(self) -> dict[str, float]:
        """Of all columns, and of each."""
        return held_out_figures(self.generator, self._validation, self._run)

    def watch(self, monitor: Monitor, step: int) -> None:
        """See `rnngan.training.samples.watch`."""
        pieces = fixed_samples(
            self.generator, self._codec, self._run, "watch", NUM_WATCHED, self._max_length
        )
        show(monitor, pieces, self._pieces, evaluation=self._evaluation, step=step)

    def model(self, metrics: Mapping[str, float]) -> TuplesModel:
        """See `Lesson`."""
        return TuplesModel(generator=self.generator, tokenizer=self._codec, metrics=metrics)


def held_out_figures(
    generator: TuplesGenerator, batches: Sequence[Batch], run: Run
) -> dict[str, float]:
    """`val_squared_error` of some pieces, and that of each column."""
    errors = held_out_squared_errors(
        generator,
        batches,
        seed=seed_for(run.config.seed, "held-out noise"),
        precision=run.config.pretrain.precision,
    )
    figures = {f"val_squared_error_{name}": float(x) for name, x in zip(COLUMNS, errors)}
    return {"val_squared_error": float(errors.mean())} | figures


def fixed_samples(
    generator: TuplesGenerator, codec: Tuples, run: Run, purpose: str, num: int, max_length: int
) -> list[Piece]:
    """The same pieces in every call, as far as the generator is the same."""
    seed = seed_for(run.config.seed, purpose)
    batch = draw(generator, seed, range(num), max_length=max_length)
    return [codec.decode(row[:length]) for row, length in zip(batch.tokens, batch.lengths)]


class TuplesRefinement(AnyRefinement):
    """A refinement by feature matching."""

    players: TuplesPlayers

    def __init__(
        self,
        run: Run,
        store: Store,
        pretrained: TuplesModel,
        checkpoints: Checkpoints,
        *,
        progress: Progress,
    ) -> None:
        config, generator = run.config.refine, pretrained.generator
        self._codec = tuples_of(store)
        players = TuplesPlayers(
            generator=generator,
            discriminator=discriminator_of(run, store),
            optimizer=optimizer_of(generator, learning_rate=config.learning_rate, weight_decay=0.0),
            config=config,
            precision=run.config.pretrain.precision,
        )
        super().__init__(
            run, store, pretrained, checkpoints, FeatureMatching(players), progress=progress
        )

    def draw(self, purpose: str, step: int) -> Batch:
        """See `AnyRefinement`."""
        return draw(
            self.players.generator,
            seed_for(self.seed, purpose, step),
            range(self.config.batch_size),
            max_length=self.config.max_length,
        )

    def excerpts(self, step: int) -> Sequence[Targets]:  # noqa: ARG002  # other games have some
        """None."""
        return ()

    def validate(self) -> dict[str, float]:
        """Squared error of held-out notes, and what a fixed-seed set of samples is like.

        `deviation_…` are the standard deviations over all notes of the samples; of the corpus
        they are 1.
        """
        generator = self.players.generator
        batch = draw(
            generator,
            seed_for(self.seed, "guard"),
            range(GUARDED_SAMPLES),
            max_length=self.config.max_length,
        )
        rows = [row[:length] for row, length in zip(batch.tokens, batch.lengths)]
        deviations = np.concatenate(rows).std(axis=0)
        return (
            held_out_figures(generator, self.music.validation, self.run)
            | {f"deviation_{name}": float(x) for name, x in zip(COLUMNS, deviations)}
            | diversity_figures([self._codec.decode(row) for row in rows], self.music.known)
        )

    def watch(self, monitor: Monitor) -> None:
        """See `rnngan.training.samples.watch`."""
        pieces = fixed_samples(
            self.players.generator,
            self._codec,
            self.run,
            "watch",
            NUM_WATCHED,
            self.config.max_length,
        )
        show(
            monitor,
            pieces,
            self.music.held_out_pieces,
            evaluation=self.evaluation,
            step=self.step,
        )

"""Music of the generator in training, for the discriminator, the log and the evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from eval.cache import measured_side
from eval.evaluation import evaluate
from eval.pieces import Side
from eval.setwise import VECTOR
from rnngan.data.store import Store
from rnngan.generator.recurrent import RecurrentGenerator
from rnngan.music.piece import TICKS_PER_QUARTER, Piece
from rnngan.music.tokenizers.base import Tokenizer
from rnngan.objectives.base import draw
from rnngan.training.monitor import Monitor
from rnngan.training.run import Run
from rnngan.training.seeds import seed_for

NUM_WATCHED = 32
"""Pieces that are drawn at every validation."""
_NUM_SHOWN = 3
_NUM_REAL = 128
"""Held-out pieces, at most, that samples are compared with."""
_RESAMPLES, _PERMUTATIONS = 20, 999
"""The log shows no intervals; the fewer permutations, the fewer features can be told apart."""
_FRECHET = "frechet[vector=1]"
_TELLING = (
    "pitch_range",
    "pitch_class_count[bar]",
    "scale_consistency",
    "note_density[bar]",
    "polyphony",
    "groove[q=64,pairs=all]",
    "distinct[n=4]",
)
"""Features whose means are logged."""


class SampleEvaluation:
    """Compares samples in training with the beginnings of held-out pieces, of as many tokens.

    No random number of the training is drawn.

    Args:
        store: Of the held-out pieces, the validation split.
        max_length: Tokens of a sample.
        seed: Of permutations.
    """

    def __init__(self, store: Store, *, max_length: int, seed: int) -> None:
        pieces = [
            store.codec.decode(store.piece_tokens(i)[:max_length])
            for i in store.indices("validation", limit=_NUM_REAL).tolist()
        ]
        self._real = measured_side(Side(name="held-out", pieces=tuple(pieces)), VECTOR)
        self._seed = seed

    def figures(self, samples: Sequence[Piece]) -> dict[str, float]:
        """Figures by name; none where a side has fewer than two pieces.

        `frechet` is the Fréchet distance of the feature vectors, `told_apart_rate` the share of
        the features that differ by more than chance, the others means of single features.
        """
        if min(len(samples), len(self._real.pieces)) < 2:
            return {}
        found = evaluate(
            self._real,
            [Side(name="samples", pieces=tuple(samples))],
            metrics=VECTOR,
            set_metrics=[_FRECHET],
            seed=self._seed,
            resamples=_RESAMPLES,
            permutations=_PERMUTATIONS,
            workers=1,
        ).flat()
        named = {
            "frechet": f"samples/{_FRECHET}",
            **{f"{name}/real": f"samples/{name}/real_mean" for name in _TELLING},
            **{f"{name}/generated": f"samples/{name}/fake_mean" for name in _TELLING},
        }
        return {
            "told_apart_rate": found["samples/features_told_apart"] / len(VECTOR),
            **{name: found[key] for name, key in named.items() if key in found},
        }


def sample_evaluation(run: Run, store: Store, *, max_length: int) -> SampleEvaluation | None:
    """That of a run, if its settings ask for one."""
    if not run.config.output.evaluate_samples:
        return None
    return SampleEvaluation(store, max_length=max_length, seed=run.config.seed)


def watch(
    monitor: Monitor,
    generator: RecurrentGenerator,
    tokenizer: Tokenizer,
    real: Sequence[Piece],
    *,
    evaluation: SampleEvaluation | None,
    step: int,
    max_length: int,
    seed: int,
    drawn: Sequence[Piece] | None = None,
) -> None:
    """Log what a fixed-seed sample set sounds and looks like, and its figures beside real ones.

    Args:
        monitor: Where to.
        generator: To draw from.
        tokenizer: Of its tokens.
        real: Held-out pieces.
        evaluation: Logs its figures as `eval/NAME`.
        step: Of the stage.
        max_length: Tokens of a sample.
        seed: The same in every call of a run, so that the samples can be followed.
        drawn: What the generator wrote, where it is told something first.
    """
    if drawn is None:
        batch = draw(
            generator,
            tokenizer.grammar,
            num=NUM_WATCHED,
            max_length=max_length,
            seed=seed_for(seed, "watch"),
        )
        drawn = [tokenizer.decode(row) for row in batch.tokens]
    show(monitor, drawn, real, evaluation=evaluation, step=step)


def show(
    monitor: Monitor,
    pieces: Sequence[Piece],
    real: Sequence[Piece],
    *,
    evaluation: SampleEvaluation | None,
    step: int,
) -> None:
    """Log these samples; see `watch`."""
    monitor.pieces(pieces[:_NUM_SHOWN], step)
    for side, music in (("real", real), ("generated", pieces)):
        for name, values in note_values(music).items():
            monitor.histogram(f"{name}/{side}", values, step)
    if evaluation:
        figures = evaluation.figures(pieces)
        monitor.scalars(step, {f"eval/{name}": value for name, value in figures.items()})


def note_values(pieces: Sequence[Piece]) -> dict[str, npt.NDArray[np.float64]]:
    """Of all pitched notes: pitch, pitch class, and length and inter-onset interval in quarters."""
    pitch, length, interval = [], [], []
    for piece in pieces:
        notes = piece.pitched
        pitch.append(notes["pitch"])
        length.append(notes["end"] - notes["start"])
        interval.append(np.diff(np.unique(notes["start"])))
    pitches = np.concatenate(pitch).astype(np.float64)
    return {
        "pitch": pitches,
        "pitch_class": pitches % 12,
        "note_length_quarters": np.concatenate(length) / TICKS_PER_QUARTER,
        "inter_onset_quarters": np.concatenate(interval) / TICKS_PER_QUARTER,
    }

"""Music of the generator in training, for the discriminator, the log and the evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rnngan.generator.lstm import LSTMGenerator
from rnngan.music.piece import TICKS_PER_QUARTER, Piece
from rnngan.music.tokenizers.base import Tokenizer
from rnngan.objectives.base import draw
from rnngan.training.monitor import Monitor
from rnngan.training.seeds import seed_for

_NUM_WATCHED = 32
_NUM_SHOWN = 3


def watch(
    monitor: Monitor,
    generator: LSTMGenerator,
    tokenizer: Tokenizer,
    real: Sequence[Piece],
    *,
    step: int,
    max_length: int,
    seed: int,
) -> None:
    """Log what a fixed-seed sample set sounds and looks like, and its histograms beside real ones.

    Args:
        monitor: Where to.
        generator: To draw from.
        tokenizer: Of its tokens.
        real: Held-out pieces.
        step: Of the stage.
        max_length: Tokens of a sample.
        seed: The same in every call of a run, so that the samples can be followed.
    """
    batch = draw(
        generator,
        tokenizer.grammar,
        num=_NUM_WATCHED,
        max_length=max_length,
        seed=seed_for(seed, "watch"),
    )
    pieces = [tokenizer.decode(row) for row in batch.tokens]
    monitor.pieces(pieces[:_NUM_SHOWN], step)
    for side, music in (("real", real), ("generated", pieces)):
        for name, values in note_values(music).items():
            monitor.histogram(f"{name}/{side}", values, step)


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

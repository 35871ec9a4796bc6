"""How much a piece repeats itself; drums left out."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from eval.features.registry import Metric, register
from eval.features.spans import Ints, by_track
from rnngan.music.piece import Piece

feature = partial(register, group="structure")


def each_size(name: str, *, unit: str, reference: str) -> Callable[[Metric], Metric]:
    """Decorator: files a feature of n-grams for n = 2 to 9."""

    def file(metric: Metric) -> Metric:
        for size in range(2, 10):
            feature(f"{name}[n={size}]", unit=unit, reference=reference, size=size)(metric)
        return metric

    return file


@each_size("repetition", unit="pairs", reference="Mogren, C-RNN-GAN, 2016")
def repetition(piece: Piece, *, size: int) -> float:
    """Number of pairs of equal pitch n-grams of one track that do not overlap; n is at most 9.

    A track's pitches stand in the order of onset, then pitch. Mind that the number of pairs grows
    with the square of the length of a piece.
    """
    grams, tracks = pitch_ngrams(piece, size)
    kind = np.unique(grams, return_inverse=True)[1] * 256 + tracks
    counts = np.unique(kind, return_counts=True)[1]
    pairs = int((counts * (counts - 1)).sum()) // 2
    for lag in range(1, size):
        # Those that overlap by `size - lag` notes.
        pairs -= int(np.count_nonzero(kind[lag:] == kind[:-lag]))
    return float(pairs)


@each_size(
    "distinct", unit="share", reference="Li et al., A diversity-promoting objective function, 2016"
)
def distinct(piece: Piece, *, size: int) -> float:
    """Distinct pitch n-grams of all tracks by their number, 0 to 1; n is at most 9.

    A track's pitches stand in the order of onset, then pitch. NaN where no track has n notes.
    """
    grams, _ = pitch_ngrams(piece, size)
    return len(np.unique(grams)) / len(grams) if len(grams) else math.nan


def pitch_ngrams(piece: Piece, size: int) -> tuple[Ints, Ints]:
    """Code and track of every run of `size` pitches of one track, track after track.

    Equal codes mean equal pitches: nine pitches of 7 bits fill an int64.
    """
    notes, _ = by_track(piece.pitched)
    pitches, tracks = notes["pitch"].astype(np.int64), notes["track"].astype(np.int64)
    if len(notes) < size:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(pitches, size)
    whole = tracks[size - 1 :] == tracks[: len(windows)]
    return windows[whole] @ 128 ** np.arange(size), tracks[: len(windows)][whole]

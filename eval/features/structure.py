"""How much a piece repeats itself; drums left out."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from eval.features.pitch import JAZZ_TRANSFORMER
from eval.features.registry import Metric, register
from eval.features.spans import Ints, beat_lines, by_track, chroma
from rnngan.music.piece import Piece

MAX_FRAMES = 128
"""Longer pieces are looked at in coarser frames: the cost grows with the third power."""
ALIKE = 0.75 - 1e-9
"""Least cosine of the chroma of two frames that are alike. Two triads that share two of their
three tones have 2/3."""
UNLIKE = -2.0
"""What a frame unlike its counterpart costs, as in the reference."""
COPY_COST = 1e-6
"""So little that it only decides between sets of copies that are as good as each other."""

feature = partial(register, group="structure")
repeats = partial(
    feature,
    unit="fitness",
    direction="clearer repeats",
    reference="Müller, Jiang & Grohganz, A robust fitness measure for capturing repetitions, "
    "2013; " + JAZZ_TRANSFORMER + " (there SI)",
)


def each_size(
    name: str, *, unit: str, direction: str, reference: str, high: float = 1.0
) -> Callable[[Metric], Metric]:
    """Decorator: files a feature of n-grams for n = 2 to 9."""

    def file(metric: Metric) -> Metric:
        for size in range(2, 10):
            feature(
                f"{name}[n={size}]",
                unit=unit,
                high=high,
                direction=direction,
                reference=reference,
                size=size,
            )(metric)
        return metric

    return file


@each_size(
    "repetition",
    unit="pairs",
    high=math.inf,
    direction="more repetition",
    reference="Mogren, C-RNN-GAN, 2016",
)
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
    "distinct",
    unit="share",
    direction="less repetition",
    reference="Li et al., A diversity-promoting objective function, 2016",
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


@repeats("structure[15+ s]", shortest=15, longest=math.inf)
@repeats("structure[8-15 s]", shortest=8, longest=15)
@repeats("structure[3-8 s]", shortest=3, longest=8)
def structure(piece: Piece, *, shortest: float, longest: float) -> float:
    """Largest fitness of a segment of `shortest` up to below `longest` seconds, 0 to 1.

    The fitness of a segment is the harmonic mean of how closely and how much of the piece its
    repeats explain, the segment itself not counted: with K copies of M frames, itself among them,
    in a piece of N frames, and Σ the likeness of all their frames, the harmonic mean of
    (Σ − M) / KM and (KM − M) / N. Of all sets of copies that do not overlap the one with the
    largest Σ is taken, of equals the one with fewest copies; 0 where nothing comes back.

    Frames are beats, or 2, 4, 8, ... beats of a piece of more than `MAX_FRAMES` of them. The
    likeness of two is the cosine of their chroma, and `UNLIKE` below `ALIKE`; silence is like
    nothing but itself. NaN without notes and where the piece is shorter than `shortest`.

    Differs from the reference, which looks at sound, in seconds: on beats, repeats keep their
    pace, and a copy is a diagonal of the self-similarity matrix.
    """
    lines = frame_lines(piece)
    num_frames = len(lines) - 1
    if not len(piece.pitched):
        return math.nan
    seconds = piece.seconds_at(lines)
    duration = seconds[None, :] - seconds[:, None]
    start, until = np.nonzero((duration >= shortest - 1e-9) & (duration < longest - 1e-9))
    if not len(start):
        return math.nan
    twice = until - start <= num_frames // 2  # longer segments do not fit in twice
    fitness = scape(chroma(lines, piece.pitched).tobytes())
    return float(fitness[(until - start)[twice] - 1, start[twice]].max(initial=0.0))


def frame_lines(piece: Piece) -> Ints:
    """Ticks where frames begin and where the last one ends: `(frames + 1,)`; see `structure`."""
    lines = beat_lines(piece)
    beats = 1
    while len(lines) - 1 > beats * MAX_FRAMES:
        beats *= 2
    return np.append(lines[:-1:beats], lines[-1])


@lru_cache(maxsize=1)  # the bands of one piece come one after the other
def scape(frames: bytes) -> NDArray[np.float64]:
    """Fitness of the segments of 1, 2, ..., frames / 2 frames at each start: `(sizes, frames)`.

    Garbage where a segment would pass the end. `frames` are the bytes of an int64 chroma
    `(frames, 12)`.
    """
    likeness = self_similarity(np.frombuffer(frames, np.int64).reshape(-1, 12))
    num_frames = len(likeness)
    num_sizes = num_frames // 2
    # along[i, j]: sum of the diagonal that ends before row i, column j.
    along = np.zeros((num_frames + 1, 2 * num_frames))
    for row in range(num_frames):
        along[row + 1, 1 : num_frames + 1] = along[row, :num_frames] + likeness[row]
    # Within the first so many rows: the best sum, less the cost of its copies, and their number.
    best = np.zeros((num_frames + 1, num_sizes, num_frames))
    copies = np.zeros(best.shape, np.int16)
    for row in range(1, num_frames + 1):
        best[row], copies[row] = best[row - 1], copies[row - 1]
        each = np.arange(min(row, num_sizes))
        before = row - 1 - each
        ends = np.lib.stride_tricks.sliding_window_view(along[row], num_frames)[each + 1]
        with_copy = best[before, each] + ends - along[before, :num_frames] - COPY_COST
        better = with_copy > best[row - 1, each]
        np.copyto(best[row, : len(each)], with_copy, where=better)
        np.copyto(copies[row, : len(each)], copies[before, each] + 1, where=better)
    size = np.arange(1, num_sizes + 1)[:, None]
    explained = np.maximum(copies[-1], 1) * size
    closeness = (best[-1] + COPY_COST * copies[-1] - size) / explained
    coverage = (explained - size) / num_frames
    total = closeness + coverage
    repeated = (closeness > 1e-9) & (coverage > 0)
    fitness: NDArray[np.float64] = 2 * closeness * coverage / np.where(repeated, total, math.inf)
    fitness.flags.writeable = False
    return fitness


def self_similarity(chroma: Ints) -> NDArray[np.float64]:
    """Likeness of every two frames, `(frames, frames)`, as `structure` has it."""
    dot = chroma @ chroma.T
    norm = np.sqrt(np.diag(dot))
    cosine = dot / np.maximum(np.outer(norm, norm), 1)
    likeness: NDArray[np.float64] = np.where(cosine >= ALIKE, cosine, UNLIKE)
    np.fill_diagonal(likeness, 1)
    return likeness

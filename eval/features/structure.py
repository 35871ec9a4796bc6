"""How much a piece repeats itself; drums left out."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eval.features.pitch import JAZZ_TRANSFORMER
from eval.features.registry import Metric, register
from eval.features.spans import Ints, beat_chroma, beat_lines, by_track, pitched, remembered
from rnngan.music.piece import Piece

MAX_FRAMES = 128
"""Longer pieces are looked at in coarser frames: the cost grows with the third power."""
SIZES = range(2, 10)
"""Of n-grams."""
DENSE_FROM = 6
"""Smaller n-grams and their track have a number of 63 bits or fewer between them."""
ALIKE = 0.75 - 1e-9
"""Least cosine of the chroma of two frames that are alike. Two triads that share two of their
three tones have 2/3."""
SHORTEST = 3
"""Seconds; nobody asks for shorter segments, so that they are not looked at."""
UNLIKE = -2.0
"""What a frame unlike its counterpart costs, as in the reference."""
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
        for size in SIZES:
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
    return pitch_ngrams(piece)[size].repeated_pairs


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
    grams = pitch_ngrams(piece)[size]
    return grams.num_distinct / grams.total if grams.total else math.nan


class PitchNGrams(NamedTuple):
    """The runs of so many pitches of one track, of all tracks.

    Attributes:
        total: How many there are.
        num_distinct: How many of them differ.
        repeated_pairs: Pairs of equal ones of one track that do not overlap.
    """

    total: int
    num_distinct: int
    repeated_pairs: float


@remembered
def pitch_ngrams(piece: Piece) -> dict[int, PitchNGrams]:
    """What there is of each of `SIZES`."""
    notes, _ = by_track(piece)
    pitches, tracks = notes["pitch"].astype(np.int64), notes["track"].astype(np.int64)
    places = tracks * 128 + pitches
    # Of the run of each size that begins with each note: one number for its pitches, and one for
    # its pitches and its track; -1 where it would leave the track.
    grams, own_grams = np.full((2, len(SIZES), len(notes)), -1)
    # same[d - 1, i]: notes i and i + d of a track have one pitch; equal: so do those after them.
    lags = np.arange(1, SIZES[-1])
    same = np.zeros((len(lags), len(notes)), np.bool_)
    for lag in lags[: len(notes)]:
        same[lag - 1, : len(notes) - lag] = places[lag:] == places[:-lag]
    equal = same
    overlapping = []
    codes, own_codes = pitches, places
    for row, size in enumerate(SIZES):
        if size == DENSE_FROM:
            own_codes = np.unique(own_codes, return_inverse=True)[1]
        # Nine pitches of 7 bits fill an int64; with the track beside them they need dense codes.
        codes = codes[:-1] * 128 + pitches[size - 1 :]
        own_codes = own_codes[:-1] * 128 + pitches[size - 1 :]
        whole = tracks[: len(codes)] == tracks[size - 1 :]
        grams[row, : len(codes)] = np.where(whole, codes, -1)
        own_grams[row, : len(codes)] = np.where(whole, own_codes, -1)
        equal = equal[:, :-1] & same[:, size - 1 :]
        overlapping.append(np.count_nonzero(equal[: size - 1]))
    counts = np.count_nonzero(grams >= 0, axis=1)
    num_distinct, _ = _equal_ones(grams)
    _, num_pairs = _equal_ones(own_grams)
    rows = zip(counts.tolist(), num_distinct.tolist(), (num_pairs - overlapping).tolist())
    return {size: PitchNGrams(*row) for size, row in zip(SIZES, rows)}


def _equal_ones(numbers: Ints) -> tuple[NDArray[Any], NDArray[Any]]:
    """Of each row, how many numbers differ, and how many pairs are equal; below 0 does not count.

    Shapes: numbers `(rows, n)`; results `(rows,)`.
    """
    ordered = np.sort(numbers, axis=1)
    first = np.ones(numbers.shape, np.bool_)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    starts = np.flatnonzero(first)
    sizes = np.diff(starts, append=numbers.size)
    counted = ordered.ravel()[starts] >= 0
    row, sizes = starts[counted] // max(numbers.shape[1], 1), sizes[counted]
    pairs = np.bincount(row, sizes * (sizes - 1) / 2, minlength=len(numbers))
    return np.bincount(row, minlength=len(numbers)), pairs


@repeats("structure[15+ s]", shortest=15, longest=math.inf)
@repeats("structure[8-15 s]", shortest=8, longest=15)
@repeats("structure[3-8 s]", shortest=SHORTEST, longest=8)
def structure(piece: Piece, *, shortest: float, longest: float) -> float:
    """Largest fitness of a segment of `shortest` up to below `longest` seconds, 0 to 1.

    `shortest` is `SHORTEST` or more.

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
    if not len(pitched(piece)):
        return math.nan
    least, beyond = (frames_within(piece, length) for length in (shortest, longest))
    # Segments of so many frames and more pass the end.
    beyond = np.minimum(beyond, np.arange(len(least), 0, -1) + 1)
    if not (least < beyond).any():
        return math.nan
    first, fitness = scape_of(piece)  # longer segments do not fit in twice
    sizes = np.arange(first, first + len(fitness))[:, None]
    return float(fitness[(sizes >= least) & (sizes < beyond)].max(initial=0.0))


def frames_within(piece: Piece, length: float) -> Ints:
    """Frames, from each one on, that together last so many seconds or more, or pass the end."""
    seconds = frame_seconds(piece)
    starts = np.arange(len(seconds) - 1)
    frames: Ints = seconds.searchsorted(seconds[:-1] + (length - 1e-9)) - starts
    return frames


@remembered
def frame_seconds(piece: Piece) -> NDArray[np.float64]:
    """`frame_lines` in seconds."""
    return piece.seconds_at(frame_lines(piece))


@remembered
def frame_lines(piece: Piece) -> Ints:
    """Ticks where frames begin and where the last one ends: `(frames + 1,)`; see `structure`."""
    lines = beat_lines(piece)
    return np.append(lines[: -1 : frame_beats(len(lines) - 1)], lines[-1])


def frame_beats(num_beats: int) -> int:
    """Beats in a frame of a piece of so many."""
    beats = 1
    while num_beats > beats * MAX_FRAMES:
        beats *= 2
    return beats


@remembered
def scape_of(piece: Piece) -> tuple[int, NDArray[np.float64]]:
    """`scape` of a piece's frames, and the fewest that last `SHORTEST` seconds: its first size."""
    beats = beat_chroma(piece)
    frames = np.add.reduceat(beats, np.arange(0, len(beats), frame_beats(len(beats))))
    fewest = max(int(frames_within(piece, SHORTEST).min()), 1)
    return fewest, scape(frames, fewest)


def scape(frames: Ints, fewest: int = 1) -> NDArray[np.float64]:
    """Fitness of the segments of `fewest`, ..., frames / 2 frames at each start: `(sizes, frames)`.

    Garbage where a segment would pass the end. `frames` is a chroma `(frames, 12)`.
    """
    likeness = self_similarity(frames)
    num_frames = len(likeness)
    num_sizes = max(num_frames // 2 + 1 - fewest, 0)
    if not num_sizes:
        return np.empty((0, num_frames))
    # A set of copies is worth its likeness in units of 2^-32, times 256, less their number, at
    # most 128. So one whole number holds both, and of equal likeness the fewest copies win.
    worth = np.rint(likeness * 2.0**32).astype(np.int64) << 8
    # along[i, j]: sum of the diagonal that ends before row i, column j.
    along = np.zeros((num_frames + 1, 2 * num_frames), np.int64)
    for row in range(num_frames):
        np.add(along[row, :num_frames], worth[row], out=along[row + 1, 1 : num_frames + 1])
    # best[row, size - fewest, start]: what the best set within the first so many rows is worth.
    best = np.zeros((num_frames + 1, num_sizes, num_frames), np.int64)
    # Seen from a copy that ends with a row, from the first that may: its diagonal's ends, and the
    # best set before it.
    num_ends = num_frames + 1 - fewest
    views = partial(np.lib.stride_tricks.as_strided, shape=(num_ends, *best.shape[1:]))
    down, right = along.strides
    ends = views(along[fewest:, fewest:], strides=(down, right, right))
    begins = views(along + 1, strides=(down, -down, right))
    row_stride, size_stride, start_stride = best.strides
    before = views(best, strides=(row_stride, size_stride - row_stride, start_stride))
    for turn, (rows, after) in enumerate(zip(best[fewest - 1 :], best[fewest:])):
        fitting = slice(min(turn + 1, num_sizes))
        with_copy = np.subtract(ends[turn, fitting], begins[turn, fitting], out=after[fitting])
        with_copy += before[turn, fitting]
        np.maximum(rows[fitting], with_copy, out=with_copy)
    copies = -best[-1] & 255
    size = np.arange(fewest, fewest + num_sizes)[:, None]
    explained = np.maximum(copies, 1) * size
    closeness = (((best[-1] + copies) >> 8) * 2.0**-32 - size) / explained
    coverage = (explained - size) / num_frames
    total_share = closeness + coverage
    repeated = (closeness > 1e-9) & (coverage > 0)
    fitness: NDArray[np.float64] = (
        2 * closeness * coverage / np.where(repeated, total_share, math.inf)
    )
    return fitness


def self_similarity(chroma: Ints) -> NDArray[np.float64]:
    """Likeness of every two frames, `(frames, frames)`, as `structure` has it."""
    amounts = chroma.astype(np.float64)  # whole numbers are multiplied slowly
    dot = amounts @ amounts.T
    norm = np.sqrt(np.diag(dot))
    cosine = dot / np.maximum(np.outer(norm, norm), 1)
    likeness: NDArray[np.float64] = np.where(cosine >= ALIKE, cosine, UNLIKE)
    np.fill_diagonal(likeness, 1)
    return likeness

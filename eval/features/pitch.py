"""Which pitches a piece uses and how it moves between them, drums left out."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from eval.features.registry import normalised, register
from eval.features.spans import Ints, bar_lines, by_track, cell_of, covered, pitched, remembered
from rnngan.music.piece import Notes, Piece

Weight = Literal["count", "duration", "duration*velocity"]
Normalise = Literal["none", "row", "mean row", "total"]

YANG_LERCH = "Yang & Lerch, On the evaluation of generative models in music, 2018"
MGEVAL = "mgeval, the code of Yang & Lerch 2018"
MUSPY = "Dong et al., MusPy, ISMIR 2020"
JAZZ_TRANSFORMER = "Wu & Yang, The Jazz Transformer on the front line, ISMIR 2020"

PITCH_CLASSES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
WIDEST = 24
"""Intervals of two octaves and more share the outermost bins."""
TOUCH_SECONDS = 0.05 - 1e-9
"""Gaps of exactly 50 ms, two ticks at tempo 100, are too wide however floats round them."""

feature = partial(register, group="pitch")
pitch_bins = partial(
    feature,
    unit="semitones",
    bins=[f"{PITCH_CLASSES[p % 12]}{p // 12 - 1}" for p in range(128)],
    positions=range(128),
)
pitch_class_bins = partial(feature, unit="pitch class", bins=PITCH_CLASSES)
class_entropy = partial(feature, unit="bits", high=math.log2(12), direction="more varied")
pitch_class_pairs = partial(
    feature, unit="pitch class", bins=[f"{a}->{b}" for a in PITCH_CLASSES for b in PITCH_CLASSES]
)


@feature("pitch_count", unit="pitches", high=128, direction="more pitches", reference=YANG_LERCH)
def pitch_count(piece: Piece) -> float:
    """Number of distinct pitches, 0 to 128."""
    return float(np.count_nonzero(np.bincount(pitched(piece)["pitch"])))


@feature(
    "pitch_class_count[bar]",
    unit="pitch classes per bar",
    high=12,
    direction="more pitch classes",
    reference="Dong et al., MuseGAN, AAAI 2018 (there UPC)",
    per="bar",
)
@feature(
    "pitch_class_count",
    unit="pitch classes",
    high=12,
    direction="more pitch classes",
    reference=MUSPY,
)
def pitch_class_count(piece: Piece, *, per: Literal["piece", "bar"] = "piece") -> float:
    """Number of distinct pitch classes, 0 to 12; or its mean over the bars.

    A bar uses the pitch classes that sound in it, wherever they began; a silent bar uses 0. The
    mean is NaN for a piece of no bars.

    Differs from Pypianoroll 1.0.4, for which C in three octaves is four pitch classes.
    """
    notes = pitched(piece)
    classes = notes["pitch"] % 12
    if per == "piece":
        return float(np.count_nonzero(np.bincount(classes)))
    lines = bar_lines(piece)
    if len(lines) == 1:
        return math.nan
    sounding = covered(lines, notes["start"], notes["end"], classes, 12)
    return float(np.count_nonzero(sounding) / (len(lines) - 1))


@feature("pitch_range", unit="semitones", high=127, direction="wider", reference=YANG_LERCH)
def pitch_range(piece: Piece) -> float:
    """Highest minus lowest pitch in semitones, 0 to 127; NaN without pitched notes.

    Differs from MusPy 0.5.0, where drums alone have a range of −127.
    """
    pitches = pitched(piece)["pitch"]
    return float(pitches.max()) - float(pitches.min()) if len(pitches) else math.nan


@feature("pitch_entropy", unit="bits", high=7, direction="more varied", reference=MUSPY)
def pitch_entropy(piece: Piece) -> float:
    """Entropy of the pitches of the notes in bits, 0 to 7: −Σ P log2 P; NaN without notes."""
    return float(entropy(np.bincount(pitched(piece)["pitch"], minlength=128)))


@pitch_bins("pitch_histogram[duration*velocity]", reference=MGEVAL, weight="duration*velocity")
@pitch_bins("pitch_histogram[duration]", reference=YANG_LERCH, weight="duration")
@pitch_bins("pitch_histogram[count]", reference=MUSPY, weight="count")
def pitch_histogram(piece: Piece, *, weight: Weight) -> NDArray[np.float64]:
    """Share of each MIDI pitch, `(128,)`; NaN without notes.

    Args:
        piece: The piece.
        weight: What a note weighs: 1, its ticks, or ticks times velocity. Ticks rather than
            mgeval's seconds, so that the tempo has no say.
    """
    notes = pitched(piece)
    return normalised(np.bincount(notes["pitch"], _weights(notes, weight), minlength=128))


@pitch_class_bins(
    "pitch_class_histogram[duration*velocity]", reference=MGEVAL, weight="duration*velocity"
)
@pitch_class_bins("pitch_class_histogram[duration]", reference=YANG_LERCH, weight="duration")
@pitch_class_bins("pitch_class_histogram[count]", reference=MUSPY, weight="count")
def pitch_class_histogram(piece: Piece, *, weight: Weight) -> NDArray[np.float64]:
    """Share of each pitch class from C, `(12,)`; NaN without notes. Weights: `pitch_histogram`."""
    notes = pitched(piece)
    return normalised(np.bincount(notes["pitch"] % 12, _weights(notes, weight), minlength=12))


@class_entropy("pitch_class_entropy[4]", reference=JAZZ_TRANSFORMER, bars=4)
@class_entropy("pitch_class_entropy[1]", reference=JAZZ_TRANSFORMER, bars=1)
@class_entropy("pitch_class_entropy", reference=MUSPY)
def pitch_class_entropy(piece: Piece, *, bars: int | None = None) -> float:
    """Entropy of the pitch classes of the notes in bits, 0 to log2 12: −Σ P log2 P.

    Over the whole piece; or the mean over windows of so many bars that move on bar by bar, each
    holding the notes that begin in it, empty windows skipped. A piece shorter than the window is
    one window. NaN without notes.
    """
    notes = pitched(piece)
    classes = notes["pitch"] % 12
    if not len(notes) or bars is None:
        return float(entropy(np.bincount(classes, minlength=12)))
    lines = bar_lines(piece)
    num_bars = len(lines) - 1
    cells = cell_of(lines, notes["start"]) * 12 + classes
    per_bar = np.bincount(cells, minlength=num_bars * 12).reshape(num_bars, 12)
    until = np.concatenate([np.zeros((1, 12), np.int64), per_bar.cumsum(axis=0)])
    size = min(bars, num_bars)
    windows = until[size:] - until[:-size]
    return float(entropy(windows[windows.any(axis=1)]).mean())


@pitch_class_pairs(
    "pitch_class_transitions[successive,row]",
    reference=MGEVAL,
    pairs="successive",
    normalise="mean row",
)
@pitch_class_pairs("pitch_class_transitions[successive]", reference=YANG_LERCH, pairs="successive")
@pitch_class_pairs(
    "pitch_class_transitions[50ms,row]", reference=MGEVAL, pairs="touching", normalise="mean row"
)
@pitch_class_pairs(
    "pitch_class_transitions[50ms]",
    reference="Raffel & Ellis, pretty_midi, ISMIR 2014; mgeval",
    pairs="touching",
)
def pitch_class_transitions(
    piece: Piece,
    *,
    pairs: Literal["touching", "successive"],
    normalise: Normalise = "total",
) -> NDArray[np.float64]:
    """How often each pitch class follows each, within one track.

    Args:
        piece: The piece.
        pairs: `touching`: every two notes where the first ends less than 50 ms before or after the
            second begins. `successive`: neighbours in the order of onset, then pitch.
        normalise: Counts (`none`); shares of each row, NaN where nothing follows (`row`); the same
            over the number of rows that have any, 0 in the others, so that every pitch class that
            is followed weighs the same (`mean row`, the `[row]` of a feature); or shares of the
            whole (`total`).

    Returns:
        The 12 × 12 matrix row by row, from C to C first, `(144,)`; NaN without transitions unless
        counts are asked for.

    Differs from pretty_midi, where a note shorter than 50 ms follows itself.
    """
    notes, same_track = by_track(piece)
    if pairs == "successive":
        source = np.flatnonzero(same_track)
        target = source + 1
    else:
        source, target = _touching(piece)
    classes = notes["pitch"].astype(np.int64) % 12
    return transitions(classes[source], classes[target], normalise)


@feature(
    "pitch_interval_mean",
    unit="semitones",
    high=127,
    direction="wider leaps",
    reference=YANG_LERCH,
)
def pitch_interval_mean(piece: Piece) -> float:
    """Mean size of the melodic intervals in semitones; NaN where there are none.

    Melodic intervals lie between successive notes of a monophonic part: a track in which no two
    notes sound together. Differs from mgeval, which also takes the notes of a chord for a melody.
    """
    intervals = melodic_intervals(piece)
    return float(np.abs(intervals).mean()) if len(intervals) else math.nan


@feature(
    "interval_histogram",
    unit="semitones",
    reference=YANG_LERCH,
    bins=[f"{interval:+d}" for interval in range(-WIDEST, WIDEST + 1)],
    positions=range(-WIDEST, WIDEST + 1),
)
def interval_histogram(piece: Piece) -> NDArray[np.float64]:
    """Share of each melodic interval from two octaves down to two up, `(49,)`.

    The outermost bins hold all that is wider. What counts as melodic: `pitch_interval_mean`.
    """
    intervals = melodic_intervals(piece).clip(-WIDEST, WIDEST)
    return normalised(np.bincount(intervals + WIDEST, minlength=2 * WIDEST + 1))


@remembered
def melodic_intervals(piece: Piece) -> Ints:
    """Semitones between successive notes, upwards positive, of all monophonic parts."""
    notes, same_track = by_track(piece)
    overlap = same_track & (notes["start"][1:] < notes["end"][:-1])
    polyphonic = np.zeros(256, np.bool_)
    polyphonic[notes["track"][1:][overlap]] = True
    melodic = same_track & ~polyphonic[notes["track"][1:]]
    intervals: Ints = np.diff(notes["pitch"].astype(np.int64))[melodic]
    return intervals


def entropy(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Entropy in bits along the last axis; NaN where the counts are all 0."""
    total = counts.sum(axis=-1, keepdims=True)
    share = counts / np.where(total > 0, total, math.nan)
    return -np.asarray((share * np.log2(np.where(counts > 0, share, 1))).sum(axis=-1))


def transitions(source: Ints, target: Ints, normalise: Normalise = "total") -> NDArray[np.float64]:
    """Counts or shares of the pairs of 12 classes, row by row, `(144,)`."""
    counts = np.bincount(source * 12 + target, minlength=144)
    if normalise == "total":
        return normalised(counts)
    if normalise == "row":
        return np.concatenate([normalised(row) for row in counts.reshape(12, 12)])
    if normalise == "mean row":
        totals = counts.reshape(12, 12).sum(axis=1)
        return normalised(counts / np.repeat(np.maximum(totals, 1), 12))
    return counts.astype(np.float64)


def _weights(notes: Notes, weight: Weight) -> NDArray[np.float64] | None:
    """What each note weighs; None for 1."""
    if weight == "count":
        return None
    ticks: NDArray[np.float64] = (notes["end"] - notes["start"]).astype(np.float64)
    return ticks if weight == "duration" else ticks * notes["velocity"]


@remembered
def _touching(piece: Piece) -> tuple[Ints, Ints]:
    """Pairs of notes of one track, the end of the one within 50 ms of the start of the other.

    By their places in `by_track`.
    """
    notes, _ = by_track(piece)
    # Tracks lie one after the other on a single line of time, too far apart to touch.
    seconds = piece.seconds_at(np.concatenate([notes["start"], notes["end"], [piece.end]]))
    offset = notes["track"] * (seconds[-1] + 1)
    starts = offset + seconds[: len(notes)]
    ends = offset + seconds[len(notes) : -1]
    first = np.searchsorted(starts, ends - TOUCH_SECONDS)
    count = np.searchsorted(starts, ends + TOUCH_SECONDS) - first
    source = np.repeat(np.arange(len(notes)), count)
    target = np.arange(len(source)) + np.repeat(first - count.cumsum() + count, count)
    other = source != target
    return source[other], target[other]

"""When notes begin and how long they last; drums left out except in `drum_pattern_rate`."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from eval.features.pitch import MGEVAL, YANG_LERCH, Normalise, transitions
from eval.features.registry import Metric, normalised, register
from eval.features.spans import (
    Ints,
    bar_lines,
    beat_lines,
    by_track,
    cell_of,
    merged,
    onset_ticks,
    pitched,
    remembered,
)
from rnngan.music.piece import DRUMS, TICKS_PER_QUARTER, Metre, Piece

Clock = Literal["beats", "seconds"]

MUSEGAN = "Dong et al., MuseGAN, AAAI 2018"
JAZZ_TRANSFORMER = "Wu & Yang, The Jazz Transformer on the front line, ISMIR 2020 (there GS)"

SIXTEENTH = TICKS_PER_QUARTER // 4
THIRTY_SECOND = TICKS_PER_QUARTER // 8
NOTE_LENGTHS = {
    "whole": 96,
    "half": 48,
    "quarter": 24,
    "eighth": 12,
    "16th": 6,
    "dotted half": 72,
    "dotted quarter": 36,
    "dotted eighth": 18,
    "dotted 16th": 9,
    "half triplet": 32,
    "quarter triplet": 16,
    "eighth triplet": 8,
}
"""Yang & Lerch's twelve classes in their order, in 96ths of a whole note."""
LONGEST = 4
"""Inter-onset intervals of so many beats or seconds and more share the last bin."""
BINS_PER_UNIT: dict[Clock, int] = {"beats": TICKS_PER_QUARTER, "seconds": 20}
WIDEST_SWING = 3.0
"""A beat split more unevenly than a dotted eighth and a 16th is not a pair of eighths."""

feature = partial(register, group="rhythm")
note_length_bins = partial(feature, unit="note length", bins=[*NOTE_LENGTHS])
note_length_pairs = partial(
    feature,
    unit="note length",
    bins=[f"{a}->{b}" for a in NOTE_LENGTHS for b in NOTE_LENGTHS],
    reference=YANG_LERCH,
)
density = partial(feature, high=math.inf, direction="busier", reference=YANG_LERCH)
interval_mean = partial(feature, high=math.inf, direction="sparser")
alike_bars = partial(feature, unit="share", direction="steadier", reference=JAZZ_TRANSFORMER)
on_grid = partial(
    feature, unit="share", direction="closer to the grid", reference=MUSEGAN + " (there DP)"
)


def interval_bins(variant: str, clock: Clock, raw: bool) -> Callable[[Metric], Metric]:
    """Decorator: files a histogram of inter-onset intervals."""
    steps = range(LONGEST * BINS_PER_UNIT[clock] + 1)
    return feature(
        f"inter_onset_interval_histogram[{variant}]",
        unit=clock,
        bins=[f"{step / BINS_PER_UNIT[clock]:.3g}" for step in steps],
        positions=[step / BINS_PER_UNIT[clock] for step in steps],
        reference=MGEVAL if raw else YANG_LERCH,
        clock=clock,
        raw=raw,
    )


@feature("note_count", unit="notes", high=math.inf, direction="more notes", reference=YANG_LERCH)
def note_count(piece: Piece) -> float:
    """Number of notes."""
    return float(len(pitched(piece)))


@density("note_density[second]", unit="notes per second", per="second")
@density("note_density[beat]", unit="notes per beat", per="beat")
@density("note_density[bar]", unit="notes per bar", per="bar")
def note_density(piece: Piece, *, per: Literal["bar", "beat", "second"]) -> float:
    """Notes per bar, begun bars counting whole; or per beat or second up to the end of the piece.

    NaN for a piece of no duration.
    """
    if not piece.end:
        return math.nan
    if per == "bar":
        size = float(piece.num_bars)
    elif per == "beat":
        size = piece.end / TICKS_PER_QUARTER
    else:
        size = float(piece.seconds_at(piece.end))
    return len(pitched(piece)) / size


@interval_mean(
    "inter_onset_interval_mean[seconds,raw]",
    unit="seconds",
    reference=MGEVAL,
    clock="seconds",
    raw=True,
)
@interval_mean(
    "inter_onset_interval_mean[beats,raw]", unit="beats", reference=MGEVAL, clock="beats", raw=True
)
@interval_mean(
    "inter_onset_interval_mean[seconds]", unit="seconds", reference=YANG_LERCH, clock="seconds"
)
@interval_mean(
    "inter_onset_interval_mean[beats]", unit="beats", reference=YANG_LERCH, clock="beats"
)
def inter_onset_interval_mean(piece: Piece, *, clock: Clock, raw: bool = False) -> float:
    """Mean time between successive onsets of the whole piece; NaN for fewer than two.

    Args:
        piece: The piece.
        clock: Unit of the intervals: beats are quarters.
        raw: Whether notes that begin together are 0 apart, as in mgeval (which takes in the drums
            as well); otherwise they are one onset.
    """
    intervals = inter_onset_intervals(piece, clock=clock, raw=raw)
    return float(intervals.mean()) if len(intervals) else math.nan


@interval_bins("seconds,raw", "seconds", True)
@interval_bins("beats,raw", "beats", True)
@interval_bins("seconds", "seconds", False)
@interval_bins("beats", "beats", False)
def inter_onset_interval_histogram(
    piece: Piece, *, clock: Clock, raw: bool = False
) -> NDArray[np.float64]:
    """Share of each inter-onset interval: `(97,)` by ticks up to 4 beats, `(81,)` by 50 ms to 4 s.

    Intervals in seconds go to the nearest bin; longer ones to the last. NaN for fewer than two
    onsets. Arguments: `inter_onset_interval_mean`.
    """
    intervals = inter_onset_intervals(piece, clock=clock, raw=raw)
    steps = np.rint(intervals.clip(max=LONGEST) * BINS_PER_UNIT[clock]).astype(np.int64)
    return normalised(np.bincount(steps, minlength=LONGEST * BINS_PER_UNIT[clock] + 1))


@feature(
    "note_length_histogram[24]",
    unit="note length",
    bins=[*NOTE_LENGTHS, *(f"{name} rest" for name in NOTE_LENGTHS)],
    reference=YANG_LERCH,
    rests=True,
)
@note_length_bins("note_length_histogram[bar]", reference=MGEVAL, relative_to="bar")
@note_length_bins("note_length_histogram", reference=YANG_LERCH)
def note_length_histogram(
    piece: Piece, *, relative_to: Literal["whole", "bar"] = "whole", rests: bool = False
) -> NDArray[np.float64]:
    """Share of notes nearest to each of the twelve `NOTE_LENGTHS`, `(12,)`; NaN without notes.

    A tie goes to the earlier class: plain before dotted before triplet.

    Args:
        piece: The piece.
        relative_to: What a whole note is: four quarters, or, as in mgeval, a bar of the metre in
            which the note begins.
        rests: Whether twelve classes of rests follow, `(24,)`. A rest is a silence of at least a
            32nd between two notes of one track.

    Differs from mgeval, which files quarters as halves when the time signature stands in another
    track than it expects, and drops rests that lie a 32nd or more from every class.
    """
    notes = pitched(piece)
    lengths = notes["end"] - notes["start"]
    if relative_to == "bar":
        changes = np.array([metre.tick for metre in piece.metres])
        bars = np.array([metre.ticks_per_bar for metre in piece.metres])
        classes = _length_class(lengths, bars[cell_of(changes, notes["start"])])
    else:
        classes = _plain_length_class(lengths)
    counts = np.bincount(classes, minlength=12)
    if rests:
        track, starts, ends = merged(notes["start"], notes["end"], notes["track"])
        silence = (starts[1:] - ends[:-1])[track[1:] == track[:-1]]
        silence = silence[silence >= THIRTY_SECOND]
        counts = np.append(counts, np.bincount(_plain_length_class(silence), minlength=12))
    return normalised(counts)


@note_length_pairs("note_length_transitions[row]", normalise="mean row")
@note_length_pairs("note_length_transitions")
def note_length_transitions(piece: Piece, *, normalise: Normalise = "total") -> NDArray[np.float64]:
    """How often each note length follows each among the successive notes of a track, `(144,)`.

    Notes follow one another in the order of onset, then pitch. The 12 × 12 matrix row by row;
    `normalise` and NaN as in `pitch_class_transitions`.
    """
    notes, same_track = by_track(piece)
    lengths = _plain_length_class(notes["end"] - notes["start"])
    return transitions(lengths[:-1][same_track], lengths[1:][same_track], normalise)


@feature(
    "qualified_note_rate",
    unit="share",
    direction="fewer fragments",
    reference=MUSEGAN + " (there QN)",
)
def qualified_note_rate(piece: Piece) -> float:
    """Share of notes at least a 32nd long, 0 to 1; NaN without notes."""
    notes = pitched(piece)
    if not len(notes):
        return math.nan
    return float(np.mean(notes["end"] - notes["start"] >= THIRTY_SECOND))


@alike_bars("groove[q=64,pairs=adjacent]", steps_per_bar=64, pairs="adjacent")
@alike_bars("groove[q=64,pairs=all]", steps_per_bar=64, pairs="all")
def groove(piece: Piece, *, steps_per_bar: int, pairs: Literal["all", "adjacent"]) -> float:
    """Mean likeness of the onset patterns of two bars, 0 to 1; NaN for fewer than two bars.

    A bar's pattern is a vector of Q steps, 1 where at least one note begins; onsets lie at step
    ⌊Q (onset − bar line) / length of the bar⌋, so that bars of several metres compare. Two bars
    are alike by 1 − (number of steps that differ) / Q. Silent bars count.

    Args:
        piece: The piece.
        steps_per_bar: Q.
        pairs: All pairs of bars, or only each bar with the next.

    Differs from MusPy 0.5.0, where two identical bars have 0.979 and Q is a bar in ticks, so that
    a finer grid brings any music nearer to 1.
    """
    lines = bar_lines(piece)
    num_bars = len(lines) - 1
    if num_bars < 2:
        return math.nan
    starts = pitched(piece)["start"]
    bar = cell_of(lines, starts)
    step = steps_per_bar * (starts - lines[bar]) // np.diff(lines)[bar]
    onsets = np.zeros((num_bars, steps_per_bar), np.bool_)
    onsets[bar, step] = True
    if pairs == "adjacent":
        return float(1 - np.mean(onsets[1:] != onsets[:-1]))
    # A step that k of n bars have differs in k (n − k) of their pairs.
    having = np.count_nonzero(onsets, axis=0)
    num_pairs = num_bars * (num_bars - 1) / 2
    return float(1 - (having @ (num_bars - having)) / (num_pairs * steps_per_bar))


@on_grid("drum_pattern_rate[8]", steps_per_whole=8)
@on_grid("drum_pattern_rate")
def drum_pattern_rate(piece: Piece, *, steps_per_whole: int = 16) -> float:
    """Weighted share of drum notes that begin on the grid of their bar, 0 to 1.

    Weight 1 on the grid of 16ths (or eighths), 0.1 one tick beside it, 0 elsewhere. NaN without
    drums.
    """
    starts = piece.notes["start"][piece.notes["program"] == DRUMS]
    if not len(starts):
        return math.nan
    lines = bar_lines(piece)
    weights = np.zeros(4 * TICKS_PER_QUARTER // steps_per_whole)
    weights[[0, 1, -1]] = 1, 0.1, 0.1
    return float(weights[(starts - lines[cell_of(lines, starts)]) % len(weights)].mean())


@feature(
    "syncopation",
    unit="share",
    direction="more syncopated",
    reference="Longuet-Higgins & Lee, The rhythmic interpretation of monophonic music, 1984",
)
def syncopation(piece: Piece) -> float:
    """Share of onsets on a weak position with no onset on the next stronger one, 0 to 1.

    A position weighs −i where level i is the coarsest metrical level (see `metrical_levels`) that
    it lies on; the bar line, level 0, is strong, all else weak. Onsets off the 16th grid are left
    out of both counts and fill no position, so performed music must be quantised first. Notes that
    begin together are one onset, and where the piece ends before the next stronger position
    nothing is missing there. NaN without onsets on the grid.
    """
    lines = bar_lines(piece)
    onsets = onset_ticks(piece)
    bar = cell_of(lines, onsets)
    position = onsets - lines[bar]
    level, next_stronger = np.empty_like(onsets), np.empty_like(onsets)
    metre = cell_of(np.array([metre.tick for metre in piece.metres]), onsets)
    for index in np.unique(metre):
        levels, next_places = _metrical_places(*piece.metres[index][1:])
        here = metre == index
        level[here] = levels[position[here]]
        next_stronger[here] = lines[bar[here]] + next_places[position[here]]
    next_stronger = np.minimum(next_stronger, lines[bar + 1])
    begins = np.zeros(lines[-1] + 1, np.bool_)
    begins[onsets] = True
    missing = ~begins[next_stronger] & (next_stronger < piece.end)
    on_grid = level >= 0
    if not on_grid.any():
        return math.nan
    return float(np.count_nonzero(missing & (level > 0)) / np.count_nonzero(on_grid))


@feature(
    "swing_ratio",
    unit="ratio",
    low=1 / WIDEST_SWING,
    high=WIDEST_SWING,
    direction="more swing",
    reference="Benadon, Slicing the beat, 2006",
)
def swing_ratio(piece: Piece) -> float:
    """Median ratio of the on-beat to the off-beat eighth, 1 straight, 2 triplet swing.

    Over all beats that begin with an onset, hold exactly one more and are followed by another on
    the next beat, as far as the ratio lies between 1/3 and 3. NaN where there are none.
    """
    onsets = onset_ticks(piece)
    lines = beat_lines(piece)
    first, second, third = onsets[:-2], onsets[1:-1], onsets[2:]
    pair = (third - first == TICKS_PER_QUARTER) & (lines[cell_of(lines, first)] == first)
    ratios = (second - first)[pair] / (third - second)[pair]
    eighths = ratios[(ratios >= 1 / WIDEST_SWING) & (ratios <= WIDEST_SWING)]
    return float(np.median(eighths)) if len(eighths) else math.nan


def inter_onset_intervals(piece: Piece, *, clock: Clock, raw: bool = False) -> NDArray[np.float64]:
    """Times between successive onsets of the whole piece, in beats (quarters) or seconds.

    `raw` keeps the intervals of 0 between notes that begin together.
    """
    return _intervals(piece)[clock, raw]


@remembered
def _intervals(piece: Piece) -> dict[tuple[Clock, bool], NDArray[np.float64]]:
    """`inter_onset_intervals` by `clock` and `raw`."""
    starts = pitched(piece)["start"].astype(np.float64)
    first = np.append(True, starts[1:] > starts[:-1])[: len(starts)]
    times: dict[Clock, NDArray[np.float64]] = {
        "beats": starts / TICKS_PER_QUARTER,
        "seconds": piece.seconds_at(starts),
    }
    found = {}
    for clock, raw in times.items():
        onsets = raw[first]
        found[clock, True] = raw[1:] - raw[:-1]
        found[clock, False] = onsets[1:] - onsets[:-1]
    return found


def metrical_levels(metre: Metre) -> list[int]:
    """Ticks of the metrical levels from the bar down to the 16th, each a multiple of the next.

    The bar is halved while its beats are even in number; then come the beats, three units each
    where the numerator is 6, 9, 12, ...; then the units, halved down to the 16th. 4/4 gives
    96, 48, 24, 12, 6; 3/4 gives 72, 24, 12, 6; 6/8 gives 72, 36, 12, 6.
    """
    bar = metre.ticks_per_bar
    unit = bar // metre.numerator
    compound = metre.numerator > 3 and metre.numerator % 3 == 0
    num_beats = metre.numerator // 3 if compound else metre.numerator
    levels = [bar]
    while num_beats % 2 == 0:
        num_beats //= 2
        levels.append(levels[-1] // 2)
    if num_beats > 1:
        levels.append(levels[-1] // num_beats)
    if compound:
        levels.append(unit)
    while levels[-1] % (2 * SIXTEENTH) == 0:
        levels.append(levels[-1] // 2)
    return [level for level in levels if level >= SIXTEENTH] or [bar]


@lru_cache(maxsize=64)
def _metrical_places(numerator: int, denominator: int) -> tuple[Ints, Ints]:
    """Of each tick of a bar its level, -1 off the 16th grid, and the tick of the next stronger."""
    metre = Metre(0, numerator, denominator)
    levels = np.array(metrical_levels(metre))
    ticks = np.arange(metre.ticks_per_bar)
    on_level = ticks[:, None] % levels == 0
    level = np.where(on_level.any(axis=1), on_level.argmax(axis=1), -1)
    above = levels[np.maximum(level - 1, 0)]
    return level, (ticks // above + 1) * above


def _length_class(ticks: NDArray[Any], whole: int | Ints) -> Ints:
    """Index of the class nearest to each length; `whole` is the length of a whole note."""
    classes = np.array([*NOTE_LENGTHS.values()])
    # Cross-multiplied, so that ties stay exact.
    scaled = ticks.astype(np.int64)[:, None] * NOTE_LENGTHS["whole"]
    distance = np.abs(scaled - classes * np.reshape(whole, (-1, 1)))
    return np.asarray(distance.argmin(axis=1))


_CLASSES = _length_class(np.arange(NOTE_LENGTHS["whole"] + 1), NOTE_LENGTHS["whole"])
"""Class of each length in ticks; whatever is longer than a whole note is nearest to it."""


def _plain_length_class(ticks: NDArray[Any]) -> Ints:
    """Index of the class nearest to each length, whole notes being four quarters."""
    return np.asarray(_CLASSES[np.minimum(ticks, NOTE_LENGTHS["whole"])])

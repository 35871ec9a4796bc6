"""The numbers that older tools print, beside ours, for those who must reproduce a table.

Each tool measures a piece all at once, in its own words and with its own mistakes; a table says
which of our features comes nearest and why the two differ. Where a tool ends in an error its number
is NaN. What no `Piece` can tell is left out: numbers that count in a file's own ticks, that need
the sound (MusDr's SI), and mgeval's lists of numbers by bar.

MusPy is compared at our grid of 24 ticks per quarter: two of its numbers depend on the resolution.

References:
    Dong et al., "MusPy", ISMIR 2020 (0.5.0); Yang and Lerch, "On the evaluation of generative
    models in music", 2018 (mgeval); Wu and Yang, "The Jazz Transformer on the front line", ISMIR
    2020 (MusDr); Mogren, "C-RNN-GAN", 2016 (`midi_statistics.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eval import distances
from eval.features import FEATURES, harmony, pitch, rhythm, texture
from eval.features.registry import Value, normalised
from eval.features.spans import Ints, cell_of
from rnngan.errors import UserError, nearest_name
from rnngan.music.piece import DRUMS, TICKS_PER_QUARTER, Metre, Notes, Piece

Floats = NDArray[np.float64]

AT_MOST = 100
"""Pieces a side whose pairs mgeval's set metrics compare; the cost grows with their square."""
KL_POINTS = 1000
LARGEST_GRAM = 9
FRAMES_PER_SECOND = 100
SAME = "the same"


@dataclass(frozen=True, kw_only=True)
class Nearest:
    """Which of our features comes nearest to a number of an older tool.

    Attributes:
        name: In `eval.features.FEATURES`; empty where there is none.
        difference: Why the two differ, in one line, or `SAME`.
    """

    name: str
    difference: str


@dataclass(frozen=True, kw_only=True)
class Tool:
    """An older tool.

    Attributes:
        title: Its name and version.
        measure: All its numbers of one piece, by its own names; NaN where it ends in an error.
        metrics: What each of them comes nearest to.
        compares_sets: Whether it goes on to compare two sets by the distances between pieces, as
            only mgeval does.
    """

    title: str
    measure: Callable[[Piece], dict[str, Value]]
    metrics: Mapping[str, Nearest]
    compares_sets: bool = False


@dataclass(frozen=True, kw_only=True)
class CompatRow:
    """A number as the older tool prints it, and ours.

    Attributes:
        metric: The tool's name for it.
        of: `real` or `fake` for the mean over a side, `real, fake` for a comparison of the two.
        theirs: The mean over the pieces where the tool gives a number, or its set metric; NaN
            without any.
        undefined: Pieces where the tool gives none, or ends in an error.
        ours_name: The nearest of our features or distances; empty where there is none.
        ours: Its value over the same pieces, where it is defined itself.
        difference: Why the two differ.
    """

    metric: str
    of: str
    theirs: float
    undefined: int
    ours_name: str
    ours: float
    difference: str


def compare(tool: str, real: Sequence[Piece], fake: Sequence[Piece]) -> list[CompatRow]:
    """What a tool prints of two sets, beside our numbers.

    Raises:
        UserError: There is no such tool.
    """
    if tool not in TOOLS:
        raise UserError(
            f"compat: no tool is called {tool!r}{nearest_name(tool, TOOLS)}; "
            f"there are {', '.join(TOOLS)}"
        )
    chosen = TOOLS[tool]
    sides = {"real": real, "fake": fake}
    theirs = {side: [chosen.measure(piece) for piece in sides[side]] for side in sides}
    ours_names = {near.name for near in chosen.metrics.values() if near.name}
    ours = {
        side: [{name: FEATURES[name].compute(piece) for name in ours_names} for piece in pieces]
        for side, pieces in sides.items()
    }
    rows: list[CompatRow] = []
    for metric, near in chosen.metrics.items():
        columns = {side: _column(theirs[side], metric) for side in sides}
        own = {side: _column(ours[side], near.name) for side in sides}
        if all(column.ndim == 1 for column in columns.values()):
            rows += [_mean_row(metric, near, side, columns[side], own[side]) for side in sides]
        if chosen.compares_sets:
            rows += _set_rows(metric, near, columns, own)
    return rows


def _column(values: Sequence[Mapping[str, Value]], name: str) -> Floats:
    """One number or histogram over pieces, `(pieces,)` or `(pieces, bins)`; NaN if none has it."""
    return np.array([found.get(name, math.nan) for found in values], dtype=float)


def _mean_row(metric: str, near: Nearest, side: str, theirs: Floats, ours: Floats) -> CompatRow:
    defined = ~np.isnan(theirs)
    return CompatRow(
        metric=metric,
        of=side,
        theirs=_mean(theirs),
        undefined=int(np.count_nonzero(~defined)),
        ours_name=near.name,
        ours=_mean(ours[defined]),
        difference=near.difference,
    )


def _set_rows(
    metric: str, near: Nearest, theirs: Mapping[str, Floats], ours: Mapping[str, Floats]
) -> list[CompatRow]:
    old, own = ({side: _whole(rows) for side, rows in v.items()} for v in (theirs, ours))
    undefined = sum(len(theirs[side]) - len(old[side]) for side in theirs)
    old, own = ({side: _evenly(rows) for side, rows in v.items()} for v in (old, own))
    old_pairs = mgeval_distances(old["real"], old["fake"]) if _enough(old) else None
    own_pairs = (
        (
            distances.intra_distances(own["real"]),
            distances.inter_distances(own["real"], own["fake"]),
        )
        if _enough(own)
        else None
    )
    return [
        CompatRow(
            metric=f"{metric}: {name}",
            of="real, fake",
            theirs=their_measure(*old_pairs) if old_pairs else math.nan,
            undefined=undefined,
            ours_name=f"{own_measure.__name__} of {near.name}",
            ours=own_measure(*own_pairs) if own_pairs else math.nan,
            difference=difference,
        )
        for name, their_measure, own_measure, difference in SET_METRICS
    ]


def _enough(sides: Mapping[str, Floats]) -> bool:
    """Whether there are pairs within each side."""
    return min(map(len, sides.values())) >= 2


def _whole(rows: Floats) -> Floats:
    """The pieces for which a number or histogram is defined."""
    return rows[~np.isnan(rows.reshape(len(rows), -1)).any(axis=1)] if len(rows) else rows


def _evenly(rows: Floats) -> Floats:
    """At most `AT_MOST` of the rows, evenly spread."""
    few = min(len(rows), AT_MOST)
    return rows[np.arange(few) * len(rows) // max(few, 1)]


def _mean(values: Floats) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else math.nan


# MusPy 0.5.0


def muspy(piece: Piece) -> dict[str, Value]:
    """The 14 metrics of `muspy.metrics` at resolution 24, a measure being the first metre's bar.

    For those that ask for a scale C major is taken, for those that ask for a metre duple.
    """
    notes, end = piece.notes, piece.end
    measure = piece.metres[0].ticks_per_bar
    ticks, num_pitches = texture.sounding_pitches(piece)
    drums = notes["start"][notes["program"] == DRUMS]
    duple, triple = (_share(drums % every == 0) for every in (6, 8))
    return {
        "n_pitches_used": pitch.pitch_count(piece),
        "n_pitch_classes_used": pitch.pitch_class_count(piece),
        "pitch_range": _muspy_range(piece),
        "empty_beat_rate": _muspy_empty_rate(notes, end, TICKS_PER_QUARTER),
        "empty_measure_rate": _muspy_empty_rate(notes, end, measure),
        "polyphony": texture.polyphony(piece),
        "polyphony_rate": float(ticks[num_pitches > 2].sum() / end) if end else math.nan,
        "pitch_in_scale_rate": harmony.pitch_in_scale_rate(piece, root=0, mode="major"),
        "scale_consistency": harmony.scale_consistency(piece),
        "drum_in_pattern_rate": duple,
        "drum_pattern_consistency": max(duple, triple),
        "pitch_entropy": pitch.pitch_entropy(piece),
        "pitch_class_entropy": pitch.pitch_class_entropy(piece),
        "groove_consistency": _muspy_groove(notes, end, measure),
    }


def _muspy_range(piece: Piece) -> float:
    """0 without notes; where all notes are drums, the lowest start value below the highest."""
    if not len(piece.notes):
        return 0.0
    pitches = piece.pitched["pitch"].astype(int)
    return float(pitches.max(initial=0) - pitches.min(initial=127))


def _muspy_empty_rate(notes: Notes, end: int, size: int) -> float:
    """Empty cells of `size` ticks, where a note also fills the cell that begins as it ends."""
    if not end:
        return math.nan
    cells = end // size + 1
    change = np.bincount(notes["start"] // size, minlength=cells + 1)
    change = change - np.bincount(notes["end"] // size + 1, minlength=cells + 1)
    return 1 - int(np.count_nonzero(change[:cells].cumsum() > 0)) / cells


def _muspy_groove(notes: Notes, end: int, size: int) -> float:
    """Neighbouring measures by their ticks, one more of them than there are."""
    measures = end // size + 1
    if not end or measures < 2:
        return math.nan
    onsets = np.zeros(measures * size, np.bool_)
    onsets[notes["start"]] = True
    grid = onsets.reshape(measures, size)
    return 1 - int(np.count_nonzero(grid[1:] != grid[:-1])) / (size * (measures - 1))


def _share(hits: NDArray[np.bool_]) -> float:
    return float(hits.mean()) if len(hits) else math.nan


# mgeval


def mgeval(piece: Piece) -> dict[str, Value]:
    """What mgeval measures of a piece as `Piece.to_pretty_midi` writes it.

    Most of it looks at the first instrument alone. The time signature stands in track 0; for
    `note_length_hist[signature in track 1]` it stands among the notes.
    """
    roll = _mgeval_roll(piece)
    used = np.flatnonzero(roll)
    first = _first_instrument(piece)
    pitches = first["pitch"].astype(int)
    onsets = piece.seconds_at(piece.notes["start"])
    lengths = _mgeval_lengths(first, (Metre(0, 4, 4),))
    return {
        "total_used_pitch": float(len(used)) if len(first) else math.nan,
        "pitch_range": float(used[-1] - used[0]) if len(used) else math.nan,
        "avg_pitch_shift": _mean(np.abs(np.diff(pitches)).astype(float)),
        "avg_IOI": _mean(np.diff(onsets)),
        "total_used_note": float(len(first)) if len(first) else math.nan,
        "total_pitch_class_histogram": normalised(np.bincount(np.arange(128) % 12, roll, 12)),
        "pitch_class_transition_matrix": _mgeval_transitions(piece),
        "note_length_hist": normalised(np.bincount(lengths, minlength=12)),
        "note_length_hist[signature in track 1]": normalised(
            np.bincount(_mgeval_lengths(first, _misread(piece.metres)), minlength=12)
        ),
        "note_length_transition_matrix": pitch.transitions(lengths[:-1], lengths[1:], "none"),
    }


def _first_instrument(piece: Piece) -> Notes:
    """Notes of the lowest track and in it of the lowest program, as they stand in a file."""
    notes = piece.notes
    if not len(notes):
        return notes
    instrument = notes["track"].astype(int) << 8 | notes["program"]
    return notes.take(np.flatnonzero(instrument == instrument.min()))


def _mgeval_roll(piece: Piece) -> Floats:
    """Velocity of each pitch summed over frames of 10 ms, `(128,)`; drums have none."""
    notes = _first_instrument(piece)
    notes = notes[notes["program"] != DRUMS]
    # pretty_midi cuts the frame's fraction off. A time that is a whole frame by decree must not
    # lose it to the last bit.
    starts, ends = (
        np.floor(piece.seconds_at(notes[edge]) * FRAMES_PER_SECOND + 1e-6)
        for edge in ("start", "end")
    )
    weights = (ends - starts) * notes["velocity"]
    return np.asarray(np.bincount(notes["pitch"], weights, minlength=128), dtype=float)


def _mgeval_transitions(piece: Piece) -> Floats:
    """Counts of pitch classes from each note to all that begin within 50 ms of its end, itself too.

    Of every instrument but drums, and but those of a single note.
    """
    counts = np.zeros(144)
    notes = piece.pitched
    instrument = notes["track"].astype(int) << 8 | notes["program"]
    for key in np.unique(instrument):
        own = notes[instrument == key]
        if len(own) > 1:
            starts, ends = (piece.seconds_at(own[edge]) for edge in ("start", "end"))
            low, high = pitch.TOUCH_SECONDS * np.array([-1, 1])
            first, after = (np.searchsorted(starts, ends + edge) for edge in (low, high))
            count = after - first
            source = np.repeat(np.arange(len(own)), count)
            target = np.arange(len(source)) + np.repeat(after - count.cumsum(), count)
            classes = own["pitch"].astype(np.int64) % 12
            counts += pitch.transitions(classes[source], classes[target], "none")
    return counts


def _misread(metres: Sequence[Metre]) -> tuple[Metre, ...]:
    """What mgeval takes for a metre in the track it reads: log2 of the denominator over itself."""
    return tuple(Metre(m.tick, m.denominator.bit_length() - 1, m.denominator) for m in metres)


def _mgeval_lengths(notes: Notes, metres: Sequence[Metre]) -> Ints:
    """Nearest of the twelve lengths to each note, the bar that it begins in being a whole note."""
    changes = np.array([metre.tick for metre in metres])
    bars = np.array([metre.ticks_per_bar for metre in metres])
    bar = bars[cell_of(changes, notes["start"])]
    # Ninety-sixths of the bar, times 96 on both sides, so that ties stay exact.
    classes = np.array([*rhythm.NOTE_LENGTHS.values()]) * bar[:, None]
    length = (notes["end"] - notes["start"]).astype(np.int64)[:, None] * 96
    return np.asarray(np.abs(classes - length).argmin(axis=1))


def mgeval_distances(first: Floats, second: Floats) -> tuple[Floats, Floats]:
    """Distances within the first set, every pair twice, and between the sets.

    Shapes: `(n,)` or `(n, bins)`, `(m,)` or `(m, bins)`; results `(n (n - 1),)` and `(n m,)`.
    """
    within = distances.pair_distances(first, first)
    others = ~np.eye(len(within), dtype=bool)
    return within[others], distances.inter_distances(first, second)


def mgeval_overlap_area(a: ArrayLike, b: ArrayLike) -> float:
    """Area below both kernel densities between the smallest and the largest number of both samples.

    The tails beyond are lost, so that a sample overlaps itself by less than 1. NaN where a sample
    has no spread, which mgeval does not survive.
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if not (_spreads(a) and _spreads(b)):
        return math.nan
    import warnings

    from scipy import integrate

    p, q = kernel_density(a), kernel_density(b)
    low, high = min(a.min(), b.min()), max(a.max(), b.max())
    with warnings.catch_warnings():
        # The smaller of two densities has kinks, at which the integral is a little less exact.
        warnings.simplefilter("ignore", integrate.IntegrationWarning)
        return float(integrate.quad(lambda x: min(p(x), q(x)), low, high)[0])


def mgeval_kl_dist(a: ArrayLike, b: ArrayLike) -> float:
    """Relative entropy in nats of two kernel densities, each on a grid over its own range.

    So where a sample lies, and on what scale, has no say. NaN where a sample has no spread.
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if not (_spreads(a) and _spreads(b)):
        return math.nan
    p, q = (
        normalised(np.array([density(x) for x in np.linspace(s.min(), s.max(), KL_POINTS)]))
        for s, density in ((a, kernel_density(a)), (b, kernel_density(b)))
    )
    return float(distances.relative_entropy(p, q)) * math.log(2)


def kernel_density(sample: Floats) -> Callable[[float], float]:
    """Gaussian kernel density with Scott's bandwidth, deviation × n^(-1/5), as in SciPy.

    A function of one point; equal numbers are weighed together, as distances often are equal.
    """
    width = float(sample.std(ddof=1)) * len(sample) ** distances.SCOTT_EXPONENT
    values, counts = np.unique(sample, return_counts=True)
    weights = counts / (len(sample) * width * math.sqrt(2 * math.pi))

    def density(x: float) -> float:
        return float(weights @ np.exp(-0.5 * ((values - x) / width) ** 2))

    return density


def _spreads(sample: Floats) -> bool:
    """Whether it holds two numbers that differ."""
    return len(sample) > 1 and float(np.ptp(sample)) > 0


# MusDr


def musdr(piece: Piece) -> dict[str, Value]:
    """Pitch-class entropy H, groove similarity GS and chord progression irregularity CPI.

    H is over one and over four bars, GS over 64 positions a bar, CPI over the chords that
    `harmony.chords` finds, where MusDr reads them from tokens. The bars are those of a sequence of
    Bar, Position and note tokens, which ends with the last onset. GS is over all pairs of bars: of
    more than a thousand MusDr draws a thousand by chance, with this mean.
    """
    notes = piece.notes
    lines = piece.bar_lines()
    bar = cell_of(lines, notes["start"])
    num_bars = int(bar[-1]) + 1 if len(notes) else 0
    classes = np.bincount(bar * 12 + notes["pitch"] % 12, minlength=num_bars * 12)
    position = 64 * (notes["start"] - lines[bar]) // np.diff(lines)[bar] if num_bars else bar
    onsets = np.zeros((num_bars, 64), np.bool_)
    onsets[bar, position] = True
    return {
        "H (1 bar)": _windowed_entropy(classes.reshape(num_bars, 12), 1),
        "H (4 bars)": _windowed_entropy(classes.reshape(num_bars, 12), 4),
        "GS": _pair_similarity(onsets),
        "CPI": _musdr_irregularity(piece),
    }


def _windowed_entropy(per_bar: Ints, size: int) -> float:
    """Mean entropy of the windows that hold a note; NaN without."""
    if not len(per_bar):
        return math.nan
    windows = np.lib.stride_tricks.sliding_window_view(per_bar, min(size, len(per_bar)), axis=0)
    counts = windows.sum(axis=-1)
    return float(pitch.entropy(counts[counts.any(axis=1)]).mean())


def _pair_similarity(onsets: NDArray[np.bool_]) -> float:
    """One minus the mean share of positions in which two bars differ; NaN for a single bar."""
    num_bars, size = onsets.shape
    if num_bars < 2:
        return math.nan
    having = np.count_nonzero(onsets, axis=0)
    return float(1 - having @ (num_bars - having) / (num_bars * (num_bars - 1) / 2 * size))


def _musdr_irregularity(piece: Piece) -> float:
    """Distinct trigrams of chords by their number, the last one left out; 1 for few chords."""
    chords = harmony.chords(piece)
    progression = chords[np.diff(chords, prepend=-1) != 0]
    if len(progression) <= 3:
        return 1.0
    trigrams = np.lib.stride_tricks.sliding_window_view(progression[:-1], 3)
    return len(np.unique(trigrams, axis=0)) / len(trigrams)


# C-RNN-GAN


def crnngan(piece: Piece) -> dict[str, Value]:
    """What C-RNN-GAN's `midi_statistics.py` prints, drums among the tones; NaN without notes.

    The tones stand track after track.
    """
    notes = piece.notes[np.argsort(piece.notes["track"], kind="stable")]
    if not len(notes):
        return dict.fromkeys(CRNNGAN, math.nan)
    tones = notes["pitch"].astype(np.int64)
    velocities = notes["velocity"].astype(int)
    low, high = int(tones.min()), int(tones.max())
    return {
        "scale_score": _crnngan_scale_score(tones),
        "tone_min": float(low),
        "tone_max": float(high),
        "tone_span": float(high - low),
        "freq_min": _hertz(low),
        "freq_max": _hertz(high),
        "freq_span": _hertz(high) - _hertz(low),
        "tones_unique": float(len(np.unique(tones))),
        **{
            f"repetitions_{size}": _crnngan_repetitions(tones, size)
            for size in range(2, LARGEST_GRAM + 1)
        },
        "intensity_min": float(velocities.min()),
        "intensity_max": float(velocities.max()),
        "intensity_span": float(np.ptp(velocities)),
        "polyphony_score": _crnngan_polyphony(piece.notes["start"]),
        "num_tones": float(len(tones)),
    }


def _crnngan_scale_score(tones: Ints) -> float:
    """Best share of tones in a scale, where only the tones above the tonic C to B can be in it."""
    above = tones % 12 - np.arange(12)[:, None]
    members = (np.flatnonzero(scale) for scale in harmony.SCALES.values())
    return float(max(np.isin(above, member).mean(axis=1).max() for member in members))


def _crnngan_repetitions(tones: Ints, size: int) -> float:
    """Pairs of equal runs that do not overlap, the last tone left out; 0 for short pieces."""
    if size >= len(tones) // 2:
        return 0.0
    runs = np.lib.stride_tricks.sliding_window_view(tones[:-1], size) @ 128 ** np.arange(size)
    _, counts = np.unique(runs, return_counts=True)
    overlapping = sum(np.count_nonzero(runs[lag:] == runs[:-lag]) for lag in range(1, size))
    return float(counts @ (counts - 1) // 2 - overlapping)


def _crnngan_polyphony(onsets: NDArray[np.int32]) -> float:
    """Share of polyphonous events, where every note is counted as it comes and every chord again.

    A note alone at its onset counts as one and, unless it is the last, once more; of a chord the
    first note counts as one too, the others and, unless it is the last, the chord as polyphonous.
    """
    sizes = np.unique(onsets, return_counts=True)[1]
    single = len(sizes) + np.count_nonzero(sizes[:-1] == 1)
    polyphonous = len(onsets) - len(sizes) + np.count_nonzero(sizes[:-1] > 1)
    return float(polyphonous / (polyphonous + single))


def _hertz(tone: int) -> float:
    return float(440 * 2 ** ((tone - 69) / 12))


def _same(name: str) -> Nearest:
    return Nearest(name=name, difference=SAME)


MUSPY = {
    "n_pitches_used": _same("pitch_count"),
    "n_pitch_classes_used": _same("pitch_class_count"),
    "pitch_range": Nearest(
        name="pitch_range", difference="drums alone give -127 and no notes 0, not NaN"
    ),
    "empty_beat_rate": Nearest(
        name="empty_beat_rate",
        difference="a note fills the beat that begins as it ends; drums count; errs without notes",
    ),
    "empty_measure_rate": Nearest(
        name="empty_bar_rate",
        difference="a note fills the bar that begins as it ends; one metre; drums count; errs "
        "without notes",
    ),
    "polyphony": Nearest(name="polyphony", difference="errs without notes"),
    "polyphony_rate": Nearest(
        name="polyphony_rate[k=2]",
        difference="asks for more than 2 pitches; drums alone give 0; errs without notes",
    ),
    "pitch_in_scale_rate": Nearest(
        name="pitch_in_scale_rate[estimated]", difference="in C major, not in the estimated key"
    ),
    "scale_consistency": _same("scale_consistency"),
    "drum_in_pattern_rate": Nearest(
        name="drum_pattern_rate", difference="16ths of the beat, without tolerance"
    ),
    "drum_pattern_consistency": Nearest(
        name="drum_pattern_rate", difference="the better of 16ths and triplets, without tolerance"
    ),
    "pitch_entropy": _same("pitch_entropy"),
    "pitch_class_entropy": _same("pitch_class_entropy"),
    "groove_consistency": Nearest(
        name="groove[q=64,pairs=adjacent]",
        difference="one step a tick, and a measure too many where the last is full; one metre; "
        "drums count; errs without notes",
    ),
}

FIRST = "the first instrument alone"
MGEVAL = {
    "total_used_pitch": Nearest(
        name="pitch_count", difference=f"{FIRST}; notes below 10 ms may vanish; drums give 0"
    ),
    "pitch_range": Nearest(
        name="pitch_range", difference=f"{FIRST}; notes below 10 ms may vanish; drums err"
    ),
    "avg_pitch_shift": Nearest(
        name="pitch_interval_mean", difference=f"{FIRST}; the notes of a chord make a melody"
    ),
    "avg_IOI": Nearest(
        name="inter_onset_interval_mean[seconds]",
        difference="notes that begin together are 0 apart; drums count",
    ),
    "total_used_note": Nearest(name="note_count", difference=f"{FIRST}; drums count"),
    "total_pitch_class_histogram": Nearest(
        name="pitch_class_histogram[duration*velocity]", difference=f"{FIRST}; by frames of 10 ms"
    ),
    "pitch_class_transition_matrix": Nearest(
        name="pitch_class_transitions[50ms]",
        difference="counts, not shares; a note below 50 ms follows itself",
    ),
    "note_length_hist": Nearest(name="note_length_histogram", difference=f"{FIRST}; drums count"),
    "note_length_hist[signature in track 1]": Nearest(
        name="note_length_histogram[bar]",
        difference=f"{FIRST}; the bar is log2 of the denominator by itself, so that quarters in "
        "4/4 are halves",
    ),
    "note_length_transition_matrix": Nearest(
        name="note_length_transitions", difference=f"{FIRST}; counts, not shares; drums count"
    ),
}
SET_METRICS = (
    (
        "Kullback-Leibler divergence",
        mgeval_kl_dist,
        distances.kl_divergence,
        "each density on its own range, so that a shift is not seen; nats, not bits",
    ),
    (
        "overlap area",
        mgeval_overlap_area,
        distances.overlapping_area,
        "without the tails, so that a set overlaps itself by less than 1",
    ),
)

MUSDR = {
    "H (1 bar)": Nearest(name="pitch_class_entropy[1]", difference="drums count as pitches"),
    "H (4 bars)": Nearest(
        name="pitch_class_entropy[4]",
        difference="the bars end with the last onset; drums count as pitches",
    ),
    "GS": Nearest(
        name="groove[q=64,pairs=all]", difference="the bars end with the last onset; drums count"
    ),
    "CPI": Nearest(
        name="chord_irregularity",
        difference="chords from tokens, here ours; the last trigram left out; 1 for few chords",
    ),
}

CRNNGAN = {
    "scale_score": Nearest(
        name="scale_consistency[harmonic]",
        difference="forgets the octave, so that a D major scale has 0.857; drums count",
    ),
    "tone_min": Nearest(name="", difference="no such feature"),
    "tone_max": Nearest(name="", difference="no such feature"),
    "tone_span": Nearest(name="pitch_range", difference="drums count"),
    "freq_min": Nearest(name="", difference="no such feature; hertz"),
    "freq_max": Nearest(name="", difference="no such feature; hertz"),
    "freq_span": Nearest(name="pitch_range", difference="in hertz; drums count"),
    "tones_unique": Nearest(name="pitch_count", difference="drums count"),
    **{
        f"repetitions_{size}": Nearest(
            name=f"repetition[n={size}]",
            difference="tracks in one row, without the last tone; 0 for short pieces; drums count",
        )
        for size in range(2, LARGEST_GRAM + 1)
    },
    "intensity_min": Nearest(name="", difference="no such feature"),
    "intensity_max": Nearest(name="", difference="no such feature"),
    "intensity_span": Nearest(name="", difference="no such feature"),
    "polyphony_score": Nearest(
        name="polyphony_rate[k=2]",
        difference="of onsets, not of time; the first note of a chord counts as alone",
    ),
    "num_tones": Nearest(name="note_count", difference="drums count"),
}

TOOLS = {
    "muspy": Tool(title="MusPy 0.5.0", measure=muspy, metrics=MUSPY),
    "mgeval": Tool(title="mgeval", measure=mgeval, metrics=MGEVAL, compares_sets=True),
    "musdr": Tool(title="MusDr", measure=musdr, metrics=MUSDR),
    "crnngan": Tool(title="C-RNN-GAN", measure=crnngan, metrics=CRNNGAN),
}
"""By the names that `--compat` takes."""

"""Scales, keys and tonal space; drums left out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from eval.features.pitch import JAZZ_TRANSFORMER, MUSPY
from eval.features.registry import register
from eval.features.spans import (
    Ints,
    beat_chroma,
    beat_lines,
    beat_parts,
    covered,
    cut,
    merged,
    pitched,
    remembered,
)
from rnngan.music.keys import estimated_key, rotations
from rnngan.music.piece import TICKS_PER_QUARTER, Piece

Mode = Literal["major", "minor", "harmonic minor"]

FGG = "Fine-grained guidance for symbolic music generation (FGG), 2025"

SIXTEENTH = TICKS_PER_QUARTER // 4
SCALES: dict[Mode, tuple[int, ...]] = {
    "major": (1, 0, 1, 0, 1, 1, 0, 1, 0, 1, 0, 1),
    "minor": (1, 0, 1, 1, 0, 1, 0, 1, 1, 0, 1, 0),
    "harmonic minor": (1, 0, 1, 1, 0, 1, 0, 1, 1, 0, 0, 1),
}
"""1 where a pitch class belongs to the scale, from the tonic up; `minor` is natural minor."""

ON_ALL_TONICS = {mode: rotations([scale]) for mode, scale in SCALES.items()}
CENTROID_ANGLES = np.pi * np.arange(12)[:, None] * np.array([7 / 6, 3 / 2, 2 / 3])
CENTROIDS = np.hstack([np.sin(CENTROID_ANGLES), np.cos(CENTROID_ANGLES)]) * [1, 1, 0.5, 1, 1, 0.5]
"""Tonal centroid of each pitch class, `(12, 6)`: its places on the circles of fifths, of minor
and of major thirds, whose radii are 1, 1 and 0.5."""

TRIADS = rotations(
    [
        [1, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0],
        [1, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0],
        [1, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0],
        [1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0],
    ]
)
"""Pitch classes of the major triads, then the minor, diminished and augmented, `(48, 12)`."""
FIRST_OF_EQUALS = np.array(
    sorted(range(48), key=lambda triad: (triad >= 36, triad % 12 > 0, triad))
)
"""Triads in the order in which equals stand, where the lowest note is C; see `chords`."""

feature = partial(register, group="harmony")
in_scale = partial(feature, unit="share", direction="closer to one scale")
out_of_key = partial(feature, unit="share", direction="more foreign notes", reference=FGG)


@in_scale(
    "scale_consistency[harmonic]",
    low=7 / 12,
    reference=MUSPY,
    modes=("major", "minor", "harmonic minor"),
)
@in_scale("scale_consistency", low=7 / 12, reference="Mogren, C-RNN-GAN, 2016; " + MUSPY)
def scale_consistency(piece: Piece, *, modes: Sequence[Mode] = ("major", "minor")) -> float:
    """Largest share of notes in any one scale, over twelve tonics of each mode; 7/12 to 1.

    NaN without notes. Differs from C-RNN-GAN's code, which forgets the octave, so that an exact
    D major scale scores 0.857.
    """
    return max(float(_in_scale_rates(piece, mode).max()) for mode in modes)


def pitch_in_scale_rate(piece: Piece, *, root: int, mode: Mode) -> float:
    """Share of notes in one scale, 0 to 1, `root` 0 for C; NaN without notes.

    References:
        Dong et al., MusPy, ISMIR 2020.
    """
    return float(_in_scale_rates(piece, mode)[root])


@in_scale("pitch_in_scale_rate[estimated]", reference=MUSPY)
def pitch_in_key_rate(piece: Piece) -> float:
    """`pitch_in_scale_rate` in the estimated key, minor being natural minor; 0 to 1.

    NaN where `estimated_key` finds none.
    """
    key = _key(piece)
    return pitch_in_scale_rate(piece, root=key[0], mode=key[1]) if key else math.nan


@out_of_key("out_of_key_rate[harmonic]", raised_seventh=True)
@out_of_key("out_of_key_rate")
def out_of_key_rate(piece: Piece, *, raised_seventh: bool = False) -> float:
    """Share of 16th steps in which a note outside the estimated key sounds, 0 to 1.

    Steps run from tick 0 to the end of the piece, silent ones included. A minor key is the natural
    minor scale, to which `raised_seventh` adds the leading note. NaN where `estimated_key` finds
    none.
    """
    key = _key(piece)
    if key is None:
        return math.nan
    root, mode = key
    inside = ON_ALL_TONICS[mode][root] > 0
    if raised_seventh and mode == "minor":
        inside = inside | (ON_ALL_TONICS["harmonic minor"][root] > 0)
    notes = pitched(piece)
    outside = notes[~inside[notes["pitch"] % 12]]
    steps = np.arange(0, piece.end + SIXTEENTH, SIXTEENTH)
    return float(covered(steps, outside["start"], outside["end"]).mean())


@feature(
    "tonal_distance",
    unit="tonal centroid distance",
    high=math.sqrt(8),
    direction="less agreement",
    reference="Harte et al., Detecting harmonic change, 2006; Dong et al., MuseGAN, AAAI 2018",
)
def tonal_distance(piece: Piece) -> float:
    """Mean distance in tonal space between two tracks, 0 to √8, that of a tritone.

    The mean of `tonal_distances` over all pairs that share a beat, NaN where none does. Low if the
    tracks agree in harmony.
    """
    distances = tonal_distances(piece).values()
    return float(np.mean([*distances])) if distances else math.nan


def tonal_distances(piece: Piece) -> dict[tuple[int, int], float]:
    """Distance in tonal space of every pair of pitched tracks that share a beat, by their numbers.

    Each beat of each track is a point: the mean of `CENTROIDS` weighted by the time that each
    pitch class sounds. Two tracks lie apart by the mean Euclidean distance over the beats in which
    both sound.
    """
    tracks = np.unique(pitched(piece)["track"]).tolist()
    if len(tracks) < 2:
        return {}
    points = tonal_centroids(piece)
    found: dict[tuple[int, int], float] = {}
    for i, track in enumerate(tracks[:-1]):
        apart = np.linalg.norm(points[i + 1 :] - points[i], axis=2)
        shared = np.isfinite(apart)
        total = np.where(shared, apart, 0).sum(axis=1)
        for other, distance, num_beats in zip(tracks[i + 1 :], total, shared.sum(axis=1)):
            if num_beats:
                found[track, other] = float(distance / num_beats)
    return found


def tonal_centroids(piece: Piece) -> NDArray[np.float64]:
    """Tonal centroid of each beat of each pitched track, `(tracks, beats, 6)`; NaN in silence."""
    notes = pitched(piece)
    tracks, row = np.unique(notes["track"], return_inverse=True)
    lines = beat_lines(piece)
    num_beats = len(lines) - 1
    pitch_row, starts, ends = merged(notes["start"], notes["end"], row * 128 + notes["pitch"])
    span, beat, ticks = cut(lines, starts, ends)
    track, pitch = pitch_row[span] // 128, pitch_row[span] % 128
    cell = (track * num_beats + beat) * 12 + pitch % 12
    times = np.bincount(cell, ticks, minlength=len(tracks) * num_beats * 12)
    times = times.reshape(len(tracks), num_beats, 12)
    total = times.sum(axis=2, keepdims=True)
    points: NDArray[Any] = times @ CENTROIDS / np.where(total > 0, total, math.nan)
    return points


@feature(
    "chord_irregularity",
    unit="share",
    direction="less repetition of chords",
    reference=JAZZ_TRANSFORMER + " (there CPI)",
)
def chord_irregularity(piece: Piece) -> float:
    """Distinct trigrams of chords by their number, 0 to 1; 1 where no progression comes back.

    The chords are those of `chords`, each counted once for as long as it lasts. NaN for fewer than
    three of them.
    """
    found = chords(piece)
    progression = found[np.diff(found, prepend=-1) != 0].astype(np.int64)
    trigrams = progression[:-2] * len(TRIADS) ** 2 + progression[1:-1] * len(TRIADS)
    trigrams = trigrams + progression[2:]
    return len(np.unique(trigrams)) / len(trigrams) if len(trigrams) else math.nan


def chords(piece: Piece) -> Ints:
    """The chord of each beat that is not silent: its triad's number in `TRIADS`.

    It is the triad whose tones sound for longest in the beat. Of equals the one on the lowest note
    stands first, then major before minor before diminished, then the root nearest above the lowest
    note; the augmented stand last. So a note alone is the major triad on it, a third is the triad
    in root position, and a transposed piece has the same chords, transposed.
    """
    note, beat, _ = beat_parts(piece)
    lowest = np.full(len(beat_lines(piece)) - 1, 128)
    np.minimum.at(lowest, beat, pitched(piece)["pitch"][note])
    sounding = lowest < 128
    bass = lowest[sounding, None] % 12
    above_bass = (bass + np.arange(12)) % 12
    times = np.take_along_axis(beat_chroma(piece)[sounding], above_bass, axis=1).astype(float)
    if not len(times):
        return np.empty(0, np.int64)
    best = FIRST_OF_EQUALS[(times @ TRIADS[FIRST_OF_EQUALS].T).argmax(axis=1)]
    quality, root = best // 12, (best % 12 + bass[:, 0]) % 12
    return np.asarray(quality * 12 + root, np.int64)


_key = remembered(estimated_key)


def _in_scale_rates(piece: Piece, mode: Mode) -> NDArray[np.float64]:
    """Share of notes in the scale on each of the twelve tonics, `(12,)`."""
    return _scale_rates(piece)[mode]


@remembered
def _scale_rates(piece: Piece) -> dict[Mode, NDArray[np.float64]]:
    """`_in_scale_rates` of every mode."""
    counts = np.bincount(pitched(piece)["pitch"] % 12, minlength=12)
    total = int(counts.sum()) or math.nan
    return {mode: scales @ counts / total for mode, scales in ON_ALL_TONICS.items()}

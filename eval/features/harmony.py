"""Scales, keys and tonal space; drums left out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from eval.features.pitch import MUSPY
from eval.features.registry import register
from eval.features.spans import beat_lines, cell_of, covered, merged
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

feature = partial(register, group="harmony")


@feature(
    "scale_consistency[harmonic]",
    unit="share",
    reference=MUSPY,
    modes=("major", "minor", "harmonic minor"),
)
@feature(
    "scale_consistency",
    unit="share",
    reference="Mogren, C-RNN-GAN, 2016; " + MUSPY,
)
def scale_consistency(piece: Piece, *, modes: Sequence[Mode] = ("major", "minor")) -> float:
    """Largest share of notes in any one scale, over twelve tonics of each mode; 0 to 1.

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


@feature("out_of_key_rate[harmonic]", unit="share", reference=FGG, raised_seventh=True)
@feature("out_of_key_rate", unit="share", reference=FGG)
def out_of_key_rate(piece: Piece, *, raised_seventh: bool = False) -> float:
    """Share of 16th steps in which a note outside the estimated key sounds, 0 to 1.

    Steps run from tick 0 to the end of the piece, silent ones included. A minor key is the natural
    minor scale, to which `raised_seventh` adds the leading note. NaN where `estimated_key` finds
    none.
    """
    key = estimated_key(piece)
    if key is None:
        return math.nan
    root, mode = key
    inside = ON_ALL_TONICS[mode][root] > 0
    if raised_seventh and mode == "minor":
        inside = inside | (ON_ALL_TONICS["harmonic minor"][root] > 0)
    notes = piece.pitched
    outside = notes[~inside[notes["pitch"] % 12]]
    steps = np.arange(0, piece.end + SIXTEENTH, SIXTEENTH)
    return float(covered(steps, outside["start"], outside["end"]).mean())


@feature(
    "tonal_distance",
    unit="tonal centroid distance",
    reference="Harte et al., Detecting harmonic change, 2006; Dong et al., MuseGAN, AAAI 2018",
)
def tonal_distance(piece: Piece) -> float:
    """Mean distance in tonal space between two tracks, 0 to 4.24; low if they agree in harmony.

    Each beat of each track is a point: the mean of `CENTROIDS` weighted by the time that each
    pitch class sounds. Two tracks lie apart by the mean Euclidean distance over the beats in which
    both sound; the feature is the mean over all pairs that share a beat, NaN where none does.
    """
    points = tonal_centroids(piece)
    distances = [
        np.linalg.norm(a - b, axis=1)[shared]
        for a, b in itertools.combinations(points, 2)
        if (shared := np.isfinite(a[:, 0] + b[:, 0])).any()
    ]
    return float(np.mean([d.mean() for d in distances])) if distances else math.nan


def tonal_centroids(piece: Piece) -> NDArray[np.float64]:
    """Tonal centroid of each beat of each pitched track, `(tracks, beats, 6)`; NaN in silence."""
    notes = piece.pitched
    tracks, row = np.unique(notes["track"], return_inverse=True)
    lines = beat_lines(piece)
    num_beats = len(lines) - 1
    pitch_row, starts, ends = merged(notes["start"], notes["end"], row * 128 + notes["pitch"])
    # Cut every span at the beats.
    first = cell_of(lines, starts)
    count = np.searchsorted(lines, ends, side="left") - first
    span = np.repeat(np.arange(len(starts)), count)
    beat = np.arange(len(span)) - np.repeat(count.cumsum() - count - first, count)
    ticks = np.minimum(ends[span], lines[beat + 1]) - np.maximum(starts[span], lines[beat])
    track, pitch = pitch_row[span] // 128, pitch_row[span] % 128
    cell = (track * num_beats + beat) * 12 + pitch % 12
    chroma = np.bincount(cell, ticks, minlength=len(tracks) * num_beats * 12)
    chroma = chroma.reshape(len(tracks), num_beats, 12)
    total = chroma.sum(axis=2, keepdims=True)
    points: NDArray[Any] = chroma @ CENTROIDS / np.where(total > 0, total, math.nan)
    return points


def _in_scale_rates(piece: Piece, mode: Mode) -> NDArray[np.float64]:
    """Share of notes in the scale on each of the twelve tonics, `(12,)`."""
    classes = piece.pitched["pitch"] % 12
    counts = np.bincount(classes, minlength=12)
    return ON_ALL_TONICS[mode] @ counts / (len(classes) or math.nan)

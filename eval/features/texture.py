"""How much sounds at once, and how much of a piece is silent; drums left out."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from numpy.typing import NDArray

from eval.features.registry import register
from eval.features.spans import Ints, bar_lines, beat_lines, covered, merged, pitched, remembered
from rnngan.music.piece import Piece

feature = partial(register, group="texture", unit="share")

MUSEGAN = "Dong et al., MuseGAN, AAAI 2018"


@feature(
    "polyphony",
    unit="pitches",
    low=1,
    high=128,
    direction="thicker",
    reference="Dong et al., MusPy, ISMIR 2020",
)
def polyphony(piece: Piece) -> float:
    """Mean number of pitches that sound, over the time in which something sounds; at least 1.

    A pitch that several tracks play counts once. NaN without notes.
    """
    ticks, num_pitches = sounding_pitches(piece)
    if not len(ticks):
        return math.nan
    return float(ticks @ num_pitches / ticks[num_pitches > 0].sum())


@feature("polyphony_rate[k=2]", direction="thicker", reference=MUSEGAN, at_least=2)
def polyphony_rate(piece: Piece, *, at_least: int) -> float:
    """Share of time from tick 0 to the end in which at least so many pitches sound, 0 to 1.

    NaN without pitched notes. Differs from MusPy 0.5.0, which asks for more pitches than its
    threshold of 2, so that a held dyad has rate 0 where it is 1.
    """
    ticks, num_pitches = sounding_pitches(piece)
    if not len(ticks):
        return math.nan
    return float(ticks[num_pitches >= at_least].sum() / piece.end)


@feature("empty_beat_rate", direction="more silence", reference=MUSEGAN)
def empty_beat_rate(piece: Piece) -> float:
    """Share of beats (quarters) in which nothing sounds, 0 to 1; NaN for a piece of no beats.

    A note that ends where a beat begins does not sound in it. Differs from Pypianoroll 1.0.4,
    which gives the share of beats that are not empty.
    """
    return _empty_rate(piece, beat_lines(piece))


@feature("empty_bar_rate", direction="more silence", reference=MUSEGAN + " (there EB)")
def empty_bar_rate(piece: Piece) -> float:
    """Share of bars in which nothing sounds, 0 to 1; NaN for a piece of no bars.

    A note that ends on a bar line does not sound in the next bar. Differs from MusPy 0.5.0's
    `empty_measure_rate`, which counts the tick at which a note ends as sounding.
    """
    return _empty_rate(piece, bar_lines(piece))


@remembered
def sounding_pitches(piece: Piece) -> tuple[Ints, Ints]:
    """Ticks of each stretch between two events, and how many distinct pitches sound in it.

    From the first onset to the last end of a pitched note; both empty without pitched notes.
    """
    notes = pitched(piece)
    _, starts, ends = merged(notes["start"], notes["end"], notes["pitch"])
    events = np.concatenate([starts, ends])
    order = np.argsort(events)
    change = np.where(order < len(starts), 1, -1)
    return np.diff(events[order]), change.cumsum()[:-1]


def _empty_rate(piece: Piece, lines: Ints) -> float:
    """Share of the cells between the lines that no pitched note reaches into."""
    if len(lines) == 1:
        return math.nan
    notes = pitched(piece)
    reached: NDArray[np.bool_] = covered(lines, notes["start"], notes["end"])
    return float(np.count_nonzero(~reached) / reached.size)

"""The melody of music in several voices."""

from __future__ import annotations

import numpy as np

from rnngan.music.piece import DRUMS, TICKS_PER_QUARTER, Notes

LEGATO_TICKS = TICKS_PER_QUARTER // 8
"""Two notes of a melody may overlap by a 32nd."""


def skyline(notes: Notes) -> Notes:
    """One voice: the top line of the notes, drums left out.

    Of notes that begin together the highest is taken, and none that begins below a note of the line
    which goes on for more than a 32nd; a note ends where the next of the line begins.

    References:
        Uitdenbogerd & Zobel, "Manipulation of music for melody matching", 1998, there "all-mono".
        That rule takes the highest note of every onset, so that what accompanies a held note
        becomes part of the melody; here the held note goes on.
    """
    pitched = np.flatnonzero(notes["program"] != DRUMS)
    start = notes["start"][pitched].astype(np.int64)
    place = start << 40 | notes["pitch"][pitched].astype(np.int64) << 32 | notes["end"][pitched]
    order = np.argsort(place, kind="stable")
    onset = place[order] >> 40
    notes = notes.take(pitched[order[np.append(onset[1:] != onset[:-1], True)[: len(order)]]])
    kept: list[int] = []
    sounding_pitch, line_free = -1, 0
    spans = zip(notes["start"].tolist(), notes["end"].tolist(), notes["pitch"].tolist())
    for i, (start, end, pitch) in enumerate(spans):
        if pitch >= sounding_pitch or start >= line_free:
            kept.append(i)
            sounding_pitch, line_free = pitch, end - LEGATO_TICKS
    line = notes.take(kept)
    line["end"][:-1] = np.minimum(line["end"][:-1], line["start"][1:])
    return line

"""The melody of a piece in several parts, and a piece from a melody and other parts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from rnngan.music.piece import Notes, Piece, bar_lines
from rnngan.music.skyline import LEGATO_TICKS, skyline

_MOST_TRACKS = 256


def highest_part(piece: Piece) -> Notes:
    """The notes of the track and program that is highest on average, drums left out.

    Of equally high ones the first; no notes where there are none but drums.
    """
    notes = piece.pitched
    part = notes["track"].astype(np.int64) << 8 | notes["program"]
    parts, number = np.unique(part, return_inverse=True)
    if not len(parts):
        return notes
    means = np.bincount(number, notes["pitch"]) / np.bincount(number)
    return notes.take(np.flatnonzero(part == parts[means.argmax()]))


def melody_line(piece: Piece) -> tuple[Notes, int]:
    """One voice to accompany: of the highest part the top line, where several notes sound at once.

    Returns:
        The notes, unchanged where there was one voice; and how many of that part were left out.
    """
    notes = highest_part(piece)
    if (notes["end"][:-1] - notes["start"][1:] <= LEGATO_TICKS).all():
        return notes, 0
    line = skyline(notes)
    return line, len(notes) - len(line)


def accompanied(melody: Piece, others: Piece) -> Piece:
    """Both as one piece: the melody as it is, in track 0, and the other parts in tracks behind it.

    Bar `k` of the others is put where bar `k` of the melody is; what sounds beyond the end of that
    bar, where the melody's is cut short, or of the last one, is cut off.

    Args:
        melody: Its notes, metres and tempos stay.
        others: Their bars are full ones.
    """
    lines = melody.bar_lines()
    own_lines = bar_lines(others.metres, max(others.end, 1))[: len(lines)]

    def moved(ticks: npt.NDArray[Any]) -> npt.NDArray[Any]:
        bar = np.minimum(np.searchsorted(own_lines, ticks, side="right"), len(lines) - 1) - 1
        return np.asarray(np.minimum(lines[bar] + ticks - own_lines[bar], lines[bar + 1]))

    notes = others.notes.copy()
    notes["start"], notes["end"] = moved(notes["start"]), moved(notes["end"])
    notes = notes[notes["start"] < notes["end"]]
    _, number = np.unique(
        notes["track"].astype(np.int64) << 8 | notes["program"], return_inverse=True
    )
    notes["track"] = np.minimum(1 + number, _MOST_TRACKS - 1)
    first = melody.notes.copy()
    first["track"] = 0
    return replace(melody, notes=np.concatenate([first, notes]), track_names=())

"""From pieces as they are found to pieces as they are wanted.

The steps, in this order:

0. `program`: what is pitched gets that program.
1. `melody="track"`: only the tracks with the wanted name stay.
2. `merge_tracks`: all tracks of a program become one; all drums do.
3. Notes that a file cannot hold are dropped or clipped (`Piece.tidied`).
4. `melody`: of what is there the skyline stays, as one voice.
5. Tracks without notes go, and the others are numbered anew.
6. `trim`: empty bars before the first note go, and all that comes after the last.
7. `only`: the piece that came of it passes the filter, or is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, TypeVar

import numpy as np

from rnngan.data.filters import Filter
from rnngan.errors import RejectedFile, UserError
from rnngan.music.piece import DRUMS, Metre, Piece, Tempo
from rnngan.music.skyline import skyline

Change = TypeVar("Change", Metre, Tempo)

_filter = lru_cache(maxsize=1)(Filter.parse)


@dataclass(frozen=True, kw_only=True)
class Cleaning:
    """What becomes of a piece before it is written as tokens.

    Attributes:
        merge_tracks: Make one track of all tracks with the same program.
        melody: Keep one voice: the top line of all that is pitched, or of the tracks that
            `melody_track` names.
        melody_track: Part of their name, capitals or small.
        trim: Cut empty bars off both ends.
        only: A filter, see `filters`; empty for all pieces.
        program: For all notes but drums, whatever the source says; None for what it says.

    Raises:
        UserError: `only` is no filter, or `melody_track` is empty.
    """

    merge_tracks: bool = False
    melody: Literal["off", "skyline", "track"] = "off"
    melody_track: str = "melody"
    trim: bool = False
    only: str = ""
    program: int | None = None

    def __post_init__(self) -> None:
        _filter(self.only)
        if self.melody == "track" and not self.melody_track:
            raise UserError("melody_track must be part of the name of a track, got nothing")


def clean(piece: Piece, cleaning: Cleaning) -> Piece:
    """The piece after all the steps that the settings ask for.

    Raises:
        RejectedFile: `no_melody`, where no note is left of it; `filtered`, with the first part of
            `only` that does not hold, so that equal messages can be counted.
    """
    if cleaning.program is not None:
        notes = piece.notes.copy()
        notes["program"][notes["program"] != DRUMS] = cleaning.program
        piece = replace(piece, notes=notes)
    if cleaning.melody == "track":
        piece = named_tracks(piece, cleaning.melody_track)
    if cleaning.merge_tracks:
        piece = merged_tracks(piece)
    piece = piece.tidied()
    if cleaning.melody != "off":
        piece = melody(piece)
    piece = without_empty_tracks(piece)
    if cleaning.trim:
        piece = trimmed(piece)
    if clause := _filter(cleaning.only).failing(piece):
        raise RejectedFile("filtered", f"does not meet {clause}")
    return piece


def named_tracks(piece: Piece, name: str) -> Piece:
    """The notes of the tracks whose name contains `name`, capitals or small.

    Raises:
        RejectedFile: `no_melody`: there is no note in such a track.
    """
    found = [i for i, n in enumerate(piece.track_names) if name.casefold() in n.casefold()]
    notes = piece.notes[np.isin(piece.notes["track"], found)]
    if not len(notes):
        raise RejectedFile("no_melody", f"no track with notes is named {name!r}")
    return replace(piece, notes=notes)


def melody(piece: Piece) -> Piece:
    """The skyline as one voice, in the track and with the program that most of its notes come from.

    Raises:
        RejectedFile: `no_melody`: all notes are for drums.
    """
    line = skyline(piece.notes)
    if not len(line):
        raise RejectedFile("no_melody", "all its notes are for drums")
    for name in ("track", "program"):
        line[name] = np.bincount(line[name]).argmax()
    return replace(piece, notes=line)


def merged_tracks(piece: Piece) -> Piece:
    """One track per program, in the order of the programs, so that drums come last.

    It has the name of the first track of that program.
    """
    programs, track = np.unique(piece.notes["program"], return_inverse=True)
    notes = piece.notes.copy()
    notes["track"] = track
    of_program = [piece.notes["track"][piece.notes["program"] == program] for program in programs]
    first = [int(tracks.min()) for tracks in of_program]
    return replace(piece, notes=notes, track_names=_names(piece, first))


def without_empty_tracks(piece: Piece) -> Piece:
    """Tracks with notes, numbered from 0 on in the same order."""
    used = np.bincount(piece.notes["track"], minlength=1) > 0
    if used.all() and len(piece.track_names) in (0, len(used)):
        return piece
    tracks, track = np.unique(piece.notes["track"], return_inverse=True)
    notes = piece.notes.copy()
    notes["track"] = track
    return replace(piece, notes=notes, track_names=_names(piece, tracks.tolist()))


def trimmed(piece: Piece) -> Piece:
    """Begins with the bar of the first note, and no metre or tempo changes after the last one."""
    if not len(piece.notes):
        return piece
    lines = piece.bar_lines()
    start = int(lines[np.searchsorted(lines, piece.notes["start"][0], side="right") - 1])
    notes = piece.notes.copy()
    notes["start"] -= start
    notes["end"] -= start
    return replace(
        piece,
        notes=notes,
        metres=_between(piece.metres, start, piece.end),
        tempos=_between(piece.tempos, start, piece.end),
    )


def _between(changes: tuple[Change, ...], start: int, end: int) -> tuple[Change, ...]:
    """Changes that act between two ticks, counted from the first."""
    ends = [change.tick for change in changes[1:]] + [end]
    return tuple(
        change._replace(tick=max(change.tick - start, 0))
        for change, until in zip(changes, ends)
        if until > start and change.tick < end
    )


def _names(piece: Piece, tracks: list[int]) -> tuple[str, ...]:
    """Names of these tracks; empty where the source has none."""
    names = piece.track_names
    return tuple(names[track] if track < len(names) else "" for track in tracks)

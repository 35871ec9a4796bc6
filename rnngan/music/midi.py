"""MIDI files in and out, with guards on both sides of the parser.

symusic parses, clamping data bytes above 127. What real files commonly get wrong is let through:

- bytes before `MThd`, such as the RIFF wrapper of `.rmi` files;
- anything after the last track that the header announces;
- fewer tracks than announced, and chunks of unknown kind between them;
- no end-of-track event, key signatures that do not exist, tempos and metres on any track;
- notes that never end (they are left out) and notes of no length (they get one tick).

Tracks of format 2 sound together, as in every common reader.

A performance recorded without a click has onsets that its beats say nothing about; `Beats` says
what is then done.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import symusic

from rnngan.errors import RejectedFile, UserError
from rnngan.files import write_atomically
from rnngan.music.beats import Beats, Floats, Ints, estimate_beats, keeps_to_beats
from rnngan.music.piece import (
    DRUMS,
    MAX_QUARTERS,
    NOTE,
    TICKS_PER_QUARTER,
    Piece,
    Timing,
    elapsed_seconds,
    nearest_ticks,
    regular_metres,
    regular_tempos,
)

MAX_BYTES = 8 * 1024 * 1024
"""A long opera takes 2 MiB. An event takes at least two bytes, so this caps events too."""
MAX_PREFIX_BYTES = 256
"""The RIFF wrapper takes 20 bytes, the one of old Macintosh files 128."""
MAX_TRACKS = 256
"""What the track number of a note can hold."""
MAX_NOTES = 1_000_000
"""A thousand times a long song; fewer bytes than `MAX_BYTES` can ask for more."""
MAX_PERFORMANCE_SECONDS = MAX_QUARTERS / 2
"""`MAX_QUARTERS` at 120."""
MIN_QUARTERS_PER_MINUTE, MAX_QUARTERS_PER_MINUTE = 5, 1000
"""Slower and faster is a slip of the writing program; such a tempo moves to the bound."""


def check_midi(data: bytes) -> None:
    """Refuse what no parser should be given, by its header and list of chunks alone.

    Raises:
        RejectedFile: `empty`, `too_large`, `not_midi`, `bad_header`, `truncated`,
            `frame_timing`, `zero_ticks_per_quarter`, `no_tracks`, or `too_many_tracks`.
    """
    if not data:
        raise RejectedFile("empty", "the file is empty")
    if len(data) > MAX_BYTES:
        raise RejectedFile("too_large", f"the file is longer than {MAX_BYTES} bytes")
    if data[:4] != b"MThd":
        raise RejectedFile("not_midi", f"a MIDI file begins with MThd, this one with {data[:4]!r}")
    if len(data) < 14:
        raise RejectedFile("truncated", f"the file ends inside its header, after {len(data)} bytes")
    header_size, announced, division = struct.unpack_from(">I2xHH", data, 4)
    if header_size != 6:
        raise RejectedFile("bad_header", f"the header's length must be 6, got {header_size}")
    if division & 0x8000:
        raise RejectedFile("frame_timing", "time is counted in SMPTE frames, not in quarters")
    if division == 0:
        raise RejectedFile("zero_ticks_per_quarter", "the header gives a quarter 0 ticks")
    if announced > MAX_TRACKS:
        raise RejectedFile(
            "too_many_tracks", f"at most {MAX_TRACKS} tracks are read, the header says {announced}"
        )
    tracks, position = 0, 14
    while tracks < announced and position + 8 <= len(data):
        kind, size = struct.unpack_from(">4sI", data, position)
        position += 8 + size
        if position > len(data):
            raise RejectedFile(
                "truncated", f"chunk {kind!r} ends at byte {position} of a file of {len(data)}"
            )
        tracks += kind == b"MTrk"
    if not tracks:
        raise RejectedFile("no_tracks", "the file has no track")


def parse_midi(
    data: bytes, tags: Mapping[str, str] | None = None, *, beats: Beats = "estimate"
) -> Piece:
    """The piece in the bytes of a MIDI file, each onset and end at its nearest tick.

    Every channel and program of a track is a track of its own here. Changes of metre and tempo
    after the last note are left out; tempos are rounded to 0.001 quarters per minute.
    `Piece.timing` says which beats were used and how far onsets moved.

    Args:
        data: What the file holds.
        tags: Of the piece to be.
        beats: What to do with a performance whose onsets ignore the file's beats (see
            `keeps_to_beats`): `estimate` finds the beats in its onsets and begins the piece with
            the first; `fixed` lays 24 ticks to every half second; `file` trusts every file. Metre
            changes, if the file has any, then move to the nearest beat.

    Raises:
        RejectedFile: As `check_midi`, or `unreadable` (the parser gave up), `no_notes`,
            `too_many_notes`, `too_many_tracks`, `too_long` (past `MAX_QUARTERS`, or
            `MAX_PERFORMANCE_SECONDS` where the file's beats are not used).
    """
    start = data.find(b"MThd", 0, MAX_PREFIX_BYTES)
    data = data[max(start, 0) :]
    check_midi(data)
    try:
        score = symusic.Score.from_midi(data, sanitize_data=True)
        tracks = list(score.tracks)
        tables = [track.notes.numpy() for track in tracks]
        names = tuple(track.name for track in tracks)
        programs = [DRUMS if track.is_drum else track.program for track in tracks]
        metres, tempos = score.time_signatures.numpy(), score.tempos.numpy()
    except Exception as error:  # the parser promises no particular exceptions
        raise RejectedFile("unreadable", f"the parser says: {error}") from error
    if len(tables) > MAX_TRACKS:
        raise RejectedFile(
            "too_many_tracks", f"its channels and programs make {len(tables)} tracks"
        )
    sizes = [len(table["time"]) for table in tables]
    num_notes = sum(sizes)
    if num_notes == 0:
        raise RejectedFile("no_notes", "the file has no note that begins and ends")
    if num_notes > MAX_NOTES:
        raise RejectedFile("too_many_notes", f"at most {MAX_NOTES} notes, got {num_notes}")

    def column(name: str) -> npt.NDArray[Any]:
        return np.concatenate([table[name] for table in tables])

    division = score.ticks_per_quarter
    starts = column("time").astype(np.int64)
    ticks = np.concatenate([starts, starts + column("duration")])
    velocities = np.maximum(column("velocity"), 1)
    # A parser's 32-bit clock runs over in a file of a few dozen bytes and comes back negative.
    if ticks.min() < 0 or ticks.max() > MAX_QUARTERS * division:
        raise RejectedFile("too_long", f"its notes go beyond {MAX_QUARTERS} quarters")
    known = (tempos["time"] >= 0) & (tempos["mspq"] > 0)
    changes = tempos["time"][known].astype(np.int64)
    paces = 60e6 / tempos["mspq"][known]
    paces = paces.clip(MIN_QUARTERS_PER_MINUTE, MAX_QUARTERS_PER_MINUTE)
    if beats == "file" or keeps_to_beats(starts, division):
        grid = _file_grid(division, changes, paces)
    else:
        seconds = _clock(division, changes, paces)
        if seconds(ticks).max() > MAX_PERFORMANCE_SECONDS:
            raise RejectedFile(
                "too_long", f"a performance may take {MAX_PERFORMANCE_SECONDS:.0f} seconds"
            )
        if beats == "fixed":
            grid = _fixed_grid(seconds)
        else:
            grid = _estimated_grid(seconds, starts, ticks[num_notes:], velocities)

    places = grid.places(ticks)
    nearest = nearest_ticks(places)
    onsets = nearest[:num_notes]
    notes = np.empty(num_notes, NOTE)
    notes["start"] = onsets
    notes["end"] = np.maximum(nearest[num_notes:], onsets + 1)
    notes["pitch"] = column("pitch")
    notes["velocity"] = velocities
    notes["track"] = np.repeat(np.arange(len(sizes)), sizes)
    notes["program"] = np.array(programs)[notes["track"]]
    end = int(notes["end"].max())
    if end > MAX_QUARTERS * TICKS_PER_QUARTER:
        raise RejectedFile("too_long", f"its beats go beyond {MAX_QUARTERS} quarters")
    metre_places = grid.places(metres["time"].astype(np.int64))
    metre_ticks = nearest_ticks(metre_places / grid.metre_step) * grid.metre_step
    heard = (metres["time"] >= 0) & (metre_ticks < end)
    return Piece(
        notes=notes,
        metres=regular_metres(
            zip(
                metre_ticks[heard].tolist(),
                metres["numerator"][heard].tolist(),
                metres["denominator"][heard].tolist(),
            )
        ),
        tempos=regular_tempos((tick, round(pace, 3)) for tick, pace in grid.tempos if tick < end),
        tags=dict(tags or {}),
        track_names=names,
        timing=Timing.measured(grid.name, places[:num_notes], onsets),
    )


class _Grid(NamedTuple):
    """Where the ticks of a file come to stand among ours."""

    name: str
    places: Callable[[Ints], Floats]
    """From ticks of the file to ours, in fractions."""
    tempos: Iterable[tuple[int, float]]
    metre_step: int = TICKS_PER_QUARTER
    """A metre may change at multiples of it."""


def _file_grid(division: int, changes: Ints, paces: Floats) -> _Grid:
    """The file's own beats: `division` ticks to a quarter, quarters per minute from each change."""

    def places(ticks: Ints) -> Floats:
        return np.asarray(ticks * TICKS_PER_QUARTER / division)

    tempos = zip(nearest_ticks(places(changes)).tolist(), paces.tolist())
    return _Grid("file", places, tempos, metre_step=1)


def _clock(division: int, changes: Ints, paces: Floats) -> Callable[[Ints], Floats]:
    """From ticks of a file to seconds."""
    order = np.argsort(changes, kind="stable")
    return partial(
        elapsed_seconds,
        changes=np.append(0.0, changes[order]),
        seconds_per_tick=60 / (np.append(120.0, paces[order]) * division),
    )


def _fixed_grid(seconds: Callable[[Ints], Floats]) -> _Grid:
    """24 ticks per half second."""
    return _Grid("fixed", lambda ticks: 2 * TICKS_PER_QUARTER * seconds(ticks), [(0, 120.0)])


def _estimated_grid(
    seconds: Callable[[Ints], Floats], starts: Ints, ends: Ints, velocities: Ints
) -> _Grid:
    """A quarter from each beat to the next, with its own tempo; the first onset is in the first."""
    onsets = seconds(starts)
    lengths = np.clip(seconds(ends) - onsets, 0.05, 1.0)
    beats = estimate_beats(onsets, velocities * np.sqrt(lengths))
    intervals = np.diff(beats)
    # The outermost intervals go on for ever, here a million times.
    beyond = 1e6 * np.array([-intervals[0], intervals[-1]]) + beats[[0, -1]]
    times = np.concatenate([beyond[:1], beats, beyond[1:]])
    numbers = np.concatenate([[-1e6], np.arange(len(beats)), [len(beats) - 1 + 1e6]])
    first = TICKS_PER_QUARTER * np.interp(onsets.min(), times, numbers)
    numbers -= nearest_ticks(first) // TICKS_PER_QUARTER

    def places(ticks: Ints) -> Floats:
        return np.asarray(TICKS_PER_QUARTER * np.interp(seconds(ticks), times, numbers))

    ticks = TICKS_PER_QUARTER * numbers[1:-2].astype(np.int64)
    ticks[0] = 0  # what comes before the first beat has its tempo
    return _Grid("estimated", places, zip(ticks.tolist(), (60 / intervals).tolist()))


def read_midi(
    path: Path, tags: Mapping[str, str] | None = None, *, beats: Beats = "estimate"
) -> Piece:
    """The piece in a MIDI file; see `parse_midi`.

    Raises:
        RejectedFile: The file is refused; its `reason` says why.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise RejectedFile("unreadable", f"cannot read {path}: {error.strerror}") from error
    try:
        return parse_midi(data, tags, beats=beats)
    except RejectedFile as error:
        raise RejectedFile(error.reason, f"cannot read {path}: {error}") from error


def write_midi(piece: Piece, path: Path) -> None:
    """Write a piece as a MIDI file: the notes of `piece.tidied()`, 480 ticks per quarter.

    Equal pieces give equal bytes. Each track and program gets a track and, up to 15 of them, a
    channel of its own; beyond that players mix up the instruments, readers do not.

    Raises:
        UserError: The piece goes beyond `MAX_QUARTERS`, has a tempo or metre that MIDI cannot
            hold, or the file cannot be written.
    """
    file = io.BytesIO()
    try:
        piece.tidied().to_pretty_midi().write(file)
    except ValueError as error:
        raise UserError(f"cannot write {path}: a MIDI file cannot hold it ({error})") from error
    write_atomically(path, file.getvalue())

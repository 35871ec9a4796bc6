"""MIDI files in and out, with guards on both sides of the parser.

symusic parses, clamping data bytes above 127. What real files commonly get wrong is let through:

- bytes before `MThd`, such as the RIFF wrapper of `.rmi` files;
- anything after the last track that the header announces;
- fewer tracks than announced, and chunks of unknown kind between them;
- no end-of-track event, key signatures that do not exist, tempos and metres on any track;
- notes that never end (they are left out) and notes of no length (they get one tick).

Tracks of format 2 sound together, as in every common reader.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import symusic

from rnngan.errors import RejectedFile, UserError
from rnngan.files import write_atomically
from rnngan.music.piece import (
    DRUMS,
    MAX_QUARTERS,
    NOTE,
    Notes,
    Piece,
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


def parse_midi(data: bytes, tags: Mapping[str, str] | None = None) -> Piece:
    """The piece in the bytes of a MIDI file, each onset and end at its nearest tick.

    Every channel and program of a track is a track of its own here. Changes of metre and tempo
    after the last note are left out; tempos are rounded to 0.001 quarters per minute.

    Raises:
        RejectedFile: As `check_midi`, or `unreadable` (the parser gave up), `no_notes`,
            `too_many_notes`, `too_many_tracks`, `too_long` (past `MAX_QUARTERS`).
    """
    start = data.find(b"MThd", 0, MAX_PREFIX_BYTES)
    data = data[max(start, 0) :]
    check_midi(data)
    try:
        score = symusic.Score.from_midi(data, sanitize_data=True)
        tables = [track.notes.numpy() for track in score.tracks]
        names = tuple(track.name for track in score.tracks)
        programs = [DRUMS if track.is_drum else track.program for track in score.tracks]
        metres, tempos = score.time_signatures.numpy(), score.tempos.numpy()
    except Exception as error:  # the parser promises no particular exceptions
        raise RejectedFile("unreadable", f"the parser says: {error}") from error
    if len(tables) > MAX_TRACKS:
        raise RejectedFile(
            "too_many_tracks", f"its channels and programs make {len(tables)} tracks"
        )
    num_notes = sum(len(table["time"]) for table in tables)
    if num_notes == 0:
        raise RejectedFile("no_notes", "the file has no note that begins and ends")
    if num_notes > MAX_NOTES:
        raise RejectedFile("too_many_notes", f"at most {MAX_NOTES} notes, got {num_notes}")

    division = score.ticks_per_quarter
    notes = np.concatenate(
        [
            _note_table(table, division, program, track)
            for track, (table, program) in enumerate(zip(tables, programs))
        ]
    )
    end = int(notes["end"].max())
    metre_ticks = nearest_ticks(metres["time"], division)
    heard = (metre_ticks >= 0) & (metre_ticks < end)
    metre_changes = zip(
        metre_ticks[heard].tolist(),
        metres["numerator"][heard].tolist(),
        metres["denominator"][heard].tolist(),
    )
    tempo_ticks = nearest_ticks(tempos["time"], division)
    heard = (tempo_ticks >= 0) & (tempo_ticks < end) & (tempos["mspq"] > 0)
    tempo_changes = zip(
        tempo_ticks[heard].tolist(),
        np.clip(60e6 / tempos["mspq"][heard], MIN_QUARTERS_PER_MINUTE, MAX_QUARTERS_PER_MINUTE)
        .round(3)
        .tolist(),
    )
    return Piece(
        notes=notes,
        metres=regular_metres(metre_changes),
        tempos=regular_tempos(tempo_changes),
        tags=dict(tags or {}),
        track_names=names,
    )


def _note_table(
    table: Mapping[str, npt.NDArray[np.int32]], division: int, program: int, track: int
) -> Notes:
    """Notes as symusic has them, in `division` ticks per quarter, on our grid.

    Raises:
        RejectedFile: `too_long`.
    """
    starts = table["time"].astype(np.int64)
    ends = starts + table["duration"]
    # A parser's 32-bit clock runs over in a file of a few dozen bytes and comes back negative.
    ticks = np.concatenate([starts, ends])
    if np.any((ticks < 0) | (ticks > MAX_QUARTERS * division)):
        raise RejectedFile("too_long", f"its notes go beyond {MAX_QUARTERS} quarters")
    notes = np.empty(len(starts), NOTE)
    notes["start"] = nearest_ticks(starts, division)
    notes["end"] = np.maximum(nearest_ticks(ends, division), notes["start"] + 1)
    notes["pitch"] = table["pitch"]
    notes["velocity"] = np.clip(table["velocity"], 1, 127)
    notes["program"] = program
    notes["track"] = track
    return notes


def read_midi(path: Path, tags: Mapping[str, str] | None = None) -> Piece:
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
        return parse_midi(data, tags)
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

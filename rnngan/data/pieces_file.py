"""Many pieces in one file: a line with their checksum, a line of JSON, and the table of notes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rnngan.errors import UserError
from rnngan.files import write_atomically
from rnngan.music.piece import NOTE, Metre, Piece, Tempo, Timing

_FORMAT = b"rnngan pieces 1 "


def save_pieces(path: Path, pieces: Sequence[Piece], about: Any = None) -> None:
    """Write pieces to a file that `load_pieces` reads.

    Args:
        path: May end in anything.
        pieces: In their order.
        about: Plain data that belongs to them.

    Raises:
        UserError: The file cannot be written.
    """
    rows = [
        [len(p.notes), p.metres, p.tempos, dict(p.tags), p.track_names, p.timing] for p in pieces
    ]
    text = json.dumps([about, rows]).encode()
    notes = np.concatenate([np.empty(0, NOTE), *(piece.notes for piece in pieces)])
    body = text + b"\n" + notes.tobytes()
    head = _FORMAT + hashlib.sha256(body).hexdigest().encode() + b"\n"
    # A power cut may damage it: that shows when it is read.
    write_atomically(path, head + body, lasting=False)


def load_pieces(path: Path) -> tuple[list[Piece], Any]:
    """The pieces that `save_pieces` wrote, and what it was told about them.

    Raises:
        UserError: The file is missing or damaged.
    """
    try:
        head, _, body = path.read_bytes().partition(b"\n")
        if head != _FORMAT + hashlib.sha256(body).hexdigest().encode():
            raise ValueError("its checksum is wrong")
        text, _, table = body.partition(b"\n")
        about, rows = json.loads(text)
        notes = np.frombuffer(table, NOTE)
        pieces = []
        start = 0
        for count, metres, tempos, tags, track_names, timing in rows:
            pieces.append(
                Piece(
                    notes=notes[start : start + count],
                    metres=tuple(Metre(*metre) for metre in metres),
                    tempos=tuple(Tempo(*tempo) for tempo in tempos),
                    tags=tags,
                    track_names=tuple(track_names),
                    timing=Timing(*timing),
                )
            )
            start += count
            if not 0 <= count <= start <= len(notes):
                raise ValueError(f"a piece of {count} notes ends at {start} of {len(notes)}")
        if start != len(notes):
            raise ValueError(f"it has {len(notes)} notes and tells of {start}")
        return pieces, about
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"cannot read the pieces in {path}: {error}; write them anew") from error

"""Many pieces in one file: numpy arrays and JSON in a zip archive, no pickles."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rnngan.data.arrays import load_arrays
from rnngan.errors import UserError
from rnngan.files import write_atomically
from rnngan.music.piece import NOTE, Metre, Piece, Tempo, Timing


def save_pieces(path: Path, pieces: Sequence[Piece]) -> None:
    """Write pieces to a file that `load_pieces` reads; `path` may end in anything.

    Raises:
        UserError: The file cannot be written.
    """
    notes = [piece.notes for piece in pieces]
    about = [
        {
            "metres": piece.metres,
            "tempos": piece.tempos,
            "tags": dict(piece.tags),
            "track_names": piece.track_names,
            "timing": piece.timing,
        }
        for piece in pieces
    ]
    file = io.BytesIO()
    np.savez(
        file,
        notes=np.concatenate(notes) if notes else np.empty(0, NOTE),
        offsets=np.cumsum([0, *map(len, notes)], dtype=np.int64),
        about=np.frombuffer(json.dumps(about).encode(), dtype=np.uint8),
    )
    write_atomically(path, file.getvalue(), lasting=False)  # damage shows when it is read


def load_pieces(path: Path) -> list[Piece]:
    """The pieces that `save_pieces` wrote.

    Raises:
        UserError: The file is missing or damaged.
    """
    try:
        arrays = load_arrays(path, {"notes": NOTE, "offsets": np.int64, "about": np.uint8})
        notes, offsets = arrays["notes"], arrays["offsets"]
        about = json.loads(arrays["about"].tobytes())
        if offsets[0] != 0 or offsets[-1] != len(notes) or np.any(np.diff(offsets) < 0):
            raise ValueError("its parts do not fit together")
        return [
            Piece(
                notes=notes[start:end],
                metres=tuple(Metre(*metre) for metre in one["metres"]),
                tempos=tuple(Tempo(*tempo) for tempo in one["tempos"]),
                tags=one["tags"],
                track_names=tuple(one["track_names"]),
                timing=Timing(*one["timing"]),
            )
            for start, end, one in zip(offsets[:-1], offsets[1:], about, strict=True)
        ]
    except Exception as error:  # damage shows as an error of zipfile, zlib, numpy or json
        raise UserError(f"cannot read the pieces in {path}: {error}; write them anew") from error

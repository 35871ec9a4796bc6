"""Tags that follow from the notes, for pieces whose source does not give them."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace

from rnngan.music.keys import estimated_key
from rnngan.music.piece import TICKS_PER_QUARTER, Piece

DERIVED_TAGS = ("key", "mode", "density")
"""`key` (such as `Bb major`), `mode` (`major` or `minor`), and `density`: how many notes there are
per quarter, `sparse` below 1.5, `dense` from 3 on, else `medium`. One voice in quarters is sparse,
in eighths medium, in 16ths dense."""
SPARSE_BELOW, DENSE_FROM = 1.5, 3.0

_TONICS = {
    "major": ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B"),
    "minor": ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "G#", "A", "Bb", "B"),
}


def annotated(piece: Piece, tags: Collection[str]) -> Piece:
    """The piece with those of `DERIVED_TAGS` that are among `tags` and that it lacks.

    What the source says stands, whatever the notes suggest: a tune in `D dorian` gets the mode
    `dorian`. A piece without notes has no density, and one in which all pitch classes sound equally
    long no key and mode.

    References:
        Key and mode: Krumhansl, Cognitive Foundations of Musical Pitch, 1990.
    """
    missing = {tag for tag in DERIVED_TAGS if tag in tags} - piece.tags.keys()
    found: dict[str, str] = {}
    if missing & {"key", "mode"}:
        key = piece.tags.get("key") or _key(piece)
        found |= {"key": key, "mode": key.rpartition(" ")[2]}
    if "density" in missing:
        found["density"] = _density(piece)
    new = {tag: value for tag, value in found.items() if value and tag in missing}
    return replace(piece, tags={**piece.tags, **new}) if new else piece


def notes_per_quarter(piece: Piece) -> float:
    """Drums among them, from the first onset to the last end; NaN without notes."""
    if not len(piece.notes):
        return math.nan
    return len(piece.notes) * TICKS_PER_QUARTER / (piece.end - int(piece.notes["start"][0]))


def _key(piece: Piece) -> str:
    """Such as `Bb major`; empty where there is none."""
    key = estimated_key(piece)
    return f"{_TONICS[key[1]][key[0]]} {key[1]}" if key else ""


def _density(piece: Piece) -> str:
    notes = notes_per_quarter(piece)
    if math.isnan(notes):
        return ""
    return "sparse" if notes < SPARSE_BELOW else "dense" if notes >= DENSE_FROM else "medium"

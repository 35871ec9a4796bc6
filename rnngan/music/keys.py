"""The key of a piece, from how long each pitch class sounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rnngan.music.piece import Piece

KEY_PROFILES = (
    (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
    (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17),
)
"""How well each pitch class fits a major and a minor key, from the tonic up: probe-tone ratings of
Krumhansl & Kessler 1982."""


def rotations(profiles: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Each profile on each of the twelve tonics, `(12 × profiles, 12)`, all of the first first."""
    return np.array([np.roll(profile, root) for profile in profiles for root in range(12)], float)


_PROFILES = rotations(KEY_PROFILES)
_CENTRED_PROFILES = _PROFILES - _PROFILES.mean(axis=1, keepdims=True)
_CENTRED_PROFILES /= np.linalg.norm(_CENTRED_PROFILES, axis=1, keepdims=True)


def estimated_key(piece: Piece) -> tuple[int, Literal["major", "minor"]] | None:
    """Tonic (0 for C) and mode whose profile correlates best with the time each pitch class sounds.

    Drums are left out. None without notes, and where all pitch classes sound equally long. Of
    equals the first stands, major before minor.

    References:
        Krumhansl, Cognitive Foundations of Musical Pitch, 1990 (Krumhansl & Schmuckler).
    """
    notes = piece.pitched
    ticks = np.bincount(notes["pitch"] % 12, notes["end"] - notes["start"], minlength=12)
    if not np.ptp(ticks):
        return None
    best = int(np.argmax(_CENTRED_PROFILES @ (ticks / ticks.sum())))
    return best % 12, "major" if best < 12 else "minor"

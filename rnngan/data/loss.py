"""What a piece loses on its way into tokens."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rnngan.music.piece import DRUMS, TICKS_PER_QUARTER, Notes, Piece

_FAR = 1 << 40
"""Ticks between the places of one kind of note and those of the next: no piece lasts so long."""
_NOWHERE = 1 << 60


class Loss(NamedTuple):
    """A piece before and after.

    Attributes:
        notes: Before.
        kept: After.
        onset_errors: Quarters from each note that was kept to where it was before: their sum.
        largest_error: The largest of them.
    """

    notes: int
    kept: int
    onset_errors: float
    largest_error: float


def measure_loss(before: Piece, after: Piece) -> Loss:
    """Compare a piece with what became of it.

    A note is looked for at its pitch (drums apart), where its onset is nearest. Tokens may fill up
    bars that were cut short, so that what follows comes later; then onsets are compared by their
    place in the bar. Of the two ways the one that says less error counts.
    """
    if not len(before.notes) or not len(after.notes):
        return Loss(len(before.notes), len(after.notes), 0.0, 0.0)
    starts = before.notes["start"].astype(np.int64)
    lines, new_lines = before.bar_lines(), after.bar_lines()
    size = min(len(lines), len(new_lines))
    bar = np.clip(np.searchsorted(lines, starts, side="right") - 1, 0, size - 1)
    found = [
        _errors(
            _kinds(before.notes) * _FAR + place, _kinds(after.notes) * _FAR + after.notes["start"]
        )
        for place in (starts, starts - lines[bar] + new_lines[bar])
    ]
    errors = min(found, key=lambda errors: float(errors.sum()))
    return Loss(
        len(before.notes), len(after.notes), float(errors.sum()), float(errors.max(initial=0))
    )


def _errors(old: npt.NDArray[np.int64], new: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Quarters from each new place to the nearest old one of its pitch, where there is one."""
    fenced = np.concatenate([[-_NOWHERE], np.sort(old), [_NOWHERE]])
    right = np.searchsorted(fenced, new)
    errors = np.minimum(fenced[right] - new, new - fenced[right - 1])
    return np.asarray(errors[errors < _FAR // 2] / TICKS_PER_QUARTER)


def _kinds(notes: Notes) -> npt.NDArray[np.int64]:
    kinds: npt.NDArray[np.int64] = notes["pitch"] + 128 * (notes["program"] == DRUMS)
    return kinds

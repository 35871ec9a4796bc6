"""Arithmetic on half-open spans, and what several features ask of one piece."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from rnngan.music.piece import TICKS_PER_QUARTER, Notes, Piece

Ints: TypeAlias = NDArray[np.int64]
Result = TypeVar("Result")


def remembered(compute: Callable[[Piece], Result]) -> Callable[[Piece], Result]:
    """Decorator: keeps what was found of the last piece, which many features ask for in turn.

    It is shared, so nobody may change it.
    """
    last: list[tuple[Piece, Result]] = []

    @wraps(compute)
    def of(piece: Piece) -> Result:
        for known, result in last[:]:  # a copy, since other threads may ask for other pieces
            if known is piece:
                return result
        result = compute(piece)
        last[:] = [(piece, result)]
        return result

    return of


@remembered
def pitched(piece: Piece) -> Notes:
    """`Piece.pitched`."""
    return piece.pitched


@remembered
def onset_ticks(piece: Piece) -> Ints:
    """Ticks at which pitched notes begin, each once, in order."""
    starts = pitched(piece)["start"].astype(np.int64)
    return starts[np.diff(starts, prepend=-1) > 0]


@remembered
def bar_lines(piece: Piece) -> Ints:
    """`Piece.bar_lines`."""
    return piece.bar_lines()


@remembered
def beat_lines(piece: Piece) -> Ints:
    """Ticks where beats (quarters) begin, and where the last one ends: `(beats + 1,)`.

    Counted anew from each change of metre, which cuts a beat that it falls into.
    """
    end = piece.end
    ticks = [metre.tick for metre in piece.metres if metre.tick < end]
    if not ticks:
        return np.zeros(1, np.int64)
    untils = [*ticks[1:], end]
    lines = [np.arange(a, b, TICKS_PER_QUARTER) for a, b in zip(ticks, untils, strict=True)]
    return np.append(np.concatenate(lines), lines[-1][-1] + TICKS_PER_QUARTER)


def cell_of(lines: Ints, ticks: NDArray[Any]) -> Ints:
    """Index of the bar or beat that each tick lies in, given its lines."""
    return np.searchsorted(lines, ticks, side="right") - 1


def covered(
    lines: Ints,
    starts: NDArray[Any],
    ends: NDArray[Any],
    rows: NDArray[Any] | int = 0,
    num_rows: int = 1,
) -> NDArray[np.bool_]:
    """Which cells between the lines the spans of each row reach into: `(rows, cells)`."""
    width = len(lines)
    offset = np.asarray(rows, np.int64) * width
    first = offset + cell_of(lines, starts)
    after = offset + np.searchsorted(lines, ends, side="left")
    size = num_rows * width
    change = np.bincount(first, minlength=size) - np.bincount(after, minlength=size)
    reached: NDArray[np.bool_] = change.reshape(num_rows, width).cumsum(axis=1)[:, :-1] > 0
    return reached


def merged(starts: NDArray[Any], ends: NDArray[Any], rows: NDArray[Any]) -> tuple[Ints, Ints, Ints]:
    """Union of the spans of each row as `(rows, starts, ends)`, sorted; touching spans join."""
    if not len(starts):
        empty = np.empty(0, np.int64)
        return empty, empty, empty
    # One line of time per row, laid end to end, so that a single sweep serves all rows.
    stride = int(ends.max()) + 1
    offset = rows.astype(np.int64) * stride
    order = np.argsort(offset + starts)
    begin = (offset + starts)[order]
    reach = np.maximum.accumulate((offset + ends)[order])
    first = np.append(True, begin[1:] > reach[:-1])
    begin, reach = begin[first], reach[np.append(first[1:], True)]
    row = begin // stride
    return row, begin - row * stride, reach - row * stride


def cut(
    lines: Ints, starts: NDArray[Any], ends: NDArray[Any]
) -> tuple[Ints, Ints, NDArray[np.int64]]:
    """Spans cut at the lines: of each part the span, the cell, and the ticks that it fills."""
    first = cell_of(lines, starts)
    count = np.searchsorted(lines, ends, side="left") - first
    span = np.repeat(np.arange(len(starts)), count)
    cell = np.arange(len(span)) - np.repeat(count.cumsum() - count - first, count)
    ticks = np.minimum(ends[span], lines[cell + 1]) - np.maximum(starts[span], lines[cell])
    return span, cell, ticks.astype(np.int64)


def chroma(lines: Ints, notes: Notes) -> Ints:
    """Ticks that the notes of each pitch class fill in each cell between the lines: `(cells, 12)`.

    Notes that sound together count each.
    """
    return _tallied(notes, cut(lines, notes["start"], notes["end"]), len(lines) - 1)


def _tallied(notes: Notes, parts: tuple[Ints, Ints, Ints], num_cells: int) -> Ints:
    """`chroma` from the parts of the notes."""
    note, cell, ticks = parts
    classes = cell * 12 + notes["pitch"][note] % 12
    total = np.bincount(classes, ticks, minlength=num_cells * 12)
    return total.astype(np.int64).reshape(num_cells, 12)


@remembered
def beat_parts(piece: Piece) -> tuple[Ints, Ints, Ints]:
    """`cut` of the pitched notes by beats."""
    notes = pitched(piece)
    return cut(beat_lines(piece), notes["start"], notes["end"])


@remembered
def beat_chroma(piece: Piece) -> Ints:
    """`chroma` of the pitched notes in each beat: `(beats, 12)`."""
    return _tallied(pitched(piece), beat_parts(piece), len(beat_lines(piece)) - 1)


@remembered
def by_track(piece: Piece) -> tuple[Notes, NDArray[np.bool_]]:
    """Pitched notes by track, start, pitch; and whether each but the first stays in its track."""
    notes = pitched(piece)
    notes = notes.take(np.argsort(notes["track"], kind="stable"))
    return notes, notes["track"][1:] == notes["track"][:-1]

"""How much of a piece stands, note for note, in the training set.

What is compared is the top line of a piece, drums left out: of notes that begin together the
highest, and none that begins below a note of the line which still sounds for more than a 32nd
(shorter overlaps are legato). A line is read as steps: the interval in semitones and the time in
ticks from each onset to the next. So a copy is found in any key, however long its notes are held,
and whatever is played below it. The search is exact: a suffix array over all lines.

References:
    Yin et al., "Measuring when a music generation algorithm copies too much", 2021.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rnngan.music.piece import TICKS_PER_QUARTER, Piece

MIN_NOTES = 16
"""Notes in a row from which a run counts as copied; about four bars of a melody."""
LEGATO_TICKS = TICKS_PER_QUARTER // 8

Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Run:
    """The longest run of notes that a piece shares with the training set.

    Attributes:
        num_notes: Notes in a row; 0 if not even two follow each other as in training.
        line_notes: Notes in the piece's whole line.
        bars: First and last bar of the run in the piece, from 1.
        training_index: Training piece that has it; -1 without a run.
        training_bars: First and last bar of the run there.
    """

    num_notes: int
    line_notes: int
    bars: tuple[int, int]
    training_index: int
    training_bars: tuple[int, int]


def top_line(piece: Piece) -> Ints:
    """Onset in ticks and pitch of each note of the top line: `(notes, 2)`."""
    notes = piece.pitched
    highest = notes[np.lexsort((notes["end"], notes["pitch"], notes["start"]))]
    highest = highest[np.append(np.diff(highest["start"]) > 0, True)[: len(highest)]]
    line: list[tuple[int, int]] = []
    sounding_pitch, sounding_end = -1, -1
    for start, end, pitch in highest[["start", "end", "pitch"]].tolist():
        if pitch >= sounding_pitch or start >= sounding_end - LEGATO_TICKS:
            line.append((start, pitch))
            sounding_pitch, sounding_end = pitch, end
    return np.array(line, dtype=np.int64).reshape(-1, 2)


def longest_runs(pieces: Sequence[Piece], training: Sequence[Piece]) -> list[Run]:
    """The longest run that each piece shares with any training piece."""
    lines = [top_line(piece) for piece in (*pieces, *training)]
    # Every line ends in a symbol of its own, so no run goes on from one line into the next.
    offsets = np.cumsum([0, *(max(len(line), 1) for line in lines)])
    symbols = np.empty(offsets[-1], dtype=np.int64)
    for i, line in enumerate(lines):
        time, interval = np.diff(line, axis=0).T
        symbols[offsets[i] : offsets[i + 1] - 1] = (time << 8) + interval + 128
        symbols[offsets[i + 1] - 1] = -1 - i
    start = offsets[len(pieces)]
    length, where = _longest_matches(symbols, int(start))

    runs = []
    for i, piece in enumerate(pieces):
        at = int(np.argmax(length[offsets[i] : offsets[i + 1]]))
        steps = int(length[offsets[i] + at])
        if not steps:
            runs.append(_no_run(len(lines[i])))
            continue
        other = int(where[offsets[i] + at])
        owner = int(np.searchsorted(offsets, other, side="right")) - 1
        runs.append(
            Run(
                num_notes=steps + 1,
                line_notes=len(lines[i]),
                bars=_bars(piece, lines[i], at, steps),
                training_index=owner - len(pieces),
                training_bars=_bars(
                    training[owner - len(pieces)],
                    lines[owner],
                    other - int(offsets[owner]),
                    steps,
                ),
            )
        )
    return runs


def copied_share(runs: Sequence[Run], min_notes: int = MIN_NOTES) -> float:
    """Share of pieces with a run of `min_notes` or more, of those that have so many notes.

    NaN if no piece has.
    """
    long_enough = [run.num_notes >= min_notes for run in runs if run.line_notes >= min_notes]
    return sum(long_enough) / len(long_enough) if long_enough else math.nan


def _longest_matches(symbols: Ints, start: int) -> tuple[Ints, Ints]:
    """Longest match of every suffix that begins before `start` with one that begins after it.

    Returns:
        Length of the match and the place in `symbols` where its second copy begins: `(start,)`
        each; without any second copy length 0 and place -1.
    """
    ranks = _prefix_ranks(symbols)
    order = np.argsort(ranks[-1])
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    # The longest match of a suffix is with a neighbour in sorted order: the nearest on either
    # side that begins in the training set.
    index = np.arange(len(order))
    trained = order >= start
    before = np.maximum.accumulate(np.where(trained, index, -1))[place[:start]]
    after = np.minimum.accumulate(np.where(trained, index, len(order))[::-1])[::-1][place[:start]]

    length, where = np.zeros(start, np.int64), np.full(start, -1)
    queries = np.arange(start)
    for neighbour in (before, after):
        exists = (neighbour >= 0) & (neighbour < len(order))
        found = order[neighbour[exists]]
        common = _common_prefix(ranks, queries[exists], found)
        longer = common > length[exists]
        improved = queries[exists][longer]
        length[improved], where[improved] = common[longer], found[longer]
    return length, where


def _prefix_ranks(symbols: Ints) -> list[Ints]:
    """Rank, at each place, of the 1, 2, 4, ... symbols from there on, until all ranks differ."""
    ranks = [np.unique(symbols, return_inverse=True)[1]]
    while ranks[-1].max(initial=0) + 1 < len(symbols):
        size = 1 << (len(ranks) - 1)
        following = np.append(ranks[-1][size:] + 1, np.zeros(min(size, len(symbols)), np.int64))
        keys = ranks[-1] * (len(symbols) + 1) + following
        ranks.append(np.unique(keys, return_inverse=True)[1])
    return ranks


def _common_prefix(ranks: list[Ints], a: Ints, b: Ints) -> Ints:
    """Length of the longest common prefix of the suffixes at a and at b: `(pairs,)` each."""
    length = np.zeros(len(a), np.int64)
    for level in reversed(range(len(ranks))):
        i, j = a + length, b + length
        # Unequal ends stop every match before the last symbol, so i and j stay inside.
        length += (ranks[level][i] == ranks[level][j]).astype(np.int64) << level
    return length


def _bars(piece: Piece, line: Ints, first: int, steps: int) -> tuple[int, int]:
    """Bars, from 1, of the first and last note of a run in a line."""
    onsets = line[[first, first + steps], 0]
    first_bar, last_bar = np.searchsorted(piece.bar_lines(), onsets, side="right").tolist()
    return first_bar, last_bar


def _no_run(line_notes: int) -> Run:
    return Run(
        num_notes=0, line_notes=line_notes, bars=(0, 0), training_index=-1, training_bars=(0, 0)
    )

"""How much of a piece stands in the training set: the longest copied run, and the nearest piece.

What is compared is the melody of a piece, `rnngan.music.skyline`, drums left out. It is read as
steps: the interval in semitones and the time in ticks from each onset to the next. So a copy is
found in any key, however long its notes are held, and whatever is played below it. A note that
differs in pitch or onset alone changes the two steps beside it.

Both searches are exact and take the training set in portions, so that their memory does not grow
with it beyond what the pieces themselves fill.

References:
    Yin et al., "Measuring when a music generation algorithm copies too much", 2021.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from eval.pieces import Track, silently
from rnngan.music.piece import Notes, Piece
from rnngan.music.skyline import skyline

MIN_NOTES = 16
"""Notes in a row from which a run counts as copied; about four bars of a melody."""

SORTED_STEPS = 1 << 20
"""Training steps in one suffix array, which then takes about 100 MB."""
ALIGNED_STEPS = 1 << 17
"""Training steps aligned at once: integers of so many bits stay in the cache."""

Ints = NDArray[np.int64]
Steps = NDArray[np.int32]


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


@dataclass(frozen=True, kw_only=True)
class Nearest:
    """The training piece that is nearest to a piece by edit distance.

    Attributes:
        distance: `edits` by the number of steps in the longer of the two lines, 0 (the same line)
            to 1; NaN where the piece, or all training, has fewer than two notes in its line.
        edits: Steps to insert, delete or replace until the lines agree; -1 where undefined.
        training_index: The piece; the first of several; -1 where undefined.
    """

    distance: float
    edits: int
    training_index: int


def longest_runs(pieces: Sequence[Piece], training: Sequence[Piece]) -> list[Run]:
    """The longest run that each piece shares with any training piece."""
    lines = [skyline(piece.notes) for piece in pieces]
    steps = [_steps(line) for line in lines]
    offsets = _offsets(steps)
    length, owner, begin = (np.zeros(offsets[-1], np.int64) for _ in range(3))
    for first, portion in _portions(training, max(SORTED_STEPS, int(offsets[-1]))):
        joined = [*steps, *portion]
        found, where = _longest_matches(_joined(joined), int(offsets[-1]))
        longer = np.flatnonzero(found > length)
        starts = _offsets(joined)
        line = np.searchsorted(starts, where[longer], side="right") - 1
        length[longer] = found[longer]
        owner[longer] = line - len(steps) + first
        begin[longer] = where[longer] - starts[line]

    runs = []
    for piece, line, (start, end) in zip(pieces, lines, pairwise(offsets.tolist())):
        at = int(np.argmax(length[start:end]))
        num_steps, index = int(length[start + at]), int(owner[start + at])
        if not num_steps:
            runs.append(_no_run(len(line)))
            continue
        other = training[index]
        there = _bars(other, skyline(other.notes), int(begin[start + at]), num_steps)
        runs.append(
            Run(
                num_notes=num_steps + 1,
                line_notes=len(line),
                bars=_bars(piece, line, at, num_steps),
                training_index=index,
                training_bars=there,
            )
        )
    return runs


def copied_share(runs: Sequence[Run], min_notes: int = MIN_NOTES) -> float:
    """Share of pieces with a run of `min_notes` or more, of those that have so many notes.

    NaN if no piece has.
    """
    long_enough = [run.num_notes >= min_notes for run in runs if run.line_notes >= min_notes]
    return sum(long_enough) / len(long_enough) if long_enough else math.nan


def nearest_pieces(
    pieces: Sequence[Piece], training: Sequence[Piece], *, track: Track = silently
) -> list[Nearest]:
    """The training piece nearest to each piece, by the Levenshtein distance of their steps.

    The time grows with the steps of `pieces` times those of `training`. Pieces of very unequal
    length are far apart even if one holds the other: that is what `longest_runs` is for.

    Args:
        pieces: What to look for.
        training: Where.
        track: Shows the progress, training piece by training piece.
    """
    queries = [_steps(skyline(piece.notes)) for piece in pieces]
    found = [Nearest(distance=math.nan, edits=-1, training_index=-1) for _ in pieces]
    shown = track(training, "looking for the nearest training pieces")
    for first, portion in _portions(shown, ALIGNED_STEPS):
        alignment = _Alignment(portion)
        sizes = np.array([len(line) for line in portion])
        for i, query in enumerate(queries):
            if not len(query) or not sizes.any():
                continue
            edits = alignment.edits(query)
            distances = np.where(sizes > 0, edits / np.maximum(sizes, len(query)), math.inf)
            at = int(np.argmin(distances))
            if not distances[at] >= found[i].distance:  # also if that is NaN
                found[i] = Nearest(
                    distance=float(distances[at]), edits=int(edits[at]), training_index=first + at
                )
    return found


def _steps(line: Notes) -> Steps:
    """Time and interval from each note of a line to the next, as one number: `(notes - 1,)`."""
    time = np.diff(line["start"])
    return np.asarray((time << 8) + np.diff(line["pitch"].astype(np.int32)) + 128, np.int32)


def _portions(training: Iterable[Piece], size: int) -> Iterator[tuple[int, list[Steps]]]:
    """Steps of the training pieces, about `size` at a time, with the index of the first piece."""
    first, portion, total = 0, list[Steps](), 0
    for piece in training:
        portion.append(_steps(skyline(piece.notes)))
        total += len(portion[-1]) + 1
        if total >= size:
            yield first, portion
            first, portion, total = first + len(portion), [], 0
    if portion:
        yield first, portion


def _offsets(lines: Sequence[Steps]) -> Ints:
    """Where each line begins in `_joined`, and where the last one ends: `(lines + 1,)`."""
    return np.cumsum([0, *(len(line) + 1 for line in lines)])


def _joined(lines: Sequence[Steps]) -> Steps:
    """Lines one after another, each ended by a symbol of its own, below 0, so that none match."""
    joined = np.empty(int(_offsets(lines)[-1]), np.int32)
    ends = _offsets(lines)[1:] - 1
    steps = np.ones(len(joined), np.bool_)
    steps[ends] = False
    joined[steps] = np.concatenate([*lines, np.empty(0, np.int32)])
    joined[ends] = -1 - np.arange(len(lines))
    return joined


def _longest_matches(symbols: Steps, start: int) -> tuple[Ints, Ints]:
    """Longest match of every suffix that begins before `start` with one that begins after it.

    Returns:
        Length of the match and the place in `symbols` where its second copy begins: `(start,)`
        each; without any second copy length 0 and place -1.
    """
    order, ranks = _sorted_suffixes(symbols, start)
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


def _sorted_suffixes(symbols: Steps, start: int) -> tuple[Ints, list[NDArray[np.int32]]]:
    """Suffixes in order as far as it matters between those before and those from `start` on.

    Prefix doubling: suffixes sorted by 1, 2, 4, ... symbols fall into groups of equal prefixes. A
    group that lies on one side of `start` is not sorted further: each of its suffixes has the
    same longest match on the other side.

    Returns:
        The suffixes in order, and for 1, 2, 4, ... symbols the rank of each suffix: `(symbols,)`
        each. Ranks of suffixes on different sides are equal where the symbols are.

    References:
        Larsson & Sadakane, "Faster suffix sorting", 2007, for ranks that stay valid while only
        some groups are sorted on.
    """
    order = np.argsort(symbols, kind="stable")
    slots = np.arange(len(symbols))
    keys = symbols[order].astype(np.int64)
    rank = np.empty(len(symbols), np.int32)
    ranks: list[NDArray[np.int32]] = []
    while len(slots):
        members = order[slots]
        first = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
        sizes = np.diff(first, append=len(keys))
        rank[members] = np.repeat(slots[first], sizes)
        num_trained = np.add.reduceat((members >= start).astype(np.int64), first)
        slots = slots[np.repeat((num_trained > 0) & (num_trained < sizes), sizes)]
        # What follows a prefix that two lines share is there: at the least the end of the line.
        members = order[slots]
        keys = rank[members].astype(np.int64) * len(symbols) + rank[members + (1 << len(ranks))]
        by_key = np.argsort(keys, kind="stable")
        order[slots], keys = members[by_key], keys[by_key]
        ranks.append(rank.copy())
    return order, ranks


def _common_prefix(ranks: Sequence[NDArray[np.int32]], a: Ints, b: Ints) -> Ints:
    """Length of the longest common prefix of the suffixes at a and at b: `(pairs,)` each."""
    length = np.zeros(len(a), np.int64)
    for level in reversed(range(len(ranks))):
        i, j = a + length, b + length
        # Unequal ends stop every match before the last symbol, so i and j stay inside.
        length += (ranks[level][i] == ranks[level][j]).astype(np.int64) << level
    return length


class _Alignment:
    """Edit distances of one line to many at once.

    The columns of all dynamic-programming tables lie side by side in the bits of one integer, a
    bit per step for where the column rises and one for where it falls; the bit between two lines
    catches what an addition or a shift carries out of the first.

    References:
        Myers, "A fast bit-vector algorithm for approximate string matching", 1999; Hyyrö, "A
        bit-vector algorithm for computing Levenshtein and Damerau edit distances", 2003, whose
        names these are; Hyyrö, Fredriksson & Navarro, "Increased bit-parallelism", 2004.
    """

    def __init__(self, lines: Sequence[Steps]) -> None:
        self._symbols = _joined(lines)
        self._offsets = _offsets(lines)
        self._inside = _integer(self._symbols >= 0)
        self._bottom = _integer(np.isin(np.arange(len(self._symbols)), self._offsets[:-1]))
        self._places: dict[int, int] = {}

    def edits(self, query: Steps) -> Ints:
        """Insertions, deletions and replacements between `query` and each line: `(lines,)`."""
        inside, bottom = self._inside, self._bottom
        rising, falling = inside, 0
        for symbol in query.tolist():
            equal = self._places_of(symbol)
            diagonal = (((equal & rising) + rising) ^ rising) | equal | falling
            right_rising = (falling | ((diagonal | rising) ^ inside)) << 1 | bottom
            right_falling = (diagonal & rising) << 1
            rising = (right_falling | ((diagonal | right_rising) ^ inside)) & inside
            falling = right_rising & diagonal
        change = self._bits(rising).astype(np.int64) - self._bits(falling)
        return len(query) + np.add.reduceat(change, self._offsets[:-1])

    def _places_of(self, symbol: int) -> int:
        """Where the symbol stands in the lines."""
        if symbol not in self._places:
            self._places[symbol] = _integer(self._symbols == symbol)
        return self._places[symbol]

    def _bits(self, number: int) -> NDArray[np.uint8]:
        size = len(self._symbols)
        data = np.frombuffer(number.to_bytes(-(-size // 8), "little"), np.uint8)
        return np.unpackbits(data, count=size, bitorder="little")


def _integer(bits: NDArray[np.bool_]) -> int:
    """The number whose binary digits, lowest first, are `bits`."""
    return int.from_bytes(np.packbits(bits, bitorder="little").tobytes(), "little")


def _bars(piece: Piece, line: Notes, first: int, num_steps: int) -> tuple[int, int]:
    """Bars, from 1, of the first and last note of a run in a line."""
    onsets = line["start"][[first, first + num_steps]]
    first_bar, last_bar = np.searchsorted(piece.bar_lines(), onsets, side="right").tolist()
    return first_bar, last_bar


def _no_run(line_notes: int) -> Run:
    return Run(
        num_notes=0, line_notes=line_notes, bars=(0, 0), training_index=-1, training_bars=(0, 0)
    )

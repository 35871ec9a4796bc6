"""Which pieces are the same music, so that a split can keep them on one side.

Two pieces belong together if they are equal up to transposition, or if their melodies are nearly
equal: under one transposition the longest common subsequence of their pitches takes in at least
`NEAR` of the notes of the longer one. The melody is the skyline of all that is not drums. Rhythm
is no part of it: one tune is notated in 2/4 and in 4/4, dotted and even, with one long note or two
short ones tied, and a model that has learned one such version knows the other.

Comparing all pairs is out of the question for 100,000 pieces. Pairs are compared whose sketches
share hashes: the sketch of a melody is the smallest hashes of its runs of `RUN` intervals, so that
melodies which share runs are likely to share hashes (bottom-k sketches).

References:
    Broder, "On the resemblance and containment of documents", 1997.
    Crochemore et al., "A fast and practical bit-vector algorithm for the longest common
    subsequence problem", 2001; Hyyrö, "Bit-parallel LCS-length computation revisited", 2004.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rnngan.music.piece import DRUMS, Piece
from rnngan.music.skyline import skyline

NEAR = 0.9
"""Common notes, of those of the longer melody, from which two melodies count as one."""
MIN_NOTES = 8
"""Shorter melodies agree by chance; such pieces are only compared as a whole."""
MIN_PITCHES = 3
"""Likewise melodies of fewer different pitches."""
MAX_NOTES = 2048
"""Notes of a melody that are kept and compared, from the beginning on."""
RUN = 5
"""Intervals, each between two successive notes of the melody, that are hashed together."""
SKETCH_SIZE = 32
"""Hashes kept of a melody."""
MIN_SHARED_RATE = 0.2
"""Share of its hashes that the shorter of two melodies must have in common with the other before
they are compared. Where one note in ten is another, 0.36 are common on average."""
WINDOW = 32
"""Pairs are looked for among melodies that share a hash, for each among so many of the next longer
ones, so that what thousands share costs no more per melody than what few do."""
_BLOCK = 1 << 13
"""Hashes, or pairs, that are worked on at once."""


class Signature(NamedTuple):
    """What is kept of a piece to compare it: about 500 bytes for a melody of 200 notes.

    Attributes:
        exact: The `melody_key`.
        melody: Pitches of the skyline, a byte each; empty where it says too little.
        sketch: At most `SKETCH_SIZE` hashes of 4 bytes, ascending.
    """

    exact: bytes
    melody: bytes
    sketch: bytes


def signature(piece: Piece) -> Signature:
    """What `groups` needs to know of a piece."""
    pitches = skyline(piece.notes)["pitch"][:MAX_NOTES]
    if len(pitches) < MIN_NOTES or np.count_nonzero(np.bincount(pitches)) < MIN_PITCHES:
        return Signature(melody_key(piece), b"", b"")
    return Signature(melody_key(piece), pitches.tobytes(), _sketch(pitches).tobytes())


def melody_key(piece: Piece) -> bytes:
    """The same 16 bytes for pieces that are equal up to transposition, and hardly for others.

    Equal means onsets and lengths relative to the first onset, pitches, and what is played on
    drums; not tempo, metre, velocity and instruments.
    """
    notes = piece.notes
    drum = notes["program"] == DRUMS
    pitch = notes["pitch"].astype(np.int64)
    pitch -= np.where(drum, 0, pitch.min(initial=127, where=~drum))
    when = (notes["start"] - notes["start"][:1]).astype(np.int64)
    length = (notes["end"] - notes["start"]).astype(np.int64)
    # In an order of its own: in that of the notes drums and moving pitches change places.
    rows = np.sort(when << 36 | length << 8 | pitch << 1 | drum).astype("<i8")
    new = np.append(True, rows[1:] != rows[:-1])[: len(rows)]
    return hashlib.sha256(rows[new].tobytes()).digest()[:16]


def groups(signatures: Sequence[Signature]) -> npt.NDArray[np.int64]:
    """For every piece the number of the piece that its group is named after, `(pieces,)`.

    That is the one with the smallest exact key, of several such the first, so that neither the
    groups nor the keys they are named after depend on the order of the pieces. Groups are closed:
    if the first is near the second and that near a third, all three are one.
    """
    count = len(signatures)
    # Tables of numbers, since objects for each of a hundred thousand pieces would take room.
    exact, melodies = np.zeros((count, 2), ">u8"), np.zeros((count, 2), ">u8")
    lengths = np.zeros(count, np.int64)
    sketches = np.zeros((count, SKETCH_SIZE), "<u4")
    for i, (key, melody, sketch) in enumerate(signatures):
        exact[i] = np.frombuffer(key, ">u8")
        if melody:
            melodies[i] = np.frombuffer(_transposed(melody), ">u8")
            lengths[i] = len(melody)
            hashes = np.frombuffer(sketch, "<u4")
            sketches[i, : len(hashes)] = hashes
    by_key = np.lexsort((exact[:, 1], exact[:, 0]))
    forest = _Forest(np.argsort(by_key).tolist())
    forest.join_equal(by_key, exact)
    # In an order that follows from what they are, not from where they stand.
    ordered = np.lexsort((melodies[:, 1], melodies[:, 0], lengths))
    ordered = ordered[lengths[ordered] > 0]
    numbers = ordered[forest.join_equal(ordered, melodies)]
    for pairs in _candidates(lengths[numbers], sketches[numbers]):
        for a, b in numbers[pairs].tolist():
            apart = forest.root(a) != forest.root(b)
            if apart and near(signatures[a].melody, signatures[b].melody):
                forest.join(a, b)
    return np.array([forest.root(i) for i in range(count)], dtype=np.int64)


def near(one: bytes, other: bytes) -> bool:
    """Whether two melodies, pitches as bytes and at least one each, are nearly equal.

    That is, whether under some transposition their common notes reach `NEAR` of the longer one.
    """
    longer = max(len(one), len(other))
    needed = NEAR * longer - 1e-9
    if min(len(one), len(other)) < needed:
        return False
    # As many notes of a pitch as both have: no more can be common.
    counts, others = _counts(one), _counts(other)
    padded = np.zeros(len(others) + 2 * (len(counts) - 1), np.int64)
    padded[len(counts) - 1 :][: len(others)] = others
    windows = np.lib.stride_tricks.sliding_window_view(padded, len(counts))
    bounds = np.minimum(windows, counts).sum(axis=1)
    lowest = min(other) - min(one) - (len(counts) - 1)
    shifts = lowest + np.flatnonzero(bounds >= needed)
    return any(common_notes(one, other, shift) >= needed for shift in shifts.tolist())


def common_notes(one: bytes, other: bytes, shift: int) -> int:
    """Length of the longest common subsequence of `one`, moved by `shift` semitones, and `other`.

    One big integer holds a row of the table of lengths, a bit for each place where it rises.
    """
    places: dict[int, int] = defaultdict(int)
    for i, pitch in enumerate(one):
        places[pitch + shift] |= 1 << i
    full = (1 << len(one)) - 1
    row = full
    for pitch in other:
        matches = row & places.get(pitch, 0)
        row = ((row + matches) | (row - matches)) & full
    return len(one) - row.bit_count()


class _Forest:
    """Disjoint sets, each named after its member of the lowest rank."""

    def __init__(self, ranks: list[int]) -> None:
        self._ranks = ranks
        self._parent = list(range(len(ranks)))

    def root(self, i: int) -> int:
        parent = self._parent
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    def join(self, a: int, b: int) -> None:
        first, second = sorted((self.root(a), self.root(b)), key=self._ranks.__getitem__)
        self._parent[second] = first

    def join_equal(
        self, order: npt.NDArray[np.int64], rows: npt.NDArray[np.uint64]
    ) -> npt.NDArray[np.int64]:
        """Join those whose rows are equal, in an order that brings them together.

        Returns the place in that order of the first of each kind.
        """
        new = np.append(True, np.any(rows[order[1:]] != rows[order[:-1]], axis=1))[: len(order)]
        first = np.flatnonzero(new)
        kind = np.cumsum(new) - 1
        for place in np.flatnonzero(~new).tolist():
            self.join(int(order[place]), int(order[first[kind[place]]]))
        return first


def _transposed(melody: bytes) -> bytes:
    """The melody moved down as far as it goes, hashed."""
    lowest = min(melody)
    return hashlib.sha256(bytes(pitch - lowest for pitch in melody)).digest()[:16]


def _sketch(pitches: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    """The smallest hashes of the runs of `RUN` intervals, ascending; 0 stands for none."""
    intervals = np.diff(pitches)  # modulo 256: an interval fits into a byte
    rows = np.zeros((len(intervals) - RUN + 1, 8), np.uint8)
    rows[:, :RUN] = np.lib.stride_tricks.sliding_window_view(intervals, RUN)
    runs = rows.view("<u8").ravel()
    # The finalizer of splitmix64 (Steele et al., 2014) scatters, and is fast in numpy.
    runs = (runs ^ (runs >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    runs = (runs ^ (runs >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    hashes = np.sort((runs >> np.uint64(32)).astype("<u4"))
    new = np.flatnonzero(np.diff(hashes, prepend=np.uint32(0)))
    return hashes[new[:SKETCH_SIZE]]


def _candidates(
    lengths: npt.NDArray[np.int64], sketches: npt.NDArray[np.uint32]
) -> Iterator[npt.NDArray[np.int64]]:
    """Pairs of melodies, a few at a time, `(pairs, 2)`, whose sketches share enough hashes.

    Args:
        lengths: Notes of each melody, ascending.
        sketches: Hashes of each, filled up with 0: `(melodies, SKETCH_SIZE)`.
    """
    # Owners stay ascending within a hash. Numbers of 32 bits take half the room.
    order = np.argsort(sketches, axis=None, kind="stable").astype(np.int32)
    order = order[np.count_nonzero(sketches == 0) :]
    hashes = sketches.ravel()[order]
    owners = order // SKETCH_SIZE
    del order
    places = np.argsort(owners, kind="stable").astype(np.int32)
    for start in range(0, len(places), _BLOCK):
        found = []
        for lag in range(1, WINDOW + 1):
            i = places[start : start + _BLOCK]
            i = i[i < len(hashes) - lag]
            i = i[hashes[i] == hashes[i + lag]]
            a, b = owners[i], owners[i + lag]
            alike = lengths[a] >= NEAR * lengths[b] - 1e-9
            found.append(a[alike].astype(np.int64) * len(lengths) + b[alike])
        pairs = np.unique(np.concatenate(found))
        for first in range(0, len(pairs), _BLOCK):
            a, b = np.divmod(pairs[first : first + _BLOCK], len(lengths))
            both = np.sort(np.hstack([sketches[a], sketches[b]]), axis=1)
            twice = (both[:, 1:] == both[:, :-1]) & (both[:, 1:] > 0)
            needed = MIN_SHARED_RATE * np.count_nonzero(sketches[a], axis=1)
            enough = twice.sum(axis=1) >= needed
            yield np.stack([a[enough], b[enough]], axis=1)


def _counts(melody: bytes) -> npt.NDArray[np.int64]:
    """Notes of each pitch from the lowest to the highest."""
    pitches = np.frombuffer(melody, np.uint8)
    counts: npt.NDArray[np.int64] = np.bincount(pitches - pitches.min())
    return counts


class Signatures(Sequence[Signature]):
    """Signatures on disk, since those of a hundred thousand pieces take room; to be closed."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b")
        self._starts = array("q", [0])

    def __enter__(self) -> Signatures:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def extend(self, signatures: Iterable[Signature]) -> None:
        """Append some."""
        self._file.seek(self._starts[-1])
        for one in signatures:
            data = len(one.sketch).to_bytes(1, "little") + one.exact + one.sketch + one.melody
            self._file.write(data)
            self._starts.append(self._starts[-1] + len(data))
        self._file.flush()

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: Any) -> Any:
        start, end = self._starts[index], self._starts[index + 1]
        data = os.pread(self._file.fileno(), end - start, start)
        sketch = _EXACT + data[0]
        return Signature(data[1:_EXACT], data[sketch:], data[_EXACT:sketch])


_EXACT = 17
"""Where the sketch begins: behind its length and a key of 16 bytes."""

"""What a tokenizer has to know of a corpus, gathered piece by piece and added up.

Every count is a whole number, so that a corpus read in any number of parts gives the same sum.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rnngan.music.piece import DRUMS, Piece

Histogram = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Summary:
    """Counts over the pieces of a corpus.

    Attributes:
        num_pieces: How many.
        pitches: Pitched notes of each pitch, `(128,)`.
        velocities: Notes of each velocity, drums included, `(128,)`.
        gaps: Ticks from one onset to the next of the notes as they stand in `Piece.notes`: the
            sum, the sum of squares, and the largest, `(3,)`. The first onset counts from 0.
        lengths: Likewise of the notes' lengths in ticks.
        programs: Programs that occur, `DRUMS` among them.
        voices: Most tracks of a piece that share a program other than the drum kit.
        metres: Changes to each metre by name, such as `6/8`.
        tempos: Changes to each tempo in quarters per minute.
        tags: Values of each tag that occurs.
    """

    num_pieces: int
    pitches: Histogram
    velocities: Histogram
    gaps: tuple[int, int, int]
    lengths: tuple[int, int, int]
    programs: frozenset[int]
    voices: int
    metres: Counter[str]
    tempos: Counter[float]
    tags: Mapping[str, frozenset[str]]

    @staticmethod
    def empty() -> Summary:
        """Of no pieces."""
        return Summary(
            num_pieces=0,
            pitches=np.zeros(128, np.int64),
            velocities=np.zeros(128, np.int64),
            gaps=(0, 0, 0),
            lengths=(0, 0, 0),
            programs=frozenset(),
            voices=0,
            metres=Counter(),
            tempos=Counter(),
            tags={},
        )

    @staticmethod
    def of(pieces: Iterable[Piece]) -> Summary:
        """Of some pieces, all at once."""
        pieces = list(pieces)
        if not pieces:
            return Summary.empty()
        notes = np.concatenate([piece.notes for piece in pieces])
        piece = np.repeat(np.arange(len(pieces)), [len(one.notes) for one in pieces])
        program, start = notes["program"].astype(np.int64), notes["start"].astype(np.int64)
        first = np.diff(piece, prepend=-1) > 0
        gaps = np.diff(start, prepend=0)
        gaps[first] = start[first]
        tracks = np.unique(piece << 16 | program << 8 | notes["track"]) >> 8
        of_program, num_tracks = np.unique(tracks, return_counts=True)
        tags: dict[str, set[str]] = {}
        for key, value in (item for one in pieces for item in one.tags.items()):
            tags.setdefault(key, set()).add(value)
        return Summary(
            num_pieces=len(pieces),
            pitches=np.bincount(notes["pitch"][program != DRUMS], minlength=128),
            velocities=np.bincount(notes["velocity"], minlength=128),
            gaps=_moments(gaps),
            lengths=_moments(notes["end"] - notes["start"]),
            programs=frozenset((of_program & 0xFF).tolist()),
            voices=int(num_tracks[of_program & 0xFF != DRUMS].max(initial=0)),
            metres=Counter(metre.name for one in pieces for metre in one.metres),
            tempos=Counter(tempo.quarters_per_minute for one in pieces for tempo in one.tempos),
            tags={key: frozenset(values) for key, values in tags.items()},
        )

    def __add__(self, other: Summary) -> Summary:
        def moments(a: tuple[int, int, int], b: tuple[int, int, int]) -> tuple[int, int, int]:
            return (a[0] + b[0], a[1] + b[1], max(a[2], b[2]))

        nothing: frozenset[str] = frozenset()
        return Summary(
            num_pieces=self.num_pieces + other.num_pieces,
            pitches=self.pitches + other.pitches,
            velocities=self.velocities + other.velocities,
            gaps=moments(self.gaps, other.gaps),
            lengths=moments(self.lengths, other.lengths),
            programs=self.programs | other.programs,
            voices=max(self.voices, other.voices),
            metres=self.metres + other.metres,
            tempos=self.tempos + other.tempos,
            tags={
                key: self.tags.get(key, nothing) | other.tags.get(key, nothing)
                for key in [*self.tags, *(key for key in other.tags if key not in self.tags)]
            },
        )

    @property
    def num_notes(self) -> int:
        """Notes, drums included."""
        return int(self.velocities.sum())

    def tag_tokens(self, keys: Iterable[str]) -> tuple[str, ...]:
        """`key=value` for every value of these tags, and `key=` for pieces without one."""
        return tuple(
            f"{key}={value}"
            for key in dict.fromkeys(keys)
            for value in sorted({"", *self.tags.get(key, ())})
        )

    def pitch_range(self, margin: int) -> tuple[int, int]:
        """Lowest and highest pitch that occur, with `margin` semitones of room on both sides.

        60 alone counts as the range of a corpus without pitched notes.
        """
        used = np.flatnonzero(self.pitches)
        low, high = (int(used[0]), int(used[-1])) if len(used) else (60, 60)
        return max(0, low - margin), min(127, high + margin)


def _moments(values: npt.NDArray[Any]) -> tuple[int, int, int]:
    values = values.astype(np.int64)
    return int(values.sum()), int((values * values).sum()), int(values.max(initial=0))

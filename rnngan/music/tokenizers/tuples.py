"""Notes as real numbers: gap since the onset before, length, frequency, velocity.

A row a note, in order of onset and pitch, without any token around it. Gap and length are in
quarters, velocity is a share of 127, and all columns are brought to mean 0 and standard deviation 1
by figures of the corpus.

Two things differ from C-RNN-GAN. Frequency is logarithmic, counted in semitones from MIDI's 0: in
Hz, as there, an error that is an octave in the bass goes unheard in the treble, while a semitone is
the same size everywhere and transposition a shift. And the gap comes first, so that a row can be
read as "wait, then play".

Drums are left out, since the frequency of a stroke says only which drum it is. Metre, tempo, tags
and programs are not told.

References:
    Mogren, "C-RNN-GAN: continuous recurrent neural networks with adversarial training", 2016.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rnngan.errors import UserError
from rnngan.music.piece import (
    DRUMS,
    MAX_QUARTERS,
    NOTE,
    TICKS_PER_QUARTER,
    Piece,
    Tempo,
    one_at_a_time,
)
from rnngan.music.tokenizers.base import settings_of
from rnngan.music.tokenizers.steps import (
    commonest_metres,
    commonest_tempo,
    metre_of,
    one_program,
)
from rnngan.music.tokenizers.summary import Summary

COLUMNS = ("gap", "length", "frequency", "velocity")
"""What stands in a row."""
Four = tuple[float, float, float, float]

_PER_UNIT = np.array([TICKS_PER_QUARTER, TICKS_PER_QUARTER, 1, 127])  # whole numbers in a unit
_MAX_TICKS = MAX_QUARTERS * TICKS_PER_QUARTER


@dataclass(frozen=True, kw_only=True)
class TuplesConfig:
    """How the numbers are scaled, and what stands for all that they do not tell.

    Attributes:
        mean: Of each of the `COLUMNS`: quarters, quarters, semitones, and a share of 127.
        std: Standard deviation of each, in the same units.
        lowest, highest: Pitches that are told, inclusive.
        program: Of every decoded note, 0 to 127.
        metre: Of every decoded piece, such as `4/4`.
        tempo: Of every decoded piece, in quarters per minute.

    Raises:
        ValueError: One of these rules is broken, a mean is not finite, or a standard deviation not
            positive.
    """

    mean: Four
    std: Four
    lowest: int
    highest: int
    program: int = 0
    metre: str = "4/4"
    tempo: float = 120.0

    def __post_init__(self) -> None:
        if not (len(self.mean) == len(self.std) == 4 and np.all(np.isfinite([*self.mean]))):
            raise ValueError(f"mean and std need four numbers each, got {self.mean}, {self.std}")
        if not all(0 < std < math.inf for std in self.std):
            raise ValueError(f"std must be positive, got {self.std}")
        if not 0 <= self.lowest <= self.highest <= 127:
            raise ValueError(f"need 0 <= lowest <= highest <= 127, got {self.lowest, self.highest}")
        if not (0 <= self.program < DRUMS and 0 < self.tempo < math.inf):
            raise ValueError(
                f"need 0 <= program <= 127 and a positive tempo, got {self.program, self.tempo}"
            )
        metre_of(self.metre)


class Tuples:
    """Codec between `Piece` and rows of real numbers.

    What encoding changes in a piece: drums and notes outside the pitches of the config are left
    out; all others become one program on one track, which holds one note per pitch at a time
    (`one_at_a_time`). Their times, pitches and velocities come back exactly. Metre and tempo become
    those of the config, tags are lost.

    To encode what was decoded changes nothing more.
    """

    name = "tuples"
    dtype = np.dtype(np.float32)
    width = 4

    def __init__(self, config: TuplesConfig) -> None:
        self.config = config
        self._mean, self._std = np.array(config.mean), np.array(config.std)
        self._least = np.array([0, 1, config.lowest, 1])
        self._most = np.array([_MAX_TICKS, _MAX_TICKS, config.highest, 127])

    @staticmethod
    def fit(summary: Summary, *, tags: tuple[str, ...] = (), margin: int = 6) -> Tuples:
        """Codec that brings the notes of a corpus to mean 0 and standard deviation 1.

        Gaps, lengths and velocities are taken over all notes of the summary, so that in a corpus
        with drums the scale is only about right, which does no harm: it can be undone exactly.
        Likewise gap and length stay linear, as in C-RNN-GAN, although their distribution is skewed:
        the mean and deviation of their logarithms cannot be had from sums over parts of a corpus
        that hold the ticks alone.

        Args:
            summary: The corpus.
            tags: Must be empty.
            margin: Semitones told beyond the lowest and highest pitch.

        Raises:
            ValueError: There are no pieces.
            UserError: Tags are asked for.
        """
        if not summary.num_pieces:
            raise ValueError("cannot fit a tokenizer to no pieces")
        if tags:
            raise UserError(f"tuples have no place for tags, got {', '.join(tags)}; leave them out")
        count = summary.num_notes
        figures = [
            _mean_and_std(count, *summary.gaps[:2]),
            _mean_and_std(count, *summary.lengths[:2]),
            _mean_and_std(*_moments(summary.pitches)),
            _mean_and_std(*_moments(summary.velocities)),
        ]
        mean, std = (np.array(figures) / _PER_UNIT[:, None]).T.tolist()
        lowest, highest = summary.pitch_range(margin)
        return Tuples(
            TuplesConfig(
                mean=tuple(mean),
                std=tuple(std),
                lowest=lowest,
                highest=highest,
                program=one_program(summary),
                metre=next(iter(commonest_metres(summary)), "4/4"),
                tempo=commonest_tempo(summary),
            )
        )

    def to_json(self) -> dict[str, Any]:
        """What `from_json` needs to make this codec again."""
        return {"name": self.name, **asdict(self.config)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Tuples:
        """The codec that `to_json` wrote down.

        Raises:
            ValueError: The data describes another codec or none.
        """
        try:
            return Tuples(TuplesConfig(**settings_of(data, Tuples.name)))
        except TypeError as error:
            raise ValueError(f"damaged tokenizer description: {error}") from None

    def encode(self, piece: Piece) -> npt.NDArray[np.float32]:
        """Rows of a piece, `(notes, 4)`: `COLUMNS`, normalised."""
        notes = piece.pitched
        inside = (notes["pitch"] >= self.config.lowest) & (notes["pitch"] <= self.config.highest)
        notes = notes[inside]
        notes["program"], notes["track"] = self.config.program, 0
        notes = one_at_a_time(notes)
        notes = notes[np.argsort(notes["start"].astype(np.int64) << 8 | notes["pitch"])]
        whole = np.stack(
            [
                np.diff(notes["start"], prepend=0),
                notes["end"] - notes["start"],
                notes["pitch"],
                notes["velocity"],
            ],
            axis=1,
        )
        rows = (whole / _PER_UNIT - self._mean) / self._std
        return np.asarray(rows, dtype=np.float32)

    def decode(self, rows: npt.NDArray[np.floating], *, strict: bool = False) -> Piece:
        """The piece that the rows tell, on the nearest ticks, pitches and velocities.

        Without `strict` rows with NaN are passed over, numbers out of range move to its bounds, and
        what lies beyond `MAX_QUARTERS` is left out, so that any rows give a valid piece.

        Args:
            rows: `(notes, 4)`.
            strict: Refuse what is out of range.

        Raises:
            ValueError: The shape is another; or `strict`, and a number is not finite, or a gap
                negative, a length less than a tick, a pitch or velocity out of bounds, each by more
                than rounding mends.
        """
        rows = np.asarray(rows, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != self.width:
            raise ValueError(f"tuples have shape (notes, {self.width}), got {rows.shape}")
        low = ((self._least - 0.5) / _PER_UNIT - self._mean) / self._std
        high = ((self._most + 0.5) / _PER_UNIT - self._mean) / self._std
        if strict and len(wrong := np.argwhere(~((rows >= low) & (rows <= high)))):
            time, column = wrong[0].tolist()
            raise ValueError(
                f"{COLUMNS[column]} {rows[time, column]:g} may not stand at time {time}: "
                f"it must be {low[column]:g} to {high[column]:g}"
            )
        rows = np.clip(rows[~np.isnan(rows).any(axis=1)], low, high)
        whole = np.rint((rows * self._std + self._mean) * _PER_UNIT).astype(np.int64)
        gap, length, pitch, velocity = np.clip(whole, self._least, self._most).T
        start = np.cumsum(gap)
        kept = start < _MAX_TICKS
        notes = np.zeros(int(kept.sum()), dtype=NOTE)
        notes["start"] = start[kept]
        notes["end"] = np.minimum(start + length, _MAX_TICKS)[kept]
        notes["pitch"], notes["velocity"] = pitch[kept], velocity[kept]
        notes["program"] = self.config.program
        return Piece(
            notes=one_at_a_time(notes),
            metres=(metre_of(self.config.metre),),
            tempos=(Tempo(0, self.config.tempo),),
        )

    def room(self, rows: npt.NDArray[np.floating]) -> tuple[int, int]:
        """Semitones that a piece `(notes, 4)`, at least one, can move down and up, 0 or more."""
        pitches = np.rint(rows[:, 2] * self._std[2] + self._mean[2])
        below, above = pitches.min() - self._least[2], self._most[2] - pitches.max()
        return max(int(below), 0), max(int(above), 0)

    def transposed(self, rows: npt.NDArray[np.float32], semitones: int) -> npt.NDArray[np.float32]:
        """The same notes so many semitones higher."""
        moved = rows.copy()
        moved[:, 2] += semitones / self._std[2]
        return moved


def _moments(histogram: npt.NDArray[np.int64]) -> tuple[int, int, int]:
    """Count, sum and sum of squares."""
    values = np.arange(len(histogram))
    return int(histogram.sum()), int(histogram @ values), int(histogram @ values**2)


def _mean_and_std(count: int, total: int, squares: int) -> tuple[float, float]:
    """Mean and standard deviation; a deviation of 1 where there is none to divide by."""
    if not count:
        return 0.0, 1.0
    variance = (count * squares - total * total) / count**2  # of whole numbers: nothing cancels
    return total / count, math.sqrt(variance) or 1.0

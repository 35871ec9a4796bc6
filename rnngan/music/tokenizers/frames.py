"""Piano-roll frames: the pitches that sound, ascending, then what ends the frame.

    Start Tag* Metre  ( Bar [Metre] ( ( Pitch | Held )* Frame )*n )*  End

`Pitch_60` is struck in the frame, `Held_60` goes on from the frame before. Without Held, as in the
published tables of frame likelihoods, Pitch says only that the pitch sounds, and a note that is
struck again without a gap becomes one with the note before.

Whether Held has anything to hold depends on all pitches of the frame before, more than an automaton
with few states can know. So the grammar, and strict decoding with it, lets Held stand wherever
Pitch may: what the mask lets a sampler write is never an error. A Held of nothing is decoded as
struck, which in an excerpt is what is known of a note from before its beginning.

References:
    Boulanger-Lewandowski, Bengio & Vincent, "Modeling temporal dependencies in high-dimensional
    sequences", 2012: piano rolls of 88 pitches; log-likelihood per frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rnngan.music.piece import NOTE, Notes, Piece
from rnngan.music.tokenizers.base import settings_of
from rnngan.music.tokenizers.steps import Integers, StepsConfig, StepTokenizer, fitted_settings
from rnngan.music.tokenizers.summary import Summary

_VELOCITY = 80


@dataclass(frozen=True, kw_only=True)
class FramesConfig(StepsConfig):
    """See `StepsConfig`; its step is the frame.

    Attributes:
        ticks_per_frame: Length of a frame; divides the 96 ticks of a whole note.
        held: Tell the pitches that go on from those that are struck.
    """

    ticks_per_frame: int = 6
    held: bool = True

    @property
    def ticks_per_step(self) -> int:
        """Length of a frame."""
        return self.ticks_per_frame


class Frames(StepTokenizer):
    """Tokenizer between `Piece` and piano-roll frames.

    Beside what `StepTokenizer` says, a pitch sounds in a frame if any note on it does, whatever its
    program or track; with `held` it is struck there if any begins.
    """

    name = "frames"
    config: FramesConfig
    _going_on = 0

    def __init__(self, config: FramesConfig) -> None:
        kinds = ("Pitch", "Held") if config.held else ("Pitch",)
        pitches = range(config.lowest, config.highest + 1)
        super().__init__(config, (*(f"{k}_{pitch}" for k in kinds for pitch in pitches), "Frame"))
        self.pitched_kinds = kinds
        self._num_pitches = len(pitches)

    @staticmethod
    def fit(
        summary: Summary,
        *,
        tags: tuple[str, ...] = (),
        margin: int = 6,
        ticks_per_frame: int = 6,
        held: bool = True,
    ) -> Frames:
        """Tokenizer with the metres and pitches of a corpus; see `fitted_settings`.

        Raises:
            ValueError: There are no pieces, or `ticks_per_frame` does not divide a whole note.
        """
        found = fitted_settings(summary, tags=tags, margin=margin, ticks_per_step=ticks_per_frame)
        return Frames(FramesConfig(ticks_per_frame=ticks_per_frame, held=held, **found))

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Frames:
        """The tokenizer that `to_json` wrote down.

        Raises:
            ValueError: The data describes another tokenizer or none.
        """
        try:
            return Frames(FramesConfig(**settings_of(data, Frames.name)))
        except TypeError as error:
            raise ValueError(f"damaged tokenizer description: {error}") from None

    def _part(self, notes: Notes) -> Notes:
        return notes

    def _written(
        self, start: Integers, end: Integers, pitch: Integers, num_steps: int
    ) -> tuple[Integers, Integers]:
        start, end, pitch = _united(start, end, pitch)
        lengths = end - start
        goes_on = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        frame = np.repeat(start, lengths) + goes_on
        pitch = np.repeat(pitch, lengths)
        tokens = self._first["Pitch"] + pitch
        if self.config.held:
            tokens[goes_on > 0] += self._num_pitches
        tokens = np.append(tokens, np.full(num_steps, self._first["Frame"]))
        frame = np.append(frame, np.arange(num_steps))
        order = np.argsort(frame << 8 | np.append(pitch, np.full(num_steps, 128)))
        return tokens[order], frame[order]

    def _read(
        self, tokens: Integers, steps: Integers, num_steps: int
    ) -> tuple[Integers, Integers, Integers]:
        sounds = tokens < self._first["Frame"]
        tokens, steps = tokens[sounds] - self._first["Pitch"], steps[sounds]
        goes_on = (tokens >= self._num_pitches) | (not self.config.held)
        # One number a cell, which sorts by pitch, then frame, then what is struck before what goes
        # on. The last frame of a pitch and the first of the next are not neighbours.
        room = num_steps + 1
        cells = np.sort((tokens % self._num_pitches * room + steps) << 1 | goes_on)
        cells = cells[np.append(True, np.diff(cells >> 1) > 0)[: len(cells)]]
        place = cells >> 1
        begins = (cells & 1 == 0) | (np.diff(place, prepend=-2) > 1)
        pitch, start = np.divmod(place[begins], room)
        end = place[np.roll(begins, -1)] % room + 1
        return start, end, pitch

    def _ends_step(self, tokens: Integers) -> npt.NDArray[np.bool_]:
        return np.asarray(tokens == self._first["Frame"])

    def _step_moves(self, memory: int) -> Iterable[tuple[range, bool, bool, int]]:
        """`memory` is how many of the pitches are too low to come yet in this frame."""
        ids = self.vocabulary.ids
        for kind in self.pitched_kinds:
            for above, token in enumerate(ids(kind)[memory:], start=memory + 1):
                yield range(token, token + 1), False, True, above
        yield ids("Frame"), True, False, 0


def _united(start: Integers, end: Integers, pitch: Integers) -> tuple[Integers, Integers, Integers]:
    """Notes that sound where one of the given notes does, struck where one of them is.

    No two of them overlap, so that to tell their frames one by one is bounded by the piano roll.
    """
    order = np.lexsort((end, start, pitch))
    start, end, pitch = start[order], end[order], pitch[order]
    end = np.maximum.accumulate(pitch << 32 | end) & 0xFFFFFFFF
    again = np.flatnonzero(pitch[1:] == pitch[:-1])
    end[again] = np.minimum(end[again], start[again + 1])
    some = end > start
    return start[some], end[some], pitch[some]


def piece_from_roll(roll: npt.NDArray[Any], *, ticks_per_frame: int, lowest: int = 21) -> Piece:
    """The piece of a piano roll, in 4/4 at 120; frames of a pitch that touch are one note.

    Silent frames at the end are no part of a piece.

    Args:
        roll: `(frames, pitches)`; a pitch sounds where it is not 0.
        ticks_per_frame: Length of a frame.
        lowest: MIDI pitch of column 0; 21, the lowest of the piano, in the tables of
            Boulanger-Lewandowski et al.

    Raises:
        ValueError: It is no matrix, a pitch leaves 0 to 127, or a frame has no length.
    """
    if roll.ndim != 2 or not 0 <= lowest <= 128 - roll.shape[1] or ticks_per_frame < 1:
        raise ValueError(
            "a roll needs shape (frames, pitches), pitches from 0 to 127 and frames of at least a "
            f"tick, got {roll.shape}, lowest {lowest}, ticks_per_frame {ticks_per_frame}"
        )
    edges = np.diff((roll.T != 0).astype(np.int8), axis=1, prepend=0, append=0)
    pitch, start = np.nonzero(edges > 0)
    _, end = np.nonzero(edges < 0)
    notes = np.zeros(len(start), dtype=NOTE)
    notes["start"], notes["end"] = start * ticks_per_frame, end * ticks_per_frame
    notes["pitch"], notes["velocity"] = lowest + pitch, _VELOCITY
    return Piece(notes=notes)

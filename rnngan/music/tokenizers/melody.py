"""A melody step by step: a note begins, goes on, or there is rest.

    Start Tag* Metre  ( Bar [Metre] ( Pitch | Hold | Rest )*n )*  End

A step is a 16th by default. Hold lengthens the note that sounds, over a bar line too, and may not
stand where nothing does: after Rest or at the beginning of a piece. An excerpt, which begins with
Continue, may open with Hold, for a note that was struck before it; of that note the pitch is not
known, so that decoding leaves it silent.

References:
    Roberts et al., "A hierarchical latent vector model" (MusicVAE), 2018: melodies as note-on,
    note-off and hold, per 16th.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rnngan.music.piece import Notes
from rnngan.music.skyline import skyline
from rnngan.music.tokenizers.base import settings_of
from rnngan.music.tokenizers.steps import Integers, StepsConfig, StepTokenizer, fitted_settings
from rnngan.music.tokenizers.summary import Summary


@dataclass(frozen=True, kw_only=True)
class MelodyConfig(StepsConfig):
    """See `StepsConfig`.

    Attributes:
        ticks_per_step: Length of a step; divides the 96 ticks of a whole note.
    """

    ticks_per_step: int = 6


class Melody(StepTokenizer):
    """Tokenizer between `Piece` and one voice in steps.

    Beside what `StepTokenizer` says, of several voices the `skyline` alone is told, and of notes
    that begin at one step the highest; a note ends where the next begins.
    """

    name = "melody"
    config: MelodyConfig
    _going_on = 1

    def __init__(self, config: MelodyConfig) -> None:
        pitches = (f"Pitch_{pitch}" for pitch in range(config.lowest, config.highest + 1))
        super().__init__(config, (*pitches, "Hold", "Rest"))

    @staticmethod
    def fit(
        summary: Summary,
        *,
        tags: tuple[str, ...] = (),
        margin: int = 6,
        ticks_per_step: int = 6,
    ) -> Melody:
        """Tokenizer with the metres and pitches of a corpus; see `fitted_settings`.

        Raises:
            ValueError: There are no pieces, or `ticks_per_step` does not divide a whole note.
        """
        found = fitted_settings(summary, tags=tags, margin=margin, ticks_per_step=ticks_per_step)
        return Melody(MelodyConfig(ticks_per_step=ticks_per_step, **found))

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Melody:
        """The tokenizer that `to_json` wrote down.

        Raises:
            ValueError: The data describes another tokenizer or none.
        """
        try:
            return Melody(MelodyConfig(**settings_of(data, Melody.name)))
        except TypeError as error:
            raise ValueError(f"damaged tokenizer description: {error}") from None

    def _part(self, notes: Notes) -> Notes:
        return skyline(notes)

    def _written(
        self, start: Integers, end: Integers, pitch: Integers, num_steps: int
    ) -> tuple[Integers, Integers]:
        steps = np.arange(num_steps)
        note = np.searchsorted(start, steps, side="right") - 1
        tokens = np.full(num_steps, self._first["Hold"])
        tokens[steps >= np.append(end, 0)[note]] = self._first["Rest"]
        tokens[start] = self._first["Pitch"] + pitch
        return tokens, steps

    def _read(
        self, tokens: Integers, steps: Integers, num_steps: int
    ) -> tuple[Integers, Integers, Integers]:
        cells = np.full(num_steps + 1, self._first["Rest"])
        cells[steps] = tokens
        begins = np.flatnonzero(cells < self._first["Hold"])
        breaks = np.flatnonzero(cells != self._first["Hold"])
        ends = breaks[np.searchsorted(breaks, begins) + 1]
        return begins, ends, cells[begins] - self._first["Pitch"]

    def _ends_step(self, tokens: Integers) -> npt.NDArray[np.bool_]:
        return np.asarray(tokens > self.bar)

    def _step_moves(self, memory: int) -> Iterable[tuple[range, bool, bool, int]]:
        """`memory` is 1 where something sounds that can be held."""
        ids = self.vocabulary.ids
        yield ids("Pitch"), True, True, 1
        if memory:
            yield ids("Hold"), True, True, 1
        yield ids("Rest"), True, False, 0

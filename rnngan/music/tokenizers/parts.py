"""Parts of a piece in event tokens: its melody, what accompanies it, its first bars."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rnngan.errors import UserError
from rnngan.music.tokenizers.base import Codec
from rnngan.music.tokenizers.events import Events
from rnngan.music.vocabulary import END, Tokens, Vocabulary

_OF_NOTES = ("Program", "Voice", "Pitch", "Drum", "Duration", "Velocity")


def events_or_refuse(codec: Codec, what: str) -> Events:
    """The tokenizer, if it is that of events.

    Raises:
        UserError: It is another one; `what` needs events.
    """
    if not isinstance(codec, Events):
        raise UserError(f"{what} needs a corpus prepared with --tokenizer events, got {codec.name}")
    return codec


def melody_and_rest(tokens: Tokens, tokenizer: Events) -> tuple[Tokens, Tokens]:
    """The melody of a piece or excerpt, and all other parts.

    The melody is the part (the notes of a program and voice) that is highest on average, of equally
    high ones the first; no drums. Of it the pitches and lengths are told, not who plays them and
    how loud. Both begin alike, have the same bars, metres and tempos, and stand in positions that
    have notes.

    Args:
        tokens: `(time,)`, which may be cut at the end.
        tokenizer: Of the tokens.

    Returns:
        Source and target; the target obeys the grammar wherever the tokens do.
    """
    kinds, values = _tables(tokenizer.vocabulary)
    kind, value = kinds[tokens], values[tokens]
    first = next(k for k in _OF_NOTES if tokenizer.vocabulary.ids(k))
    of_notes = kind >= 0
    begins = kind == _OF_NOTES.index(first)
    note = np.where(of_notes, np.cumsum(begins) - 1, -1)
    num_notes = int(begins.sum())

    def said(name: str) -> npt.NDArray[np.int64]:
        """What a kind says of each note, −1 where it says nothing."""
        here = kind == _OF_NOTES.index(name)
        found = np.full(num_notes, -1)
        found[note[here]] = value[here]
        return found

    pitch = said("Pitch")
    part = (said("Program") + 1) << 16 | (said("Voice") + 1)
    parts, number = np.unique(part[pitch >= 0], return_inverse=True)
    in_melody = np.zeros(num_notes, dtype=bool)
    if len(parts):
        means = np.bincount(number, pitch[pitch >= 0]) / np.bincount(number)
        in_melody = (part == parts[means.argmax()]) & (said("Drum") < 0)

    told = np.isin(kind, [_OF_NOTES.index(k) for k in ("Pitch", "Duration")])
    of_melody = of_notes & np.append(in_melody, False)[note]
    position = np.isin(tokens, tokenizer.vocabulary.ids("Position"))

    def without_rest(kept: npt.NDArray[np.bool_]) -> Tokens:
        """The kept tokens, but no position where none of the kept notes begins."""
        at = np.cumsum(position)  # which position each token stands behind
        has_notes = np.zeros(len(tokens) + 1, dtype=bool)
        has_notes[at[kept & of_notes]] = True
        return tokens[np.where(position, has_notes[at], kept)]

    others = ~of_notes
    return without_rest(of_melody & told | others), without_rest(~of_melody)


def first_bars(tokens: Tokens, tokenizer: Events, num_bars: int) -> Tokens:
    """The beginning of a piece or excerpt, ended after so many bars; 0 for all of it."""
    bars = np.flatnonzero(tokens == tokenizer.bar)
    if not num_bars or len(bars) <= num_bars:
        return tokens
    return np.append(tokens[: bars[num_bars]], np.uint16(END))


def _tables(vocabulary: Vocabulary) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Of each token its place among the kinds that notes are made of, or −1, and its number."""
    kinds, values = np.full((2, len(vocabulary)), -1)
    for number, kind in enumerate(_OF_NOTES):
        ids = vocabulary.ids(kind)
        kinds[ids.start : ids.stop] = number
        values[ids.start : ids.stop] = [int(v) for v in vocabulary.values(kind)]
    return kinds, values

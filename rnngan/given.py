"""Files that somebody gives to a model: read as its corpus was, and told in its tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rnngan.config import DataConfig
from rnngan.data.annotate import annotated
from rnngan.data.cleaning import clean
from rnngan.data.prepare import cleaning_of
from rnngan.data.reading import MUSIC_SUFFIXES, MusicFile, Reading, contents_of, read_or_reject
from rnngan.errors import Reject, RejectedFile, UserError
from rnngan.music.piece import DRUMS, Piece
from rnngan.music.tokenizers.base import Tokenizer, keys_of
from rnngan.music.tokenizers.events import Events
from rnngan.music.vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True)
class Given:
    """A piece from a file.

    Attributes:
        path: Of the file.
        aim: What is to be done with it, a verb for messages.
        piece: As it was read and cleaned.
        placed: With an upbeat that had a metre of its own filled up to a bar.
        told: That in programs that have tokens.
    """

    path: Path
    aim: str
    piece: Piece
    placed: Piece
    told: Piece

    def refused(self, why: str) -> UserError:
        """That nothing can be done with it."""
        return _refused(self.path, self.aim, why)


def read_given(
    path: Path,
    tokenizer: Tokenizer,
    data: DataConfig,
    *,
    aim: str,
    change: Callable[[Piece], Piece] = lambda piece: piece,
) -> Given:
    """The piece in a MIDI, ABC or MusicXML file.

    Notes of a program without a token are told by the program nearest in number that has one, and
    drums left out where there are no tokens for them. Tags are the file's, and what `annotated`
    finds, as far as the vocabulary has them.

    Args:
        path: Of the file; it holds one piece.
        tokenizer: The model's.
        data: How the model's corpus was read and cleaned. A filter on pieces does not act.
        aim: What is to be done with it, a verb for messages.
        change: What is made of the piece that was read, before its tokens are sought.

    Raises:
        UserError: The file cannot be read, or holds no piece or several; there is nothing in it
            that the tokens can tell; a metre or pitch has no token.
    """
    try:
        piece = change(_cleaned(path, tokenizer, data, aim))
        if not len(piece.notes):
            raise RejectedFile("unfit", "there are no notes in it")
        placed = _in_known_metres(piece, tokenizer.vocabulary)
        told = _in_known_programs(placed, tokenizer)
        _check_pitches(told, tokenizer.vocabulary)
    except RejectedFile as error:
        raise _refused(path, aim, str(error)) from None
    return Given(path=path, aim=aim, piece=piece, placed=placed, told=told)


def _refused(path: Path, aim: str, why: str) -> UserError:
    return UserError(f"cannot {aim} {path}: {why}")


def _cleaned(path: Path, tokenizer: Tokenizer, data: DataConfig, aim: str) -> Piece:
    if path.suffix.lower() not in MUSIC_SUFFIXES:
        known = ", ".join(sorted(MUSIC_SUFFIXES))
        raise RejectedFile("unfit", f"its name ends in none of {known}")
    reading = Reading(expand_repeats=data.expand_repeats, beats=data.beats)
    file = MusicFile(path.name, str(path))
    found = read_or_reject(file, contents_of(str(path)), reading)
    if isinstance(found, Reject):
        raise RejectedFile("unfit", found.message)
    if len(found) != 1:
        raise RejectedFile("unfit", f"it holds {len(found)} pieces, and only one can be {aim}d")
    piece = clean(found[0].piece, replace(cleaning_of(data), only=""))
    return annotated(piece, keys_of(tokenizer.vocabulary.values("Tag")))


def _in_known_metres(piece: Piece, vocabulary: Vocabulary) -> Piece:
    """The piece, an upbeat in a metre of its own made the end of a bar in the next metre."""
    known = vocabulary.values("Metre")
    if not known:
        return piece
    heard = [metre for metre in piece.metres if metre.tick < piece.end]
    if len(heard) > 1 and heard[0].name not in known:
        first, second = heard[:2]
        missing = second.ticks_per_bar - second.tick
        if second.tick <= first.ticks_per_bar and missing >= 0:
            notes = piece.notes.copy()
            notes["start"] += missing
            notes["end"] += missing
            metres = [m._replace(tick=m.tick + missing) for m in heard[2:]]
            piece = replace(piece, notes=notes, metres=(second._replace(tick=0), *metres))
            heard = heard[1:]
    for metre in heard:
        if metre.name not in known:
            raise RejectedFile(
                "unfit", f"it is in {metre.name}, and this model knows only {', '.join(known)}"
            )
    return piece


def _in_known_programs(piece: Piece, tokenizer: Tokenizer) -> Piece:
    if isinstance(tokenizer, Events):
        programs = set(tokenizer.config.programs)
    else:
        programs = set(tokenizer.decode(tokenizer.encode(piece)).notes["program"].tolist())
    notes = piece.notes
    known = np.array(sorted(programs - {DRUMS}))
    pitched = notes["program"] != DRUMS
    if not (pitched.any() and len(known)) and not (DRUMS in programs and not pitched.all()):
        raise RejectedFile("unfit", "this model has tokens for none of its instruments")
    if len(known):
        notes = notes.copy()
        distance = np.abs(notes["program"][pitched].astype(int)[:, None] - known)
        notes["program"][pitched] = known[distance.argmin(1)]
    return replace(piece, notes=notes)


def _check_pitches(piece: Piece, vocabulary: Vocabulary) -> None:
    known = [int(value) for value in vocabulary.values("Pitch")]
    pitches = piece.pitched["pitch"]
    if known and len(pitches) and not known[0] <= pitches.min() <= pitches.max() <= known[-1]:
        raise RejectedFile(
            "unfit",
            f"its pitches are {pitches.min()} to {pitches.max()}, and this model's {known[0]} to "
            f"{known[-1]}; transpose it",
        )

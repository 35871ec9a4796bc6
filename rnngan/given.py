"""Files that somebody gives to a model: read as its corpus was, and told in its tokens.

What has no token is told by what comes nearest: a program by another, a metre by another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rnngan.config import DataConfig
from rnngan.data.annotate import annotated
from rnngan.data.cleaning import clean
from rnngan.data.prepare import cleaning_of
from rnngan.data.reading import MUSIC_SUFFIXES, MusicFile, Reading, contents_of, read_or_reject
from rnngan.errors import Reject, RejectedFile, UserError
from rnngan.music.piece import DRUMS, Metre, Piece, regular_metres
from rnngan.music.tokenizers.base import Tokenizer, keys_of
from rnngan.music.tokenizers.events import Events
from rnngan.music.vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True)
class Given:
    """A piece from a file.

    Attributes:
        path: Of the file.
        aim: What is to be done with it, a verb for messages.
        piece: As it was read and cleaned, in metres that have tokens; an upbeat may have one of its
            own that has none.
        placed: With such an upbeat filled up to a bar.
        told: That in programs that have tokens, and moved by `semitones`.
        semitones: By which the told pitches are above those of the piece; below 0 for lower ones.
        remark: What stands in it otherwise than in the file, in a line; empty if nothing does.
    """

    path: Path
    aim: str
    piece: Piece
    placed: Piece
    told: Piece
    semitones: int
    remark: str

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
    moved: bool = False,
) -> Given:
    """The piece in a MIDI, ABC or MusicXML file.

    Notes of a program without a token are told by the program nearest in number that has one, and
    drums left out where there are no tokens for them. A metre without a token becomes the nearest
    that has one, see `nearest_metre`. Tags are the file's, and what `annotated` finds, as far as
    the vocabulary has them.

    Args:
        path: Of the file; it holds one piece.
        tokenizer: The model's.
        data: How the model's corpus was read and cleaned. A filter on pieces does not act.
        aim: What is to be done with it, a verb for messages.
        change: What is made of the piece that was read, before its tokens are sought.
        moved: Where pitches have no tokens, all may be told by others, as far off as each other.

    Raises:
        UserError: The file cannot be read, or holds no piece or several; there is nothing in it
            that the tokens can tell; a pitch has no token.
    """
    try:
        read = change(_cleaned(path, tokenizer, data, aim))
        if not len(read.notes):
            raise RejectedFile("unfit", "there are no notes in it")
        piece, placed = _in_known_metres(read, tokenizer.vocabulary)
        semitones = _semitones_off(placed, tokenizer.vocabulary, most=127 if moved else 0)
        told = _in_known_programs(placed.transposed(semitones), tokenizer)
    except RejectedFile as error:
        raise _refused(path, aim, str(error)) from None
    return Given(
        path=path,
        aim=aim,
        piece=piece,
        placed=placed,
        told=told,
        semitones=semitones,
        remark=_remark(path, read, piece),
    )


def _remark(path: Path, read: Piece, piece: Piece) -> str:
    old, new = (
        dict.fromkeys(m.name for m in each.metres if m.tick < each.end) for each in (read, piece)
    )
    unknown = [name for name in old if name not in new]
    if not unknown:
        return ""
    return f"the model knows no {', '.join(unknown)}: {path} is barred in {', '.join(new)}"


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


def _in_known_metres(piece: Piece, vocabulary: Vocabulary) -> tuple[Piece, Piece]:
    """The piece in metres that have tokens; and that with an upbeat filled up to a bar.

    An upbeat in a metre of its own, without a token, stays what it is in the first.
    """
    known = vocabulary.values("Metre")
    if not known:
        return piece, piece
    heard = [metre for metre in piece.metres if metre.tick < piece.end]
    told = [nearest_metre(metre, known) for metre in heard]
    missing = told[1].ticks_per_bar - told[1].tick if len(told) > 1 else -1
    if missing < 0 or told[0] == heard[0] or told[1].tick > heard[0].ticks_per_bar:
        barred = replace(piece, metres=regular_metres(told))
        return barred, barred
    notes = piece.notes.copy()
    notes["start"] += missing
    notes["end"] += missing
    later = [metre._replace(tick=metre.tick + missing) for metre in told[2:]]
    filled = regular_metres([told[1]._replace(tick=0), *later])
    barred = replace(piece, metres=regular_metres([heard[0], *told[1:]]))
    return barred, replace(piece, notes=notes, metres=filled)


def nearest_metre(metre: Metre, known: Sequence[str]) -> Metre:
    """The metre among `known` (`3/4`, …) that comes nearest, at the same tick; itself if it can.

    First of all its bars are as long, so that bar lines stay where they are: 6/8 for 3/4. Else it
    divides its beats alike, by 2 or 3, and its bars are nearest in length: 4/4 for 5/4.
    """

    def distance(other: Metre) -> tuple[bool, bool, int, int]:
        length = abs(other.ticks_per_bar - metre.ticks_per_bar)
        alike = _is_compound(other) == _is_compound(metre)
        return length > 0, not alike, length, abs(other.denominator - metre.denominator)

    if metre.name in known:
        return metre
    names = (name.split("/") for name in known)
    return min((Metre(metre.tick, int(beats), int(unit)) for beats, unit in names), key=distance)


def _is_compound(metre: Metre) -> bool:
    return metre.numerator > 3 and metre.numerator % 3 == 0


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


def _semitones_off(piece: Piece, vocabulary: Vocabulary, *, most: int) -> int:
    """By how much, at most, all pitches move to have tokens; by whole octaves if that will do."""
    known = [int(value) for value in vocabulary.values("Pitch")]
    pitches = piece.pitched["pitch"].astype(int)
    if not (known and len(pitches)):
        return 0
    low, high = int(pitches.min()), int(pitches.max())
    for semitones in sorted(range(-most, most + 1), key=lambda move: (move % 12 > 0, abs(move))):
        if known[0] <= low + semitones <= high + semitones <= known[-1]:
            return semitones
    raise RejectedFile(
        "unfit",
        f"its pitches are {low} to {high}, and this model's {known[0]} to {known[-1]}; "
        + ("transpose it" if high - low <= known[-1] - known[0] else "leave the outer ones out"),
    )

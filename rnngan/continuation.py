"""Music that somebody else began: from a file to tokens to go on from, and back.

A primer is read and cleaned as the corpus of the model was, and encoded without End. Then comes
what says that the next note begins where the last one ends: behind a full bar Bar, inside one a
Position. So nothing is added among the notes that are there. In what is written the primer keeps
its own notes, programs, velocities, tempos and metres; only what follows is the model's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rnngan.config import DataConfig
from rnngan.data.annotate import annotated
from rnngan.data.cleaning import clean
from rnngan.data.prepare import cleaning_of
from rnngan.data.reading import MUSIC_SUFFIXES, MusicFile, Reading, contents_of, read_or_reject
from rnngan.errors import Reject, RejectedFile, UserError
from rnngan.music.piece import (
    DRUMS,
    MAX_QUARTERS,
    TICKS_PER_QUARTER,
    Notes,
    Piece,
    bar_lines,
    regular_metres,
    regular_tempos,
)
from rnngan.music.tokenizers.base import Tokenizer, keys_of
from rnngan.music.tokenizers.events import Events
from rnngan.music.tokenizers.melody import Melody
from rnngan.music.tokenizers.steps import StepTokenizer
from rnngan.music.vocabulary import Tokens, Vocabulary

_FAR = MAX_QUARTERS * TICKS_PER_QUARTER
"""No piece is longer."""


@dataclass(frozen=True, kw_only=True)
class Primer:
    """Music to go on from.

    Attributes:
        piece: As it is written again.
        told: As it is encoded: in programs that have tokens, an upbeat filled up to a bar.
        tokens: Up to where the next note may begin.
        num_bars: Bars that have begun before that; one that begins there is not among them.
        tokenizer: Whose tokens they are.
    """

    piece: Piece
    told: Piece
    tokens: tuple[int, ...]
    num_bars: int
    tokenizer: Tokenizer

    def continued(self, tokens: Tokens, *, with_primer: bool) -> Piece:
        """The piece that tokens tell which begin with those of the primer.

        Without the primer it begins with the bar in which the continuation does, so that a primer
        which ends inside a bar leaves the beginning of that bar silent.
        Notes of the primer that the tokens would lengthen (Hold, Held) stay as they are.
        """
        decoded = self.tokenizer.decode(tokens)
        begun = self.tokenizer.decode(np.array(self.tokens))
        notes = decoded.notes[decoded.notes["start"] >= begun.end]
        place, origin = self._anchors(begun)
        shift = origin - place
        notes = self._in_its_parts(notes, decoded.notes)
        notes["start"] += shift
        notes["end"] += shift
        metres = [m for m in self.piece.metres if m.tick < self.piece.end]
        metres += [m._replace(tick=m.tick + shift) for m in decoded.metres if m.tick >= begun.end]
        tempos = [t for t in self.piece.tempos if t.tick < self.piece.end]
        tempos += [t._replace(tick=t.tick + shift) for t in decoded.tempos if t.tick >= begun.end]
        names = self.piece.track_names
        if with_primer:
            notes = np.concatenate([self.piece.notes, notes])
        else:
            notes["start"] -= origin
            notes["end"] -= origin
            metres = [m._replace(tick=max(m.tick - origin, 0)) for m in metres]
            tempos = [t._replace(tick=max(t.tick - origin, 0)) for t in tempos]
        return Piece(
            notes=notes,
            metres=regular_metres(metres),
            tempos=regular_tempos(tempos),
            tags=self.piece.tags,
            track_names=names,
        ).tidied()

    def _anchors(self, begun: Piece) -> tuple[int, int]:
        """A tick of the decoded piece, and the one of the primer's own where it lies.

        The line of the bar in which the continuation begins, where there are bars: decoding fills
        up bars that are cut short, and moves onsets a little.
        """
        if not _has_grid(self.tokenizer):
            return begun.end, self.piece.end
        bar = self.tokens.count(self.tokenizer.bar or 0) - 1
        return int(bar_lines(begun.metres, _FAR)[bar]), int(bar_lines(self.piece.metres, _FAR)[bar])

    def _in_its_parts(self, notes: Notes, decoded: Notes) -> Notes:
        """Decoded notes in the tracks and programs of the primer that they go on with.

        Of each program the tracks of both come in the same order; a track that is new gets a number
        behind those of the primer.
        """
        notes = notes.copy()
        tracks, programs = notes["track"].copy(), notes["program"].copy()
        told, own = self.told.notes, self.piece.notes
        free = int(own["track"].max()) + 1
        for program in np.unique(programs).tolist():
            ours = np.unique(told["track"][told["program"] == program]).tolist()
            parts = np.unique(decoded["track"][decoded["program"] == program]).tolist()
            for i, part in enumerate(parts):
                here = (programs == program) & (tracks == part)
                if i < len(ours):
                    of_track = (told["program"] == program) & (told["track"] == ours[i])
                    notes["track"][here] = ours[i]
                    notes["program"][here] = np.bincount(own["program"][of_track]).argmax()
                elif here.any():
                    notes["track"][here] = min(free, 255)
                    free += 1
        return notes


def read_primer(path: Path, tokenizer: Tokenizer, data: DataConfig | None = None) -> Primer:
    """The primer in a MIDI, ABC or MusicXML file.

    Notes of a program without a token are told by the program nearest in number that has one, and
    drums left out where there are no tokens for them. Tags are the file's, and what `annotated`
    finds, as far as the vocabulary has them.

    Args:
        path: Of the file; it holds one piece.
        tokenizer: The model's.
        data: How the model's corpus was read and cleaned; by default as settings are by default. A
            filter on pieces does not act.

    Raises:
        UserError: The file cannot be read, or holds no piece or several; there is nothing in it
            that the tokens can tell; a metre or pitch has no token; there are several voices, and
            the tokens tell one.
    """
    piece = _cleaned(path, tokenizer, data or DataConfig())
    vocabulary = tokenizer.vocabulary
    told = _in_known_metres(path, piece, vocabulary)
    told = _in_known_programs(path, told, tokenizer)
    _check_pitches(path, told, vocabulary)
    if isinstance(tokenizer, Melody):
        _check_one_voice(path, told, tokenizer.config.ticks_per_step)
    tokens = tokenizer.encode(told)[:-1].tolist()
    num_bars = tokens.count(tokenizer.bar)
    tokens += _next_place(tokens, tokenizer) if isinstance(tokenizer, Events) else []
    if isinstance(tokenizer, StepTokenizer):
        tokens = _without_filling(tokens, tokenizer)
    return Primer(
        piece=piece, told=told, tokens=tuple(tokens), num_bars=num_bars, tokenizer=tokenizer
    )


def _cleaned(path: Path, tokenizer: Tokenizer, data: DataConfig) -> Piece:
    if path.suffix.lower() not in MUSIC_SUFFIXES:
        known = ", ".join(sorted(MUSIC_SUFFIXES))
        raise _refused(path, f"its name ends in none of {known}")
    reading = Reading(expand_repeats=data.expand_repeats, beats=data.beats)
    file = MusicFile(path.name, str(path))
    found = read_or_reject(file, contents_of(str(path)), reading)
    if isinstance(found, Reject):
        raise _refused(path, found.message)
    if len(found) != 1:
        raise _refused(path, f"it holds {len(found)} pieces, and only one can be continued")
    try:
        piece = clean(found[0].piece, replace(cleaning_of(data), only=""))
    except RejectedFile as error:
        raise _refused(path, str(error)) from None
    if not len(piece.notes):
        raise _refused(path, "there are no notes in it")
    return annotated(piece, keys_of(tokenizer.vocabulary.values("Tag")))


def _in_known_metres(path: Path, piece: Piece, vocabulary: Vocabulary) -> Piece:
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
            raise _refused(
                path, f"it is in {metre.name}, and this model knows only {', '.join(known)}"
            )
    return piece


def _in_known_programs(path: Path, piece: Piece, tokenizer: Tokenizer) -> Piece:
    if isinstance(tokenizer, Events):
        programs = set(tokenizer.config.programs)
    else:
        programs = set(tokenizer.decode(tokenizer.encode(piece)).notes["program"].tolist())
    notes = piece.notes
    known = np.array(sorted(programs - {DRUMS}))
    pitched = notes["program"] != DRUMS
    if not (pitched.any() and len(known)) and not (DRUMS in programs and not pitched.all()):
        raise _refused(path, "this model has tokens for none of its instruments")
    if len(known):
        notes = notes.copy()
        distance = np.abs(notes["program"][pitched].astype(int)[:, None] - known)
        notes["program"][pitched] = known[distance.argmin(1)]
    return replace(piece, notes=notes)


def _check_pitches(path: Path, piece: Piece, vocabulary: Vocabulary) -> None:
    known = [int(value) for value in vocabulary.values("Pitch")]
    pitches = piece.pitched["pitch"]
    if known and len(pitches) and not known[0] <= pitches.min() <= pitches.max() <= known[-1]:
        raise _refused(
            path,
            f"its pitches are {pitches.min()} to {pitches.max()}, and this model's {known[0]} to "
            f"{known[-1]}; transpose it",
        )


def _check_one_voice(path: Path, piece: Piece, ticks_per_step: int) -> None:
    half, notes = ticks_per_step // 2, piece.pitched
    start, end = ((notes[edge].astype(int) + half) // ticks_per_step for edge in ("start", "end"))
    # What ends at a step makes room for what begins there.
    changes = np.concatenate([end * 2, start * 2 + 1])
    order = np.argsort(changes, kind="stable")
    most = int(np.cumsum(np.repeat([-1, 1], len(start))[order]).max(initial=0))
    if most > 1:
        raise _refused(
            path,
            f"{most} notes sound at once, and this model writes one voice; "
            "continue a file with the melody alone",
        )


def _next_place(tokens: Sequence[int], tokenizer: Events) -> list[int]:
    """What says that the next note begins where the last one ends: Position or Bar."""
    begun = tokenizer.decode(np.array(tokens))
    lines = bar_lines(begun.metres, _FAR)
    num_bars = list(tokens).count(tokenizer.bar)
    line, next_line = lines[num_bars - 1 : num_bars + 1].tolist()
    later = tokenizer.positions[
        (tokenizer.positions >= begun.end - line) & (tokenizer.positions < next_line - line)
    ]
    if not len(later):
        return [tokenizer.bar]
    return [tokenizer.vocabulary.index[f"Position_{later[0]}"]]


def _without_filling(tokens: list[int], tokenizer: StepTokenizer) -> list[int]:
    """Without the silent steps at the end; behind a bar that is full, with the next Bar."""
    index = tokenizer.vocabulary.index
    if "Frame" in index:
        while tokens[-2:] == [index["Frame"]] * 2:
            tokens = tokens[:-1]
    else:
        while tokens[-1] == index["Rest"]:
            tokens = tokens[:-1]
    state = 0
    for token in tokens:
        state = int(tokenizer.grammar.next_state[state, token])
    full = tokenizer.grammar.next_state[state, tokenizer.bar] >= 0
    return [*tokens, tokenizer.bar] if full else tokens


def _has_grid(tokenizer: Tokenizer) -> bool:
    """Whether its bars are our own, one for each of the piece."""
    return isinstance(tokenizer, Events | StepTokenizer)


def _refused(path: Path, why: str) -> UserError:
    return UserError(f"cannot continue {path}: {why}")

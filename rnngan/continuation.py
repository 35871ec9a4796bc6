"""Music that somebody else began: from a file to tokens to go on from, and back.

A primer is read and cleaned as the corpus of the model was, and encoded without End. Then comes
what says that the next note begins where the last one ends: behind a full bar Bar, inside one a
Position. So nothing is added among the notes that are there. In what is written the primer keeps
its own notes, programs, velocities, tempos and metres; only what follows is the model's. Where the
model has no token for a metre, the nearest that has one stands in its place from the beginning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rnngan.config import DataConfig
from rnngan.errors import UserError
from rnngan.given import Given, read_given
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
from rnngan.music.tokenizers.tags import METRE, tagged_prefix
from rnngan.music.vocabulary import Tokens

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
        semitones: By which it is encoded higher than it is; below 0 lower.
        tokenizer: Whose tokens they are.
        remark: What stands in it otherwise than in the file, in a line; empty if nothing does.
    """

    piece: Piece
    told: Piece
    tokens: tuple[int, ...]
    num_bars: int
    semitones: int
    tokenizer: Tokenizer
    remark: str

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
        notes = self._at_its_pitch(self._in_its_parts(notes, decoded.notes))
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

    def _at_its_pitch(self, notes: Notes) -> Notes:
        """Decoded notes as much lower as the primer is told higher; an octave less beyond 0."""
        notes = notes.copy()
        pitched = notes["program"] != DRUMS
        pitches = notes["pitch"][pitched].astype(int) - self.semitones
        too_low, too_high = np.maximum(-pitches, 0), np.maximum(pitches - 127, 0)
        notes["pitch"][pitched] = pitches + 12 * (-(-too_low // 12) + -too_high // 12)
        return notes

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


def read_primer(
    path: Path,
    tokenizer: Tokenizer,
    data: DataConfig | None = None,
    *,
    tags: Mapping[str, str] | None = None,
) -> Primer:
    """The primer in a MIDI, ABC or MusicXML file.

    Notes of a program without a token are told by the program nearest in number that has one, and
    drums left out where there are no tokens for them. A metre without a token becomes the nearest
    that has one, see `nearest_metre`; where pitches have no tokens, all are told by others as far
    off as each other, by octaves if that will do.
    Tags are the file's, and what `annotated` finds, as far as the vocabulary has them.

    Args:
        path: Of the file; it holds one piece.
        tokenizer: The model's.
        data: How the model's corpus was read and cleaned; by default as settings are by default. A
            filter on pieces does not act.
        tags: Told in place of the file's, of these keys.

    Raises:
        UserError: The file cannot be read, or holds no piece or several; there is nothing in it
            that the tokens can tell; its pitches span more than those that have tokens; there are
            several voices, and the tokens tell one; or no tag is so.
    """
    tags = dict(tags or {})
    tagged_prefix(tokenizer, tags)
    if METRE in tags and METRE not in keys_of(tokenizer.vocabulary.values("Tag")):
        raise UserError(f"--tag {METRE}={tags[METRE]}: a primer has its own metre; leave it out")
    given = read_given(path, tokenizer, data or DataConfig(), aim="continue", moved=True)
    if isinstance(tokenizer, Melody):
        _check_one_voice(given, tokenizer.config.ticks_per_step)
    told = given.told.tagged({**given.told.tags, **tags})
    tokens = tokenizer.encode(told)[:-1].tolist()
    num_bars = tokens.count(tokenizer.bar)
    tokens += _next_place(tokens, tokenizer) if isinstance(tokenizer, Events) else []
    if isinstance(tokenizer, StepTokenizer):
        tokens = _without_filling(tokens, tokenizer)
    return Primer(
        piece=given.piece,
        told=told,
        tokens=tuple(tokens),
        num_bars=num_bars,
        semitones=given.semitones,
        tokenizer=tokenizer,
        remark=given.remark,
    )


def _check_one_voice(given: Given, ticks_per_step: int) -> None:
    half, notes = ticks_per_step // 2, given.told.pitched
    start, end = ((notes[edge].astype(int) + half) // ticks_per_step for edge in ("start", "end"))
    # What ends at a step makes room for what begins there.
    changes = np.concatenate([end * 2, start * 2 + 1])
    order = np.argsort(changes, kind="stable")
    most = int(np.cumsum(np.repeat([-1, 1], len(start))[order]).max(initial=0))
    if most > 1:
        raise given.refused(
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

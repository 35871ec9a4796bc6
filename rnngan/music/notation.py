"""Notation in: ABC by our own reader, MusicXML through music21.

music21 reads ABC too, but of the traditional tunes in its own corpora it gets about every fourth
wrong: accidentals end with their note, broken rhythm next to a slur or bow mark is lost, and
so is a note before `::`.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnngan.errors import RejectedFile, UserError
from rnngan.music.abc_notation import read_tune, tags_of, tunes_in
from rnngan.music.bars import (
    Bar,
    WrittenNote,
    is_metre,
    lay_out,
    played_out,
    together,
    written_once,
)
from rnngan.music.piece import Piece

if TYPE_CHECKING:
    import music21

ABC_SUFFIXES = frozenset({".abc"})
MUSICXML_SUFFIXES = frozenset({".musicxml", ".xml", ".mxl"})
MAX_BYTES = 32 * 1024 * 1024
"""Unpacked; a symphony movement takes 20 MiB of MusicXML."""
_JUMP = re.compile(r'["!][^"!\n]*((?<![A-Za-z])D\.? ?[CS](?![A-Za-z])|da ?capo|dal? ?segno)', re.I)
_SECTION_ENDS = ("double", "final", "heavy-light", "heavy-heavy")


def read_notation(path: Path, *, expand_repeats: bool = False) -> list[Piece]:
    """The pieces in an ABC file (one or more tunes) or a MusicXML file (one piece).

    A repeated section is read once and of alternative endings the last, or with `expand_repeats`
    as it is played. Grace notes, chord symbols and dynamics are left out: every note gets velocity
    64. Bar lines fall where the metre has them; see `bars.lay_out`.

    Tags are `title`, `composer`, `style` (ABC's rhythm, in lower case), `number` (ABC's), `key`
    (as `G major`, `D dorian`) and `mode`, where the file has them. With `expand_repeats` there can
    be the tag `repeats`: `unexpanded` where repeat signs contradict each other, so that nothing is
    repeated, and `without_jumps` where a da capo or dal segno is not followed.

    Raises:
        RejectedFile: `unreadable`, `too_large`, `not_notation`, `no_notes`, `too_many_notes`,
            `too_many_tracks`, `too_long`, or `pitch_range`.
        UserError: A MusicXML file, and music21 is not installed.
    """
    suffix = path.suffix.lower()
    try:
        if suffix in ABC_SUFFIXES:
            return _pieces_in(_decoded(_read(path)), expand_repeats)
        if suffix in MUSICXML_SUFFIXES:
            score = _parsed(_unpacked(_read(path)))
            return [piece_from_score(score, expand_repeats=expand_repeats)]
    except RejectedFile as error:
        raise RejectedFile(error.reason, f"cannot read {path}: {error}") from error
    known = ", ".join(sorted(ABC_SUFFIXES | MUSICXML_SUFFIXES))
    raise RejectedFile("not_notation", f"cannot read {path}: its name ends in none of {known}")


def _pieces_in(abc: str, expand_repeats: bool) -> list[Piece]:
    """The tunes of an ABC file; one without notes, such as a heading, is left out.

    Raises:
        RejectedFile: As `read_notation`.
    """
    pieces = []
    for tune in tunes_in(abc):
        try:
            pieces.append(piece_from_abc(tune, expand_repeats=expand_repeats))
        except RejectedFile as error:
            if error.reason != "no_notes":
                raise
    if not pieces:
        raise RejectedFile("no_notes", "there are no notes in it, or no field K: before them")
    return pieces


def piece_from_abc(tune: str, *, expand_repeats: bool = False) -> Piece:
    """The piece that one ABC tune makes; see `read_notation`.

    Raises:
        RejectedFile: As `read_notation`.
    """
    bars = read_tune(tune)
    jumps = _JUMP.search(tune) is not None
    return _piece(bars, tags_of(tune), (), expand_repeats=expand_repeats, jumps=jumps)


def piece_from_score(score: music21.stream.Score, *, expand_repeats: bool = False) -> Piece:
    """The piece in a music21 score: part `i` becomes track `i`; see `read_notation`.

    Raises:
        RejectedFile: As `read_notation`; `unreadable` where music21 fails.
        UserError: music21 is not installed.
    """
    with _music21() as m21:
        written = any(part.atSoundingPitch is False for part in score.parts)
        if written or score[m21.spanner.Ottava]:
            score = score.toSoundingPitch()
        endings = {
            id(bracket.getFirst()): tuple(bracket.numberRange)
            for bracket in score[m21.spanner.RepeatBracket]
        }
        parts = list(score.parts)
        bars = together([_bars_of(part, endings, m21) for part in parts])
        names = [part.partName or "" for part in parts]
        jumps = bool(score[m21.repeat.RepeatExpressionCommand])
        tags = _tags_of(score, m21)
    return _piece(bars, tags, names, expand_repeats=expand_repeats, jumps=jumps)


def _piece(
    bars: Sequence[Bar],
    tags: Mapping[str, str],
    track_names: Sequence[str],
    *,
    expand_repeats: bool,
    jumps: bool,
) -> Piece:
    """The piece in `bars`; `jumps` says that there is a da capo or dal segno in them."""
    order = written_once(bars)
    if expand_repeats:
        played = played_out(bars)
        order = order if played is None else played
        if played is None or jumps:
            tags = {**tags, "repeats": "unexpanded" if played is None else "without_jumps"}
    return lay_out(order, tags, track_names)


def _read(path: Path) -> bytes:
    """All bytes of a file.

    Raises:
        RejectedFile: `unreadable`, or `too_large` (past `MAX_BYTES`).
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise RejectedFile("unreadable", str(error.strerror)) from error
    if len(data) > MAX_BYTES:
        raise RejectedFile("too_large", f"the file is longer than {MAX_BYTES} bytes")
    return data


def _unpacked(data: bytes) -> bytes:
    """The score in the bytes of a `.mxl` archive; the bytes themselves if they are no archive.

    Raises:
        RejectedFile: `unreadable`, or `too_large` (past `MAX_BYTES` once unpacked).
    """
    if not data.startswith(b"PK"):
        return data
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [name for name in archive.namelist() if not name.startswith("META-INF/")]
            scores = [n for n in names if Path(n).suffix.lower() in MUSICXML_SUFFIXES]
            with archive.open(scores[0]) as file:
                score = file.read(MAX_BYTES + 1)
    except Exception as error:  # zipfile lets through what zlib, struct and codecs raise
        raise RejectedFile("unreadable", f"no score in the archive ({error})") from error
    if len(score) > MAX_BYTES:
        raise RejectedFile("too_large", f"the score is longer than {MAX_BYTES} bytes")
    return score


def _decoded(data: bytes) -> str:
    """Text in UTF-8, in UTF-16 with its mark, or else in Latin-1."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


@contextlib.contextmanager
def _music21() -> Iterator[Any]:
    """music21, held to our manners: no warnings, nothing on stderr, one kind of error.

    Raises:
        UserError: It is not installed.
        RejectedFile: `unreadable`, for whatever it raises.
    """
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            import music21
        except ImportError as error:
            raise UserError(
                'MusicXML is read through music21; pip install "rnngan[corpora]"'
            ) from error
        try:
            yield music21
        except RejectedFile:
            raise
        except Exception as error:
            raise RejectedFile(
                "unreadable", f"music21 gives up: {type(error).__name__}: {error}"
            ) from error


def _parsed(data: bytes) -> music21.stream.Score:
    """The score in MusicXML.

    Raises:
        RejectedFile: `unreadable`.
        UserError: music21 is not installed.
    """
    with _music21() as m21:
        # From text, not from the file: music21 then keeps no pickle of the score.
        return m21.converter.parseData(_decoded(data), format="musicxml")


def _bars_of(part: Any, endings: Mapping[int, tuple[int, ...]], m21: Any) -> list[Bar]:
    """Bars of one part of a score; `endings` has the numbers by `id` of the measure."""
    program = part.getInstrument(returnDefault=True).midiProgram or 0
    metre = None
    bars = []
    for measure in list(part.getElementsByClass(m21.stream.Measure)) or [part]:
        for signature in measure[m21.meter.TimeSignature]:
            if is_metre(signature.numerator, signature.denominator):
                metre = signature.numerator, signature.denominator
        left: Any = getattr(measure, "leftBarline", None)
        right: Any = getattr(measure, "rightBarline", None)
        bars.append(
            Bar(
                notes=list(_notes_of(measure, program, m21)),
                length=Fraction(measure.highestTime or measure.barDuration.quarterLength),
                metre=metre,
                tempos=list(_tempos_of(measure, m21)),
                endings=endings.get(id(measure), ()),
                starts_repeat=isinstance(left, m21.bar.Repeat) and left.direction == "start",
                plays=(right.times or 2) if isinstance(right, m21.bar.Repeat) else 1,
                ends_section=right is not None and right.type in _SECTION_ENDS,
            )
        )
    return bars


def _notes_of(measure: Any, program: int, m21: Any) -> Iterator[WrittenNote]:
    """Note heads with a pitch, without chord symbols and grace notes."""
    for element in measure.recurse().notes:
        if isinstance(element, m21.harmony.Harmony) or not element.quarterLength:
            continue
        offset = Fraction(element.getOffsetInHierarchy(measure))
        duration = Fraction(element.quarterLength)
        for head in element.notes if isinstance(element, m21.chord.ChordBase) else [element]:
            if isinstance(head, m21.note.Note):
                tied = head.tie is not None and head.tie.type in ("start", "continue")
                yield WrittenNote(offset, duration, head.pitch.midi, tied=tied, program=program)


def _tempos_of(measure: Any, m21: Any) -> Iterator[tuple[Fraction, float]]:
    """Tempos given as a number; a word such as Allegro is none."""
    for mark in measure[m21.tempo.MetronomeMark]:
        tempo = None if mark.numberImplicit else mark.getQuarterBPM()
        if tempo:
            yield Fraction(mark.getOffsetInHierarchy(measure)), float(tempo)


def _tags_of(score: Any, m21: Any) -> dict[str, str]:
    """`title`, `composer`, `key` and `mode`, as far as the score has them."""
    tags = {}
    if score.metadata is not None:
        title = score.metadata.title or score.metadata.movementName or ""
        if Path(title).suffix.lower() not in MUSICXML_SUFFIXES:  # else it is the file's name
            tags["title"] = " ".join(title.split())
        tags["composer"] = " ".join((score.metadata.composer or "").split())
    key = score[m21.key.Key].first()
    if key is not None:
        tonic = key.tonic.name.replace("-", "b")
        tags |= {"key": f"{tonic} {key.mode}", "mode": key.mode}
    return {tag: value for tag, value in tags.items() if value}

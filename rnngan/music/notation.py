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
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.parsers import expat

from rnngan.errors import RejectedFile, UserError
from rnngan.music.abc_notation import MAX_VALUE, read_tune, tags_of, tunes_in
from rnngan.music.bars import (
    MAX_NOTES,
    Bar,
    WrittenNote,
    is_metre,
    lay_out,
    played_out,
    together,
    written_once,
)
from rnngan.music.midi import MAX_TRACKS
from rnngan.music.piece import Piece

if TYPE_CHECKING:
    import music21

ABC_SUFFIXES = frozenset({".abc"})
MUSICXML_SUFFIXES = frozenset({".musicxml", ".xml", ".mxl"})
MAX_BYTES = 32 * 1024 * 1024
"""Unpacked; a symphony movement takes 20 MiB of MusicXML."""
MAX_MEMBERS = 1000
"""Files in a `.mxl` archive: the score, its parts, and pictures."""
MAX_DEPTH = 100
"""XML elements inside each other; MusicXML needs 10."""
MAX_ELEMENTS = 2_000_000
"""Of XML; a note has a dozen."""
MAX_NUMBER = 256
"""Beats in a bar, sharps or flats of a key, numbers of an ending: music21 takes time or memory for
each of them."""
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
            `too_many_tracks`, `too_long`, `pitch_range`, or `no_common_measure`; of MusicXML also
            `encrypted`, `too_many_members`, `entities`, `too_deep`, `absurd_number`, or
            `negative_time`.
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

    The head of the file belongs to every tune, and counts as often.

    Raises:
        RejectedFile: As `read_notation`.
    """
    pieces = []
    num_letters = 0
    for tune in tunes_in(abc):
        num_letters += len(tune)
        if num_letters > MAX_BYTES:
            raise RejectedFile("too_large", f"its tunes are longer than {MAX_BYTES} letters")
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
        names = [(part.partName or "")[:MAX_VALUE] for part in parts]
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
        RejectedFile: `unreadable`, `too_many_members`, `encrypted`, or `too_large` (past
            `MAX_BYTES` once unpacked).
    """
    if not data.startswith(b"PK"):
        return data
    if data.count(b"PK\1\2") > MAX_MEMBERS:  # zipfile takes a kilobyte of memory for each
        raise RejectedFile("too_many_members", f"more than {MAX_MEMBERS} files in the archive")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [name for name in archive.namelist() if not name.startswith("META-INF/")]
            scores = [n for n in names if Path(n).suffix.lower() in MUSICXML_SUFFIXES]
            member = archive.getinfo(scores[0])
            if member.flag_bits & 1:
                raise RejectedFile("encrypted", "the score needs a password")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                # Of the others Python unpacks whole blocks at once, of up to gigabytes.
                raise ValueError("neither stored nor deflated")
            with archive.open(member) as file:
                score = file.read(MAX_BYTES + 1)
    except RejectedFile:
        raise
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
        except (RejectedFile, MemoryError):
            raise
        except Exception as error:
            # What it quotes of the file may be long, or not fit to print.
            shown = "".join(c if c.isprintable() else " " for c in str(error))[:300]
            raise RejectedFile(
                "unreadable", f"music21 gives up: {type(error).__name__}: {shown}"
            ) from error


def _check_musicxml(text: str) -> None:
    """Refuse what would cost music21 too much memory or time.

    Raises:
        RejectedFile: `unreadable` (no well-formed XML), `entities`, `too_large`, `too_deep`,
            `too_many_notes`, `too_many_tracks`, or `absurd_number`.
    """
    most = {"note": MAX_NOTES, "part": MAX_TRACKS, "score-part": MAX_TRACKS}
    counts: Counter[str] = Counter()
    depth = total = num_elements = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth, total, num_elements
        depth += 1
        num_elements += 1
        if depth > MAX_DEPTH:
            raise RejectedFile("too_deep", f"more than {MAX_DEPTH} elements inside each other")
        if num_elements > MAX_ELEMENTS:
            raise RejectedFile("too_large", f"more than {MAX_ELEMENTS} elements")
        if name in most:
            counts[name] += 1
            if counts[name] > most[name]:
                what = "notes" if name == "note" else "tracks"
                raise RejectedFile(f"too_many_{what}", f"at most {most[name]} {what} are read")
        if name in ("time", "key", "ending"):
            total = 0
            add(attributes.get("number", ""))
        elif name in ("beats", "fifths"):
            parser.CharacterDataHandler = add

    def add(numbers: str) -> None:
        nonlocal total
        total += sum(map(int, re.findall(r"\d{1,9}", numbers)))
        if total > MAX_NUMBER:
            raise RejectedFile("absurd_number", f"a metre, key or ending goes beyond {MAX_NUMBER}")

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        if name in ("beats", "fifths"):
            parser.CharacterDataHandler = None

    def refuse_entity(*_: object) -> None:
        raise RejectedFile("entities", "it declares XML entities, which no music needs")

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.EntityDeclHandler = refuse_entity
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        raise RejectedFile("unreadable", f"no well-formed XML ({error})") from error


def _parsed(data: bytes) -> music21.stream.Score:
    """The score in MusicXML.

    Raises:
        RejectedFile: `unreadable`, or as `_check_musicxml`.
        UserError: music21 is not installed.
    """
    text = _decoded(data)
    with _music21() as m21:
        _check_musicxml(text)
        # From text, not from the file: music21 then keeps no pickle of the score.
        return m21.converter.parseData(text, format="musicxml")


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
        if isinstance(element, m21.harmony.Harmony) or not element.quarterLength > 0:
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
    return {tag: value[:MAX_VALUE] for tag, value in tags.items() if value}

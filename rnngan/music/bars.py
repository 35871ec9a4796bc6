"""From bars as they are written to a piece: repeats, pickups, ties, the tick grid.

Both readers of notation, ABC and MusicXML, fill the same `Bar`s; what follows is one for both.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import zip_longest
from typing import NamedTuple

from rnngan.errors import RejectedFile
from rnngan.music.midi import MAX_QUARTERS_PER_MINUTE, MAX_TRACKS, MIN_QUARTERS_PER_MINUTE
from rnngan.music.piece import (
    MAX_QUARTERS,
    TICKS_PER_QUARTER,
    Piece,
    regular_metres,
    regular_tempos,
)

VELOCITY = 64
MAX_NOTES = 100_000
"""A movement of a symphony has tens of thousands; while it is read, each takes kilobytes."""
MAX_BARS = 20_000
"""As many as there are quarters in the longest piece."""
_MAX_BITS = 256
"""Of a denominator. Music gets by with 30; note lengths without a common measure could add up to
numbers of thousands of digits."""


class WrittenNote(NamedTuple):
    """One note head; `offset` (from the beginning of its bar) and `duration` are in quarters."""

    offset: Fraction
    duration: Fraction
    pitch: int
    tied: bool = False
    """To the next note of its pitch."""
    track: int = 0
    program: int = 0


@dataclass(kw_only=True)
class Bar:
    """One bar as it is written, of one voice or of all.

    Attributes:
        length: Quarters filled with notes and rests; less than the metre's in a pickup.
        metre: Numerator and denominator in force; None where the music has none.
        tempos: Pairs of offset in quarters and quarters per minute.
        endings: Numbers of the alternative ending that begins here; empty for no ending.
        starts_repeat: A repeat sign further on leads back here.
        plays: How often the section that ends here is played: 1 without a repeat sign.
        ends_section: A double bar or repeat sign follows, so that the next bar may be a pickup.
    """

    notes: list[WrittenNote] = field(default_factory=list)
    length: Fraction = Fraction(0)
    metre: tuple[int, int] | None = None
    tempos: list[tuple[Fraction, float]] = field(default_factory=list)
    endings: tuple[int, ...] = ()
    starts_repeat: bool = False
    plays: int = 1
    ends_section: bool = False


def check_measure(time: Fraction) -> None:
    """Refuse a time that no longer can be reckoned with quickly.

    Raises:
        RejectedFile: `no_common_measure`.
    """
    if time.denominator.bit_length() > _MAX_BITS:
        raise RejectedFile("no_common_measure", "its note lengths have no common measure")


def is_metre(numerator: int, denominator: int) -> bool:
    """Whether a `Piece` can be in this metre."""
    return 1 <= numerator <= 64 and denominator in (1, 2, 4, 8, 16, 32)


def together(voices: Sequence[Sequence[Bar]]) -> list[Bar]:
    """Bars of voices that sound at the same time made one; voice `i` becomes track `i`.

    Metre, repeats and endings are those of the first voice that has them.

    Raises:
        RejectedFile: `too_many_tracks`, or `too_long` (past `MAX_BARS`).
    """
    num_bars = max(map(len, voices), default=0)
    if num_bars > MAX_BARS:
        raise RejectedFile("too_long", f"at most {MAX_BARS} bars, got {num_bars}")
    if len(voices) > MAX_TRACKS:
        raise RejectedFile("too_many_tracks", f"at most {MAX_TRACKS} voices, got {len(voices)}")
    bars = []
    for parallel in zip_longest(*voices):
        present = [bar for bar in parallel if bar is not None]
        bars.append(
            Bar(
                notes=[
                    note._replace(track=track)
                    for track, bar in enumerate(parallel)
                    if bar is not None
                    for note in bar.notes
                ],
                length=max(bar.length for bar in present),
                metre=next((bar.metre for bar in present if bar.metre), None),
                tempos=next((bar.tempos for bar in present if bar.tempos), []),
                endings=next((bar.endings for bar in present if bar.endings), ()),
                starts_repeat=any(bar.starts_repeat for bar in present),
                plays=max(bar.plays for bar in present),
                ends_section=any(bar.ends_section for bar in present),
            )
        )
    return bars


def _endings_from(bars: Sequence[Bar], first: int) -> list[int]:
    """Where the alternatives to the ending at `first` begin, itself included."""
    begins = [first]
    for i in range(first + 1, len(bars)):
        numbers = bars[i].endings
        if numbers and min(numbers) > max(bars[begins[-1]].endings):
            begins.append(i)
        elif numbers or bars[i].starts_repeat or bars[i - 1].plays > 1:
            break
    return begins


def written_once(bars: Sequence[Bar]) -> list[Bar]:
    """Every section once; of alternative endings the last, as a player would finish."""
    kept = []
    i = 0
    while i < len(bars):
        if bars[i].endings:
            i = _endings_from(bars, i)[-1]
        kept.append(bars[i])
        i += 1
    return kept


def played_out(bars: Sequence[Bar]) -> list[Bar] | None:
    """Bars in the order of playing, each repeat with its own ending.

    None where the signs contradict each other: endings that are not numbered 1, 2, …, or an ending
    other than the last that leads nowhere.
    """
    order: list[Bar] = []
    start = i = 0
    played, last = 1, 0  # passes through this section, and the number of its last ending
    while i < len(bars):
        if bars[i].starts_repeat and not bars[i].endings and i > start:
            start, played, last = i, 1, 0
        if bars[i].endings:
            begins = _endings_from(bars, i)
            numbers = [number for begin in begins for number in bars[begin].endings]
            sound = numbers == list(range(1, len(numbers) + 1)) and played <= len(numbers)
            if not sound or any(bars[begin - 1].plays == 1 for begin in begins[1:]):
                return None
            i = next(begin for begin in begins if played in bars[begin].endings)
            last = len(numbers)
        order.append(bars[i])
        if len(order) > MAX_BARS:
            return None
        if played < (last or bars[i].plays) and bars[i].plays > 1:
            i, played = start, played + 1
        else:
            i += 1
            if bars[i - 1].plays > 1:
                start, played, last = i, 1, 0
    return order


def lay_out(bars: Sequence[Bar], tags: Mapping[str, str], track_names: Sequence[str]) -> Piece:
    """The piece that `bars` make when played in this order.

    Bars are laid end to end, but the bar lines of the metre hold: a bar that does not fit into
    what is left of the metre's bar begins at the next line, with silence before it. A short bar
    that opens the piece or a section is a pickup and ends on a bar line: the next one if nothing
    sounds where the pickup goes, else the one after.

    Raises:
        RejectedFile: `no_notes`, `too_many_notes`, `too_long`, `negative_time`,
            `no_common_measure`, or `pitch_range`.
    """
    num_notes = sum(len(bar.notes) for bar in bars)
    if num_notes > MAX_NOTES:
        raise RejectedFile("too_many_notes", f"at most {MAX_NOTES} notes, got {num_notes}")
    bars = _with_true_metres(bars)
    placed: list[tuple[Fraction, WrittenNote]] = []
    metres: list[tuple[int, int, int]] = []
    tempos: list[tuple[int, float]] = []
    size = Fraction(4)
    metre: tuple[int, int] | None = None
    line = cursor = silent_from = Fraction(0)
    for i, bar in enumerate(bars):
        edge = line if cursor == line else line + size
        room = edge - cursor
        opens = i == 0 or bar.starts_repeat or bars[i - 1].ends_section or bars[i - 1].plays > 1
        if bar.metre and bar.metre != metre:
            metre, room = bar.metre, Fraction(0)
            size = _size(metre)
            metres.append((_tick(edge), *metre))
        if opens and bar.length < size and len(bars) > 1:
            cursor = edge - bar.length
            if cursor < silent_from:
                cursor += size
        elif bar.metre and bar.length > room:
            cursor = edge
        placed += [(cursor + note.offset, note) for note in bar.notes]
        tempos += [(_tick(cursor + offset), tempo) for offset, tempo in bar.tempos]
        silent_from = max([silent_from, *(cursor + n.offset + n.duration for n in bar.notes)])
        cursor += bar.length
        check_measure(cursor)
        if cursor >= edge:
            line = edge + (cursor - edge) // size * size
    return _piece(placed, metres, tempos, tags, track_names)


def _with_true_metres(bars: Sequence[Bar]) -> list[Bar]:
    """Where most bars under a metre contradict it, it is the one that they fill."""
    lengths: dict[tuple[int, int] | None, Counter[Fraction]] = defaultdict(Counter)
    for bar in bars:
        lengths[bar.metre][bar.length] += 1
    true = {}
    for metre, counts in lengths.items():
        [(length, count)] = counts.most_common(1)
        if count > max(2, counts.total() // 2) and (not metre or length != _size(metre)):
            denominator = max((length / 4).denominator, metre[1] if metre else 4)
            numerator = length / 4 * denominator
            if numerator.denominator == 1 and is_metre(int(numerator), denominator):
                true[metre] = int(numerator), denominator
    return [replace(bar, metre=true.get(bar.metre, bar.metre)) for bar in bars]


def _size(metre: tuple[int, int]) -> Fraction:
    """Quarters in a bar."""
    return Fraction(4 * metre[0], metre[1])


def _tick(quarters: Fraction) -> int:
    """Nearest tick; halves go up, as in `nearest_ticks`."""
    return math.floor(quarters * TICKS_PER_QUARTER + Fraction(1, 2))


def _piece(
    placed: Sequence[tuple[Fraction, WrittenNote]],
    metres: Sequence[tuple[int, int, int]],
    tempos: Sequence[tuple[int, float]],
    tags: Mapping[str, str],
    track_names: Sequence[str],
) -> Piece:
    """Notes at their quarters put on the grid, ties joined."""
    if not placed:
        raise RejectedFile("no_notes", "there are no notes in it")
    if any(not 0 <= note.pitch <= 127 for _, note in placed):
        raise RejectedFile("pitch_range", "a note lies outside MIDI's 0 to 127")
    if min(start for start, _ in placed) < 0:
        raise RejectedFile("negative_time", "a note begins before the piece")
    if max(start + note.duration for start, note in placed) > MAX_QUARTERS:
        raise RejectedFile("too_long", f"its notes go beyond {MAX_QUARTERS} quarters")
    onset = _tick(min(start for start, _ in placed))
    tempos = [
        (
            tick if tick > onset else 0,  # the first tempo holds for the silence before a pickup
            min(max(tempo, MIN_QUARTERS_PER_MINUTE), MAX_QUARTERS_PER_MINUTE),
        )
        for tick, tempo in tempos
    ]
    rows: list[tuple[int, int, int, int, int, int]] = []
    held: dict[tuple[int, int], int] = {}  # rows that a tie may still lengthen
    for quarters, note in sorted(placed, key=lambda item: item[0]):
        key = note.track, note.pitch
        start = _tick(quarters)
        end = max(_tick(quarters + note.duration), start + 1)
        row = held.pop(key, None)
        if row is not None and rows[row][1] == start:
            rows[row] = (rows[row][0], end, *rows[row][2:])
        else:
            row = len(rows)
            rows.append((start, end, note.pitch, VELOCITY, note.program, note.track))
        if note.tied:
            held[key] = row
    return Piece.from_rows(
        rows,
        metres=regular_metres(metres),
        tempos=regular_tempos(tempos),
        tags=dict(tags),
        track_names=tuple(track_names),
    )

"""A piece of music on a tick grid.

Time is counted in ticks, 24 to a quarter note, and every span is half-open: a note fills
`start <= tick < end`. Seconds appear only at the border, in `to_pretty_midi`, `from_pretty_midi`
and `seconds_at`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pretty_midi

TICKS_PER_QUARTER = 24
"""Divides into 32nds and into 16th triplets alike."""
DRUMS = 128
"""Program of the drum kit; 0 to 127 are General MIDI's instruments."""

MAX_QUARTERS = 20_000
"""Longest piece that is read or written: nearly three hours at 120. At the 480 ticks per quarter
of a written file pretty_midi reads little further."""

NOTE = np.dtype(
    [
        ("start", "<i4"),
        ("end", "<i4"),
        ("pitch", "u1"),
        ("velocity", "u1"),
        ("program", "u1"),
        ("track", "u1"),
    ]
)
Notes = npt.NDArray[Any]
"""Array of dtype `NOTE`, shape `(notes,)`."""


class Metre(NamedTuple):
    """Time signature in force from `tick` on."""

    tick: int
    numerator: int
    denominator: int

    @property
    def ticks_per_bar(self) -> int:
        """Length of a full bar."""
        return self.numerator * 4 * TICKS_PER_QUARTER // self.denominator

    @property
    def name(self) -> str:
        """As written: `6/8`."""
        return f"{self.numerator}/{self.denominator}"


class Tempo(NamedTuple):
    """Tempo in force from `tick` on."""

    tick: int
    quarters_per_minute: float


class Timing(NamedTuple):
    """Where a piece's beats come from, and what its onsets lost on the way to the grid.

    Attributes:
        grid: `notated` (exact by nature), `file` (the beats of a MIDI file), `estimated` (beats
            found in a performance) or `fixed` (24 ticks per half second).
        mean_error_quarters: Mean distance of an onset's tick from where the source has it.
        max_error_quarters: The largest such distance.
    """

    grid: str = "notated"
    mean_error_quarters: float = 0.0
    max_error_quarters: float = 0.0

    @staticmethod
    def measured(grid: str, places: npt.NDArray[np.float64], ticks: npt.NDArray[Any]) -> Timing:
        """Timing of onsets that stand at `ticks`, in fractions of a tick at `places`."""
        if not len(places):
            return Timing(grid)
        errors = np.abs(places - ticks)
        mean = float(errors.sum()) / len(errors) / TICKS_PER_QUARTER
        return Timing(grid, round(mean, 6), round(float(errors.max()) / TICKS_PER_QUARTER, 6))


NOTATED = Timing()


@dataclass(frozen=True, kw_only=True, eq=False)
class Piece:
    """Notes with metre, tempo and tags.

    Attributes:
        notes: Read-only table of dtype `NOTE`, sorted by start, then track, pitch, end. Pitch is
            the MIDI number 0 to 127 (for program `DRUMS` the General MIDI drum), velocity 1 to 127.
        metres: At least one, the first at tick 0. A metre that begins inside a bar cuts that bar.
        tempos: At least one, the first at tick 0.
        tags: What is known of the piece, such as `style`, `composer`, `corpus`, `source`.
        track_names: Name of track `i`, where the source has one.
        timing: What became of the source's onsets. It says where a piece comes from, not what it
            is, and pieces are equal without it.

    Raises:
        ValueError: A note is empty or starts before 0, or metre or tempo is impossible.
    """

    notes: Notes
    metres: tuple[Metre, ...] = (Metre(0, 4, 4),)
    tempos: tuple[Tempo, ...] = (Tempo(0, 120.0),)
    tags: Mapping[str, str] = field(default_factory=dict)
    track_names: tuple[str, ...] = ()
    timing: Timing = NOTATED

    def __post_init__(self) -> None:
        notes = np.asarray(self.notes, dtype=NOTE)
        place = notes["start"].astype(np.int64) << 16
        place |= notes["track"].astype(np.int64) << 8 | notes["pitch"]
        order = np.argsort(place, kind="stable")  # quick, as tracks mostly come in order
        place = place[order]
        if (place[1:] == place[:-1]).any():
            order = order[np.lexsort((notes["end"][order], place))]
        notes = notes.take(order)  # which indexing does in several times as long
        notes.flags.writeable = False
        object.__setattr__(self, "notes", notes)
        if len(notes):
            if notes["start"][0] < 0 or (notes["end"] <= notes["start"]).any():
                raise ValueError("notes need 0 <= start < end")
            if notes["pitch"].max() > 127 or notes["program"].max() > DRUMS:
                raise ValueError("notes need pitch <= 127 and program <= 128")
            if notes["velocity"].min() < 1 or notes["velocity"].max() > 127:
                raise ValueError("notes need 1 <= velocity <= 127")
        for changes, what in ((self.metres, "metres"), (self.tempos, "tempos")):
            ticks = [change.tick for change in changes]
            if not ticks or ticks[0] != 0 or any(a >= b for a, b in pairwise(ticks)):
                raise ValueError(f"{what} must rise from tick 0, got ticks {ticks[:8]}")
        for metre in self.metres:
            if metre.numerator < 1 or metre.denominator not in (1, 2, 4, 8, 16, 32):
                raise ValueError(f"metre {metre.name} is not one that a tick grid can hold")
        for tempo in self.tempos:
            if not 0 < tempo.quarters_per_minute < float("inf"):
                raise ValueError(f"tempo must be positive, got {tempo.quarters_per_minute}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Piece):
            return NotImplemented
        return (
            np.array_equal(self.notes, other.notes)
            and self.metres == other.metres
            and self.tempos == other.tempos
            and dict(self.tags) == dict(other.tags)
        )

    __hash__ = None  # type: ignore[assignment]  # compared by content, so not hashable

    @staticmethod
    def from_rows(rows: Iterable[tuple[int, ...]], **fields: Any) -> Piece:
        """Piece from `(start, end, pitch[, velocity[, program[, track]]])`; 64, 0, 0 by default."""
        defaults = (0, 0, 0, 64, 0, 0)
        table = [tuple(row) + defaults[len(row) :] for row in rows]
        return Piece(notes=np.array(table, dtype=NOTE), **fields)

    @property
    def end(self) -> int:
        """First tick after the last note; 0 without notes."""
        return int(self.notes["end"].max()) if len(self.notes) else 0

    @property
    def pitched(self) -> Notes:
        """The notes without the drums."""
        return self.notes.take(np.flatnonzero(self.notes["program"] != DRUMS))

    def bar_lines(self) -> npt.NDArray[np.int64]:
        """Ticks where bars begin, and where the last one ends: `(bars + 1,)`.

        Bars are laid down until everything that sounds is covered. `[0]` for no notes.
        """
        return bar_lines(self.metres, self.end)

    @property
    def num_bars(self) -> int:
        """Bars up to the end of the last note."""
        return len(self.bar_lines()) - 1

    def metre_at(self, tick: int) -> Metre:
        """Metre in force at a tick."""
        return next(m for m in reversed(self.metres) if m.tick <= tick)

    def seconds_at(self, ticks: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Seconds from the beginning at each tick, through all tempo changes."""
        changes = np.array([t.tick for t in self.tempos], dtype=np.float64)
        tempos = np.array([t.quarters_per_minute for t in self.tempos])
        return elapsed_seconds(ticks, changes, 60 / (tempos * TICKS_PER_QUARTER))

    def transposed(self, semitones: int) -> Piece:
        """All but the drums moved by `semitones`.

        Raises:
            ValueError: A note would leave 0 to 127.
        """
        notes = self.notes.copy()
        pitched = notes["program"] != DRUMS
        moved = notes["pitch"][pitched].astype(int) + semitones
        if len(moved) and (moved.min() < 0 or moved.max() > 127):
            raise ValueError(f"transposing by {semitones} leaves the MIDI range")
        notes["pitch"][pitched] = moved
        return replace(self, notes=notes)

    def tagged(self, tags: Mapping[str, str]) -> Piece:
        """The same music with other tags."""
        piece = copy.copy(self)  # which does not look at all the notes again
        object.__setattr__(piece, "tags", tags)
        return piece

    def tidied(self) -> Piece:
        """The piece as instruments of a file can hold it: `one_at_a_time` of its notes."""
        notes = one_at_a_time(self.notes)
        if len(notes) == len(self.notes) and notes["end"].sum() == self.notes["end"].sum():
            return self  # notes only go, or become shorter
        return replace(self, notes=notes)

    def to_pretty_midi(self) -> pretty_midi.PrettyMIDI:
        """The piece as `pretty_midi` has it; one instrument per track and program.

        Raises:
            ValueError: The piece goes beyond `MAX_QUARTERS`.
        """
        import pretty_midi

        last = max(self.end, self.tempos[-1].tick, self.metres[-1].tick)
        if last > MAX_QUARTERS * TICKS_PER_QUARTER:
            raise ValueError(
                f"at most {MAX_QUARTERS} quarters fit, got {last // TICKS_PER_QUARTER}"
            )

        scale = 20  # 480 ticks per quarter, what most programs write
        midi = pretty_midi.PrettyMIDI(
            resolution=TICKS_PER_QUARTER * scale,
            charset="utf-8",  # track names in every script, and the encoding symusic reads
        )
        # A file holds whole microseconds per quarter. pretty_midi cuts the fraction off when it
        # writes, and a millionth more keeps a whole number from losing a microsecond there.
        midi._tick_scales = [
            (t.tick * scale, (round(60e6 / t.quarters_per_minute) + 1e-6) * 1e-6 / midi.resolution)
            for t in self.tempos
        ]
        midi._update_tick_to_time((last + 1) * scale)

        def seconds(tick: int) -> float:
            return float(midi.tick_to_time(int(tick) * scale))

        midi.time_signature_changes = [
            pretty_midi.TimeSignature(m.numerator, m.denominator, seconds(m.tick))
            for m in self.metres
        ]
        instruments: dict[tuple[int, int], Any] = {}
        for start, end, pitch, velocity, program, track in self.notes.tolist():
            instrument = instruments.get((track, program))
            if instrument is None:
                drums = program == DRUMS
                name = self.track_names[track] if track < len(self.track_names) else ""
                instrument = pretty_midi.Instrument(0 if drums else program, drums, name)
                instruments[track, program] = instrument
            note = pretty_midi.Note(velocity, pitch, seconds(start), seconds(end))
            instrument.notes.append(note)
        midi.instruments = [instruments[key] for key in sorted(instruments)]
        return midi

    @staticmethod
    def from_pretty_midi(
        midi: pretty_midi.PrettyMIDI, tags: Mapping[str, str] | None = None
    ) -> Piece:
        """The piece in a `PrettyMIDI`, each onset and end at its nearest tick.

        Tempos are rounded to 0.001, finer than what MIDI files hold.
        """

        def place(seconds: float) -> float:
            return float(midi.time_to_tick(seconds) * TICKS_PER_QUARTER / midi.resolution)

        def tick(seconds: float) -> int:
            return int(nearest_ticks(place(seconds)))

        rows, places = [], []
        for track, instrument in enumerate(midi.instruments[:256]):
            program = DRUMS if instrument.is_drum else instrument.program
            for note in instrument.notes:
                start = max(0, tick(note.start))
                end = max(start + 1, tick(note.end))
                velocity = min(max(note.velocity, 1), 127)
                rows.append((start, end, note.pitch, velocity, program, track))
                places.append(place(note.start))
        times, tempos = midi.get_tempo_changes()
        return Piece.from_rows(
            rows,
            metres=regular_metres(
                (tick(c.time), c.numerator, c.denominator) for c in midi.time_signature_changes
            ),
            tempos=regular_tempos(
                (tick(time), round(float(tempo), 3)) for time, tempo in zip(times, tempos)
            ),
            tags=dict(tags or {}),
            track_names=tuple(i.name for i in midi.instruments[:256]),
            timing=Timing.measured("file", np.array(places), np.array([row[0] for row in rows])),
        )


def bar_lines(metres: Sequence[Metre], end: int) -> npt.NDArray[np.int64]:
    """`Piece.bar_lines` of what sounds until `end` in these metres."""
    lines: list[npt.NDArray[np.int64]] = []
    line = 0
    for i, metre in enumerate(metres):
        if metre.tick >= end:
            break
        until = metres[i + 1].tick if i + 1 < len(metres) else end
        size = metre.ticks_per_bar
        starts = np.arange(metre.tick, min(until, end), size)
        lines.append(starts)
        last = int(starts[-1]) + size
        line = min(last, until) if i + 1 < len(metres) else last
    return np.append(np.concatenate(lines) if lines else np.empty(0, np.int64), line)


def one_at_a_time(notes: Notes) -> Notes:
    """Notes of which no two on one pitch, program and track sound together, in no order.

    More a MIDI channel cannot hold: a note-off names only the pitch. The drum kit has a single
    channel, so there the track does not count. Of notes that begin together the longest stays; a
    note that still sounds when its pitch is struck again ends there.
    """
    program, track = notes["program"].astype(np.int64), notes["track"].astype(np.int64)
    track[program == DRUMS] = 0
    voice = program << 16 | track << 8 | notes["pitch"]
    onset = voice << 32 | notes["start"]
    order = np.argsort(onset)
    first = np.flatnonzero(np.diff(onset[order], prepend=-1))
    # Of each run of equal onsets the one with the latest end, and of those the first in `notes`:
    # with the end above the complement of the index one maximum finds it. Four times faster than
    # to sort by both.
    low = (1 << 32) - 1
    best = np.maximum.reduceat((notes["end"].astype(np.int64) << 32)[order] | low - order, first)
    order = low - (best & low)
    onset = onset[order]
    notes = notes.take(order)  # several times faster than notes[order]
    again = onset[1:] >> 32 == onset[:-1] >> 32
    np.minimum(notes["end"][:-1], notes["start"][1:], out=notes["end"][:-1], where=again)
    return notes


def elapsed_seconds(
    ticks: npt.ArrayLike,
    changes: npt.NDArray[np.float64],
    seconds_per_tick: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Seconds at each tick where the pace changes at `changes`, which rise from 0."""
    elapsed = np.concatenate([[0.0], np.cumsum(np.diff(changes) * seconds_per_tick[:-1])])
    at = np.asarray(ticks, dtype=np.float64)
    index = np.searchsorted(changes, at, side="right") - 1
    return np.asarray(elapsed[index] + (at - changes[index]) * seconds_per_tick[index])


def nearest_ticks(places: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Nearest ticks to places between them; halves go up.

    Rounding halves to the even tick instead would change the rhythm with its place in the bar.
    """
    return np.floor(np.asarray(places) + 0.5).astype(np.int64)


def regular_metres(changes: Iterable[tuple[int, int, int]]) -> tuple[Metre, ...]:
    """Metres as `Piece` wants them from `(tick, numerator, denominator)` in any order.

    Of several at one tick the last stands; repetitions go; 4/4 stands where nothing is said;
    what no grid can hold (0/4, 3/64) is left out.
    """
    at: dict[int, Metre] = {0: Metre(0, 4, 4)}
    for tick, numerator, denominator in sorted(changes, key=lambda change: change[0]):
        if 1 <= numerator <= 64 and denominator in (1, 2, 4, 8, 16, 32):
            at[max(tick, 0)] = Metre(max(tick, 0), numerator, denominator)
    kept: list[Metre] = []
    for metre in at.values():
        if not kept or metre[1:] != kept[-1][1:]:
            kept.append(metre)
    return tuple(kept)


def regular_tempos(changes: Iterable[tuple[int, float]]) -> tuple[Tempo, ...]:
    """Tempos as `Piece` wants them from `(tick, quarters_per_minute)` in any order.

    Of several at one tick the last stands; repetitions go; 120 stands where nothing is said.
    """
    at: dict[int, Tempo] = {0: Tempo(0, 120.0)}
    for tick, tempo in sorted(changes, key=lambda change: change[0]):
        at[max(tick, 0)] = Tempo(max(tick, 0), tempo)
    kept: list[Tempo] = []
    for change in at.values():
        if not kept or change.quarters_per_minute != kept[-1].quarters_per_minute:
            kept.append(change)
    return tuple(kept)

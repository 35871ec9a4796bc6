"""A piece of music on a tick grid.

Time is counted in ticks, 24 to a quarter note, and every span is half-open: a note fills
`start <= tick < end`. Seconds appear only at the border, in `to_pretty_midi`, `from_pretty_midi`
and `seconds_at`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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

    Raises:
        ValueError: A note is empty or starts before 0, or metre or tempo is impossible.
    """

    notes: Notes
    metres: tuple[Metre, ...] = (Metre(0, 4, 4),)
    tempos: tuple[Tempo, ...] = (Tempo(0, 120.0),)
    tags: Mapping[str, str] = field(default_factory=dict)
    track_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        notes = np.ascontiguousarray(self.notes, dtype=NOTE)
        order = np.lexsort((notes["end"], notes["pitch"], notes["track"], notes["start"]))
        notes = notes[order]
        notes.flags.writeable = False
        object.__setattr__(self, "notes", notes)
        if len(notes):
            if notes["start"][0] < 0 or np.any(notes["end"] <= notes["start"]):
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
        notes: Notes = self.notes[self.notes["program"] != DRUMS]
        return notes

    def bar_lines(self) -> npt.NDArray[np.int64]:
        """Ticks where bars begin, and where the last one ends: `(bars + 1,)`.

        Bars are laid down until everything that sounds is covered. `[0]` for no notes.
        """
        lines: list[npt.NDArray[np.int64]] = []
        end = self.end
        line = 0
        for i, metre in enumerate(self.metres):
            if metre.tick >= end:
                break
            until = self.metres[i + 1].tick if i + 1 < len(self.metres) else end
            size = metre.ticks_per_bar
            starts = np.arange(metre.tick, min(until, end), size)
            lines.append(starts)
            last = int(starts[-1]) + size
            line = min(last, until) if i + 1 < len(self.metres) else last
        return np.append(np.concatenate(lines) if lines else np.empty(0, np.int64), line)

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
        pace = 60 / (np.array([t.quarters_per_minute for t in self.tempos]) * TICKS_PER_QUARTER)
        elapsed = np.concatenate([[0.0], np.cumsum(np.diff(changes) * pace[:-1])])
        at = np.asarray(ticks, dtype=np.float64)
        index = np.searchsorted(changes, at, side="right") - 1
        return np.asarray(elapsed[index] + (at - changes[index]) * pace[index])

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

    def tidied(self) -> Piece:
        """One voice per pitch and program: what a MIDI channel can hold without ambiguity.

        Of notes that begin together on one pitch and program the longest stays; a note that still
        sounds when its pitch is struck again ends there.
        """
        if not len(self.notes):
            return self
        notes = self.notes[
            np.lexsort(
                (
                    -self.notes["end"],
                    self.notes["start"],
                    self.notes["pitch"],
                    self.notes["program"],
                )
            )
        ]
        same = (np.diff(notes["program"].astype(int)) == 0) & (
            np.diff(notes["pitch"].astype(int)) == 0
        )
        twin = np.append(False, same & (np.diff(notes["start"]) == 0))
        notes = notes[~twin].copy()
        same = (np.diff(notes["program"].astype(int)) == 0) & (
            np.diff(notes["pitch"].astype(int)) == 0
        )
        clipped = np.minimum(notes["end"][:-1], notes["start"][1:])
        notes["end"][:-1] = np.where(same, clipped, notes["end"][:-1])
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

        def tick(seconds: float) -> int:
            return int(nearest_ticks(midi.time_to_tick(seconds), midi.resolution))

        rows = []
        for track, instrument in enumerate(midi.instruments[:256]):
            program = DRUMS if instrument.is_drum else instrument.program
            for note in instrument.notes:
                start = max(0, tick(note.start))
                end = max(start + 1, tick(note.end))
                velocity = min(max(note.velocity, 1), 127)
                rows.append((start, end, note.pitch, velocity, program, track))
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
        )


def nearest_ticks(ticks: npt.ArrayLike, ticks_per_quarter: int) -> npt.NDArray[np.int64]:
    """Nearest ticks of our grid to ticks of another; halves go up.

    Rounding halves to the even tick instead would change the rhythm with its place in the bar.
    """
    ticks = np.asarray(ticks, dtype=np.int64)
    return (2 * TICKS_PER_QUARTER * ticks + ticks_per_quarter) // (2 * ticks_per_quarter)


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

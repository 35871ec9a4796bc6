"""Events in the manner of REMI: bars, positions in the bar, and what is struck there.

    Start Tag* Metre [Tempo]  ( Bar [Metre] [Tempo]  ( Position  Note+ )* )+  End
    Note = [Program] [Voice] Pitch Duration [Velocity]  |  Program_128 Drum [Velocity]

An excerpt from the middle of a piece begins with Continue in place of Start. Kinds in brackets
exist only where the corpus needs them: a collection of fiddle tunes gets by with three tokens a
note. Metre and tempo stand in a bar only where they change.

References:
    Huang & Yang, "Pop Music Transformer" (REMI), 2020.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from rnngan.music.piece import (
    DRUMS,
    NOTE,
    TICKS_PER_QUARTER,
    Metre,
    Notes,
    Piece,
    Tempo,
    bar_lines,
    one_at_a_time,
)
from rnngan.music.tokenizers.base import check_tags, check_tokens, keys_of, settings_of
from rnngan.music.tokenizers.steps import commonest_metres, metre_of
from rnngan.music.tokenizers.summary import Histogram, Summary
from rnngan.music.vocabulary import (
    CONTINUE,
    END,
    FRAME_TOKENS,
    PAD,
    START,
    Grammar,
    Tokens,
    Vocabulary,
    build_grammar,
)

_LONGEST = 16 * TICKS_PER_QUARTER
_MOST_VOICES = 16
_COLUMNS = 6  # Most tokens that a note or the beginning of a bar takes
_DRUM_TICKS = TICKS_PER_QUARTER // 4  # a stroke rings by itself; a 16th is what scores write
_TEMPOS = tuple(round(30 * 2 ** (i / 4)) for i in range(13))  # 30 to 240, a quarter octave apart


def _grid() -> npt.NDArray[np.int64]:
    """Ticks of a 32nd or a 16th triplet, up to two quarters; ever coarser beyond."""
    ticks = np.arange(_LONGEST + 1)
    fine = (ticks % 3 == 0) | (ticks % 4 == 0)
    eighths = (ticks % 6 == 0) | (ticks % 8 == 0)
    quarter = TICKS_PER_QUARTER
    has_token = (
        (fine & (ticks <= 2 * quarter))
        | (eighths & (ticks <= 4 * quarter))
        | ((ticks % 12 == 0) & (ticks <= 8 * quarter))
        | (ticks % quarter == 0)
    )
    return np.asarray(ticks[has_token])


DURATIONS = _grid()[1:]
"""Note lengths that have a token, ascending, in ticks."""


def _nearest(grid: npt.NDArray[Any], values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Index of the nearest grid point; of two equally near the lower."""
    return np.asarray(np.searchsorted((grid[1:] + grid[:-1]) / 2, values, side="left"))


# By ticks, 0 to `_LONGEST`: to look up is several times faster than to search.
_NEAREST_DURATION = DURATIONS[_nearest(DURATIONS, np.arange(_LONGEST + 1))]
_DURATION_BELOW = np.maximum(np.searchsorted(DURATIONS, np.arange(_LONGEST + 1), "right") - 1, 0)


@dataclass(frozen=True, kw_only=True)
class EventsConfig:
    """What of a piece the tokens tell. `Events.fit` finds it from a corpus.

    Attributes:
        metres: Time signatures with a token, as `6/8`.
        lowest, highest: Pitches with a token, inclusive.
        programs: Programs with a token, ascending; 128 is the drum kit. For one alone, other than
            the kit, no token is spent.
        velocities: Velocities with a token, ascending; for one alone no token is spent.
        tempos: Quarters per minute with a token, ascending; for one alone no token is spent.
        voices: Tracks of one program to keep apart; further ones share the last voice. For one
            alone no token is spent.
        tags: Tag tokens at the head, `key=value`; a piece that lacks a key, or has another value,
            gets `key=`, which every key needs.

    Raises:
        ValueError: One of these rules is broken.
    """

    metres: tuple[str, ...]
    lowest: int
    highest: int
    programs: tuple[int, ...] = (0,)
    velocities: tuple[int, ...] = (80,)
    tempos: tuple[float, ...] = (120.0,)
    tags: tuple[str, ...] = ()
    voices: int = 1

    def __post_init__(self) -> None:
        if not (self.metres and self.programs and self.velocities and self.tempos):
            raise ValueError("metres, programs, velocities and tempos need at least one value each")
        if not 0 <= self.lowest <= self.highest <= 127:
            raise ValueError(f"need 0 <= lowest <= highest <= 127, got {self.lowest, self.highest}")
        if not 1 <= self.voices <= 256:
            raise ValueError(f"voices must be 1 to 256, got {self.voices}")
        for name in ("programs", "velocities", "tempos"):
            values = getattr(self, name)
            if list(values) != sorted(set(values)):
                raise ValueError(f"{name} must ascend, got {values}")
        for name, least, most in (("programs", 0, DRUMS), ("velocities", 1, 127)):
            values = getattr(self, name)
            if values[0] < least or values[-1] > most:
                raise ValueError(f"{name} must be {least} to {most}, got {values}")
        check_tags(self.tags)


class Events:
    """Tokenizer between `Piece` and event tokens.

    What encoding changes in a piece:

    - Onsets and lengths move to the nearest grid point: onsets to 32nds and 16th triplets, lengths
      to `DURATIONS`, no longer than 16 quarters; drums last a 16th.
    - The tracks of a program that have notes become its voices in order; those beyond the last
      voice, and all tracks of the kit, are one. A voice holds one note per pitch at a time
      (`one_at_a_time`).
    - Velocities and tempos become the nearest that have a token. A change of tempo moves to the
      beginning of its bar, and of several in a bar the last stands.
    - Notes whose pitch or program has no token are left out. So are metres: the one before goes on.
    - A bar that a change of metre cuts short is filled up with silence, so that what follows keeps
      its place in the bar but comes later.

    To encode what was decoded changes nothing more. Notes at one position come by program, voice
    and pitch.
    """

    name = "events"
    dtype = np.dtype(np.uint16)
    width = 0
    pitched_kinds = ("Pitch",)

    def __init__(self, config: EventsConfig) -> None:
        self.config = config
        self.metres = tuple(map(metre_of, config.metres))
        longest = max(metre.ticks_per_bar for metre in self.metres)
        ticks = np.arange(longest)
        self.positions = ticks[(ticks % 3 == 0) | (ticks % 4 == 0)]
        drums = DRUMS in config.programs
        many_programs = len(config.programs) > 1 or drums
        names: list[str] = [
            *FRAME_TOKENS,
            *(f"Tag_{tag}" for tag in config.tags),
            *(f"Metre_{name}" for name in config.metres),
            *(f"Tempo_{tempo}" for tempo in config.tempos if len(config.tempos) > 1),
            "Bar",
            *(f"Position_{tick}" for tick in self.positions),
            *(f"Program_{program}" for program in config.programs if many_programs),
            *(f"Voice_{voice}" for voice in range(config.voices) if config.voices > 1),
            *(f"Pitch_{pitch}" for pitch in range(config.lowest, config.highest + 1)),
            *(f"Drum_{pitch}" for pitch in range(128) if drums),
            *(f"Duration_{ticks}" for ticks in DURATIONS),
            *(f"Velocity_{v}" for v in config.velocities if len(config.velocities) > 1),
        ]
        self.vocabulary = Vocabulary(tuple(names))
        self.bar = self.vocabulary.index["Bar"]
        self.tag_keys = keys_of(config.tags)
        self._first = {kind: ids.start for kind, ids in self.vocabulary.ranges.items()}
        self._known = np.zeros((DRUMS + 1, 128), dtype=bool)
        self._known[list(config.programs), config.lowest : config.highest + 1] = True
        self._known[DRUMS] = drums
        grid = np.append(self.positions, longest)
        self._place = grid[_nearest(grid, ticks)]
        self._position = np.searchsorted(self.positions, ticks)
        velocities = np.array(config.velocities)
        self._velocity = velocities[_nearest(velocities, np.arange(128))]

    @staticmethod
    def fit(
        summary: Summary,
        *,
        tags: tuple[str, ...] = (),
        margin: int = 6,
        velocity_bins: int = 8,
    ) -> Events:
        """Tokenizer with the metres, pitches, programs, voices, velocities and tempos of a corpus.

        Args:
            summary: The corpus.
            tags: Keys of `Piece.tags` to write at the head.
            margin: Semitones kept free on both sides for transposition.
            velocity_bins: Most velocities to tell apart; where the corpus has more, so many
                quantiles stand for them.

        Raises:
            ValueError: There are no pieces.
        """
        if not summary.num_pieces:
            raise ValueError("cannot fit a tokenizer to no pieces")
        # A bar longer than that is a slip of the writing program, and its grammar is huge.
        metres = [
            name for name in commonest_metres(summary) if metre_of(name).ticks_per_bar <= _LONGEST
        ]
        lowest, highest = summary.pitch_range(margin)
        tempos = summary.tempos if len(summary.tempos) <= len(_TEMPOS) else map(float, _TEMPOS)
        return Events(
            EventsConfig(
                metres=tuple(metres) or ("4/4",),
                lowest=lowest,
                highest=highest,
                programs=tuple(sorted(summary.programs)) or (0,),
                velocities=_representatives(summary.velocities, velocity_bins) or (80,),
                tempos=tuple(sorted(tempos)),
                tags=summary.tag_tokens(tags),
                voices=min(max(summary.voices, 1), _MOST_VOICES),
            )
        )

    def to_json(self) -> dict[str, Any]:
        """What `from_json` needs to make this tokenizer again."""
        return {"name": self.name, **asdict(self.config)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Events:
        """The tokenizer that `to_json` wrote down.

        Raises:
            ValueError: The data describes another tokenizer or none.
        """
        try:
            return Events(EventsConfig(**settings_of(data, Events.name)))
        except TypeError as error:
            raise ValueError(f"damaged tokenizer description: {error}") from None

    def encode(self, piece: Piece) -> Tokens:
        """Tokens of a piece, Start and End included: `(time,)`."""
        index, first, config = self.vocabulary.index, self._first, self.config
        notes, metre_changes, tempo_changes = self._snapped(piece)
        lines = bar_lines(metre_changes, int(notes["end"].max(initial=0)))
        head = [START]
        for key in self.tag_keys:
            tag = f"Tag_{key}={piece.tags.get(key, '')}"
            head.append(index.get(tag, index[f"Tag_{key}="]))
        num_bars = max(len(lines) - 1, 1)
        bar_rows = np.full((num_bars, _COLUMNS), -1)
        bar_rows[:, 0] = self.bar
        metres = [(metre.tick, index[f"Metre_{metre.name}"]) for metre in metre_changes]
        tempos = [
            (tempo.tick, index[f"Tempo_{tempo.quarters_per_minute}"])
            for tempo in tempo_changes
            if "Tempo" in first
        ]
        for column, changes in ((1, metres), (2, tempos)):
            head += [token for _, token in changes[:1]]
            for tick, token in changes[1:]:
                at = int(np.searchsorted(lines, tick))
                if at < num_bars:
                    bar_rows[at, column] = token

        start, program, voice, pitch = (
            notes[name].astype(np.int64) for name in ("start", "program", "track", "pitch")
        )
        order = np.argsort(start << 32 | program << 16 | voice << 8 | pitch)
        notes, start, program = notes.take(order), start[order], program[order]
        voice, pitch = voice[order], pitch[order]
        drum = program == DRUMS
        bar = np.searchsorted(lines, start, side="right") - 1
        rows = np.full((len(notes), _COLUMNS), -1)
        position = first["Position"] + self._position[start - lines[bar]]
        rows[:, 0] = np.where(np.diff(start, prepend=-1) > 0, position, -1)
        if "Program" in first:
            rows[:, 1] = first["Program"] + np.searchsorted(config.programs, program)
        if "Voice" in first:
            rows[:, 2] = np.where(drum, -1, first["Voice"] + voice)
        rows[:, 3] = first["Pitch"] + pitch - config.lowest
        # A note cut short by the next on its pitch must not reach into it: take the length below.
        rows[:, 4] = first["Duration"] + _DURATION_BELOW[notes["end"] - notes["start"]]
        if "Drum" in first:
            rows[drum, 3] = first["Drum"] + pitch[drum]
            rows[drum, 4] = -1
        if "Velocity" in first:
            rows[:, 5] = first["Velocity"] + np.searchsorted(config.velocities, notes["velocity"])

        body = np.empty((num_bars + len(notes), _COLUMNS), dtype=np.int64)
        body[np.searchsorted(bar, np.arange(num_bars)) + np.arange(num_bars)] = bar_rows
        body[bar + 1 + np.arange(len(notes))] = rows
        tokens = body[body >= 0]
        return np.concatenate([head, tokens, [END]]).astype(np.uint16)

    def _snapped(self, piece: Piece) -> tuple[Notes, tuple[Metre, ...], tuple[Tempo, ...]]:
        """The piece as far as there are tokens for it, on the grid, with nothing but full bars.

        Notes are in no order, and the track of a note is its voice.
        """
        config = self.config
        known = self._known[piece.notes["program"], piece.notes["pitch"]]
        notes = piece.notes.take(np.flatnonzero(known))  # several times faster than a mask
        notes["track"] = _voices(notes, config.voices)
        notes = one_at_a_time(notes)
        metres = _changes([self.metres[0], *(m for m in piece.metres if m.name in config.metres)])

        lines = bar_lines(metres, int(notes["end"].max(initial=0)))
        in_force = np.searchsorted([m.tick for m in metres], lines[:-1], side="right") - 1
        sizes = np.array([metre.ticks_per_bar for metre in metres])[in_force]
        full_lines = np.append(0, np.cumsum(sizes))

        bar = np.searchsorted(lines, notes["start"], side="right") - 1
        place = self._place[notes["start"] - lines[bar]]
        # An onset that rounds to the bar line belongs to the next bar.
        late = place >= np.diff(lines)[bar]
        start = full_lines[bar + late] + np.where(late, 0, place)
        length = _NEAREST_DURATION[np.minimum(notes["end"] - notes["start"], _LONGEST)]
        length[notes["program"] == DRUMS] = _DRUM_TICKS
        notes["start"], notes["end"] = start, start + length
        notes["velocity"] = self._velocity[notes["velocity"]]

        def at_lines(changes: Iterable[Any]) -> list[Any]:
            """Changes moved to the beginning of their bars."""
            heard = [change for change in changes if change.tick <= lines[-1]]
            bars = np.searchsorted(lines, [change.tick for change in heard], side="right") - 1
            ticks = full_lines[bars].tolist()
            return [change._replace(tick=tick) for change, tick in zip(heard, ticks)]

        paces = np.log([tempo.quarters_per_minute for tempo in piece.tempos])
        nearest = _nearest(np.log(config.tempos), paces).tolist()
        tempos = [Tempo(t.tick, config.tempos[i]) for t, i in zip(piece.tempos, nearest)]
        return one_at_a_time(notes), _changes(at_lines(metres)), _changes(at_lines(tempos))

    def decode(self, tokens: npt.NDArray[np.integer], *, strict: bool = False) -> Piece:
        """The piece that the tokens tell; tokens after End are not read.

        Without `strict` what makes no sense where it stands is passed over, so that any sequence
        of ids gives a valid piece.

        Raises:
            ValueError: `strict`, and the grammar does not allow the sequence.
        """
        if strict:
            check_tokens(self, tokens)
        names = self.vocabulary.names
        metre = self.metres[0]
        metres = [metre]
        tempos = [Tempo(0, self.config.tempos[0])]
        tags: dict[str, str] = {}
        programs = self.config.programs
        velocity = int(self.config.velocities[len(self.config.velocities) // 2])
        program, voice, pitch, tick = programs[0], 0, -1, -1
        line, in_bar = 0, False
        rows: list[list[int]] = []
        for token in tokens.tolist():
            kind, _, value = names[token].partition("_")
            if kind == "Position" and in_bar:
                tick = line + min(int(value), metre.ticks_per_bar - 1)
                pitch = -1
            elif kind == "Program":
                program = int(value)
            elif kind == "Voice":
                voice = int(value)
            elif kind == "Pitch" and tick >= 0:
                program = programs[0] if program == DRUMS and programs[0] != DRUMS else program
                pitch = int(value)
            elif kind == "Duration" and pitch >= 0:
                rows.append([tick, tick + int(value), pitch, velocity, program, voice])
                pitch = -1
            elif kind == "Drum" and tick >= 0:
                rows.append([tick, tick + _DRUM_TICKS, int(value), velocity, DRUMS, 0])
            elif kind == "Velocity" and rows:
                rows[-1][3] = int(value)
            elif kind == "Bar":
                line += metre.ticks_per_bar if in_bar else 0
                in_bar, tick, pitch = True, -1, -1
            elif kind == "Metre" and tick < 0:
                numerator, denominator = value.split("/")
                metre = Metre(line, int(numerator), int(denominator))
                metres.append(metre)
            elif kind == "Tempo" and tick < 0:
                tempos.append(Tempo(line, float(value)))
            elif kind == "Tag" and not in_bar:
                key, _, tag = value.partition("=")
                if tag:
                    tags[key] = tag
            elif kind == "End":
                break
        notes = np.array([tuple(row) for row in rows], dtype=NOTE)
        parts = notes["program"].astype(np.int64) << 8 | notes["track"]
        notes["track"] = np.searchsorted(np.unique(parts), parts)
        return Piece(
            notes=one_at_a_time(notes),
            metres=_changes(metres),
            tempos=_changes(tempos),
            tags=tags,
        )

    @cached_property
    def grammar(self) -> Grammar:
        """Automaton of the sequences that `encode` can write."""
        return build_grammar(("begin",), self._moves, len(self.vocabulary))

    def _moves(self, state: tuple[Any, ...]) -> Iterable[tuple[range, tuple[Any, ...]]]:
        """Which tokens may come in a state, and the state they lead to.

        A state is named by what came last, the ticks of the bar and the position in it.
        """
        ids = self.vocabulary.ids
        match state:
            case ("begin",):
                yield range(START, CONTINUE + 1), ("head", 0)
            case ("head", int(i)) if i < len(self.tag_keys):
                prefix = self.tag_keys[i] + "="
                for token, tag in zip(ids("Tag"), self.vocabulary.values("Tag")):
                    if tag.startswith(prefix):
                        yield range(token, token + 1), ("head", i + 1)
            case ("head", _):
                after = "tempo" if ids("Tempo") else "first bar"
                yield from self._metre_moves(after)
            case ("tempo", size):
                yield ids("Tempo"), ("first bar", size)
            case ("first bar", size):
                yield ids("Bar"), ("bar", size)
            case ("bar", size):
                if len(self.metres) > 1:
                    yield from self._metre_moves("bar and metre")
                yield ids("Tempo"), ("bar and tempo", size)
                yield from self._forward(size, -1)
            case ("bar and metre", size):
                yield ids("Tempo"), ("bar and tempo", size)
                yield from self._forward(size, -1)
            case ("bar and tempo", size):
                yield from self._forward(size, -1)
            case ("position", size, at):
                yield from self._note(size, at)
            case ("program", size, at):
                yield from self._part(size, at)
            case ("voice", size, at):
                yield ids("Pitch"), ("pitch", size, at)
            case ("drums", size, at):
                yield ids("Drum"), ("struck" if ids("Velocity") else "note", size, at)
            case ("pitch", size, at):
                yield ids("Duration"), ("struck" if ids("Velocity") else "note", size, at)
            case ("struck", size, at):
                yield ids("Velocity"), ("note", size, at)
            case ("note", size, at):
                yield from self._note(size, at)
                yield from self._forward(size, at)
            case ("end",):
                yield range(PAD, PAD + 1), ("end",)

    def _metre_moves(self, after: str) -> Iterable[tuple[range, tuple[Any, ...]]]:
        for token, metre in zip(self.vocabulary.ids("Metre"), self.metres):
            yield range(token, token + 1), (after, metre.ticks_per_bar)

    def _note(self, size: int, at: int) -> Iterable[tuple[range, tuple[Any, ...]]]:
        programs = self.vocabulary.ids("Program")
        if not programs:
            yield from self._part(size, at)
        for token, program in zip(programs, self.config.programs):
            kind = "drums" if program == DRUMS else "program"
            yield range(token, token + 1), (kind, size, at)

    def _part(self, size: int, at: int) -> Iterable[tuple[range, tuple[Any, ...]]]:
        if voices := self.vocabulary.ids("Voice"):
            yield voices, ("voice", size, at)
        else:
            yield self.vocabulary.ids("Pitch"), ("pitch", size, at)

    def _forward(self, size: int, at: int) -> Iterable[tuple[range, tuple[Any, ...]]]:
        for token, position in zip(self.vocabulary.ids("Position"), self.positions.tolist()):
            if at < position < size:
                yield range(token, token + 1), ("position", size, position)
        yield range(self.bar, self.bar + 1), ("bar", size)
        yield range(END, END + 1), ("end",)


def _representatives(counts: Histogram, most: int) -> tuple[int, ...]:
    """The values that occur, or, if they are more than `most`, so many quantiles of them."""
    values = np.flatnonzero(counts)
    if len(values) > most:
        middles = (np.arange(most) + 0.5) / most
        ranks = np.around(middles * (counts.sum() - 1))
        values = np.unique(np.searchsorted(np.cumsum(counts), ranks, side="right"))
    return tuple(values.tolist())


def _voices(notes: Notes, most: int) -> npt.NDArray[np.int64]:
    """Rank of each note's track among those of its program, `most - 1` at most; 0 for drums."""
    if most == 1:
        return np.zeros(len(notes), dtype=np.int64)
    parts = notes["program"].astype(np.uint16) << 8 | notes["track"]
    distinct = np.unique(parts)
    ranks = np.arange(len(distinct)) - np.searchsorted(distinct, distinct & 0xFF00)
    ranks[distinct >> 8 == DRUMS] = 0
    return np.asarray(np.minimum(ranks, most - 1)[np.searchsorted(distinct, parts)])


def _changes(events: list[Any]) -> tuple[Any, ...]:
    """The last event of each tick, without those that change nothing."""
    at = {event.tick: event for event in events}
    kept: list[Any] = []
    for event in at.values():
        if not kept or event[1:] != kept[-1][1:]:
            kept.append(event)
    return tuple(kept)

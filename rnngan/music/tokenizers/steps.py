"""What tokens on a grid of equal steps have in common: the head, the bars, the place of a note.

    Start Tag* Metre  ( Bar [Metre] step*n )*  End

A bar has the steps that its metre asks for, neither more nor fewer, so that where the next bar
begins is never news: under the grammar a Bar costs only what it takes to say that the piece does
not end. A metre stands in a bar only where it changes. The last bar has something in it that
sounds; a piece without notes has no bar at all. Program, velocity and tempo are not told.

An excerpt from the middle of a piece begins with Continue in place of Start and at a bar line; at
its beginning a note may go on that was struck before it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import groupby
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
)
from rnngan.music.tokenizers.base import check_tags, check_tokens, keys_of
from rnngan.music.tokenizers.summary import Summary
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

Integers = npt.NDArray[np.int64]

_WHOLE_NOTE = 4 * TICKS_PER_QUARTER
_LONGEST_BAR = 4 * _WHOLE_NOTE
_MOST_STEPS = 256
"""Steps of the bars of all metres together: the grammar has states for each of them."""


@dataclass(frozen=True, kw_only=True)
class StepsConfig(ABC):
    """What of a piece the tokens tell, and what stands for the rest.

    Attributes:
        metres: Time signatures with a token, as `6/8`; their bars have a whole number of steps.
        lowest, highest: Pitches with a token, inclusive.
        program: Of every decoded note, 0 to 127.
        velocity: Of every decoded note, 1 to 127.
        tempo: Of every decoded piece, in quarters per minute.
        tags: Tag tokens at the head, `key=value`; a piece that lacks a key, or has another value,
            gets `key=`, which every key needs.

    Raises:
        ValueError: One of these rules is broken, or a whole note has no whole number of steps.
    """

    metres: tuple[str, ...]
    lowest: int
    highest: int
    program: int = 0
    velocity: int = 80
    tempo: float = 120.0
    tags: tuple[str, ...] = ()

    @property
    @abstractmethod
    def ticks_per_step(self) -> int:
        """Length of a step."""

    def __post_init__(self) -> None:
        ticks = self.ticks_per_step
        if ticks < 1 or _WHOLE_NOTE % ticks:
            raise ValueError(f"a step must divide the {_WHOLE_NOTE} ticks of a whole note: {ticks}")
        if not self.metres or len(set(self.metres)) < len(self.metres):
            raise ValueError(f"metres must be at least one, and each once, got {self.metres}")
        for name in self.metres:
            if metre_of(name).ticks_per_bar % ticks:
                raise ValueError(f"a bar of {name} has no whole number of steps of {ticks} ticks")
        if not 0 <= self.lowest <= self.highest <= 127:
            raise ValueError(f"need 0 <= lowest <= highest <= 127, got {self.lowest, self.highest}")
        if not (
            0 <= self.program < DRUMS
            and 1 <= self.velocity <= 127
            and 0 < self.tempo < float("inf")
        ):
            raise ValueError(
                "need 0 <= program <= 127, 1 <= velocity <= 127 and a positive tempo, got "
                f"{self.program, self.velocity, self.tempo}"
            )
        check_tags(self.tags)


def metre_of(name: str) -> Metre:
    """The metre of a name such as `6/8`, from tick 0 on.

    Raises:
        ValueError: A piece cannot be in it.
    """
    numerator, denominator = map(int, name.split("/"))
    if numerator < 1 or denominator not in (1, 2, 4, 8, 16, 32):
        raise ValueError(f"metre {name} is not one that a tick grid can hold")
    return Metre(0, numerator, denominator)


def commonest_metres(summary: Summary) -> list[str]:
    """Metres of a corpus, the most frequent first."""
    return sorted(summary.metres, key=lambda name: (-summary.metres[name], name))


def commonest_tempo(summary: Summary) -> float:
    """The most frequent tempo of a corpus, of equally frequent ones the slowest; 120 for none."""
    return min(summary.tempos, key=lambda tempo: (-summary.tempos[tempo], tempo), default=120.0)


def one_program(summary: Summary) -> int:
    """The pitched program of a corpus where it has a single one, else the piano's, 0."""
    pitched = summary.programs - {DRUMS}
    return min(pitched) if len(pitched) == 1 else 0


def fitted_settings(
    summary: Summary, *, tags: tuple[str, ...], margin: int, ticks_per_step: int
) -> dict[str, Any]:
    """Fields of a `StepsConfig` that suits a corpus.

    Metres get a token by frequency: those whose bar is a whole number of steps, no longer than 16
    quarters, until their bars have 256 steps together.

    Args:
        summary: The corpus.
        tags: Keys of `Piece.tags` to write at the head.
        margin: Semitones kept free on both sides for transposition.
        ticks_per_step: Length of a step.

    Raises:
        ValueError: There are no pieces.
    """
    if not summary.num_pieces:
        raise ValueError("cannot fit a tokenizer to no pieces")
    metres: list[str] = []
    room = _MOST_STEPS
    for name in commonest_metres(summary):
        size = metre_of(name).ticks_per_bar
        num_steps, rest = divmod(size, max(ticks_per_step, 1))
        if not rest and size <= _LONGEST_BAR and num_steps <= room:
            metres.append(name)
            room -= num_steps
    lowest, highest = summary.pitch_range(margin)
    below = np.cumsum(summary.velocities)
    median = int(np.searchsorted(below, below[-1] / 2)) if below[-1] else 80
    return {
        "metres": tuple(metres) or ("4/4",),
        "lowest": lowest,
        "highest": highest,
        "program": one_program(summary),
        "velocity": median,
        "tempo": commonest_tempo(summary),
        "tags": summary.tag_tokens(tags),
    }


class StepTokenizer(ABC):
    """Head, bars and grid of a tokenizer; how a step is written is the subclass's business.

    What encoding changes in a piece:

    - Drums and notes whose pitch has no token are left out. All others become one program on one
      track, of one velocity; the tempo becomes that of the config.
    - Onsets and ends move to the nearest step, counted from the beginning of their bars; no note
      gets shorter than a step.
    - Metres without a token are left out: the one before goes on.
    - A bar that a change of metre cuts short is filled up with silence, so that what follows keeps
      its place in the bar but comes later; a note that goes on over its end is held through.

    To encode what was decoded changes nothing more.
    """

    name: str
    config: StepsConfig
    dtype = np.dtype(np.uint16)
    width = 0
    pitched_kinds: tuple[str, ...] = ("Pitch",)

    _going_on: int
    """`memory` of `_step_moves` at the beginning of an excerpt; 0 at that of a piece."""

    def __init__(self, config: StepsConfig, step_names: Iterable[str]) -> None:
        self.config = config
        self.metres = tuple(map(metre_of, config.metres))
        self.bar_steps = np.array([m.ticks_per_bar // config.ticks_per_step for m in self.metres])
        self.vocabulary = Vocabulary(
            (
                *FRAME_TOKENS,
                *(f"Tag_{tag}" for tag in config.tags),
                *(f"Metre_{name}" for name in config.metres),
                "Bar",
                *step_names,
            )
        )
        self.bar = self.vocabulary.index["Bar"]
        self.tag_keys = keys_of(config.tags)
        self._first = {kind: ids.start for kind, ids in self.vocabulary.ranges.items()}

    @abstractmethod
    def _part(self, notes: Notes) -> Notes:
        """Those of the notes that the tokens can tell, cut where that needs it."""

    @abstractmethod
    def _written(
        self, start: Integers, end: Integers, pitch: Integers, num_steps: int
    ) -> tuple[Integers, Integers]:
        """Tokens of all steps in order, and the step of each: `(tokens,)` both.

        Args:
            start: First step of each note, `(notes,)`.
            end: First step after it.
            pitch: Semitones above the lowest pitch that has a token.
            num_steps: Of all bars.
        """

    @abstractmethod
    def _read(
        self, tokens: Integers, steps: Integers, num_steps: int
    ) -> tuple[Integers, Integers, Integers]:
        """Start, end and pitch of the notes, as `_written` takes them, in any order.

        Args:
            tokens: Those that may stand in a step, in any order and number, `(tokens,)`.
            steps: In which step each stands, ascending.
            num_steps: Of all bars.
        """

    @abstractmethod
    def _ends_step(self, tokens: Integers) -> npt.NDArray[np.bool_]:
        """Which of the tokens are the last of a step."""

    @abstractmethod
    def _step_moves(self, memory: int) -> Iterable[tuple[range, bool, bool, int]]:
        """Which tokens may come in a step after what `memory` stands for.

        Each run comes with whether it ends the step, whether something sounds, and the new memory.
        """

    def to_json(self) -> dict[str, Any]:
        """What `from_json` needs to make this tokenizer again."""
        return {"name": self.name, **asdict(self.config)}

    def encode(self, piece: Piece) -> Tokens:
        """Tokens of a piece, Start and End included: `(time,)`."""
        index, config = self.vocabulary.index, self.config
        notes = piece.pitched
        notes = notes[(notes["pitch"] >= config.lowest) & (notes["pitch"] <= config.highest)]
        notes, metre_of_bar = self._snapped(self._part(notes), piece.metres)
        notes = self._part(notes)
        start, end = (
            notes[edge].astype(np.int64) // config.ticks_per_step for edge in ("start", "end")
        )
        lines = np.append(0, np.cumsum(self.bar_steps[metre_of_bar]))
        num_bars = int(np.searchsorted(lines, end.max(initial=0)))

        pitch = notes["pitch"].astype(np.int64) - config.lowest
        tokens, steps = self._written(start, end, pitch, int(lines[num_bars]))
        bar_rows = np.full((num_bars, 2), -1)
        bar_rows[:, 0] = self.bar
        changes = np.flatnonzero(np.diff(metre_of_bar[:num_bars])) + 1
        bar_rows[changes, 1] = self._first["Metre"] + metre_of_bar[changes]
        places = np.searchsorted(steps, lines[:num_bars])
        body = np.insert(tokens, np.repeat(places, 2), bar_rows.ravel())

        head = [START]
        for key in self.tag_keys:
            tag = f"Tag_{key}={piece.tags.get(key, '')}"
            head.append(index.get(tag, index[f"Tag_{key}="]))
        head.append(self._first["Metre"] + int(metre_of_bar[0]))
        return np.concatenate([head, body[body >= 0], [END]]).astype(np.uint16)

    def _snapped(self, notes: Notes, metres: Iterable[Metre]) -> tuple[Notes, Integers]:
        """Notes on steps of full bars, and the number of the metre of each bar: `(bars,)`.

        There are bars enough, and one or more without a note at the end.
        """
        ticks = self.config.ticks_per_step
        known = (metre for metre in metres if metre.name in self.config.metres)
        at = {metre.tick: metre for metre in (self.metres[0], *known)}
        metres = [next(alike) for _, alike in groupby(at.values(), key=lambda metre: metre.name)]
        lines = bar_lines(metres, int(notes["end"].max(initial=0)))
        in_force = np.searchsorted([m.tick for m in metres], lines, side="right") - 1
        metre_of_bar = np.array([self.config.metres.index(m.name) for m in metres])[in_force]
        full_lines = np.append(0, np.cumsum(self.bar_steps[metre_of_bar]))

        def nearest(ticks_into_bar: Integers) -> Integers:
            """Of two equally near steps the lower."""
            return (2 * ticks_into_bar + ticks - 1) // (2 * ticks)

        bar = np.searchsorted(lines, notes["start"], side="right") - 1
        place = nearest(notes["start"] - lines[bar])
        # An onset that rounds to the bar line belongs to the next bar.
        late = place * ticks >= np.diff(lines)[bar]
        start = full_lines[bar + late] + np.where(late, 0, place)
        # An end on the bar line belongs to the bar before, whose filling stays silent.
        bar = np.searchsorted(lines, notes["end"], side="left") - 1
        end = full_lines[bar] + nearest(notes["end"] - lines[bar])
        notes = notes.copy()
        notes["start"], notes["end"] = start * ticks, np.maximum(end, start + 1) * ticks
        return notes, metre_of_bar

    def decode(self, tokens: npt.NDArray[np.integer], *, strict: bool = False) -> Piece:
        """The piece that the tokens tell; tokens after End are not read.

        Without `strict` what makes no sense where it stands is passed over, and a bar with too few
        steps filled with silence, so that any sequence of ids gives a valid piece.

        Raises:
            ValueError: `strict`, and the grammar does not allow the sequence.
        """
        if strict:
            check_tokens(self, tokens)
        config, ids = self.config, self.vocabulary.ids
        until = np.append(np.flatnonzero(tokens == END), len(tokens))[0]
        read: Integers = np.asarray(tokens[:until], dtype=np.int64)

        bars = np.flatnonzero(read == self.bar)
        bar = np.cumsum(read == self.bar) - 1  # of each token; −1 in the head

        def in_bar(which: npt.NDArray[np.bool_]) -> Integers:
            """How many of `which` stand before each token in its bar, or in the head."""
            before: Integers = np.cumsum(which) - which
            return np.asarray(before - np.append(before[bars], 0)[bar])

        in_step = read > self.bar
        metre = read - ids("Metre").start
        says_metre = (
            (metre >= 0) & (metre < len(self.metres)) & ((bar < 0) | (in_bar(in_step) == 0))
        )
        said = np.append(0, np.full(len(bars), -1))
        said[bar[says_metre] + 1] = metre[says_metre]  # of several the last
        metre_of_bar = said[np.maximum.accumulate(np.where(said >= 0, np.arange(len(said)), 0))]
        sizes = self.bar_steps[metre_of_bar[1:]]
        lines = np.append(0, np.cumsum(sizes))

        place = in_bar(self._ends_step(read))
        heard = in_step & (bar >= 0)
        heard[heard] = place[heard] < sizes[bar[heard]]
        steps = lines[bar[heard]] + place[heard]
        start, end, pitch = self._read(read[heard], steps, int(lines[-1]))
        notes = np.zeros(len(start), dtype=NOTE)
        notes["start"], notes["end"] = start * config.ticks_per_step, end * config.ticks_per_step
        notes["pitch"] = config.lowest + pitch
        notes["velocity"], notes["program"] = config.velocity, config.program

        if len(bars):
            metre_of_bar = metre_of_bar[1:]
        changes = np.append(0, np.flatnonzero(np.diff(metre_of_bar)) + 1)
        tags = (
            self.vocabulary.names[token].removeprefix("Tag_").partition("=")
            for token in read[bar < 0].tolist()
            if token in ids("Tag")
        )
        return Piece(
            notes=notes,
            metres=tuple(
                self.metres[metre]._replace(tick=int(lines[at]) * config.ticks_per_step)
                for at, metre in zip(changes.tolist(), metre_of_bar[changes].tolist())
            ),
            tempos=(Tempo(0, config.tempo),),
            tags={key: value for key, _, value in tags if value},
        )

    @cached_property
    def grammar(self) -> Grammar:
        """Automaton of the sequences that `encode` can write."""
        return build_grammar(("begin",), self._moves, len(self.vocabulary))

    def _moves(self, state: tuple[Any, ...]) -> Iterable[tuple[range, tuple[Any, ...]]]:
        """Which tokens may come in a state, and the state they lead to.

        A state is named by what came last, the number of the metre, and what the next step has to
        know; inside a bar by the steps that are full, and whether anything sounded in them, too.
        """
        ids = self.vocabulary.ids
        match state:
            case ("begin",):
                yield range(START, START + 1), ("head", 0, True)
                yield range(CONTINUE, CONTINUE + 1), ("head", 0, False)
            case ("head", int(i), opens) if i < len(self.tag_keys):
                prefix = self.tag_keys[i] + "="
                for token, tag in zip(ids("Tag"), self.vocabulary.values("Tag")):
                    if tag.startswith(prefix):
                        yield range(token, token + 1), ("head", i + 1, opens)
            case ("head", _, opens):
                for metre, token in enumerate(ids("Metre")):
                    yield range(token, token + 1), ("metre", metre, opens)
            case ("metre", metre, True):
                # Were the metre to change at once, the head would have told it.
                yield range(self.bar, self.bar + 1), ("step", metre, 0, 0, False)
                yield range(END, END + 1), ("end",)
            case ("metre", metre, False):
                yield range(self.bar, self.bar + 1), ("bar", metre, self._going_on)
            case ("bar", metre, memory):
                for other, token in enumerate(ids("Metre")):
                    if other != metre:
                        yield range(token, token + 1), ("step", other, 0, memory, False)
                yield from self._moves(("step", metre, 0, memory, False))
            case ("step", metre, step, memory, sounded) if step < self.bar_steps[metre]:
                for run, ends, sounds, after in self._step_moves(memory):
                    yield run, ("step", metre, step + ends, after, sounded or sounds)
            case ("step", metre, _, memory, sounded):
                yield range(self.bar, self.bar + 1), ("bar", metre, memory)
                if sounded:
                    yield range(END, END + 1), ("end",)
            case ("end",):
                yield range(PAD, PAD + 1), ("end",)

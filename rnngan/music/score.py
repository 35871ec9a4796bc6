"""Pieces as notes on staves, drawn simply: heads, stems, flags, dots, ties, rests, accidentals.

Voices that lie above middle C on average share a staff in treble clef, the others one in bass clef.
Lengths that neither dots nor ties make, such as triplets, are drawn as the next shorter ones.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from rnngan.errors import UserError
from rnngan.files import write_atomically
from rnngan.music.keys import estimated_key
from rnngan.music.picture import DOTS_PER_INCH, INK
from rnngan.music.piece import DRUMS, Notes, Piece

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_BARS = 96
"""Of one picture; of a longer piece the beginning is drawn."""
_INCHES = 0.075  # from a line of a staff to the next, which is the unit of all places below
_WIDTH, _COLUMN, _BETWEEN_STAVES, _SYSTEM = 92.0, 2.7, 11.0, 14.0
_BOTTOM_LINE = {"treble": 37, "bass": 25}  # E4 and G2, in steps from C-1 up
_SHARPS, _FLATS = (45, 42, 46, 43, 40, 44, 41), (41, 44, 40, 43, 39, 42, 38)
"""Steps where signatures stand in treble clef."""
_CLEFS = {
    "treble": (
        (0.4, 0.7), (0.2, 1.1), (0.6, 1.5), (1.0, 1.0), (0.7, 0.2), (0.1, 0.1), (-0.4, 0.8),
        (-0.2, 1.9), (0.5, 3.0), (0.85, 4.1), (0.6, 5.0), (0.3, 4.2), (0.5, 2.0), (0.75, -0.7),
        (0.5, -1.4), (0.1, -1.2),
    ),
    "bass": ((0.1, 2.9), (0.0, 3.5), (0.6, 4.0), (1.2, 3.3), (0.9, 1.9), (-0.2, 0.7)),
}  # fmt: skip
_CLEF_DOTS = {
    "treble": [(1.3, -1.2, 0.25)],
    "bass": [(1.3, 3, 0.3), (2.9, 3.4, 0.16), (2.9, 2.6, 0.16)],
}
_VALUES = sorted(
    [(96 >> k, k, 0) for k in range(6)] + [((96 >> k) * 3 // 2, k, 1) for k in range(6)],
    reverse=True,
)
"""Ticks, how often a whole note is halved, and dots."""


@dataclass(frozen=True, kw_only=True)
class _Symbol:
    """A note, chord or rest (no pitches) of one value; `tied` to the next one of its voice."""

    start: int
    halvings: int
    dots: int
    pitches: tuple[int, ...]
    tied: bool


def score_png(piece: Piece, path: Path, *, title: str = "") -> None:
    """Write the score of a piece as a PNG picture; of a long one the first `MAX_BARS` bars.

    Raises:
        UserError: It has no notes but drums, or the file cannot be written.
    """
    if not len(piece.pitched):
        raise UserError("there is no score of a piece without notes")
    from matplotlib.figure import Figure

    lines = piece.bar_lines()[: MAX_BARS + 1]
    staves = [(clef, [list(_symbols(v, lines)) for v in voices]) for clef, voices in _staves(piece)]
    onsets = np.unique([s.start for _, voices in staves for voice in voices for s in voice])
    fifths = _fifths(piece)
    head = 6.0 + abs(fifths)
    room = _WIDTH - 5 - head
    widths = 1.5 + _COLUMN * np.diff(np.searchsorted(onsets, lines))
    systems: list[list[int]] = [[]]
    for bar, width in enumerate(widths):
        if systems[-1] and widths[systems[-1]].sum() + width > room:
            systems.append([])
        systems[-1].append(bar)
    depth = _BETWEEN_STAVES * (len(staves) - 1)
    height = (_SYSTEM + depth) * len(systems)
    figure = Figure(figsize=(_WIDTH * _INCHES, (height + 4) * _INCHES), dpi=DOTS_PER_INCH)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(-2, _WIDTH - 2), ylim=(4 - height, 8))
    axes.set_axis_off()
    axes.text(0, 5.2, title, fontsize=10, fontweight="bold", color=INK, parse_math=False)
    for number, bars in enumerate(systems):
        y = -4 - number * (_SYSTEM + depth)
        stretch = room / widths[bars].sum()
        if bars is systems[-1]:
            stretch = min(stretch, 1.4)
        edges = head + stretch * np.cumsum([0, *widths[bars]])
        places: dict[int, float] = {}
        for bar, left in zip(bars, edges):
            inside = onsets[(onsets >= lines[bar]) & (onsets < lines[bar + 1])].tolist()
            places |= {tick: left + stretch * (1.8 + _COLUMN * k) for k, tick in enumerate(inside)}
        axes.vlines([0, *edges[1:]], y - depth, y + 4, color=INK, linewidth=0.8)
        axes.text(0, y + 4.8, str(bars[0] + 1), fontsize=6, color=INK)
        for k, (clef, voices) in enumerate(staves):
            staff = _Staff(axes=axes, clef=clef, y=y - _BETWEEN_STAVES * k, fifths=fifths)
            staff.draw_head(float(edges[-1]))
            for metre in piece.metres:
                bar = int(np.searchsorted(lines, metre.tick)) - bars[0]
                if 0 <= bar < len(bars):
                    x = float(edges[bar]) + (0.2 if bar else -0.7)
                    staff.draw_text(x, 3, str(metre.numerator), weight="bold")
                    staff.draw_text(x, 1, str(metre.denominator), weight="bold")
            staff.draw_voices(voices, lines[bars[0] : bars[-1] + 2].tolist(), places)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DOTS_PER_INCH)
    write_atomically(path, file.getvalue())


def _staves(piece: Piece) -> list[tuple[str, list[Notes]]]:
    """Clef and voices of each staff, the highest first."""
    notes = piece.notes[piece.notes["program"] != DRUMS]
    part = notes["track"].astype(int) << 8 | notes["program"]
    voices = [notes[part == number] for number in np.unique(part)]
    voices.sort(key=lambda voice: -float(voice["pitch"].mean()))
    high = sum(float(voice["pitch"].mean()) >= 60 for voice in voices)
    staves = [("treble", voices[:high]), ("bass", voices[high:])]
    return [(clef, voices) for clef, voices in staves if voices]


def _symbols(voice: Notes, lines: npt.NDArray[np.int64]) -> Iterator[_Symbol]:
    """What stands on the staff for the notes of a voice and the silence between them."""
    free, until = 0, int(lines[-1])
    rows = sorted(zip(voice["start"].tolist(), voice["end"].tolist(), voice["pitch"].tolist()))
    for (start, end), chord in groupby(rows, key=lambda row: row[:2]):
        if start < until:
            yield from _values((), free, start, lines)
            yield from _values(tuple(pitch for *_, pitch in chord), start, min(end, until), lines)
            free = max(free, end)
    yield from _values((), free, until, lines)


def _values(
    pitches: tuple[int, ...], start: int, end: int, lines: npt.NDArray[np.int64]
) -> Iterator[_Symbol]:
    """One symbol, or several that are tied, cut at the bar lines; nothing for less than a 32nd."""
    for first, last in pairwise([start, *lines[(lines > start) & (lines < end)].tolist(), end]):
        while last - first >= 3:
            ticks, halvings, dots = next(value for value in _VALUES if value[0] <= last - first)
            goes_on = last - first - ticks >= 3
            yield _Symbol(
                start=first,
                halvings=halvings,
                dots=dots,
                pitches=pitches,
                tied=bool(pitches) and (goes_on or last < end),
            )
            first += ticks


def _fifths(piece: Piece) -> int:
    """Sharps of the key signature; below 0 flats."""
    tonic, mode = estimated_key(piece) or (0, "major")
    return (7 * (tonic + (3 if mode == "minor" else 0)) + 5) % 12 - 5


def spelled(pitch: int, fifths: int) -> tuple[int, int]:
    """Step (C-1 is 0, C4 35) and accidental (-1 a flat) of a MIDI pitch in a key.

    Args:
        pitch: 0 to 127.
        fifths: Sharps of the key signature, below 0 flats.
    """
    # On the line of fifths, where C is 0 and F -1: from a minor third to a raised fifth of major.
    place = (7 * pitch - fifths + 3) % 12 + fifths - 3
    alter, letter = (place + 1) // 7, 4 * place % 7
    octave = (pitch - alter - (0, 2, 4, 5, 7, 9, 11)[letter]) // 12
    return 7 * octave + letter, alter


@dataclass(frozen=True, kw_only=True)
class _Staff:
    """A staff of one system, its bottom line at height `y`; all else is told from there."""

    axes: Axes
    clef: str
    y: float
    fifths: int

    def height(self, step: int) -> float:
        """Of a step above the bottom line."""
        return (step - _BOTTOM_LINE[self.clef]) / 2

    def draw_text(self, x: float, y: float, text: str, weight: str = "normal") -> None:
        """Draw a sign or a number."""
        self.axes.text(
            x, self.y + y, text, fontsize=11, fontweight=weight, color=INK, ha="center",
            va="center_baseline",
        )  # fmt: skip

    def draw_line(self, xs: npt.ArrayLike, ys: npt.ArrayLike, width: float) -> None:
        """Draw from point to point."""
        self.axes.plot(np.asarray(xs), self.y + np.asarray(ys), color=INK, linewidth=width)

    def draw_dot(self, x: float, y: float, radius: float = 0.17) -> None:
        """Draw a full circle."""
        from matplotlib.patches import Circle

        self.axes.add_patch(Circle((x, self.y + y), radius, color=INK, linewidth=0))

    def draw_head(self, right: float) -> None:
        """Draw lines, clef and key signature."""
        from scipy.interpolate import make_interp_spline

        self.axes.hlines(self.y + np.arange(5), 0, right, color=INK, linewidth=0.5)
        points = np.array(_CLEFS[self.clef])
        shape = make_interp_spline(np.arange(len(points)), points)(
            np.linspace(0, len(points) - 1, 20 * len(points))
        )
        self.draw_line(1.2 + shape[:, 0], shape[:, 1], 1.4)
        for dot in _CLEF_DOTS[self.clef]:
            self.draw_dot(*dot)
        for k, step in enumerate(self._signature()):
            self.draw_text(4.0 + k, self.height(step), "♯" if self.fifths > 0 else "♭")

    def _signature(self) -> list[int]:
        steps = (_SHARPS if self.fifths > 0 else _FLATS)[: abs(self.fifths)]
        return [step - (0 if self.clef == "treble" else 14) for step in steps]

    def draw_voices(
        self, voices: Sequence[Sequence[_Symbol]], lines: list[int], places: dict[int, float]
    ) -> None:
        """Draw what of the voices stands between these bar lines, each tick at its place."""
        said: dict[tuple[int, int], int] = {}
        of_key = {step % 7: int(np.sign(self.fifths)) for step in self._signature()}
        taken: dict[int, set[int]] = {}
        order = sorted(
            (s.start, k, i)
            for k, voice in enumerate(voices)
            for i, s in enumerate(voice)
            if lines[0] <= s.start < lines[-1]
        )
        for start, k, i in order:
            symbol, x = voices[k][i], places[start]
            up = k == 0 if len(voices) > 1 else None
            if not symbol.pitches:
                self._draw_rest(x, 2 + (0 if up is None else 2 if up else -2), symbol)
                continue
            notes = [spelled(pitch, self.fifths) for pitch in symbol.pitches]
            beside = taken.setdefault(start, set())
            if any(abs(step - other) == 1 for step, _ in notes for other in beside):
                x += 1.25
            beside |= {step for step, _ in notes}
            bar = int(np.searchsorted(lines, start, side="right"))
            for step, alter in notes:
                if said.get((bar, step), of_key.get(step % 7, 0)) != alter:
                    sign = {-2: "♭♭", -1: "♭", 0: "♮", 1: "♯", 2: "×"}[alter]
                    self.draw_text(x - 1.25, self.height(step), sign)
                said[bar, step] = alter
            heights = [self.height(step) for step, _ in notes]
            up = sum(heights) / len(heights) < 2 if up is None else up
            self._draw_chord(x, heights, symbol, up)
            if symbol.tied:
                to = places.get(voices[k][i + 1].start, x + 3)
                share = np.linspace(0, 1, 20)
                bow = (1 if up else -1) * (0.6 + 2.4 * share * (1 - share))
                self.draw_line(x + 0.5 + (to - x - 1) * share, heights[-1 if up else 0] + bow, 0.9)

    def _draw_chord(self, x: float, heights: list[float], symbol: _Symbol, up: bool) -> None:
        from matplotlib.patches import Ellipse

        whole = symbol.halvings == 0
        for y in heights:
            for ledger in [*range(-1, int(np.ceil(y)) - 1, -1), *range(5, int(y) + 1)]:
                self.draw_line([x - 1, x + 1], [ledger, ledger], 0.6)
            self.axes.add_patch(
                Ellipse(
                    (x, self.y + y), 1.5 if whole else 1.25, 0.85, angle=0 if whole else 22,
                    facecolor=INK if symbol.halvings > 1 else "white", edgecolor=INK, linewidth=0.9,
                    zorder=3,
                )
            )  # fmt: skip
            if symbol.dots:
                self.draw_dot(x + 1.15, y + (0.5 if y == int(y) else 0))
        if whole:
            return
        side, way = (x + 0.58, 1) if up else (x - 0.58, -1)
        tip = way * 3.3 + (max(heights) if up else min(heights))
        self.draw_line([side, side], [min(heights) if up else max(heights), tip], 0.8)
        for flag in range(symbol.halvings - 2):
            y = tip - way * 0.8 * flag
            shape = [y, y - way * 0.7, y - way * 1.2, y - way * 2.2]
            self.draw_line([side, side + 0.5, side + 0.95, side + 0.75], shape, 1.1)

    def _draw_rest(self, x: float, y: float, symbol: _Symbol) -> None:
        from matplotlib.patches import Rectangle

        if symbol.halvings < 2:
            low = self.y + y + (0.5 if symbol.halvings == 0 else 0)
            self.axes.add_patch(Rectangle((x - 0.6, low), 1.2, 0.5, color=INK, linewidth=0))
        elif symbol.halvings == 2:
            xs = [x - 0.3, x + 0.3, x - 0.3, x + 0.4, x - 0.2]
            self.draw_line(xs, [y + 1.3, y + 0.6, y, y - 0.7, y - 1.3], 1.4)
        else:
            self.draw_line([x + 0.5, x - 0.1], [y + 0.7, y - 1.2], 0.9)
            for flag in range(symbol.halvings - 2):
                low = y + 0.4 - 0.7 * flag
                self.draw_line([x - 0.5, x, x + 0.4], [low, low - 0.2, low + 0.2], 1.1)
        if symbol.dots:
            self.draw_dot(x + 1, y + 0.4)

"""Pictures of pieces: piano rolls, and what a generator looked back at, as PNG files or pixels."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from rnngan.errors import UserError
from rnngan.files import write_atomically
from rnngan.music.piece import DRUMS, TICKS_PER_QUARTER, Notes, Piece
from rnngan.music.tokenizers.base import Tokenizer
from rnngan.music.vocabulary import Tokens

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#2a6fbb", "#e0662f", "#2e9c76", "#8c5fbf", "#c39a16", "#cc4a7d", "#3aa6c4", "#8d6e55")
"""Of the voices in order of track and program, then again from the first."""
DRUM_COLOUR = "#5b6470"
INK, FAINT_INK = "#252a33", "#7a828e"
BAR_LINE, BEAT_LINE, BLACK_KEY = "#c3c9d1", "#e4e7eb", "#f1f3f5"
DOTS_PER_INCH = 150
MAX_ROLLS = 24
"""Of one picture; more would take hundreds of megabytes."""
NOTE_NAMES = ("C", "C♯", "D", "D♯", "E", "F", "F♯", "G", "G♯", "A", "A♯", "B")


def note_name(pitch: int) -> str:
    """Name of a MIDI pitch with its octave; 60 is C4."""
    return f"{NOTE_NAMES[pitch % 12]}{pitch // 12 - 1}"


def piano_roll_png(pieces: Sequence[Piece], titles: Sequence[str], path: Path) -> None:
    """Write the piano rolls of pieces as a PNG picture, one below the other on one scale of time.

    Raises:
        UserError: There are no pieces, more than `MAX_ROLLS`, or not one title for each; or the
            file cannot be written.
    """
    if not 1 <= len(pieces) <= MAX_ROLLS:
        raise UserError(f"a picture shows 1 to {MAX_ROLLS} pieces, got {len(pieces)}")
    if len(titles) != len(pieces):
        raise UserError(f"titles must be one per piece, got {len(titles)} for {len(pieces)} pieces")
    heights = [min(0.8 + 0.07 * _Rows.of(piece).num_rows, 6.0) for piece in pieces]
    end = max(int(piece.bar_lines()[-1]) for piece in pieces)
    width = min(max(8.0, end / TICKS_PER_QUARTER / 12), 16.0)
    figure = _figure(width, sum(heights))
    grid = figure.subplots(len(pieces), squeeze=False, height_ratios=heights)
    for axes, piece, title in zip(grid[:, 0], pieces, titles):
        draw_piano_roll(axes, piece, title=title, end=end)
    file = io.BytesIO()
    with _quiet_fonts():
        figure.savefig(file, format="png", dpi=DOTS_PER_INCH)
    write_atomically(path, file.getvalue())


def piano_roll_image(
    piece: Piece, *, title: str = "", width: int = 1200, height: int = 400
) -> npt.NDArray[np.uint8]:
    """Piano roll of a piece as pixels, `(height, width, 3)`: red, green, blue.

    Raises:
        UserError: `width` is not 400 to 10,000, or `height` not 200 to 10,000.
    """
    for name, size, least in (("width", width, 400), ("height", height, 200)):
        if not least <= size <= 10_000:
            raise UserError(f"{name} must be {least} to 10000 pixels, got {size}")
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = _figure(width / DOTS_PER_INCH, height / DOTS_PER_INCH)
    canvas = FigureCanvasAgg(figure)
    draw_piano_roll(figure.subplots(), piece, title=title)
    with _quiet_fonts():
        canvas.draw()
    return np.array(canvas.buffer_rgba(), dtype=np.uint8)[..., :3]


def attention_png(
    tokenizer: Tokenizer,
    tokens: Tokens,
    weights: npt.NDArray[np.floating],
    path: Path,
    *,
    title: str = "",
) -> None:
    """Write a picture of attention weights between a piece's piano rolls.

    From top to bottom the piece is written, from left to right it is looked back at, both to the
    scale of musical time. A cell is the share of the attention that all tokens of what begins at
    one tick get (see `onsets_of_tokens`) while what begins at another is written, the mean over its
    tokens; the rows of what is shown add up to 1. Colours show the square root of the share.

    Args:
        tokenizer: Whose tokens they are.
        tokens: Of the piece, `(time,)`.
        weights: `(time, place)`; row `t` is what is looked at when token `t + 1` is chosen.
        path: Of the PNG file.
        title: Stands above.

    Raises:
        UserError: The piece has no notes, or the file cannot be written.
    """
    piece = tokenizer.decode(tokens)
    if not len(piece.notes):
        raise UserError("a piece without notes has no picture of its attention")
    from matplotlib.colors import PowerNorm

    onsets = onsets_of_tokens(tokenizer, tokens)
    ticks, shares = attention_between_onsets(onsets, weights)
    bar_lines = piece.bar_lines()
    end = max(int(bar_lines[-1]), int(ticks[-1]) + 1)
    edges = np.append(ticks, end)

    figure = _figure(9.6, 9.6)
    grid = figure.subplots(
        2, 2, sharex="col", sharey="row", width_ratios=(1, 6), height_ratios=(1, 6)
    )
    (corner, above), (beside, matrix) = grid
    corner.set_axis_off()
    seen = np.ma.masked_equal(shares, 0)  # what is not written yet stays white
    norm = PowerNorm(0.5, 0, float(shares.max()))
    mesh = matrix.pcolormesh(edges, edges, seen, cmap="magma_r", norm=norm)
    draw_piano_roll(above, piece, title=title, end=end)
    above.tick_params(labelbottom=False, labelleft=True)
    _draw_roll_downwards(beside, piece, end)
    lined = bar_lines[:: 1 + len(bar_lines) // 48]
    matrix.vlines(lined, 0, end, color=BAR_LINE, linewidth=0.4)
    matrix.hlines(lined, 0, end, color=BAR_LINE, linewidth=0.4)
    numbered = bar_lines[:-1][:: 1 + len(bar_lines) // 24]
    names = [str(int(np.searchsorted(bar_lines, tick)) + 1) for tick in numbered]
    matrix.set_xticks(numbered, names)
    beside.set_yticks(numbered, names)
    matrix.set_xlabel("looked back at (bar)", fontsize=9, color=FAINT_INK)
    beside.set_ylabel("written (bar)", fontsize=9, color=FAINT_INK)
    bar = figure.colorbar(mesh, ax=matrix, fraction=0.03, pad=0.01)
    bar.set_label("share of attention", fontsize=9, color=FAINT_INK)
    for axes in (matrix, beside, bar.ax):
        axes.tick_params(length=0, labelsize=8, colors=FAINT_INK, pad=3)
        for side in axes.spines.values():
            side.set_visible(False)
    file = io.BytesIO()
    with _quiet_fonts():
        figure.savefig(file, format="png", dpi=DOTS_PER_INCH)
    write_atomically(path, file.getvalue())


def onsets_of_tokens(tokenizer: Tokenizer, tokens: Tokens) -> npt.NDArray[np.int64]:
    """Tick where the note begins that each token belongs to, `(time,)`.

    A token belongs to the note that it makes or changes; where it does neither, to the next that is
    made or changed after it, and at the end of the piece to the last.
    """
    onsets = np.full(len(tokens), -1)
    velocities = tokenizer.vocabulary.ids("Velocity")
    before: set[tuple[int, ...]] = set()
    for time in range(len(tokens)):
        # Tracks are numbered anew when one is added, which changes no note.
        notes = tokenizer.decode(tokens[: time + 1]).notes
        now = set(map(tuple, notes[["start", "end", "pitch", "velocity", "program"]].tolist()))
        if now - before:
            onsets[time] = max(note[0] for note in now - before)
        elif time and tokens[time] in velocities:
            onsets[time] = onsets[time - 1]  # it may be what decoding took for granted
        before = now
    known = np.flatnonzero(onsets >= 0)
    if not len(known):
        return np.zeros(len(tokens), dtype=np.int64)
    following = np.minimum(np.searchsorted(known, np.arange(len(tokens))), len(known) - 1)
    return onsets[known[following]]


def attention_between_onsets(
    onsets: npt.NDArray[np.integer], weights: npt.NDArray[np.floating]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Distinct onsets `(onsets,)`, and the share that each looks at each, `(onsets, onsets)`.

    Args:
        onsets: Of each token, `(time,)`.
        weights: `(time, place)`, as in `attention_png`.
    """
    ticks, group = np.unique(onsets, return_inverse=True)
    one_hot = np.eye(len(ticks))[group]
    written, seen = one_hot[1:], one_hot[:-1]
    count = np.maximum(written.sum(0), 1)[:, None]
    return ticks, written.T @ weights[:-1, :-1] @ seen / count


def _draw_roll_downwards(axes: Axes, piece: Piece, end: int) -> None:
    """Draw a piece's notes with time going down and pitches to the right."""
    from matplotlib.collections import PolyCollection

    rows = _Rows.of(piece)
    axes.set_xlim(rows.bottom - 0.5, rows.top + 0.5)
    axes.set_ylim(end, 0)
    corners, colours = _note_shapes(piece.notes, rows, end)
    axes.add_collection(
        PolyCollection(list(corners[..., ::-1]), facecolors=colours, linewidths=0, zorder=2)
    )
    bar_lines = piece.bar_lines()
    lined = bar_lines[:: 1 + len(bar_lines) // 48]
    axes.hlines(lined, *axes.get_xlim(), color=BAR_LINE, linewidth=0.8, zorder=1)
    named = [pitch for pitch in range(rows.low, rows.high + 1) if pitch % 12 == 0]
    axes.set_xticks(named, [note_name(pitch) for pitch in named])


def draw_piano_roll(axes: Axes, piece: Piece, *, title: str = "", end: int | None = None) -> None:
    """Draw a piece on empty axes: bars to the right, pitches upwards, drums in lanes below them.

    Colours tell tracks and programs apart; the louder a note, the denser its colour.

    Args:
        axes: Of matplotlib.
        piece: May be without notes.
        title: Stands above on the left, shortened to the width of the axes.
        end: Tick at the right edge; by default the end of the last bar.
    """
    rows = _Rows.of(piece)
    bar_lines = piece.bar_lines()
    axes.set_xlim(0, end or int(bar_lines[-1]) or 1)
    axes.set_ylim(rows.bottom - 0.5, rows.top + 0.5)
    _draw_keys(axes, rows, int(bar_lines[-1]))
    _draw_bars(axes, piece, bar_lines)
    _draw_notes(axes, piece.notes, rows)
    inches = axes.bbox.width / axes.figure.dpi
    title = _shortened(" ".join(title.split()), int(inches / 0.1))
    _draw_legend(axes, piece, inches - 0.1 * len(title))
    axes.set_title(
        title, loc="left", fontsize=10, fontweight="bold", color=INK, pad=7, parse_math=False
    )
    if not len(piece.notes):
        axes.text(0.5, 0.5, "no notes", transform=axes.transAxes, color=FAINT_INK, ha="center")
    for side in axes.spines.values():
        side.set_visible(False)
    axes.tick_params(length=0, labelsize=8, colors=FAINT_INK, pad=3)


class _Rows(NamedTuple):
    """Rows of a piano roll: one per pitch, and below them one per drum that is used."""

    low: int
    high: int
    drums: tuple[int, ...]

    @staticmethod
    def of(piece: Piece) -> _Rows:
        pitches = piece.pitched["pitch"]
        drums = np.unique(piece.notes["pitch"][piece.notes["program"] == DRUMS])
        low, high = (int(pitches.min()), int(pitches.max())) if len(pitches) else (60, 72)
        missing = max(0, 12 - (high - low))  # an octave at least
        low = max(0, low - missing // 2 - 1)
        high = min(127, high + (missing + 1) // 2 + 1)
        return _Rows(low, high, tuple(drums.tolist()))

    @property
    def bottom(self) -> int:
        """Lowest row; one stays empty between drums and pitches."""
        return self.low - (len(self.drums) + 1 if self.drums else 0)

    @property
    def top(self) -> int:
        """Highest row; three stay empty for the metres."""
        return self.high + 3

    @property
    def num_rows(self) -> int:
        return self.top - self.bottom + 1

    def place(self, notes: Notes) -> npt.NDArray[np.int64]:
        """Row of each note, `(notes,)`."""
        lanes = self.bottom + np.searchsorted(np.array(self.drums, dtype=int), notes["pitch"])
        return np.where(notes["program"] == DRUMS, lanes, notes["pitch"])


def _voices(notes: Notes) -> list[tuple[int, int, str]]:
    """Track, program and colour of each voice."""
    pairs = sorted(set(zip(notes["track"].tolist(), notes["program"].tolist())))
    pitched = [pair for pair in pairs if pair[1] != DRUMS]
    return [
        (*pair, DRUM_COLOUR if pair[1] == DRUMS else COLOURS[pitched.index(pair) % len(COLOURS)])
        for pair in pairs
    ]


def _draw_keys(axes: Axes, rows: _Rows, end: int) -> None:
    """Shade the black keys and name some white ones."""
    for pitch in range(rows.low, rows.high + 1):
        if NOTE_NAMES[pitch % 12].endswith("♯"):
            axes.fill_between([0, end], pitch - 0.5, pitch + 0.5, color=BLACK_KEY, linewidth=0)
    named = "CEG" if rows.high - rows.low <= 26 else "C"
    ticks: list[float] = [p for p in range(rows.low, rows.high + 1) if NOTE_NAMES[p % 12] in named]
    names = [note_name(int(pitch)) for pitch in ticks]
    if rows.drums:
        ticks.append(rows.bottom + (len(rows.drums) - 1) / 2)
        names.append("drums")
        axes.axhline(rows.low - 1, color=BAR_LINE, linewidth=0.8)
    axes.set_yticks(ticks, names)


def _draw_bars(axes: Axes, piece: Piece, bar_lines: npt.NDArray[np.int64]) -> None:
    """Draw bar lines, beats where there is room, bar numbers and metres."""
    left, right = axes.get_xlim()
    bottom, top = axes.get_ylim()
    num_bars = len(bar_lines) - 1
    mean_share = float(bar_lines[-1]) / max(num_bars, 1) / (right - left)
    # Numbers, and beyond that the lines too, stand at every 1st, 2nd, 4th, 8th, ... bar.
    numbered = 1 << max(0, math.ceil(math.log2(0.035 / mean_share))) if num_bars else 1
    lined = max(1, numbered // 4)
    axes.vlines(bar_lines[::lined], bottom, top, color=BAR_LINE, linewidth=0.8, zorder=1)
    if mean_share > 0.04:
        beats = [
            np.arange(start, stop, 4 * TICKS_PER_QUARTER / piece.metre_at(start).denominator)[1:]
            for start, stop in zip(bar_lines[:-1].tolist(), bar_lines[1:].tolist())
        ]
        axes.vlines(np.concatenate(beats), bottom, top, color=BEAT_LINE, linewidth=0.6, zorder=1)
    last = right - 0.02 * (right - left)  # a number further right would be cut off
    bars = [i for i in range(0, num_bars, numbered) if i == 0 or bar_lines[i] < last]
    axes.set_xticks(bar_lines[bars], [str(i + 1) for i in bars], ha="left")
    free = 0.0
    for metre in piece.metres:
        if free <= metre.tick < right:
            axes.annotate(
                f"{metre.numerator}\n{metre.denominator}",  # one above the other, as in a score
                (metre.tick, top - 0.3),
                (2, 0),
                textcoords="offset points",
                color=FAINT_INK,
                fontsize=6.5,
                linespacing=0.9,
                va="top",
                multialignment="center",
            )
            free = metre.tick + 0.018 * (right - left)


def _draw_notes(axes: Axes, notes: Notes, rows: _Rows) -> None:
    """Draw every note as a bar from its start to its end."""
    from matplotlib.collections import PolyCollection

    left, right = axes.get_xlim()
    corners, colours = _note_shapes(notes, rows, right - left)
    axes.add_collection(PolyCollection(list(corners), facecolors=colours, linewidths=0, zorder=2))


def _note_shapes(
    notes: Notes, rows: _Rows, span: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Corners `(notes, 4, 2)` of each note, tick and row, and colours `(notes, 3)`.

    `span` is how many ticks the picture shows. The first track comes last, to lie on top.
    """
    from matplotlib.colors import to_rgb

    colours = np.empty((len(notes), 3))
    for track, program, colour in _voices(notes):
        colours[(notes["track"] == track) & (notes["program"] == program)] = to_rgb(colour)
    # Mixed with white, not transparent: overlapping voices keep their colours.
    strength = 0.35 + 0.65 * notes["velocity"][:, None] / 127
    colours = 1 - strength * (1 - colours)

    unit = span / 1000
    sizes = notes["end"] - notes["start"]
    # A sliver is left out before the next note; the shortest notes are widened to be seen.
    sizes = np.maximum(sizes - np.minimum(0.12 * sizes, 0.8 * unit), 1.5 * unit)
    row = rows.place(notes)
    start, end, low, high = notes["start"], notes["start"] + sizes, row - 0.42, row + 0.42
    corners = np.stack([start, low, start, high, end, high, end, low], axis=1).reshape(-1, 4, 2)
    order = np.argsort(-notes["track"].astype(int), kind="stable")
    return corners[order], colours[order]


def _draw_legend(axes: Axes, piece: Piece, room: float) -> None:
    """Name several voices above on the right, as many as fit into `room` inches."""
    from matplotlib.patches import Patch

    voices = _voices(piece.notes)
    if len(voices) < 2:
        return
    names = _voice_names(piece)
    widths = np.cumsum([0.4 + 0.07 * len(name) for name in names])  # inches
    fit = int(np.searchsorted(widths, room))
    if fit < len(names):
        names = [*names[:fit], f"+ {len(names) - fit}"]
    colours = [colour for *_, colour in voices[:fit]] + ["none"]
    legend = axes.legend(
        [Patch(color=colour) for colour in colours[: len(names)]],
        names,
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=len(names),
        fontsize=8,
        frameon=False,
        handlelength=0.9,
        handleheight=0.9,
        columnspacing=1.2,
        borderaxespad=0.1,
        labelcolor=FAINT_INK,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _voice_names(piece: Piece) -> list[str]:
    """Name of each voice: its track's, or else its instrument's; namesakes are numbered."""
    import pretty_midi

    names = []
    for track, program, _ in _voices(piece.notes):
        name = piece.track_names[track] if track < len(piece.track_names) else ""
        name = " ".join(name.split())
        if not name:
            name = "Drums" if program == DRUMS else pretty_midi.program_to_instrument_name(program)
        names.append(_shortened(name, 22))
    return [
        f"{name} {names[: i + 1].count(name)}" if names.count(name) > 1 else name
        for i, name in enumerate(names)
    ]


def _shortened(text: str, size: int) -> str:
    return text if len(text) <= size else f"{text[: size - 1]}…"


def _figure(width_inches: float, height_inches: float) -> Figure:
    """A blank figure, known to no window system and no global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width_inches, height_inches), dpi=DOTS_PER_INCH, layout="constrained")


@contextmanager
def _quiet_fonts() -> Iterator[None]:
    """Let a letter that the font lacks be drawn as a box, without a warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield

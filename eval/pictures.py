"""Pictures of an evaluation, as PNG files in memory."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eval.distances import covering_grid, nearest, smooth
from eval.evaluation import Column, Evaluation, Row
from eval.features import FEATURES
from eval.features.spans import chroma
from eval.features.structure import ALIKE, frame_lines, self_similarity, structure
from eval.gallery import Gallery, Kind, Selection, opening
from eval.wording import number
from rnngan.music.picture import draw_piano_roll
from rnngan.music.piece import Piece

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

INK, FAINT, REAL = "#222222", "#9a9a9a", "#4a4a4a"
FAKES = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#b8860b")
"""Also distinct to colour-blind eyes; after Okabe and Ito."""
PICTURES = ("summary", "distributions", "histograms", "transitions", "self_similarity")
STYLE = {
    "font.size": 8.0,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "text.parse_math": False,  # names of files may hold $
}
MIN_STEM_GAP = 1 / 30
"""Of its range, at least, between the values of a number that has them drawn one by one."""
DOTS_PER_INCH = 130
MOST_BARS = 26
"""Histograms of more bins are outlines."""
MATRIX_SIZE = 12
NEAREST, FARTHEST = 0.1, 100.0
"""Ends of the summary's axis."""
COMPARED: tuple[Kind, ...] = ("typical", "best", "worst")
"""Pieces of a generated side whose self-similarity stands beside that of a typical real one."""
SHORTEST_REPEAT = 3.0
"""Seconds, as in the features."""
MOST_BAR_NUMBERS = 8
LONGEST_TITLE = 30


def pictures(evaluation: Evaluation, gallery: Gallery) -> dict[str, bytes]:
    """PNG files by name, those of `PICTURES` for which there is something to show."""
    from matplotlib import rc_context

    columns = [
        row.column
        for row in evaluation.rows_of(evaluation.fakes[0])
        if row.real.count and row.column.group != "copying"
    ]
    scalars = [column for column in columns if column.kind == "scalar"]
    matrices = [column for column in columns if len(column.bins) == MATRIX_SIZE**2]
    others = [column for column in columns if column not in scalars and column not in matrices]
    with rc_context(STYLE):
        drawn = {"summary": _summary(evaluation)}
        if scalars:
            drawn["distributions"] = _distributions(evaluation, scalars)
        if others:
            drawn["histograms"] = _histograms(evaluation, others)
        if matrices:
            drawn["transitions"] = _transitions(evaluation, matrices)
        if panels := _similarity_panels(gallery):
            drawn["self_similarity"] = _self_similarity(panels)
        return {name: _png(figure) for name, figure in drawn.items()}


def piano_roll(piece: Piece, *, seconds: float) -> bytes:
    """PNG file of the opening of a piece; a dotted line stands where so many seconds have passed.

    The piece may be without notes.
    """
    from matplotlib import rc_context

    piece = opening(piece)
    with rc_context(STYLE):
        figure = _canvas(10.5, 2.4, layout=None)  # to find margins takes as long as to draw
        axes = figure.add_axes((0.035, 0.09, 0.955, 0.8))
        draw_piano_roll(axes, piece)
        ticks = np.arange(piece.end + 1)
        if piece.seconds_at(piece.end) > seconds:
            axes.axvline(np.interp(seconds, piece.seconds_at(ticks), ticks), color=INK, ls=":")
        return _png(figure)


def _canvas(
    width: float, height: float, *, layout: Literal["constrained"] | None = "constrained"
) -> Figure:
    """A figure of a size in inches that pyplot knows nothing of, and so never has to be closed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():  # a letter that the font lacks is drawn as a box
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        # Without the program's version in it, equal evaluations give equal bytes. Unlike savefig
        # this draws only once.
        figure.canvas.print_png(file, metadata={"Software": None})  # type: ignore[attr-defined]
    return file.getvalue()


def _legend(figure: Figure, evaluation: Evaluation, *, real: bool = True) -> None:
    from matplotlib.patches import Patch

    sides = [Patch(color=REAL, label=f"{evaluation.real.name} (real)")] if real else []
    sides += [
        Patch(color=colour, label=side.name)
        for side, colour in zip(evaluation.fakes, _colours(evaluation))
    ]
    where = "outside upper left" if figure.get_layout_engine() else "upper left"
    figure.legend(handles=sides, loc=where, ncols=len(sides), fontsize=9)


def _colours(evaluation: Evaluation) -> list[str]:
    return [FAKES[i % len(FAKES)] for i in range(len(evaluation.fakes))]


def _panels(figure: Figure, count: int, columns: int) -> list[Axes]:
    """As many plots in a grid; the places left over stay blank."""
    places = figure.subplots(-(-count // columns), columns, squeeze=False).ravel().tolist()
    for axes in places[count:]:
        axes.set_visible(False)
    return places[:count]


def _summary(evaluation: Evaluation) -> Figure:
    """How far each feature lies from real music, in units of real against real."""
    names = list(dict.fromkeys(row.column.name for row in evaluation.rows))
    places = {name: place for place, name in enumerate(names)}
    figure = _canvas(9, 1.5 + 0.19 * len(names))
    axes = figure.subplots()
    axes.axvspan(NEAREST / 2, 1, color="#e4efe4", lw=0)
    axes.axvline(1, color="#7aa37a", lw=1)
    for index, (side, colour) in enumerate(zip(evaluation.fakes, _colours(evaluation))):
        offset = 0.5 * ((index + 0.5) / len(evaluation.fakes) - 0.5)
        for row in evaluation.rows_of(side):
            if np.isnan(row.times_band):
                continue
            axes.plot(
                np.clip(row.times_band, NEAREST, FARTHEST),
                places[row.column.name] + offset,
                ">" if row.times_band > FARTHEST else "o",
                ms=4.5,
                mew=1.1,
                color=colour,
                mfc=colour if row.flagged else "white",
            )
    groups = [row.column.group for row in evaluation.rows_of(evaluation.fakes[0])]
    for place in range(1, len(groups)):
        if groups[place] != groups[place - 1]:
            axes.axhline(place - 0.5, color=FAINT, lw=0.6)
    axes.set(
        xscale="log",
        xlim=(NEAREST * 0.8, FARTHEST * 1.25),
        ylim=(len(names) - 0.5, -0.5),
        yticks=range(len(names)),
        yticklabels=names,
        xlabel="distance to real music, in upper ends of the real-against-real band\n"
        "filled: told apart (false discovery rate 5 %); green: no farther than real from real",
    )
    axes.xaxis.set_major_formatter("{x:g}")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", color="#eeeeee", lw=0.6)
    axes.set_axisbelow(True)
    _legend(figure, evaluation, real=False)
    return figure


def _distributions(evaluation: Evaluation, columns: Sequence[Column]) -> Figure:
    """Every scalar feature over the pieces of each side."""
    across = min(5, len(columns))
    down = -(-len(columns) // across)
    width, height = 2.7 * across, 0.7 + 1.55 * down
    # Every plot needs the same room, in inches; to find that out takes as long as to draw.
    figure = _canvas(width, height, layout=None)
    inner = 1.55 - 0.62
    figure.subplots_adjust(
        left=0.15 / width,
        right=1 - 0.25 / width,
        top=1 - 0.55 / height,
        bottom=0.45 / height,
        wspace=0.12,
        hspace=(height - 1 - down * inner) / max(down - 1, 1) / inner,
    )
    colours = [REAL, *_colours(evaluation)]
    for column, axes in zip(columns, _panels(figure, len(columns), across)):
        sides = [
            table[column.name][~np.isnan(table[column.name])]
            for table in evaluation.tables.values()
        ]
        values = np.concatenate(sides)
        different, apart = np.unique(values), MIN_STEM_GAP * float(np.ptp(values))
        if len(different) <= max(len(values) / 2, 1) and (np.diff(different) >= apart).all():
            _stems(axes, different, sides, colours)
        else:
            _densities(axes, column, sides, colours)
        axes.set_title(column.name)
        axes.set_xlabel(column.unit, labelpad=1)
        axes.set_yticks([])
        axes.set_ylim(0)
        axes.spines["left"].set_visible(False)
    _legend(figure, evaluation)
    return figure


def _stems(axes: Axes, values: Floats, sides: Sequence[Floats], colours: Sequence[str]) -> None:
    """Share of each side's pieces at each of a few values: broad for real music, slim beside it."""
    low, high = float(values[0]), float(values[-1])
    width = high - low or 1.0
    for i, (side, colour) in enumerate(zip(sides, colours)):
        shares = np.array([np.mean(side == value) if len(side) else 0.0 for value in values])
        seen = shares > 0
        if colour == REAL:
            axes.vlines(values[seen], 0, shares[seen], color=colour, alpha=0.35, lw=6)
        else:
            places = values[seen] + 0.02 * width * (i - len(sides) / 2)
            axes.vlines(places, 0, shares[seen], color=colour, lw=1.4)
            axes.plot(places, shares[seen], "o", ms=3, color=colour)
    axes.set_xlim(low - 0.08 * width, high + 0.08 * width)
    if low == high:
        axes.set_xticks([low], [number(low)])


def _densities(axes: Axes, column: Column, sides: Sequence[Floats], colours: Sequence[str]) -> None:
    """Histogram and kernel density of each side, on one grid and without the outermost percents."""
    low, high = _middle(np.concatenate(sides))
    shown = [side[(side >= low) & (side <= high)] for side in sides]
    grid = covering_grid(*(side for side in shown if len(side)))
    least, most = FEATURES[column.name].range
    possible = (grid >= least) & (grid <= most)
    edges = np.linspace(low, high, 25)
    top = 0.0
    for side, within, colour in zip(sides, shown, colours):
        if not len(within):
            continue
        share = np.histogram(within, edges)[0] / len(side) / np.diff(edges)
        top = max(top, float(share.max()))
        axes.stairs(share, edges, color=colour, fill=True, alpha=0.25 if colour == REAL else 0.15)
        counts = np.bincount(nearest(grid, within), minlength=len(grid))
        mass = smooth(counts) * len(within) / len(side)
        density = mass / (grid[1] - grid[0])
        axes.plot(grid[possible], density[possible], color=colour, lw=1.4)
    axes.margins(x=0.03)
    # The needle of a side whose values are all equal goes on above the plot.
    axes.set_ylim(0, 1.1 * top)


def _middle(values: Floats) -> tuple[float, float]:
    """All but the outermost percents; everything where only those differ, or are all there is."""
    low, high = np.quantile(values, [0.01, 0.99])
    if low == high or not ((values >= low) & (values <= high)).any():
        low, high = values.min(), values.max()
    return float(low), float(high)


def _histograms(evaluation: Evaluation, columns: Sequence[Column]) -> Figure:
    """Mean histograms, the real side beside each generated one."""
    figure = _canvas(12, 0.7 + 2.1 * -(-len(columns) // 2))
    for column, axes in zip(columns, _panels(figure, len(columns), 2)):
        rows = [row for row in evaluation.rows if row.column == column]
        sides = [rows[0].real.histogram, *(row.fake.histogram for row in rows)]
        colours = [REAL, *_colours(evaluation)]
        shown = np.flatnonzero(np.nansum(sides, axis=0) > 1e-3)
        first, last = int(shown[0]), int(shown[-1]) + 1
        if last - first <= MOST_BARS:
            _bars(axes, column.bins[first:last], [side[first:last] for side in sides], colours)
        else:
            _outlines(axes, column, first, last, sides, colours)
        axes.tick_params(axis="x", length=0)
        axes.set_title(column.name)
        axes.set_xlabel(f"{column.unit}  ({'; '.join(map(_in_brief, rows))})", labelpad=1)
        axes.yaxis.set_major_formatter(_percent)
    _legend(figure, evaluation)
    return figure


def _bars(axes: Axes, labels: Sequence[str], sides: Sequence[Floats], colours: list[str]) -> None:
    width = 0.84 / len(sides)
    for i, (side, colour) in enumerate(zip(sides, colours)):
        offset = (i - (len(sides) - 1) / 2) * width
        axes.bar(np.arange(len(side)) + offset, side, 0.92 * width, color=colour)
    slanted = max(map(len, labels)) > 4
    axes.set_xticks(
        range(len(labels)),
        labels,
        rotation=40 if slanted else 0,
        ha="right" if slanted else "center",
        rotation_mode="anchor",
    )


def _outlines(
    axes: Axes,
    column: Column,
    first: int,
    last: int,
    sides: Sequence[Floats],
    colours: list[str],
) -> None:
    ends = np.arange(first, last + 1) - 0.5
    numeric = column.bins[0].lstrip("+-").replace(".", "", 1).isdigit()
    if numeric and column.positions:
        places = np.array(column.positions[first:last])
        ends = np.interp(ends, np.arange(first, last), places)
    for side, colour in zip(sides, colours):
        real = colour == REAL
        axes.stairs(
            side[first:last], ends, color=colour, fill=real, alpha=0.35 if real else 1, lw=1.4
        )
    if not numeric:
        octaves = range(-(-first // 12) * 12, last, 12)
        axes.set_xticks(octaves, [column.bins[i] for i in octaves])


def _percent(share: float, place: float) -> str:  # noqa: ARG001  # what matplotlib asks for
    return f"{100 * share:g} %"


def _in_brief(row: Row) -> str:
    unit = f" {row.column.measure_unit}"
    return f"{row.distance.value:.2g}{unit}, {row.verdict}"


def _transitions(evaluation: Evaluation, columns: Sequence[Column]) -> Figure:
    """Transition matrices of all sides on one scale, and what the generated ones do otherwise."""
    from matplotlib.colors import CenteredNorm, PowerNorm

    num_fakes = len(evaluation.fakes)
    figure = _canvas(2.9 * (1 + 2 * num_fakes), 3.3 * len(columns))
    lines = np.atleast_1d(np.array(figure.subfigures(len(columns), 1)))
    for line, column in zip(lines, columns):
        line.suptitle(column.name, x=0.01, ha="left", fontsize=10)
        plots = line.subplots(1, 1 + 2 * num_fakes, sharex=True, sharey=True)
        labels = [label.split("->")[1] for label in column.bins[:MATRIX_SIZE]]
        plots[0].set_xticks(range(MATRIX_SIZE), labels)
        plots[0].set_yticks(range(MATRIX_SIZE), labels)
        plots[0].set_ylabel("from")

        rows = [row for row in evaluation.rows if row.column == column]
        sides = [rows[0].real.histogram, *(row.fake.histogram for row in rows)]
        shares = [side.reshape(MATRIX_SIZE, MATRIX_SIZE) for side in sides]
        changes = [matrix - shares[0] for matrix in shares[1:]]
        names = [side.name for side in evaluation.fakes]
        real = evaluation.real.name
        # The square root shows rare transitions beside the few very common ones.
        scale = PowerNorm(0.5, vmin=0, vmax=_largest(shares))
        _heat(plots[: 1 + num_fakes], shares, [f"{real} (real)", *names], "viridis", scale)
        centred = CenteredNorm(halfrange=_largest(changes))
        titles = [f"{name} − {real}" for name in names]
        _heat(plots[1 + num_fakes :], changes, titles, "RdBu_r", centred)
    return figure


def _largest(matrices: Sequence[Floats]) -> float:
    """Largest number, signs apart, where there is any; 1 where there is none, or all are 0."""
    sizes = np.abs(np.stack(matrices))
    return float(sizes[np.isfinite(sizes)].max(initial=0)) or 1.0


def _heat(
    plots: Sequence[Axes], matrices: Sequence[Floats], titles: Sequence[str], map_: str, scale: Any
) -> None:
    """Matrices on one scale of colours, which stands beside the last."""
    for axes, matrix, title in zip(plots, matrices, titles):
        image = axes.imshow(matrix, cmap=map_, norm=scale, aspect="auto")
        axes.set_title(title)
        axes.set_xlabel("to")
        axes.tick_params(length=0, labelsize=6.5)
        axes.tick_params(axis="x", rotation=90)
        axes.spines[:].set_visible(False)
    bar = axes.figure.colorbar(image, ax=plots[-1], format=_percent, aspect=25, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)


class _Panel(NamedTuple):
    """The self-similarity of one piece."""

    piece: Piece
    title: str
    colour: str


def _similarity_panels(gallery: Gallery) -> list[list[_Panel]]:
    """A row for each generated side whose music is here: a typical real piece, then its own."""
    if not gallery:
        return []
    real, *fakes = gallery
    rows = []
    for i, fake in enumerate(fakes):
        own = _panels_of(fake, COMPARED, FAKES[i % len(FAKES)])
        if own:
            rows.append(_panels_of(real, ("typical",), REAL) + own)
    return rows


def _panels_of(selection: Selection, kinds: Sequence[Kind], colour: str) -> list[_Panel]:
    """The first piece of each kind, those that have no pitch left out."""
    side = selection.side
    if not side.pieces:
        return []
    first = [(kind, selection.exhibits[kind][0]) for kind in kinds if selection.exhibits.get(kind)]
    return [
        _Panel(side.music[shown.index], f"{side.name}, {kind}: {shown.title}", colour)
        for kind, shown in first
        if len(side.music[shown.index].pitched)
    ]


def _self_similarity(rows: Sequence[Sequence[_Panel]]) -> Figure:
    """Self-similarity matrices with axes in bars and the fitness of the clearest repeat."""
    from matplotlib.colors import LinearSegmentedColormap

    most = max(map(len, rows))
    figure = _canvas(3.1 * most, 3.7 * len(rows))
    places = _panels(figure, most * len(rows), most)
    for i, axes in enumerate(places):
        row, column = divmod(i, most)
        if column >= len(rows[row]):
            axes.set_visible(False)
            continue
        piece, title, colour = rows[row][column]
        frames = frame_lines(piece)
        likeness = self_similarity(chroma(frames, piece.pitched))
        shades = LinearSegmentedColormap.from_list("likeness", ["white", colour])
        axes.pcolormesh(frames, frames, likeness, cmap=shades, vmin=2 * ALIKE - 1, vmax=1)
        bars = piece.bar_lines()
        step = 1 << max(0, math.ceil(math.log2((len(bars) - 1) / MOST_BAR_NUMBERS)))
        numbers = [str(bar + 1) for bar in range(0, len(bars) - 1, step)]
        axes.set_xticks(bars[:-1:step], numbers)
        axes.set_yticks(bars[:-1:step], numbers)
        axes.set(aspect="equal", xlabel="bar", ylabel="bar" if column == 0 else "")
        fitness = structure(piece, shortest=SHORTEST_REPEAT, longest=math.inf)
        axes.set_title(f"{_shortened(title)}\nfitness {number(fitness)}")
    return figure


def _shortened(title: str) -> str:
    """The beginning and the end, which tells the files of a folder apart."""
    if len(title) <= LONGEST_TITLE:
        return title
    return f"{title[: LONGEST_TITLE // 2]}…{title[-LONGEST_TITLE // 2 :]}"

"""Pictures of an evaluation, as PNG files in memory."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eval.evaluation import Column, Evaluation, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

INK, FAINT, REAL = "#222222", "#9a9a9a", "#4a4a4a"
FAKES = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#b8860b")
"""Also distinct to colour-blind eyes; after Okabe and Ito."""
PICTURES = ("summary", "distributions", "histograms", "transitions")
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
}
MOST_BARS = 26
"""Histograms of more bins are outlines."""
MATRIX_SIZE = 12
NEAREST, FARTHEST = 0.1, 100.0
"""Ends of the summary's axis."""


def pictures(evaluation: Evaluation) -> dict[str, bytes]:
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
        return {name: _png(figure) for name, figure in drawn.items()}


def _canvas(width: float, height: float) -> Figure:
    """A figure of a size in inches that pyplot knows nothing of, and so never has to be closed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    # Without the program's version in it, equal evaluations give equal bytes.
    figure.savefig(file, format="png", dpi=130, metadata={"Software": None})
    return file.getvalue()


def _legend(figure: Figure, evaluation: Evaluation, *, real: bool = True) -> None:
    from matplotlib.patches import Patch

    sides = [Patch(color=REAL, label=f"{evaluation.real.name} (real)")] if real else []
    sides += [
        Patch(color=colour, label=side.name)
        for side, colour in zip(evaluation.fakes, _colours(evaluation))
    ]
    figure.legend(handles=sides, loc="outside upper left", ncols=len(sides), fontsize=9)


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
    figure = _canvas(2.7 * across, 0.7 + 1.55 * -(-len(columns) // across))
    for column, axes in zip(columns, _panels(figure, len(columns), across)):
        values = [
            table[column.name][~np.isnan(table[column.name])]
            for table in evaluation.tables.values()
        ]
        edges = _edges(np.concatenate(values))
        for side, colour in zip(values, [REAL, *_colours(evaluation)]):
            if len(side):
                share = np.full(len(side), 1 / len(side))
                clipped = np.clip(side, edges[0], edges[-1])
                options: dict[str, Any] = {"bins": edges, "weights": share, "color": colour}
                if colour == REAL:
                    axes.hist(clipped, alpha=0.35, **options)
                else:
                    axes.hist(clipped, histtype="step", lw=1.4, **options)
        axes.set_title(column.name)
        axes.set_xlabel(column.unit, labelpad=1)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
    _legend(figure, evaluation)
    return figure


def _edges(values: Floats) -> Floats:
    """Ends of 24 bins that hold all but the outermost percents, which fall into the end bins."""
    low, high = np.quantile(values, [0.01, 0.99])
    if low == high:
        low, high = values.min(), values.max()
    if low == high:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, 25)


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

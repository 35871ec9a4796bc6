"""Pieces to look at and to listen to: the typical, the best, the worst and the odd ones.

A *distance* says how far one number of a piece lies from real music: from the real side's median,
in units of the way from there to the end of the real side's middle 95 %, so that 1 is where that
middle ends. Where the way is 0, as real music never differs, a standard deviation of both sides
together is the unit. The distance of a piece is the mean over all numbers, none counted for more
than `MOST`; undefined ones are left out, and variants of one metric (`repetition[n=2]` to `[n=9]`)
count as one. Histograms and what is copied have no part in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from eval.evaluation import Evaluation, Table
from eval.features import FEATURES
from eval.pieces import Side
from eval.resampling import Interval
from rnngan.music.audio import synthesise, wav_bytes
from rnngan.music.piece import Piece

Floats = NDArray[np.float64]
Kind = Literal["typical", "best", "worst", "outlier"]

MOST = 3.0
"""A number further off counts as much, so that no single one decides which piece is the worst."""

RANKING = (
    "Typical: the piece nearest to the medians of its own side. Best and worst: the smallest and "
    "largest distances from real music. Outliers: of the others, the largest distances of single "
    "numbers, each of another metric. The distance of a number is that from the real side's "
    "median, in units of the way from there to the end of the real side's middle 95 %; of a piece, "
    f"the mean over its numbers, none counted for more than {MOST:g} and variants of one metric "
    "counted as one."
)
EACH = 3
"""Best, worst and odd pieces of a side, at most; fewer of a small side."""
NUM_EXTREMES = 3
"""Numbers that are named to say what is odd about a piece."""

SAMPLE_RATE = 11_025
MAX_SECONDS = 15.0
MAX_SOUND_BYTES = 6 << 20
"""Of all sounds of a page together; base64 makes a third more of it."""
MAX_BARS = 32
"""What is shown of a piece."""


class Extreme(NamedTuple):
    """One number of a piece.

    Attributes:
        middle: Of the real side, the middle 95 %.
        distance: Above 1 if the value lies outside of it.
    """

    feature: str
    value: float
    middle: Interval
    distance: float


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """A piece that is shown.

    Attributes:
        index: Among the pieces of its side.
        distance: From real music.
        farther_than: Share of the real pieces that lie nearer, 0 to 1.
        extremes: Its numbers farthest from real music, farthest first, one of each metric.
    """

    index: int
    title: str
    distance: float
    farther_than: float
    extremes: tuple[Extreme, ...]


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What is shown of one side; of statistics there are titles and numbers, but no music."""

    side: Side
    exhibits: dict[Kind, tuple[Exhibit, ...]]


Gallery: TypeAlias = tuple[Selection, ...]
"""The real side first; empty where no number was measured."""


class Scale(NamedTuple):
    """Where the real side's values of some numbers lie, each array `(numbers,)`."""

    low: Floats
    median: Floats
    high: Floats

    @staticmethod
    def of(values: Floats) -> Scale:
        """Of `(pieces, numbers)`; NaN where a number is nowhere defined."""
        defined = ~np.isnan(values).all(axis=0)
        found = np.full((3, values.shape[1]), math.nan)
        found[:, defined] = np.nanquantile(values[:, defined], [0.025, 0.5, 0.975], axis=0)
        return Scale(*found)

    def distances(self, values: Floats, real: Floats) -> Floats:
        """Distance of every number of every piece, `(pieces, numbers)`; NaN where undefined."""
        both = np.concatenate([real, values])
        known = np.maximum((~np.isnan(both)).sum(axis=0), 1)
        mean = np.nansum(both, axis=0) / known
        deviation = np.sqrt(np.nansum((both - mean) ** 2, axis=0) / known)
        way = np.where(values < self.median, self.median - self.low, self.high - self.median)
        rounding = 1e-9 * np.abs(self.median)  # equal values may differ in the last digit
        way = np.where(way > rounding, way, deviation)
        off = np.abs(values - self.median)
        return np.divide(off, way, out=np.where(np.isnan(off), np.nan, 0.0), where=off > rounding)


def choose(evaluation: Evaluation) -> Gallery:
    """The pieces to show of each side: all kinds of generated music; typical and odd real ones."""
    names = [
        row.column.name
        for row in evaluation.rows_of(evaluation.fakes[0])
        if row.column.kind == "scalar" and row.column.group != "copying" and row.real.count
    ]
    if not names:
        return ()
    real = _numbers(evaluation.tables[evaluation.real.name], names)
    scale = Scale.of(real)
    of_real = piece_distances(scale.distances(real, real), names)
    chosen = []
    for side in (evaluation.real, *evaluation.fakes):
        values = _numbers(evaluation.tables[side.name], names)
        each = scale.distances(values, real)
        of_pieces = piece_distances(each, names)
        own = piece_distances(Scale.of(values).distances(values, values), names)
        farthest = [np.fmax.reduce(part, axis=1) for part in _by_metric(each, names)]
        kinds = _kinds(
            side,
            of_pieces,
            own,
            np.stack(farthest, axis=1),
            generated=side is not evaluation.real,
        )
        chosen.append(
            Selection(
                side=side,
                exhibits={
                    kind: tuple(
                        Exhibit(
                            index=index,
                            title=side.title(index),
                            distance=float(of_pieces[index]),
                            farther_than=float((of_real < of_pieces[index]).mean()),
                            extremes=_extremes(values[index], each[index], scale, names),
                        )
                        for index in indices
                    )
                    for kind, indices in kinds.items()
                },
            )
        )
    return tuple(chosen)


def _numbers(table: Table, names: Sequence[str]) -> Floats:
    """Columns of a table, `(pieces, numbers)`."""
    return np.stack([table[name] for name in names], axis=1)


def piece_distances(distances: Floats, names: Sequence[str]) -> Floats:
    """Distance of each piece, `(pieces,)`; NaN where no number is defined.

    Args:
        distances: Of every number of every piece, `(pieces, numbers)`.
        names: Of the numbers; those of one base name count as one.
    """
    of_metrics = [_mean(part) for part in _by_metric(np.minimum(distances, MOST), names)]
    return _mean(np.stack(of_metrics, axis=1))


def _by_metric(distances: Floats, names: Sequence[str]) -> list[Floats]:
    """The columns of each metric, `(pieces, variants)`."""
    base_names = np.array([FEATURES[name].base_name for name in names])
    return [distances[:, base_names == name] for name in dict.fromkeys(base_names.tolist())]


def _mean(values: Floats) -> Floats:
    """Mean of what is defined in each row."""
    known = (~np.isnan(values)).sum(axis=1)
    return np.where(known, np.nansum(values, axis=1) / np.maximum(known, 1), math.nan)


def _kinds(
    side: Side, of_pieces: Floats, own: Floats, farthest: Floats, *, generated: bool
) -> dict[Kind, list[int]]:
    """Indices of the pieces of each kind; a piece that a side has twice is shown once.

    Where some of a side's music is in memory, they are among that.

    Args:
        side: Whose pieces.
        of_pieces: Their distances from real music, `(pieces,)`.
        own: Their distances from the medians of their own side.
        farthest: Largest distance of a variant of each metric, `(pieces, metrics)`.
        generated: The best and the worst are of generated music.
    """
    here = np.array(list(side.music) or range(side.num_pieces))
    distinct = here[np.unique(np.array(side.piece_hashes)[here], return_index=True)[1]]
    pieces = np.sort(distinct[~np.isnan(of_pieces[distinct])])
    if not len(pieces):
        return {}
    count = min(EACH, max(1, len(pieces) // 4))
    by_distance = pieces[np.argsort(of_pieces[pieces], kind="stable")].tolist()
    typical = [int(pieces[np.argmin(own[pieces])])]
    if not generated:
        return {"typical": typical, "outlier": outliers(farthest, pieces.tolist(), count)}
    worst = by_distance[::-1][:count]
    others = [index for index in pieces.tolist() if index not in worst]
    return {
        "typical": typical,
        "best": by_distance[:count],
        "worst": worst,
        "outlier": outliers(farthest, others, count),
    }


def outliers(farthest: Floats, pieces: Sequence[int], count: int) -> list[int]:
    """Indices of at most `count` pieces, those of the largest distances, each in another metric.

    Args:
        farthest: Largest distance of a variant of each metric, `(all pieces, metrics)`.
        pieces: Those to choose from.
        count: How many.
    """
    rest = np.full(farthest.shape, -math.inf)
    rest[pieces] = np.where(np.isnan(farthest[pieces]), -math.inf, farthest[pieces])
    found: list[int] = []
    while len(found) < count and rest.max(initial=-math.inf) > 0:
        piece, metric = np.unravel_index(np.argmax(rest), rest.shape)
        found.append(int(piece))
        rest[piece], rest[:, metric] = -math.inf, -math.inf
    return found


def _extremes(
    values: Floats, distances: Floats, scale: Scale, names: Sequence[str]
) -> tuple[Extreme, ...]:
    """The farthest of the numbers of one piece, each `(numbers,)`."""
    found: dict[str, Extreme] = {}
    for i in np.argsort(-distances, kind="stable"):  # NaN comes last
        if not math.isnan(distances[i]):
            middle = float(scale.low[i]), float(scale.high[i])
            extreme = Extreme(names[i], float(values[i]), middle, float(distances[i]))
            found.setdefault(FEATURES[names[i]].base_name, extreme)
    return tuple(found.values())[:NUM_EXTREMES]


def opening(piece: Piece) -> Piece:
    """The first `MAX_BARS` bars."""
    lines = piece.bar_lines()
    if len(lines) <= MAX_BARS + 1:
        return piece
    notes = piece.notes[piece.notes["start"] < lines[MAX_BARS]]
    notes["end"] = np.minimum(notes["end"], lines[MAX_BARS])
    return replace(piece, notes=notes)


def sound_seconds(num_pieces: int) -> float:
    """How much of each of so many pieces fits into a page, `MAX_SECONDS` at most."""
    return min(MAX_SECONDS, MAX_SOUND_BYTES / (2 * SAMPLE_RATE * max(num_pieces, 1)))


def sound(piece: Piece, seconds: float) -> bytes:
    """The beginning of a piece as a mono 16-bit WAV file."""
    return wav_bytes(synthesise(piece, SAMPLE_RATE, max_seconds=seconds), SAMPLE_RATE)

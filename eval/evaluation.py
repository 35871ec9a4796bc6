"""Generated music against real music, feature by feature, beside what chance alone would do.

Every row holds the distance between the real and a generated side, and with it

- a bootstrap 95 % interval of the true distance, pieces resampled on both sides;
- the real-against-real band: where the same distance lies between real sets of these sizes;
- the p-value of a permutation test that swaps pieces between the sides, and the same corrected
  over the whole table.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from eval import distances, resampling
from eval.cache import WHOLE_PIECES, measured, measured_side
from eval.controls import controls_of
from eval.copying import MIN_NOTES, Nearest, Run, copied_share, longest_runs, nearest_pieces
from eval.features import FEATURES
from eval.pieces import Side, Track, silently
from eval.resampling import Counts, Interval, PairDraw
from eval.results import Results, digest_of
from eval.setwise import SET_METRICS, VECTOR, Sample, SetRow, compare_sets
from eval.statistics import FeatureTable
from eval.twosample import TwoSample, View, two_sample
from rnngan.errors import UserError

Floats = NDArray[np.float64]
Table: TypeAlias = Mapping[str, Floats]
"""Each feature over the pieces of a side: `(pieces,)` or, for histograms, `(pieces, bins)`."""
Found = TypeVar("Found", Run, Nearest)
Verdict = Literal[
    "higher", "lower", "wider", "narrower", "differs", "no difference seen", "too few", "undefined"
]

ALPHA = 0.05
FEW_PIECES = 20
"""With fewer, a difference that is not seen says nothing."""
PAIR_PIECES = 200
"""Pieces a side, at most, for what compares pairs: its cost grows with their square."""
PAIR_RESAMPLES = 100
ROW_PIECES = 5_000
"""Pieces a side, at most, that a row's intervals and tests rest on: they are drawn from larger
sides, since the resamples of a hundred thousand pieces fit into no laptop."""
TRAINING_PIECES = 10_000
"""Of the training set, at most, that copies are looked for in."""
NEAREST_PIECES = 2_000
"""Of those, at most, among which the nearest is looked for."""
CONTROL_PIECES = 100
"""Real pieces, at most, that are spoilt to show how metrics react."""
CONTROL_RESAMPLES, CONTROL_PERMUTATIONS = 200, 999


class Column(NamedTuple):
    """What a column of a `Table` holds."""

    name: str
    group: str
    unit: str
    kind: Literal["scalar", "ordered", "categorical"]
    bins: tuple[str, ...] = ()
    positions: tuple[float, ...] = ()

    @property
    def measure(self) -> Literal["wasserstein1", "jensen_shannon"]:
        """Name of the distance that suits the kind."""
        return "jensen_shannon" if self.kind == "categorical" else "wasserstein1"

    @property
    def measure_unit(self) -> str:
        """Unit of that distance."""
        return "bits" if self.kind == "categorical" else self.unit


LONGEST_RUN = Column("longest_copied_run[line=top]", "copying", "notes", "scalar")
COPIED_SHARE = Column(f"copied_share[line=top,notes={MIN_NOTES}]", "copying", "share", "scalar")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A number, its bootstrap 95 % interval and its real-against-real band (the middle 95 %)."""

    value: float
    interval: Interval
    band: Interval


UNDEFINED = Figure(value=math.nan, interval=(math.nan, math.nan), band=(math.nan, math.nan))


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One feature over the pieces of one side.

    Attributes:
        count: Pieces in which it is defined.
        undefined: Pieces in which it is not.
        mean: Mean over the pieces; of an ordered histogram the mean position, of a categorical
            one NaN.
        median: Likewise.
        deviation: Likewise the standard deviation.
        histogram: Mean of the pieces' histograms `(bins,)`; empty for a scalar.
    """

    count: int
    undefined: int
    mean: float
    median: float
    deviation: float
    histogram: Floats


@dataclass(frozen=True, kw_only=True)
class Row:
    """One feature of a generated side against the real side.

    Attributes:
        side: Name of the generated side.
        distance: Wasserstein-1 in the feature's unit, or Jensen-Shannon in bits.
        standardised: Wasserstein-1 in standard deviations of the real side; NaN for bits.
        p: Of the permutation test on `distance`.
        p_corrected: The same, corrected over all rows of the table.
        overlapping_area: Of the distances within the real side and those between the sides.
        kl_divergence: Of the same two, in bits.
        histogram_overlap: Of the mean histograms; NaN for a scalar.
    """

    side: str
    column: Column
    real: Summary
    fake: Summary
    distance: Figure
    standardised: float
    p: float
    p_corrected: float
    overlapping_area: Figure
    kl_divergence: Figure
    histogram_overlap: float

    @property
    def flagged(self) -> bool:
        """Whether the sides differ by more than chance."""
        return self.p_corrected < ALPHA

    @property
    def times_band(self) -> float:
        """The distance in units of the upper end of its band: above 1, more than real from real.

        Infinite where real music does not differ from real music at all; NaN if undefined.
        """
        if self.distance.band[1] == 0:
            return math.inf if self.distance.value > 0 else 0.0
        return self.distance.value / self.distance.band[1]

    @property
    def verdict(self) -> Verdict:
        """What the corrected p-value says and, where values have an order, which way they moved."""
        if math.isnan(self.p_corrected):
            return "undefined"
        if not self.flagged:
            few = min(self.real.count, self.fake.count) < FEW_PIECES
            return "too few" if few else "no difference seen"
        if self.column.kind == "categorical":
            return "differs"
        move = self.fake.mean - self.real.mean
        if abs(move) >= self.distance.value / 2:
            return "higher" if move > 0 else "lower"
        return "wider" if self.fake.deviation > self.real.deviation else "narrower"


@dataclass(frozen=True, kw_only=True)
class Copying:
    """What one side shares with the training set.

    Attributes:
        share: Of the pieces with `MIN_NOTES` notes or more, those that copy so many in a row.
        interval: Its 95 % interval (Wilson).
        runs: The longest run of each of the side's pieces in memory.
        nearest: The training piece nearest to each.
    """

    side: Side
    share: float
    interval: Interval
    runs: tuple[Run, ...]
    nearest: tuple[Nearest, ...]

    def worst(self, count: int) -> list[int]:
        """Places in `runs` of the longest, longest first."""
        order = sorted(range(len(self.runs)), key=lambda i: -self.runs[i].num_notes)
        return [i for i in order[:count] if self.runs[i].num_notes]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a report tells.

    Attributes:
        tables: Values of every piece, by the name of the side; of copying NaN where a piece is not
            in memory.
        rows: One per feature and generated side.
        set_rows: The generated sides as wholes.
        two_sample: By the name of the generated side, what classifiers of each view say.
        controls: By the name of each control, the rows of real music spoilt in that way, without
            overlapping area and divergence.
        copying: The real side first; empty without a training set.
        band: What stands for real against real, in words.
        warnings: What to know before reading the numbers.
    """

    real: Side
    fakes: tuple[Side, ...]
    training: Side | None
    tables: Mapping[str, Table]
    rows: tuple[Row, ...]
    set_rows: tuple[SetRow, ...]
    two_sample: dict[str, tuple[TwoSample, ...]]
    controls: dict[str, tuple[Row, ...]]
    copying: tuple[Copying, ...]
    band: str
    warnings: tuple[str, ...]
    seed: int
    resamples: int
    permutations: int

    def rows_of(self, side: Side) -> list[Row]:
        """The rows of one generated side."""
        return [row for row in self.rows if row.side == side.name]

    def flat(self) -> dict[str, float]:
        """Finite numbers by `SIDE/FEATURE/WHAT`, and `SIDE/features_told_apart`."""
        numbers: dict[str, float] = {}
        for side in self.fakes:
            rows = self.rows_of(side)
            numbers[f"{side.name}/features_told_apart"] = sum(row.flagged for row in rows)
            for row in rows:
                stem = f"{side.name}/{row.column.name}"
                numbers |= {
                    f"{stem}/real_mean": row.real.mean,
                    f"{stem}/fake_mean": row.fake.mean,
                    f"{stem}/{row.column.measure}": row.distance.value,
                    f"{stem}/standardised": row.standardised,
                    f"{stem}/overlapping_area": row.overlapping_area.value,
                    f"{stem}/p_corrected": row.p_corrected,
                }
        for set_row in self.set_rows:
            numbers[f"{set_row.side}/{set_row.name}"] = set_row.value
        for name, results in self.two_sample.items():
            for result in results:
                numbers[f"{name}/two_sample_auc[view={result.view}]"] = result.auc
        return {name: number for name, number in numbers.items() if math.isfinite(number)}


def evaluate(
    real: Side,
    fakes: Sequence[Side],
    *,
    training: Side | None = None,
    metrics: Sequence[str] | None = None,
    set_metrics: Collection[str] = tuple(SET_METRICS),
    views: Sequence[View] = (),
    controls: bool = False,
    seed: int = 0,
    resamples: int = 1000,
    permutations: int = 5000,
    cache: Path | None = None,
    workers: int | None = None,
    track: Track = silently,
) -> Evaluation:
    """Compare generated sides with a real one.

    Args:
        real: Held-out real music.
        fakes: Generated sides.
        training: What the generator learnt from. With it copying is measured, and real against
            real means training pieces against the real side; without it, parts of the real side.
        metrics: Feature names as `eval.features.select` returns them; all by default. With those of
            `eval.setwise.VECTOR` the sides are also compared as wholes.
        set_metrics: By these of `eval.setwise.SET_METRICS`.
        views: What classifiers see that are to tell generated from real pieces.
        controls: Show how the metrics react to real music that was spoilt.
        seed: Of all resampling, and of the pieces that large sides are judged by.
        resamples: Of the bootstrap, and of the band.
        permutations: Of the test.
        cache: Folder of features measured before, see `eval.cache.cache_folder`, and of what
            comparisons found before, see `eval.results`.
        workers: Processes that measure; as many as there are processors by default.
        track: Shows the progress.

    Raises:
        UserError: No generated side, a side of fewer than two pieces, two sides of one name, or a
            count that is not positive.
    """
    _check((real, *fakes), training, resamples=resamples, permutations=permutations)
    columns = [
        Column(f.name, f.group, f.unit, f.kind, f.bins, f.positions)
        for f in (FEATURES[name] for name in (FEATURES if metrics is None else metrics))
    ]
    names = [column.name for column in columns]

    def measure(side: Side, keep: int) -> Side:
        return measured_side(
            side, names, keep=keep, seed=seed, cache=cache, workers=workers, track=track
        )

    real, *fakes = sides = [measure(side, WHOLE_PIECES) for side in (real, *fakes)]
    training = training and measure(training, TRAINING_PIECES)
    with_music = all(side.pieces for side in (*sides, *([training] if training else [])))
    results = Results(cache and cache / "results")
    copying = _copying(sides, training, seed, results, track) if training and with_music else ()
    tables = {side.name: _table(side) for side in sides}
    for part in copying:
        known = tables[part.side.name]
        tables[part.side.name] = FeatureTable(known.rows, known.stale, _copying_columns(part))
    if copying:
        columns += [LONGEST_RUN, COPIED_SHARE]

    def compare(index: int, fake: Side) -> tuple[list[Row], list[SetRow], list[TwoSample]]:
        three = [
            (real, tables[real.name]),
            (fake, tables[fake.name]),
            *([(training, _table(training))] if training else []),
        ]
        wholes = [
            Sample([side.music[i] for i in part.tolist()], dict(table.of(part)))
            for side, table in three
            if side.pieces
            for part in (side.drawn(WHOLE_PIECES, seed),)
        ]

        def compare_rows() -> list[Row]:
            drawn = [table.of(side.drawn(ROW_PIECES, seed)) for side, table in three]
            first, second, *third = (len(table.rows) for table in drawn)
            sizes = Sizes(real=first, fake=second, training=sum(third))
            draws = _draw(np.random.default_rng((seed, index)), sizes, resamples, permutations)

            def values_of(column: Column) -> Values:
                first, second, *third = drawn
                learnt = third[0].get(column.name) if third else None
                return Values(first[column.name], second[column.name], learnt)

            compared = _compare_all(pool, fake.name, columns, values_of, draws)
            return [next(compared) for _ in track(columns, f"comparing {fake.name}")]

        def compare_wholes() -> list[SetRow]:
            if not (with_music and set(VECTOR) <= set(names)):
                return []
            return compare_sets(
                fake.name,
                wholes[0],
                wholes[1],
                wholes[2] if training else None,
                names=set_metrics,
                seed=seed,
                resamples=resamples,
                permutations=permutations,
            )

        def tell_apart() -> tuple[TwoSample, ...]:
            for side, _ in three:
                side.need_pieces("the two-sample test")
            return two_sample(
                wholes[0].pieces,
                wholes[1].pieces,
                training=wholes[2].pieces if training else (),
                views=views,
                features={
                    name: np.concatenate([whole.table[name] for whole in wholes])
                    for name in FEATURES
                }
                if set(FEATURES) <= set(names)
                else None,
                seed=seed,
                resamples=resamples,
                track=track,
            )

        sides = [digest_of(side) for side in (real, fake, training)]
        question = (*sides, fake.name, index, seed, resamples, permutations, *names)
        # In threads: numpy lets others work while it computes. What takes longest begins first.
        with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
            whole_question = (*question, *sorted(set_metrics))
            as_wholes = pool.submit(results.of, SetRow, whole_question, compare_wholes)
            rows = results.of(Row, question, compare_rows)
            set_rows = as_wholes.result()
        told_apart: list[TwoSample] = []
        if views:
            try:
                told_apart = results.of(TwoSample, (*question, *views), tell_apart)
            except UserError as error:  # too few pieces, or no music: the rest stands
                left_out.append(f"{fake.name}: no two-sample test: {error}")
        return rows, set_rows, told_apart

    left_out: list[str] = []
    rows: list[Row] = []
    set_rows: list[SetRow] = []
    told_apart: dict[str, tuple[TwoSample, ...]] = {}
    for index, fake in enumerate(fakes):
        new_rows, new_set_rows, classified = compare(index, fake)
        rows += new_rows
        set_rows += new_set_rows
        if classified:
            told_apart[fake.name] = tuple(classified)
    p_values = [row.p for row in rows] + [row.p for row in set_rows]
    corrected = resampling.benjamini_hochberg(np.array(p_values)).tolist()
    rows = [replace(row, p_corrected=p) for row, p in zip(rows, corrected)]
    set_rows = [replace(r, p_corrected=p) for r, p in zip(set_rows, corrected[len(rows) :])]
    return Evaluation(
        real=real,
        fakes=tuple(fakes),
        training=training,
        tables=tables,
        rows=tuple(rows),
        set_rows=tuple(set_rows),
        two_sample=told_apart,
        controls=_controls(
            real,
            columns[: len(names)],
            seed,
            results,
            cache=cache,
            workers=workers,
            track=track,
        )
        if controls
        else {},
        copying=copying,
        band=_band_in_words(real, training),
        warnings=(
            *_warnings(real, fakes, training, rows, permutations),
            *left_out,
            *(r.warning for results in told_apart.values() for r in results if r.warning),
        ),
        seed=seed,
        resamples=resamples,
        permutations=permutations,
    )


def _table(side: Side) -> FeatureTable:
    """The features of every piece of a side that was measured."""
    assert side.statistics
    return side.statistics.table


def _controls(
    real: Side,
    columns: Sequence[Column],
    seed: int,
    results: Results,
    *,
    cache: Path | None,
    workers: int | None,
    track: Track,
) -> dict[str, tuple[Row, ...]]:
    """Rows of real music that was spoilt, against what it was; p-values corrected per control.

    Without the figures that compare pairs, which would take longest and tell nothing more.
    """
    pieces = real.need_pieces("what controls show")[:CONTROL_PIECES]
    before = _table(real).of(np.array(list(real.music)[: len(pieces)]))
    sizes = Sizes(real=len(pieces), fake=len(pieces), training=0)
    names = [column.name for column in columns]

    def compare() -> Iterator[Row]:
        for index, (name, spoilt) in enumerate(controls_of(pieces, seed).items()):
            after = measured(
                spoilt,
                names,
                cache=cache,
                workers=workers,
                track=track,
                label=f"measuring {real.name}, {name}",
            )
            draws = _draw(
                np.random.default_rng((seed, index)),
                sizes,
                CONTROL_RESAMPLES,
                CONTROL_PERMUTATIONS,
            )

            def values_of(column: Column, after: FeatureTable = after) -> Values:
                return Values(before[column.name], after[column.name], None)

            with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
                rows = list(_compare_all(pool, name, columns, values_of, draws, pairs=False))
            corrected = resampling.benjamini_hochberg(np.array([row.p for row in rows])).tolist()
            yield from (replace(row, p_corrected=p) for row, p in zip(rows, corrected))

    found: dict[str, list[Row]] = {}
    question = ("controls", digest_of(real), seed, *names)
    for row in results.of(Row, question, lambda: list(compare())):
        found.setdefault(row.side, []).append(row)
    return {name: tuple(rows) for name, rows in found.items()}


def _check(
    sides: Sequence[Side], training: Side | None, *, resamples: int, permutations: int
) -> None:
    if len(sides) < 2:
        raise UserError("nothing to evaluate: give at least one generated side")
    if len({side.name for side in sides}) < len(sides):
        raise UserError(f"sides need names that differ, got {', '.join(s.name for s in sides)}")
    for side in sides:
        if side.num_pieces < 2:
            raise UserError(
                f"a comparison needs at least 2 pieces a side, and {FEW_PIECES} or more to tell "
                f"anything; {side.name} has {side.num_pieces}"
            )
    if training and not training.num_pieces:
        raise UserError(f"the training set {training.name} has no pieces")
    for name, value in (("resamples", resamples), ("permutations", permutations)):
        if value < 1:
            raise UserError(f"{name} must be at least 1, got {value}")


def _copying(
    sides: Sequence[Side], training: Side, seed: int, results: Results, track: Track
) -> tuple[Copying, ...]:
    pieces = [piece for side in sides for piece in side.pieces]
    few = training.thinned(NEAREST_PIECES, seed)
    question = tuple(map(digest_of, (*sides, training)))
    runs = results.of(Run, question, lambda: longest_runs(pieces, training.pieces))
    nearest = results.of(
        Nearest, (*question, seed), lambda: nearest_pieces(pieces, few.pieces, track=track)
    )
    parts, start = [], 0
    for side in sides:
        part = slice(start, start + len(side.pieces))
        start = part.stop
        own = tuple(_numbered(run, training) for run in runs[part])
        share = copied_share(own)
        long_enough = sum(run.line_notes >= MIN_NOTES for run in own)
        parts.append(
            Copying(
                side=side,
                share=share,
                interval=resampling.wilson_interval(share, long_enough),
                runs=own,
                nearest=tuple(_numbered(found, few) for found in nearest[part]),
            )
        )
    return tuple(parts)


def _numbered(found: Found, training: Side) -> Found:
    """The same with the number of the training piece among all of them."""
    if found.training_index < 0:
        return found
    return replace(found, training_index=list(training.music)[found.training_index])


def _copying_columns(part: Copying) -> Table:
    """Longest run of each piece, and whether it counts as copied; NaN where a line is too short."""
    notes = np.array([run.num_notes for run in part.runs], dtype=float)
    line = np.array([run.line_notes for run in part.runs])
    columns = {
        LONGEST_RUN.name: np.where(line >= 2, notes, math.nan),
        COPIED_SHARE.name: np.where(line >= MIN_NOTES, notes >= MIN_NOTES, math.nan),
    }
    for name, known in columns.items():
        columns[name] = np.full(part.side.num_pieces, math.nan)
        columns[name][list(part.side.music)] = known
    return columns


class Sizes(NamedTuple):
    """Numbers of pieces."""

    real: int
    fake: int
    training: int


class Values(NamedTuple):
    """One feature over the pieces of each side."""

    real: Floats
    fake: Floats
    training: Floats | None


class Draw(NamedTuple):
    """Resamples of some pieces of a pool.

    Attributes:
        pieces: Numbers of the pieces in the pool.
        counts: `(2, resamples, len(pieces))`, see `eval.resampling`.
    """

    pieces: NDArray[np.int64]
    counts: Counts


class Pairs(NamedTuple):
    """Resamples of few pieces of a pool, for what compares pairs.

    Attributes:
        pieces: Numbers of the pieces in the pool.
        draw: See `eval.resampling`.
    """

    pieces: NDArray[np.int64]
    draw: PairDraw

    @staticmethod
    def of(draw: Draw) -> Pairs:
        """The pairs in resamples."""
        return Pairs(draw.pieces, resampling.pair_draw(draw.counts))


class Band(NamedTuple):
    """Real sets of the sizes compared: from all pieces, and from few for what compares pairs."""

    all_pieces: Draw
    pairs: Pairs


@dataclass(frozen=True, kw_only=True)
class Draws:
    """All resampling of one comparison; every feature gets the same.

    The pool is the real pieces followed by the generated ones, for `training_band` by the training
    ones, for `real_band` by none.
    """

    observed: Counts
    bootstrap: Counts
    permutations: Counts
    pairs: Pairs
    training_band: Band | None
    real_band: Band


def _draw(rng: np.random.Generator, sizes: Sizes, resamples: int, permutations: int) -> Draws:
    few_real = rng.permutation(sizes.real)[:PAIR_PIECES]
    few_fake = rng.permutation(sizes.fake)[:PAIR_PIECES]
    few = len(few_real), len(few_fake)
    pair_counts = [
        resampling.as_given(*few),
        resampling.bootstrap(rng, *few, min(resamples, PAIR_RESAMPLES)),
    ]
    return Draws(
        observed=resampling.as_given(sizes.real, sizes.fake),
        bootstrap=resampling.by_piece(resampling.bootstrap(rng, sizes.real, sizes.fake, resamples)),
        permutations=resampling.by_piece(
            resampling.permutations(rng, sizes.real, sizes.fake, permutations)
        ),
        pairs=Pairs.of(
            Draw(
                np.concatenate([few_real, sizes.real + few_fake]),
                np.concatenate(pair_counts, axis=1),
            )
        ),
        training_band=Band(
            _training_draw(rng, sizes, max(sizes), resamples),
            Pairs.of(_training_draw(rng, sizes, PAIR_PIECES, min(resamples, PAIR_RESAMPLES))),
        )
        if sizes.training
        else None,
        real_band=Band(
            _real_draw(rng, sizes, max(sizes), resamples),
            Pairs.of(_real_draw(rng, sizes, PAIR_PIECES, min(resamples, PAIR_RESAMPLES))),
        ),
    )


def _training_draw(rng: np.random.Generator, sizes: Sizes, most: int, resamples: int) -> Draw:
    """The real side against as many training pieces as there are generated ones."""
    real = rng.permutation(sizes.real)[:most]
    training = rng.permutation(sizes.training)[: 2 * most]
    part = min(sizes.fake, most, len(training))
    counts = np.zeros((2, resamples, len(real) + len(training)), np.uint8)
    counts[0, :, : len(real)] = 1
    counts[1, :, len(real) :] = resampling.subsets(rng, len(training), part, resamples)
    return Draw(np.concatenate([real, sizes.real + training]), resampling.by_piece(counts))


def _real_draw(rng: np.random.Generator, sizes: Sizes, most: int, resamples: int) -> Draw:
    """Random halves of the real side, or a part as small as the generated side and the rest."""
    real = rng.permutation(sizes.real)[: 2 * most]
    part = resampling.subsets(rng, len(real), min(sizes.fake, len(real) // 2), resamples)
    return Draw(real, resampling.by_piece(np.stack([1 - part, part])))


def _compare_all(
    pool: ThreadPoolExecutor,
    side: str,
    columns: Sequence[Column],
    values_of: Callable[[Column], Values],
    draws: Draws,
    *,
    pairs: bool = True,
) -> Iterator[Row]:
    """The rows of some features; see `_compare`. Values are asked for when their turn comes."""
    return pool.map(
        lambda column: _compare(side, column, values_of(column), draws, pairs=pairs), columns
    )


def _compare(side: str, column: Column, values: Values, draws: Draws, *, pairs: bool) -> Row:
    """The row of one feature, its p-value not corrected yet; `pairs`: with what compares pairs."""
    pooled = np.concatenate([values.real, values.fake])
    # A training piece copies itself, so copying has no values for the training set.
    if draws.training_band is None or values.training is None:
        pool, band = values.real, draws.real_band
    else:
        pool, band = np.concatenate([values.real, values.training]), draws.training_band

    def resampled(values: Floats, counts: Counts) -> Floats:
        return resampling.set_distances(values, counts, column.positions)

    distance = float(resampled(pooled, draws.observed)[0])
    p = resampling.permutation_p(distance, resampled(pooled, draws.permutations))
    real, fake = _summary(column, values.real), _summary(column, values.fake)
    area, divergence = (
        _pair_figures(pooled, draws.pairs, pool, band.pairs) if pairs else (UNDEFINED, UNDEFINED)
    )
    return Row(
        side=side,
        column=column,
        real=real,
        fake=fake,
        distance=Figure(
            value=distance,
            interval=resampling.interval_of_distance(
                distance, resampled(pooled, draws.bootstrap), sees_difference=p < ALPHA
            ),
            band=resampling.quantiles(
                resampled(pool[band.all_pieces.pieces], band.all_pieces.counts)
            ),
        ),
        standardised=distance / real.deviation if real.deviation > 0 else math.nan,
        p=p,
        p_corrected=math.nan,
        overlapping_area=area,
        kl_divergence=divergence,
        histogram_overlap=(
            math.nan
            if column.kind == "scalar"
            else float(distances.histogram_overlap(real.histogram, fake.histogram))
        ),
    )


def _pair_figures(pooled: Floats, pairs: Pairs, pool: Floats, band: Pairs) -> tuple[Figure, Figure]:
    """Overlapping area and Kullback-Leibler divergence."""
    found = resampling.pair_comparisons(pooled[pairs.pieces], pairs.draw)
    chance = resampling.pair_comparisons(pool[band.pieces], band.draw)
    area, divergence = (
        Figure(
            value=float(values[0]),
            interval=resampling.quantiles(values[1:]),
            band=resampling.quantiles(by_chance),
        )
        for values, by_chance in zip(found, chance)
    )
    return area, divergence


def _summary(column: Column, values: Floats) -> Summary:
    defined = values[~np.isnan(values.reshape(len(values), -1)[:, 0])]
    mean = median = deviation = math.nan
    histogram = np.full(len(column.bins), math.nan)
    if len(defined) and column.kind == "scalar":
        mean, median, deviation = defined.mean(), np.median(defined), defined.std()
    elif len(defined):
        histogram = defined.mean(axis=0)
    if len(defined) and column.kind == "ordered":
        order = np.argsort(column.positions)
        positions = np.array(column.positions)[order]
        mass = histogram[order]
        mean = mass @ positions
        deviation = math.sqrt(mass @ (positions - mean) ** 2)
        median = positions[np.searchsorted(np.cumsum(mass), 0.5 - 1e-12)]
    return Summary(
        count=len(defined),
        undefined=len(values) - len(defined),
        mean=float(mean),
        median=float(median),
        deviation=float(deviation),
        histogram=histogram,
    )


def _band_in_words(real: Side, training: Side | None) -> str:
    if training:
        return (
            f"the training set {training.name} ({training.num_pieces} pieces, as many drawn as "
            f"there are generated ones) against {real.name}; copying: random parts of {real.name}"
        )
    return (
        f"random parts of {real.name} against the rest of it (halves, or as many pieces as there "
        "are generated ones if that is less), which are smaller sets than those compared, so that "
        "the band is a little too wide; give a training set for one of the same sizes"
    )


def _warnings(
    real: Side,
    fakes: Sequence[Side],
    training: Side | None,
    rows: Sequence[Row],
    permutations: int,
) -> Iterator[str]:
    for side in (real, *fakes):
        if side.num_pieces < FEW_PIECES:
            yield (
                f"{side.name} has only {side.num_pieces} pieces: below {FEW_PIECES}, no "
                "difference seen does not mean that there is none"
            )
        if side.num_pieces > WHOLE_PIECES:
            yield (
                f"{side.name} has {side.num_pieces} pieces: rows rest on {ROW_PIECES} of them at "
                "most, figures of whole sets, classifiers, copying, and the pieces that are shown "
                f"on {WHOLE_PIECES}, drawn at random"
            )
        if side.rejects:
            files = len(side.rejects) + side.num_pieces
            yield f"{side.name}: {len(side.rejects)} of {files} files were refused"
        if side.num_distinct < side.num_pieces:
            yield (
                f"{side.name}: only {side.num_distinct} of {side.num_pieces} pieces are distinct; "
                "the others repeat one of them note for note"
            )
    for fake in fakes:
        if fake.content_hash == real.content_hash:
            yield f"{real.name} and {fake.name} are the same music"
        elif shared := _num_shared(fake, real):
            yield (
                f"{fake.name}: {shared} of {fake.num_pieces} pieces also stand in {real.name}, "
                "note for note"
            )
    if training and training.num_pieces > NEAREST_PIECES:
        yield (
            f"copies were looked for in {min(training.num_pieces, TRAINING_PIECES)} of the "
            f"{training.num_pieces} training pieces, the nearest ones among {NEAREST_PIECES}, "
            "drawn at random: others may be nearer"
        )
    if training and (shared := _num_shared(real, training)):
        yield (
            f"{real.name}: {shared} of {real.num_pieces} pieces also stand in the training set, "
            "note for note: what held-out music shares with training looks larger than it is"
        )
    if rows and len(rows) > ALPHA * (permutations + 1):
        yield (
            f"{permutations} permutations are too few for {len(rows)} rows: a single difference "
            f"among them cannot be seen with fewer than {math.ceil(len(rows) / ALPHA)}"
        )


def _num_shared(side: Side, other: Side) -> int:
    known = set(other.piece_hashes)
    return sum(piece in known for piece in side.piece_hashes)

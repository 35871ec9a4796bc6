"""One generated set against a real one, as a whole: on the feature vector, and on its tokens.

Every row holds a figure of the two sets and, beside it,

- a bootstrap 95 % interval, pieces resampled on both sides. A piece that is drawn twice counts
  twice in a mean, but is neither its own neighbour, nor its own pair, nor its own reference; what
  resampling then adds to or takes from the figure on average is taken off again;
- the real-against-real band: the figure's middle 95 % for two real sets of these sizes, dealt out
  of the real and as many training pieces as there are generated ones; without a training set, for
  random parts of the real side and their rest, which are smaller sets than those compared;
- the p-value of a permutation test that swaps pieces between the sides. Distances are tested for
  being large, all other figures on both sides, self-BLEU for its distance from that of the real
  side. It falls below α in a share α of comparisons of two
  sets of one kind, or in fewer, however few the pieces.

The feature vector, version 1, has one column for each scalar of `VECTOR`, two for each ordered
histogram (mean and standard deviation of the position), one for each bin of a categorical one, and
last the share of the features that are undefined. Columns are centred and scaled; the bins of a
histogram are scaled together, so that it has a variance of 1 in sum, as each other column does.
No value counts for more than five deviations: where real music hardly varies, as in the share of
empty bars, a few thousandths of a share would otherwise be dozens of deviations, and a single such
column would make up nearly all of a distance, and all of a kernel's third power. The cut depends on
the scale and the piece alone, so that generated sets stay comparable with each other. An undefined
value stands at the mean. Figures, intervals and bands are on the scale of the real side;
the test is on the scale of both sides together, since a scale that is taken from one of them would
tell them apart by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from eval import distances, resampling, textual
from eval.features import FEATURES
from eval.pieces import Track, silently
from eval.resampling import Counts, Interval
from rnngan.errors import UserError
from rnngan.music.piece import Piece

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Table: TypeAlias = dict[str, Floats]
"""Each feature over the pieces of a side: `(pieces,)` or, for histograms, `(pieces, bins)`."""
Direction = Literal["lower", "higher", "as real"]

VECTOR = (
    "pitch_count",
    "pitch_class_count[bar]",
    "pitch_range",
    "pitch_entropy",
    "pitch_histogram[duration]",
    "pitch_class_histogram[duration]",
    "pitch_class_entropy",
    "pitch_class_entropy[1]",
    "pitch_class_entropy[4]",
    "pitch_interval_mean",
    "interval_histogram",
    "scale_consistency",
    "out_of_key_rate",
    "tonal_distance",
    "note_count",
    "note_density[bar]",
    "note_density[second]",
    "inter_onset_interval_mean[beats]",
    "inter_onset_interval_histogram[beats]",
    "note_length_histogram",
    "qualified_note_rate",
    "groove[q=64,pairs=all]",
    "groove[q=64,pairs=adjacent]",
    "drum_pattern_rate",
    "syncopation",
    "swing_ratio",
    "distinct[n=2]",
    "distinct[n=4]",
    "distinct[n=8]",
    "polyphony",
    "polyphony_rate[k=2]",
    "empty_beat_rate",
    "empty_bar_rate",
)
"""Features in version 1 of the vector. Another choice would be another version."""
MOST_DEVIATIONS = 5.0
"""What a value of the vector counts for at most, as in the feature-based two-sample test."""
NEIGHBOURS = 5
MIN_TOKENS = max(textual.ORDERS)
"""Shorter pieces have no n-grams of every order and are left out of what compares tokens."""
ROUGE_PIECES = 200
ROUGE_TOKENS = 256
INF_SIZES = 8
"""Shares of the sets from which the bias is extrapolated."""
ALPHA = 0.05


@dataclass(frozen=True, kw_only=True)
class SetMetric:
    """A figure of two sets.

    Attributes:
        name: Versioned name with its variant in brackets.
        unit: `variances` are those of a column of the feature vector.
        range: Lowest and highest value that it can take.
        direction: What better music does to it; `as real`, where both too low and too high are
            worse.
        reference: Source of the definition.
    """

    name: str
    unit: str
    range: tuple[float, float]
    direction: Direction
    reference: str


def _registry() -> dict[str, SetMetric]:
    share, any_number, distance = (0.0, 1.0), (-math.inf, math.inf), (0.0, math.inf)
    nearest = f"[vector=1,k={NEIGHBOURS}]"
    kynkaanniemi = "Kynkäänniemi et al., NeurIPS 2019"
    naeem = "Naeem et al., ICML 2020"
    chong = "Chong and Forsyth, CVPR 2020"
    rows: list[tuple[str, str, tuple[float, float], Direction, str]] = [
        ("frechet[vector=1]", "variances", distance, "lower", "Heusel et al., NeurIPS 2017"),
        (f"frechet[vector=1,inf={INF_SIZES}]", "variances", any_number, "lower", chong),
        (
            "kernel_distance[vector=1]",
            "squared",
            any_number,
            "lower",
            "Bińkowski et al., ICLR 2018",
        ),
        (f"precision{nearest}", "share", share, "higher", kynkaanniemi),
        (f"recall{nearest}", "share", share, "higher", kynkaanniemi),
        (f"density{nearest}", "ratio", distance, "as real", naeem),
        (f"coverage{nearest}", "share", share, "higher", naeem),
    ]
    for n in textual.ORDERS:
        rows.append((f"bleu[n={n}]", "share", share, "as real", "Papineni et al., ACL 2002"))
    for n in textual.ORDERS:
        rows.append((f"self_bleu[n={n}]", "share", share, "as real", "Zhu et al., SIGIR 2018"))
    rouge = f"rouge_l[best,pieces={ROUGE_PIECES},tokens={ROUGE_TOKENS}]"
    rows.append((rouge, "share", share, "as real", "Lin, 2004"))
    keys = ("name", "unit", "range", "direction", "reference")
    return {row[0]: SetMetric(**dict(zip(keys, row))) for row in rows}  # type: ignore[arg-type]


SET_METRICS = _registry()
"""Every figure by name, in the order of the table."""


class Sample(NamedTuple):
    """A set: its pieces, and their features, of which `VECTOR` must be there."""

    pieces: Sequence[Piece]
    table: Table


@dataclass(frozen=True, kw_only=True)
class SetRow:
    """One figure of a generated set and the real one; NaN where a set is too small for it.

    Attributes:
        side: Name of the generated side.
        n_real: Real pieces that count.
        n_fake: Generated pieces that count.
        interval: Bootstrap 95 % interval.
        band: Middle 95 % for real sets in place of the generated one.
        p: Of the permutation test.
        permutations: On which `p` rests; it cannot be below 1 / (1 + permutations).
        p_corrected: NaN until the whole table is known.
        note: What to know before reading the figure, empty if nothing.
    """

    side: str
    name: str
    unit: str
    direction: Direction
    n_real: int
    n_fake: int
    value: float
    interval: Interval
    band: Interval
    p: float
    permutations: int
    p_corrected: float = math.nan
    note: str = ""


class Vectors(NamedTuple):
    """Feature vectors.

    Attributes:
        rows: `(pieces, size)`, centred and scaled.
        columns: Name of each column.
        undefined: Share of the features that are undefined in each piece: `(pieces,)`.
    """

    rows: Floats
    columns: tuple[str, ...]
    undefined: Floats


class Draw(NamedTuple):
    """Resamples of some pieces of the pool.

    Attributes:
        pieces: Numbers of the pieces in the pool.
        counts: `(2, resamples, len(pieces))`, see `eval.resampling`.
    """

    pieces: Ints
    counts: Counts


Compute: TypeAlias = Callable[[Any, Draw, np.random.Generator], Floats]


@dataclass(frozen=True, kw_only=True)
class Family:
    """Figures that come of one computation.

    Attributes:
        given: What they are computed from.
        tested: The same for the permutation test.
        real: Pieces of the pool that count, likewise `fake` and `training`.
        min_pieces: A side with fewer has no figures.
        resamples: At most so many, of the bootstrap and of the band.
        permutations: At most so many.
        compute: Gives the figures of each resample: `(figures, resamples)`.
        test: Gives what the permutation test looks at, likewise.
    """

    names: tuple[str, ...]
    given: Any
    tested: Any
    real: Ints
    fake: Ints
    training: Ints
    min_pieces: int
    resamples: int
    permutations: int
    compute: Compute
    test: Compute
    note: str


def feature_matrix(
    table: Table, columns: Sequence[str] = VECTOR, *, scale_by: NDArray[np.bool_]
) -> Vectors:
    """Feature vectors of pieces, on the scale of those in `scale_by` `(pieces,)`.

    No value counts for more than `MOST_DEVIATIONS`. What does not vary among those has the scale
    of all pieces; what varies in none is 0.

    Raises:
        UserError: The table lacks a column.
    """
    _check(table, columns)
    blocks: list[tuple[tuple[str, ...], Floats]] = []
    for name in columns:
        feature, values = FEATURES[name], np.asarray(table[name], dtype=float)
        if feature.kind == "scalar":
            blocks.append(((name,), values[:, None]))
        elif feature.kind == "categorical":
            blocks.append((tuple(f"{name}: {label}" for label in feature.bins), values))
        else:
            places = np.array(feature.positions)
            mean = values @ places
            spread = np.sqrt(np.sum(values * (places - mean[:, None]) ** 2, axis=1))
            blocks.append(((f"{name}: mean",), mean[:, None]))
            blocks.append(((f"{name}: deviation",), spread[:, None]))
    undefined = np.mean([np.isnan(values[:, 0]) for _, values in blocks], axis=0)
    blocks.append((("undefined",), undefined[:, None]))
    return Vectors(
        rows=np.hstack([_standardised(values, scale_by) for _, values in blocks]),
        columns=tuple(label for labels, _ in blocks for label in labels),
        undefined=undefined,
    )


def _check(table: Table, columns: Sequence[str]) -> None:
    missing = [name for name in columns if name not in table]
    if missing:
        raise UserError(f"the feature vector needs {', '.join(missing)}, which were not measured")


def _standardised(block: Floats, scale_by: NDArray[np.bool_]) -> Floats:
    """Centred, with a sum of variances of 1, cut off, 0 if undefined: `(pieces, columns)`."""
    defined = ~np.isnan(block[:, 0])
    for basis in (block[defined & scale_by], block[defined]):
        scale = math.sqrt(basis.var(axis=0).sum()) if len(basis) else 0.0
        if scale > 1e-9 * np.abs(basis).max(initial=0):  # more than rounding makes of equal values
            deviations = (block - basis.mean(axis=0)) / scale
            deviations = np.clip(deviations, -MOST_DEVIATIONS, MOST_DEVIATIONS)
            return np.where(defined[:, None], deviations, 0)
    return np.zeros_like(block)


def compare_sets(
    side: str,
    real: Sample,
    fake: Sample,
    training: Sample | None = None,
    *,
    names: Collection[str] = tuple(SET_METRICS),
    seed: int = 0,
    resamples: int = 1000,
    permutations: int = 1000,
    track: Track = silently,
) -> list[SetRow]:
    """Figures of one generated side.

    Args:
        side: Name of the generated side.
        real: Held-out real music.
        fake: Generated music.
        training: What the generator learnt from; of it come the real sets of the band.
        names: Of `SET_METRICS`, all by default; those that are computed together come together.
        seed: Of all resampling.
        resamples: Of bootstrap and band, at most; dear figures take fewer.
        permutations: Of the test, at most; dear figures take fewer and say so.
        track: Shows the progress.

    Raises:
        UserError: A table lacks a feature of `VECTOR`.
    """
    rng = np.random.default_rng(seed)
    sets = [real, fake, Sample((), {}) if training is None else training]
    kept = [
        np.arange(len(real.pieces)),
        np.arange(len(fake.pieces)),
        np.sort(rng.permutation(len(sets[2].pieces))[: len(fake.pieces)]),
    ]
    numbers = np.split(np.arange(sum(map(len, kept))), np.cumsum([len(part) for part in kept])[:2])
    families = _vector_families(sets, kept, numbers)
    if any("[vector=" not in name for name in names):
        families += _text_families(sets, kept, numbers, rng)
    families = [family for family in families if set(names) & set(family.names)]
    rows = []
    for family in track(families, f"comparing {side} as a whole"):
        family = replace(
            family,
            resamples=min(family.resamples, resamples),
            permutations=min(family.permutations, permutations),
        )
        rows += _rows_of(side, family, rng)
    order = list(SET_METRICS)
    return sorted(rows, key=lambda row: order.index(row.name))


def _vector_families(
    sets: Sequence[Sample], kept: Sequence[Ints], numbers: Sequence[Ints]
) -> list[Family]:
    for sample, part in zip(sets, kept):
        if len(part):
            _check(sample.table, VECTOR)
    table = {
        name: np.concatenate([s.table[name][part] for s, part in zip(sets, kept) if len(part)])
        for name in VECTOR
    }
    place = np.arange(sum(map(len, kept)))
    given = feature_matrix(table, scale_by=place < len(kept[0]))
    tested = feature_matrix(table, scale_by=place < len(kept[0]) + len(kept[1]))
    shares = [float(given.undefined[part].mean()) for part in numbers[:2]]
    note = (
        f"undefined and put at the mean: {shares[0]:.1%} of the real numbers, {shares[1]:.1%} of "
        "the generated ones"
        if any(shares)
        else ""
    )
    names = [name for name in SET_METRICS if "[vector=1" in name]
    shapes: list[tuple[tuple[str, ...], int, int, int, Compute]] = [
        ((names[0],), 2, 200, 499, frechets),
        ((names[1],), 4, 50, 99, frechets_inf),
        ((names[2],), 2, 1000, 5000, kernel_distances),
        (tuple(names[3:]), NEIGHBOURS + 1, 200, 499, manifolds),
    ]
    return [
        Family(
            names=figures,
            given=given.rows,
            tested=tested.rows,
            real=numbers[0],
            fake=numbers[1],
            training=numbers[2],
            min_pieces=min_pieces,
            resamples=most_resamples,
            permutations=most_permutations,
            compute=compute,
            test=compute,
            note=note,
        )
        for figures, min_pieces, most_resamples, most_permutations, compute in shapes
    ]


def _text_families(
    sets: Sequence[Sample],
    kept: Sequence[Ints],
    numbers: Sequence[Ints],
    rng: np.random.Generator,
) -> list[Family]:
    sequences = [textual.tokens_of(s.pieces[i]) for s, part in zip(sets, kept) for i in part]
    lengths = np.array([len(sequence) for sequence in sequences])
    real, fake, training = (part[lengths[part] >= MIN_TOKENS] for part in numbers)
    short = len(numbers[0]) - len(real), len(numbers[1]) - len(fake)
    note = (
        f"left out for having fewer than {MIN_TOKENS} notes: {short[0]} real pieces, {short[1]} "
        "generated ones"
        if any(short)
        else ""
    )
    ngrams = textual.NGrams(sequences)
    few_real, few_fake = (rng.permutation(part)[:ROUGE_PIECES] for part in (real, fake))
    few_training = rng.permutation(training)[: len(few_fake)]
    pairs = np.full((len(sequences), len(sequences)), np.nan, np.float32)
    for other in (few_fake, few_training):
        compared = np.concatenate([few_real, other])
        beginnings = [sequences[i][:ROUGE_TOKENS] for i in compared]
        pairs[np.ix_(compared, compared)] = textual.rouge_l_pairs(beginnings, beginnings)
    overlap = Family(
        names=tuple(
            name for name in SET_METRICS if name.partition("[")[0] in ("bleu", "self_bleu")
        ),
        given=ngrams,
        tested=ngrams,
        real=real,
        fake=fake,
        training=training,
        min_pieces=2,
        resamples=100,
        permutations=299,
        compute=bleus,
        test=bleus_compared,
        note=note,
    )
    rouge = replace(
        overlap,
        names=tuple(name for name in SET_METRICS if name.startswith("rouge_l")),
        given=pairs,
        tested=pairs,
        real=few_real,
        fake=few_fake,
        training=few_training,
        resamples=1000,
        permutations=5000,
        compute=rouges,
        test=rouges,
    )
    return [overlap, rouge]


def _rows_of(side: str, family: Family, rng: np.random.Generator) -> list[SetRow]:
    sizes = len(family.real), len(family.fake)
    if min(sizes) < family.min_pieces:
        return [
            _row(side, name, sizes, f"needs {family.min_pieces} pieces a side or more")
            for name in family.names
        ]
    both = np.concatenate([family.real, family.fake])
    once = resampling.as_given(*sizes)
    drawn = resampling.bootstrap(rng, *sizes, family.resamples)
    dealt = resampling.permutations(rng, *sizes, family.permutations)

    def with_observed(counts: Counts) -> Draw:
        return Draw(both, np.concatenate([once, counts], axis=1))

    given = family.compute(family.given, with_observed(drawn), rng)
    tested = family.test(family.tested, with_observed(dealt), rng)
    band = family.compute(family.given, _band(family, rng), rng)
    rows = []
    for i, name in enumerate(family.names):
        metric = SET_METRICS[name]
        value = float(given[i, 0])
        p = _p(metric, tested[i])
        notes = [family.note]
        if name.startswith("frechet[vector=1]"):
            notes.insert(
                0,
                "biased upwards, the more the fewer the pieces: real against real gives "
                f"{np.nanmean(band[i]) if not np.isnan(band[i]).all() else math.nan:.3g}",
            )
        rows.append(
            replace(
                _row(side, name, sizes, "; ".join(filter(None, notes))),
                value=value,
                interval=_interval(metric, value, given[i, 1:], sees_difference=p < ALPHA),
                band=resampling.quantiles(band[i]),
                p=p,
                permutations=family.permutations,
            )
        )
    return rows


def _row(side: str, name: str, sizes: tuple[int, int], note: str) -> SetRow:
    """A row without figures."""
    metric = SET_METRICS[name]
    nothing = math.nan, math.nan
    return SetRow(
        side=side,
        name=name,
        unit=metric.unit,
        direction=metric.direction,
        n_real=sizes[0],
        n_fake=sizes[1],
        value=math.nan,
        interval=nothing,
        band=nothing,
        p=math.nan,
        permutations=0,
        note=note,
    )


def _band(family: Family, rng: np.random.Generator) -> Draw:
    """Real and training pieces dealt out to two sets; without training pieces, the real ones."""
    pool = np.concatenate([family.real, family.training])
    size = min(len(family.fake), len(family.training) or len(pool) // 2)
    return Draw(pool, resampling.permutations(rng, len(pool) - size, size, family.resamples))


def _p(metric: SetMetric, figures: Floats) -> float:
    """P-value of the first figure: one-sided for a distance, else twice that of the rarer tail."""
    value, permuted = float(figures[0]), figures[1:]
    high = resampling.permutation_p(value, permuted)
    if metric.direction == "lower":
        return high
    return min(1.0, 2 * min(high, resampling.permutation_p(-value, -permuted)))


def _interval(
    metric: SetMetric, value: float, resampled: Floats, *, sees_difference: bool
) -> Interval:
    if metric.direction == "lower" and metric.range[0] == 0:
        return resampling.interval_of_distance(value, resampled, sees_difference=sees_difference)
    low, high = resampling.quantiles(resampled)
    if math.isnan(low):
        return low, high
    bias = float(np.nanmean(resampled)) - value
    floor, ceiling = metric.range
    return min(max(low - bias, floor), value), max(min(high - bias, ceiling), value)


def frechets(vectors: Floats, draw: Draw, rng: np.random.Generator) -> Floats:  # noqa: ARG001
    """`distances.frechet` of each resample: `(1, resamples)`."""
    return _frechets(vectors[draw.pieces], draw.counts)[None]


def frechets_inf(vectors: Floats, draw: Draw, rng: np.random.Generator) -> Floats:
    """`distances.frechet_inf` of each resample, from `INF_SIZES` shares: `(1, resamples)`."""
    shares = np.linspace(0.5, 1, INF_SIZES)
    _, num_resamples, num_pieces = draw.counts.shape
    parts = np.zeros((2, num_resamples, INF_SIZES, num_pieces), np.uint8)
    for resample in range(num_resamples):
        drawn = [np.repeat(np.arange(num_pieces), side[resample]) for side in draw.counts]
        for size, share in enumerate(shares):
            for side, pieces in enumerate(drawn):
                part = pieces[rng.permutation(len(pieces))[: max(2, round(share * len(pieces)))]]
                parts[side, resample, size] = np.bincount(part, minlength=num_pieces)
    values = _frechets(vectors[draw.pieces], parts.reshape(2, -1, num_pieces))
    fitted = np.polyfit(1 / shares, values.reshape(num_resamples, INF_SIZES).T, 1)
    return np.asarray(fitted[1:2])


def _frechets(rows: Floats, counts: Counts) -> Floats:
    """Fréchet distance of each resample, all moments from one product: `(resamples,)`."""
    i, j = np.triu_indices(rows.shape[1])
    products = rows[:, i] * rows[:, j]

    def moments(total: Floats, sums: Floats, squares: Floats) -> tuple[Floats, Floats]:
        mean = sums / total[:, None]
        second = np.empty((len(total), rows.shape[1], rows.shape[1]))
        second[:, i, j] = second[:, j, i] = squares
        centred = second - total[:, None, None] * mean[:, :, None] * mean[:, None, :]
        return mean, centred / (total - 1)[:, None, None]

    found = np.full(counts.shape[1], math.nan)
    enough = np.flatnonzero((counts.sum(axis=2) >= 2).all(axis=0))
    for start in range(0, len(enough), resampling.ROWS_AT_ONCE):
        part = enough[start : start + resampling.ROWS_AT_ONCE]
        sizes = counts[:, part].sum(axis=2, dtype=np.int64).astype(float)
        sums, squares = (_weighted(counts[:, part], table) for table in (rows, products))
        sides = [moments(*of_side) for of_side in zip(sizes, sums, squares)]
        found[part] = distances.frechet_of_moments(*sides[0], *sides[1])
    return found


def _weighted(counts: Counts, table: Floats) -> tuple[Floats, Floats]:
    """The rows of a table `(pieces, columns)`, summed up for both sides: `(resamples, columns)`."""
    if (counts[0] + counts[1] == 1).all():  # half the work, as in every permutation
        first = counts[0].astype(float) @ table
        return first, table.sum(axis=0) - first
    used = [np.flatnonzero(side.any(axis=0)) for side in counts]
    first, second = (side[:, part].astype(float) @ table[part] for side, part in zip(counts, used))
    return first, second


def kernel_distances(vectors: Floats, draw: Draw, rng: np.random.Generator) -> Floats:  # noqa: ARG001
    """`distances.kernel_distance` of each resample, from one table of kernels: `(1, resamples)`.

    Pairs of a piece with its own copy do not count.
    """
    rows = vectors[draw.pieces]
    base = rows @ rows.T
    base /= rows.shape[1]
    base += 1
    kernel = base * base  # ten times faster than the power
    kernel *= base
    del base  # of thousands of pieces, a tenth of a gigabyte
    itself = np.diag(kernel)
    parts = [np.empty(0)]
    for start in range(0, draw.counts.shape[1], resampling.ROWS_AT_ONCE):
        counts = draw.counts[:, start : start + resampling.ROWS_AT_ONCE]
        to_first, to_second = _weighted(counts, kernel)
        first, second = counts.astype(float)
        within = []
        for seen, side in ((to_first, first), (to_second, second)):
            num_pairs = side.sum(axis=1) ** 2 - np.sum(side**2, axis=1)
            total = np.sum(seen * side, axis=1) - side**2 @ itself
            within.append(total / np.where(num_pairs > 0, num_pairs, np.nan))
        between = np.sum(to_first * second, axis=1) / (first.sum(axis=1) * second.sum(axis=1))
        parts.append(within[0] + within[1] - 2 * between)
    return np.concatenate(parts)[None]


def manifolds(vectors: Floats, draw: Draw, rng: np.random.Generator) -> Floats:  # noqa: ARG001
    """`distances.manifold` of each resample, from one sorted table of distances: `(4, resamples)`.

    A piece that is drawn twice is one neighbour; NaN where a side has no more than
    `NEIGHBOURS` pieces that differ.
    """
    rows = vectors[draw.pieces]
    pairs = distances.pair_distances(rows, rows)
    np.fill_diagonal(pairs, math.inf)  # no piece is its own neighbour
    neighbours = _Neighbours(pairs)
    found = [
        _manifold(neighbours, first, second) for first, second in zip(*draw.counts.astype(int))
    ]
    return np.array(found).T


class _Neighbours:
    """The nearest neighbours of each piece, sorted as far as somebody asked for.

    Args:
        pairs: Distances `(pieces, pieces)`.
    """

    def __init__(self, pairs: Floats) -> None:
        self._pairs = pairs
        self.most = len(pairs) - 1
        self._nearest, self._distances = np.empty((len(pairs), 0), np.int64), pairs[:, :0]

    def nearest(self, members: Ints, count: int) -> tuple[Ints, Floats]:
        """So many neighbours of some pieces, nearest first, and how far they are.

        Shapes: `(members, count)`, at most `most` of them.
        """
        if count > self._nearest.shape[1] < self.most:
            depth = min(2 * count, self.most)
            near = np.argpartition(self._pairs, depth - 1, axis=1)[:, :depth]
            far = np.take_along_axis(self._pairs, near, axis=1)
            order = np.argsort(far, axis=1)
            self._nearest = np.take_along_axis(near, order, axis=1)
            self._distances = np.take_along_axis(far, order, axis=1)
        return self._nearest[members, :count], self._distances[members, :count]


def _manifold(neighbours: _Neighbours, real: Ints, fake: Ints) -> distances.Manifold:
    nothing = distances.Manifold(*[math.nan] * 4)
    fewest = min(np.count_nonzero(real), np.count_nonzero(fake))
    if fewest <= NEIGHBOURS:
        return nothing
    # All that matters lies among a piece's first few neighbours; how few shows only afterwards.
    members = np.flatnonzero(real + fake)
    is_real = real > 0
    of_real = is_real[members]
    width = int(4 * NEIGHBOURS * len(real) // fewest)
    while True:
        close, far = neighbours.nearest(members, width)
        own = np.where(of_real[:, None], is_real[close], fake[close] > 0)
        counted = np.cumsum(own, axis=1)
        reach = np.take_along_axis(far, np.argmax(counted >= NEIGHBOURS, axis=1)[:, None], axis=1)
        seen = np.all((counted[:, -1] >= NEIGHBOURS) & (far[:, -1] > reach[:, 0]))
        if seen or width >= neighbours.most:
            break
        width *= 2
    inside = far <= reach
    in_real, in_fake = close[of_real][inside[of_real]], close[~of_real][inside[~of_real]]
    held = np.zeros((2, len(real)), bool)
    held[0, in_real] = held[1, in_fake] = True
    balls = real[members][of_real]
    fakes_inside = np.where(inside, fake[close], 0).sum(axis=1)[of_real]
    return distances.Manifold(
        precision=float(held[0] @ fake / fake.sum()),
        recall=float(held[1] @ real / real.sum()),
        density=float(balls @ fakes_inside * len(balls))
        / float(NEIGHBOURS * real.sum() * fake.sum()),
        coverage=float(balls @ (fakes_inside > 0) / real.sum()),
    )


def bleus(ngrams: textual.NGrams, draw: Draw, rng: np.random.Generator) -> Floats:  # noqa: ARG001
    """BLEU of the second side against the first, then its self-BLEU: `(8, resamples)`.

    A piece that is drawn twice is one reference.
    """
    real, fake = _counts_of_all(ngrams, draw)
    return np.concatenate(
        [_mean_bleu(ngrams, fake, real, own=False), _mean_bleu(ngrams, fake, fake, own=True)]
    )


def bleus_compared(ngrams: textual.NGrams, draw: Draw, rng: np.random.Generator) -> Floats:
    """`bleus`, with the self-BLEU less that of the first side: `(8, resamples)`.

    Two sets that have nothing in common may repeat themselves equally much; swapping pieces makes
    both more varied than either, so that only the difference of the two tells of repetition.
    """
    found = bleus(ngrams, draw, rng)
    real, _ = _counts_of_all(ngrams, draw)
    found[len(textual.ORDERS) :] -= _mean_bleu(ngrams, real, real, own=True)
    return found


def _counts_of_all(ngrams: textual.NGrams, draw: Draw) -> Floats:
    """The counts of the whole pool: `(2, resamples, pool)`."""
    counts = np.zeros((2, draw.counts.shape[1], len(ngrams.lengths)))
    counts[:, :, draw.pieces] = draw.counts
    return counts


def _mean_bleu(ngrams: textual.NGrams, scored: Floats, references: Floats, *, own: bool) -> Floats:
    """Mean BLEU-n over what is scored, for each of `ORDERS`: `(4, resamples)`."""
    scores = ngrams.bleu(references > 0, own=own)[min(textual.ORDERS) - 1 :]
    counted = np.where(scored > 0, scores, 0)  # the others are undefined here
    return np.asarray(np.sum(counted * scored, axis=-1) / scored.sum(axis=-1))


def rouges(pairs: Floats, draw: Draw, rng: np.random.Generator) -> Floats:  # noqa: ARG001
    """ROUGE-L of the second side, the best over the first, in each resample: `(1, resamples)`."""
    table = pairs[np.ix_(draw.pieces, draw.pieces)]
    found = []
    for real, fake in zip(*draw.counts):
        best = table[np.ix_(np.flatnonzero(fake), np.flatnonzero(real))].max(axis=1)
        found.append(best @ fake[fake > 0] / fake.sum())
    return np.array(found, dtype=float)[None]

"""What chance does to a distance between two sets of pieces.

Every resample is a row of counts: how often each piece of a pool stands on the first side and how
often on the second. So the observed distance, its bootstrap, its permutations and real against
real are one matrix product with four kinds of counts.

Shapes: values of a scalar feature `(pool,)`, of a histogram `(pool, bins)`, NaN where undefined;
counts `(2, resamples, pool)`; results `(resamples,)`.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from eval import distances

Floats = NDArray[np.float64]
Counts = NDArray[np.uint8]
Interval: TypeAlias = tuple[float, float]

ROWS_AT_ONCE = 500
"""Resamples that are compared in one go; bounds the memory."""


def as_given(first: int, second: int) -> Counts:
    """Each piece once, on its own side: `(2, 1, first + second)`."""
    is_first = np.arange(first + second) < first
    return np.stack([is_first, ~is_first]).astype(np.uint8)[:, None]


def bootstrap(rng: np.random.Generator, first: int, second: int, resamples: int) -> Counts:
    """Pieces drawn with replacement within each side: `(2, resamples, first + second)`."""
    counts = np.zeros((2, resamples, first + second), np.uint8)
    counts[0, :, :first] = rng.multinomial(first, np.full(first, 1 / first), size=resamples)
    counts[1, :, first:] = rng.multinomial(second, np.full(second, 1 / second), size=resamples)
    return counts


def permutations(rng: np.random.Generator, first: int, second: int, resamples: int) -> Counts:
    """Pieces dealt out anew to sides of these sizes: `(2, resamples, first + second)`."""
    dealt = subsets(rng, first + second, second, resamples)
    return np.stack([1 - dealt, dealt])


def subsets(rng: np.random.Generator, total: int, size: int, resamples: int) -> Counts:
    """Random subsets of `size` pieces: `(resamples, total)` of 0 and 1."""
    chosen = (np.arange(total) < size).astype(np.uint8)
    return rng.permuted(np.tile(chosen, (resamples, 1)), axis=1)


def set_distances(values: Floats, counts: Counts, positions: tuple[float, ...] = ()) -> Floats:
    """Distance between the two sides in each resample.

    Wasserstein-1 of scalars, and of histograms whose bins have positions; Jensen-Shannon of other
    histograms. Of histograms the pieces' mean is compared. Pieces whose value is NaN do not count;
    the distance is NaN where nothing counts on a side.
    """
    defined = ~np.isnan(values.reshape(len(values), -1)[:, 0])
    values = np.where(np.isnan(values), 0, values)  # where no mass will lie
    where = np.asarray(positions)
    if values.ndim == 2:
        occupied = values.any(axis=0)
        values = values[:, occupied]
        where = where[occupied] if positions else where

    def masses(side: Counts) -> Floats:
        weights = (side * defined).astype(float)
        total = weights.sum(axis=1, keepdims=True)
        with np.errstate(invalid="ignore"):
            return np.asarray((weights if values.ndim == 1 else weights @ values) / total)

    parts = [np.empty(0)]
    for start in range(0, counts.shape[1], ROWS_AT_ONCE):
        p, q = (masses(side[start : start + ROWS_AT_ONCE]) for side in counts)
        if values.ndim == 1:
            parts.append(distances.wasserstein1_between(values, p, q))
        elif positions:
            parts.append(distances.wasserstein1_between(where, p, q))
        else:
            parts.append(distances.jensen_shannon(p, q))
    return np.concatenate(parts)


def pair_comparisons(values: Floats, counts: Counts) -> tuple[Floats, Floats]:
    """Overlapping area and Kullback-Leibler divergence in bits, in each resample.

    Compared are the kernel densities of the distances within the first side and of those between
    the sides, all on one grid. A piece that is drawn twice makes no pair with itself. NaN where a
    side lacks pairs.
    """
    defined = ~np.isnan(values.reshape(len(values), -1)[:, 0])
    values, counts = values[defined], counts[:, :, defined]
    if not len(values):
        return (np.full(counts.shape[1], math.nan),) * 2
    pairs = distances.pair_distances(values, values)
    grid = distances.covering_grid(pairs.ravel())
    cells = distances.nearest(grid, pairs)

    tallies = np.empty((2, counts.shape[1], len(grid)))
    for row in range(counts.shape[1]):
        first, second = (np.flatnonzero(side[row]) for side in counts)
        weight = counts[:, row].astype(float)
        # Each pair within a side stands twice in the product.
        within = np.outer(weight[0, first], weight[0, first]) / 2
        np.fill_diagonal(within, 0)
        between = np.outer(weight[0, first], weight[1, second])
        for tally, other, mass in ((tallies[0], first, within), (tallies[1], second, between)):
            tally[row] = np.bincount(
                cells[np.ix_(first, other)].ravel(), mass.ravel(), minlength=len(grid)
            )
    p, q = distances.smooth(tallies)
    return distances.histogram_overlap(p, q), distances.relative_entropy(p, q)


def permutation_p(value: float, permuted: Floats) -> float:
    """Share of distances at least as large, the observed one included: (1 + count) / (1 + all).

    NaN if the observed distance is.
    """
    if math.isnan(value):
        return math.nan
    # Summed in another order, an equal distance may come out smaller by rounding.
    reached = permuted >= value - 1e-9 * abs(value) - 1e-12
    return (1 + int(reached.sum())) / (1 + len(permuted))


def benjamini_hochberg(p: Floats) -> Floats:
    """P-values corrected so that those below α have a false discovery rate below α.

    NaN stays and does not count as a test.

    References:
        Benjamini and Hochberg, "Controlling the false discovery rate", 1995.
    """
    corrected = np.full(len(p), math.nan)
    tested = np.flatnonzero(~np.isnan(p))
    falling = tested[np.argsort(-p[tested])]
    ranks = np.arange(len(falling), 0, -1)
    corrected[falling] = np.minimum(np.minimum.accumulate(p[falling] * len(falling) / ranks), 1)
    return corrected


def quantiles(resampled: Floats) -> Interval:
    """The middle 95 % of what is defined; NaN if nothing is."""
    defined = resampled[~np.isnan(resampled)]
    if not len(defined):
        return math.nan, math.nan
    low, high = np.quantile(defined, [0.025, 0.975])
    return float(low), float(high)


def interval_of_distance(value: float, resampled: Floats, *, sees_difference: bool) -> Interval:
    """Bootstrap 95 % interval of the distance between the populations.

    A distance between samples is never negative, and so overstates a small true one; resampling
    overstates it once more, by the bootstrap mean less `value`. The percentiles therefore move
    down by this bias, the lower one by twice of it. Where a permutation test sees no difference
    the interval reaches 0. In simulations this covers true distances from 0 upwards in 92 % of
    trials or more; the bare percentiles cover 0 in none.
    """
    low, high = quantiles(resampled)
    if math.isnan(low):
        return math.nan, math.nan
    bias = max(float(np.nanmean(resampled)) - value, 0.0)
    return max(low - 2 * bias, 0.0) if sees_difference else 0.0, max(high - bias, value)


def wilson_interval(share: float, count: int) -> Interval:
    """95 % interval of a share seen in `count` pieces; also right at 0 and 1.

    References:
        Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    if not count:
        return math.nan, math.nan
    z2 = 1.959964**2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    reach = math.sqrt(z2 * (share * (1 - share) / count + z2 / (4 * count**2))) / (1 + z2 / count)
    return max(centre - reach, 0.0), min(centre + reach, 1.0)

"""Distances between two sets of pieces, as pure functions of arrays.

Histograms are masses on the last axis, `(..., bins)`, each row with sum 1; leading axes broadcast,
so one call compares a whole bootstrap. Information is in bits. A row that is NaN gives NaN.

Where other tools return something else:

- mgeval's `kl_dist` evaluates each density on its own range, so that KL(x, x + 100) = 0; its
  `overlap_area(x, x)` is 0.983. Here both densities lie on one grid that covers both samples.
- smg-metrics pairs histograms by bin number although each sample has bins of its own: eight
  quarters against the same and one 16th overlap by 0.11 there, by 8/9 here.
- prdc compares distances with `<`, so that a set has coverage 0 of itself; here `<=`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

GRID_POINTS = 512
"""Points of the grid on which kernel densities are compared."""
SCOTT_EXPONENT = -1 / 5
UNIFORM_SHARE = 1e-9
"""Part of every kernel density that is spread evenly, so that divergences stay finite."""


def wasserstein1(x: ArrayLike, y: ArrayLike) -> float:
    """Earth mover's distance between two samples `(n,)` and `(m,)`, in their unit.

    The area between the two cumulative distributions; NaN if a sample is empty.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if not (len(x) and len(y)):
        return float("nan")
    p = np.concatenate([np.full(len(x), 1 / len(x)), np.zeros(len(y))])
    q = np.concatenate([np.zeros(len(x)), np.full(len(y), 1 / len(y))])
    return float(wasserstein1_between(np.concatenate([x, y]), p, q))


def wasserstein1_between(positions: ArrayLike, p: ArrayLike, q: ArrayLike) -> Floats:
    """Earth mover's distance between histograms whose bins lie at `positions`, in their unit.

    Shapes: positions `(bins,)` in any order; p and q `(..., bins)`; result `(...)`.
    """
    positions = np.asarray(positions, dtype=float)
    order = np.argsort(positions, kind="stable")
    surplus = np.cumsum((np.asarray(p) - np.asarray(q))[..., order], axis=-1)
    return np.asarray(np.abs(surplus[..., :-1]) @ np.diff(positions[order]))


def relative_entropy(p: ArrayLike, q: ArrayLike) -> Floats:
    """Kullback-Leibler divergence of histograms `(..., bins)` in bits; infinite where q lacks p."""
    p, q = np.asarray(p, dtype=float), np.asarray(q, dtype=float)
    with np.errstate(divide="ignore"):
        ratio = np.where(p == 0, 1, p) / np.where(p == 0, 1, q)
        return np.asarray(np.maximum(np.sum(p * np.log2(ratio), axis=-1), 0))


def jensen_shannon(p: ArrayLike, q: ArrayLike) -> Floats:
    """Jensen-Shannon divergence of histograms `(..., bins)`, 0 to 1 bit.

    References:
        Lin, "Divergence measures based on the Shannon entropy", 1991, eq. 3.1.
    """
    p, q = np.asarray(p, dtype=float), np.asarray(q, dtype=float)
    middle = (p + q) / 2
    return (relative_entropy(p, middle) + relative_entropy(q, middle)) / 2


def histogram_overlap(p: ArrayLike, q: ArrayLike) -> Floats:
    """Sum of the smaller mass in each shared bin of `(..., bins)`, 0 to 1.

    References:
        Sheng et al., "SongMASS", AAAI 2021 (there PD and DD).
    """
    return np.asarray(np.sum(np.minimum(p, q), axis=-1))


def pair_distances(x: ArrayLike, y: ArrayLike) -> Floats:
    """Euclidean distance of every row of x to every row of y.

    Shapes: x `(n,)` or `(n, size)`, y `(m,)` or `(m, size)`; result `(n, m)`.
    """
    x, y = _rows(x), _rows(y)
    if x.shape[1] == 1:
        return np.asarray(np.abs(x - y.T))
    from scipy.spatial.distance import cdist

    # Not by |x|² - 2xy + |y|², which would not give exactly 0 for equal rows.
    return np.asarray(cdist(x, y))


def intra_distances(x: ArrayLike) -> Floats:
    """Distance of every pair of rows within one set: `(n (n - 1) / 2,)`; NaN where a row is."""
    rows = _rows(x)
    if rows.shape[1] == 1:
        i, j = np.triu_indices(len(rows), 1)
        return np.asarray(np.abs(rows[i, 0] - rows[j, 0]))
    from scipy.spatial.distance import pdist

    return np.asarray(pdist(rows))


def inter_distances(x: ArrayLike, y: ArrayLike) -> Floats:
    """Distance of every row of one set to every row of the other: `(n m,)`."""
    return pair_distances(x, y).ravel()


class Densities(NamedTuple):
    """Kernel densities on one grid.

    Attributes:
        grid: `(GRID_POINTS,)` points that cover both samples and four bandwidths beyond.
        p: Mass of the first sample at each point, sum 1.
        q: Mass of the second.
    """

    grid: Floats
    p: Floats
    q: Floats


def kernel_densities(a: ArrayLike, b: ArrayLike) -> Densities:
    """Gaussian kernel densities of two samples `(n,)` and `(m,)`, each n, m >= 1, on ONE grid.

    Bandwidths follow Scott's rule, sample by sample.
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    grid = covering_grid(a, b)
    p, q = (smooth(np.bincount(nearest(grid, sample), minlength=GRID_POINTS)) for sample in (a, b))
    return Densities(grid, p, q)


def covering_grid(*samples: Floats) -> Floats:
    """Even grid from four of Scott's bandwidths below the samples to four above them."""
    margin = 4 * max(float(np.std(sample)) * len(sample) ** SCOTT_EXPONENT for sample in samples)
    low, high = (float(end(list(map(end, samples)))) for end in (np.min, np.max))
    if low == high:
        margin = 1.0  # samples of one same number, which any grid shows to be equal
    return np.linspace(low - margin, high + margin, GRID_POINTS)


def nearest(grid: Floats, values: Floats) -> NDArray[np.int64]:
    """Index of the point of an even grid that lies nearest to each value."""
    return np.asarray(np.rint((values - grid[0]) / (grid[1] - grid[0])), dtype=np.int64)


def smooth(counts: ArrayLike) -> Floats:
    """Gaussian kernel densities of samples that are counted on an even grid.

    The bandwidth follows Scott's rule, standard deviation × n^(-1/5), and is never below the
    grid's step. NaN where nothing is counted.

    Shapes: counts and result `(..., points)`; the result has sum 1.
    """
    counts = np.asarray(counts, dtype=float)
    points = np.arange(counts.shape[-1])
    double = 2 * len(points)
    size = counts.sum(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (counts * points).sum(axis=-1, keepdims=True) / size
        variance = (counts * (points - mean) ** 2).sum(axis=-1, keepdims=True) / size
        bandwidth = np.maximum(np.sqrt(variance) * size**SCOTT_EXPONENT, 1)
        offsets = np.minimum(np.arange(double), np.arange(double, 0, -1))
        bell = np.exp(-0.5 * (offsets / bandwidth) ** 2)
        # Padded to twice the length, the circular convolution does not wrap around.
        product = np.fft.rfft(counts, double) * np.fft.rfft(bell)
        density = np.maximum(np.fft.irfft(product)[..., : len(points)], 0)
        density /= density.sum(axis=-1, keepdims=True)
    return np.asarray((1 - UNIFORM_SHARE) * density + UNIFORM_SHARE / len(points))


def overlapping_area(a: ArrayLike, b: ArrayLike) -> float:
    """Area under both kernel densities of two samples `(n,)` and `(m,)`, 0 to 1.

    Yang and Lerch apply it to `intra_distances(real)` and `inter_distances(real, fake)`.

    References:
        Yang and Lerch, "On the evaluation of generative models in music", 2018, sec. 4.2.
    """
    _, p, q = kernel_densities(a, b)
    return float(histogram_overlap(p, q))


def kl_divergence(a: ArrayLike, b: ArrayLike) -> float:
    """Kullback-Leibler divergence of the kernel density of a from that of b, in bits, >= 0.

    Both densities lie on one grid, which bounds the value at 39 bits, for samples that do not meet.

    References:
        Yang and Lerch, "On the evaluation of generative models in music", 2018, sec. 4.2.
    """
    _, p, q = kernel_densities(a, b)
    return float(relative_entropy(p, q))


def frechet(x: ArrayLike, y: ArrayLike) -> float:
    """Squared Fréchet distance of Gaussians fitted to feature vectors `(n, size)`, `(m, size)`.

    ‖μ - μ'‖² + tr Σ + tr Σ' - 2 tr (ΣΣ')^½, where the last trace is the nuclear norm of the
    product of the centred matrices, so that fewer rows than features are no obstacle. The
    estimate is biased upwards by far more than most differences: compare it only at equal n and
    beside its value for real against real, or use `frechet_inf`.

    Raises:
        ValueError: Fewer than two rows on a side.

    References:
        Heusel et al., "GANs trained by a two time-scale update rule", 2017, eq. 6.
    """
    x, y = _rows(x), _rows(y)
    if min(len(x), len(y)) < 2:
        raise ValueError(f"frechet needs two rows or more, got {len(x)} and {len(y)}")
    a, b = _covariance_factor(x), _covariance_factor(y)
    move = np.sum((x.mean(axis=0) - y.mean(axis=0)) ** 2)
    return float(max(move + np.sum(a**2) + np.sum(b**2) - 2 * np.linalg.norm(a @ b.T, "nuc"), 0.0))


def _covariance_factor(x: Floats) -> Floats:
    """R, no larger than `(size, size)`, whose R'R is the covariance of the rows of x."""
    factor: Any = np.linalg.qr((x - x.mean(axis=0)) / np.sqrt(len(x) - 1), mode="r")
    return np.asarray(factor)


def frechet_of_moments(
    mean: Floats, covariance: Floats, other_mean: Floats, other_covariance: Floats
) -> Floats:
    """`frechet` from moments, for many pairs of sets at once.

    Shapes: means `(..., size)`, covariances `(..., size, size)`; result `(...)`.
    """
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0))[..., None, :]
    product = np.linalg.eigvalsh(np.swapaxes(root, -1, -2) @ other_covariance @ root)
    shared = np.sum(np.sqrt(np.maximum(product, 0)), axis=-1)
    spread = np.trace(covariance, axis1=-2, axis2=-1)
    spread = spread + np.trace(other_covariance, axis1=-2, axis2=-1) - 2 * shared
    return np.asarray(np.maximum(np.sum((mean - other_mean) ** 2, axis=-1) + spread, 0))


def frechet_inf(x: ArrayLike, y: ArrayLike, rng: np.random.Generator, *, sizes: int = 15) -> float:
    """`frechet` without its bias: intercept of a line through the values at subsets, over 1/n.

    The subsets of both sides take `sizes` shares from half of each side to all of it; the result
    may lie below 0 by chance.

    References:
        Chong and Forsyth, "Effectively unbiased FID and Inception Score", CVPR 2020.
    """
    x, y = _rows(x), _rows(y)
    shares = np.linspace(0.5, 1, sizes)
    values = []
    for share in shares:
        parts = (
            rows[rng.permutation(len(rows))[: max(2, round(share * len(rows)))]] for rows in (x, y)
        )
        values.append(frechet(*parts))
    return float(np.polyfit(1 / shares, values, 1)[1])


def kernel_distance(x: ArrayLike, y: ArrayLike) -> float:
    """Squared maximum mean discrepancy with the kernel (x·y / size + 1)³, unbiased.

    0 on average for two draws of one distribution, and below 0 as often as above.

    Shapes: x `(n, size)`, y `(m, size)`, n and m at least 2.

    Raises:
        ValueError: Fewer than two rows on a side.

    References:
        Bińkowski et al., "Demystifying MMD GANs", ICLR 2018, sec. 3 (there KID).
    """
    x, y = _rows(x), _rows(y)
    if min(len(x), len(y)) < 2:
        raise ValueError(f"kernel_distance needs two rows or more, got {len(x)} and {len(y)}")

    def kernel(a: Floats, b: Floats) -> Any:
        return (a @ b.T / a.shape[1] + 1) ** 3

    within = [
        (k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (kernel(x, x), kernel(y, y))
    ]
    return float(sum(within) - 2 * kernel(x, y).mean())


class Manifold(NamedTuple):
    """How two sets cover each other, by nearest neighbours.

    Attributes:
        precision: Share of fake rows within the k-th neighbour's reach of some real row, 0 to 1.
        recall: Share of real rows within the reach of some fake row, 0 to 1.
        density: Real balls that hold a fake row, divided by k: 1 on average for equal
            distributions, without upper bound.
        coverage: Share of real balls that hold a fake row, 0 to 1.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def manifold(real: ArrayLike, fake: ArrayLike, *, k: int = 5) -> Manifold:
    """Precision, recall, density and coverage of feature vectors `(n, size)` and `(m, size)`.

    A ball reaches to the k-th nearest other row of its own set and includes its border.

    Raises:
        ValueError: A side has no more than k rows.

    References:
        Kynkäänniemi et al., NeurIPS 2019, eq. 1-2; Naeem et al., ICML 2020, eq. 4 and 6.
    """
    real, fake = _rows(real), _rows(fake)
    if min(len(real), len(fake)) <= k:
        raise ValueError(f"need more than k = {k} rows a side, got {len(real)} and {len(fake)}")
    between = pair_distances(real, fake)
    reach_real = np.partition(pair_distances(real, real), k, axis=1)[:, k]
    reach_fake = np.partition(pair_distances(fake, fake), k, axis=1)[:, k]
    in_real = between <= reach_real[:, None]
    in_fake = between <= reach_fake
    return Manifold(
        precision=float(in_real.any(axis=0).mean()),
        recall=float(in_fake.any(axis=1).mean()),
        density=float(in_real.sum() / (k * len(fake))),
        coverage=float(in_real.any(axis=1).mean()),
    )


def _rows(x: ArrayLike) -> Floats:
    """As `(n, size)`; a vector is n rows of one number."""
    rows = np.asarray(x, dtype=float)
    return rows[:, None] if rows.ndim == 1 else rows

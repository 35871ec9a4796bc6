import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from eval import distances

samples = arrays(float, st.integers(1, 12), elements=st.floats(-50, 50, allow_subnormal=False))
masses = arrays(float, 6, elements=st.floats(0, 1, allow_subnormal=False)).filter(
    lambda a: a.sum() > 1e-3
)


def histogram(counts):
    return np.asarray(counts, dtype=float) / np.sum(counts)


class TestWasserstein:
    @pytest.mark.parametrize(
        ("x", "y", "distance"),
        [
            ([0], [3], 3),
            ([0, 0], [3], 3),
            ([0, 10], [10, 0], 0),
            ([0, 0, 0, 0], [0, 0, 0, 8], 2),  # a quarter of the mass moves by 8
            ([0, 1, 2], [5, 6, 7], 5),
            ([-1, 1], [0], 1),
        ],
    )
    def test_is_the_work_of_moving_one_sample_onto_the_other(self, x, y, distance):
        assert distances.wasserstein1(x, y) == pytest.approx(distance)

    @given(samples, samples)
    @settings(max_examples=50)
    def test_agrees_with_scipy(self, x, y):
        assert distances.wasserstein1(x, y) == pytest.approx(
            scipy.stats.wasserstein_distance(x, y), abs=1e-9
        )

    def test_of_nothing_is_undefined(self):
        assert math.isnan(distances.wasserstein1([], [1]))

    def test_between_histograms_counts_the_way_along_the_positions(self):
        positions = [4, 0, 1]  # in any order
        p, q = [0, 1, 0], [0.5, 0, 0.5]
        assert distances.wasserstein1_between(positions, p, q) == pytest.approx(0.5 * 4 + 0.5 * 1)

    def test_between_histograms_broadcasts(self):
        p = np.eye(3)
        many = distances.wasserstein1_between([0, 1, 5], p[:, None], p)
        np.testing.assert_allclose(many, [[0, 1, 5], [1, 0, 4], [5, 4, 0]])

    @given(masses, masses, masses)
    @settings(max_examples=50)
    def test_obeys_the_triangle_inequality(self, a, b, c):
        a, b, c = map(histogram, (a, b, c))

        def way(p, q):
            return distances.wasserstein1_between(range(6), p, q)

        assert way(a, c) <= way(a, b) + way(b, c) + 1e-12
        assert way(a, b) == pytest.approx(way(b, a))


class TestJensenShannon:
    @pytest.mark.parametrize(
        ("p", "q", "bits"),
        [
            ([1, 0], [0, 1], 1),
            ([0.5, 0.5], [0.5, 0.5], 0),
            # Entropy of (3/4, 1/4) less half the entropy of (1/2, 1/2).
            ([1, 0], [0.5, 0.5], (2 - 0.75 * math.log2(3)) - 0.5),
        ],
    )
    def test_by_hand(self, p, q, bits):
        assert distances.jensen_shannon(p, q) == pytest.approx(bits)

    @given(masses, masses)
    @settings(max_examples=50)
    def test_lies_between_0_and_1_bit_and_is_symmetric(self, p, q):
        p, q = histogram(p), histogram(q)
        bits = float(distances.jensen_shannon(p, q))
        assert -1e-12 <= bits <= 1 + 1e-12
        assert bits == pytest.approx(float(distances.jensen_shannon(q, p)), abs=1e-12)

    def test_keeps_nan(self):
        rows = np.array([[0.5, 0.5], [math.nan, math.nan]])
        bits = distances.jensen_shannon(rows, [1.0, 0.0])
        assert bits[0] > 0
        assert math.isnan(bits[1])


def test_histogram_overlap_pairs_bins_by_what_they_mean():
    eight_quarters = histogram([8, 0])  # bins: quarter, 16th
    and_one_16th = histogram([8, 1])
    # smg-metrics 5.4.3 gives each piece bins of its own and says 0.11.
    assert distances.histogram_overlap(eight_quarters, and_one_16th) == pytest.approx(8 / 9)


class TestKernelDensities:
    def test_a_sample_overlaps_itself_wholly(self):
        x = np.random.default_rng(0).normal(size=200)
        # mgeval integrates between the sample's ends only and says 0.983.
        assert distances.overlapping_area(x, x) == pytest.approx(1)
        assert distances.kl_divergence(x, x) == pytest.approx(0, abs=1e-12)

    @pytest.mark.parametrize("change", [lambda x: x + 100, lambda x: 50 * x])
    def test_a_moved_or_stretched_sample_diverges(self, change):
        x = np.random.default_rng(0).normal(size=200)
        # mgeval evaluates each density on its own range and says 0 for both.
        assert distances.kl_divergence(x, change(x)) > 2
        assert distances.overlapping_area(x, change(x)) < 0.1

    def test_samples_that_do_not_meet(self):
        assert distances.overlapping_area([1.0, 1.0], [7.0, 7.0]) == pytest.approx(0, abs=1e-6)
        assert 20 < distances.kl_divergence([1.0, 1.0], [7.0, 7.0]) < 39

    def test_equal_constants_are_equal(self):
        assert distances.overlapping_area([3.0, 3.0], [3.0]) == pytest.approx(1)
        assert distances.kl_divergence([3.0, 3.0], [3.0]) == pytest.approx(0, abs=1e-12)

    def test_densities_agree_with_scipy(self):
        rng = np.random.default_rng(1)
        a, b = rng.normal(size=80), rng.gamma(2, size=50)
        grid, p, q = distances.kernel_densities(a, b)
        step = grid[1] - grid[0]
        for mass, sample in ((p, a), (q, b)):
            density = scipy.stats.gaussian_kde(sample)(grid)
            np.testing.assert_allclose(mass / step, density, atol=0.02 * density.max())

    def test_kl_divergence_of_gaussians(self):
        quantiles = scipy.stats.norm.ppf((np.arange(4000) + 0.5) / 4000)
        # log2(e) (δ² / 2) for equal widths; the kernels widen both a little.
        found = distances.kl_divergence(quantiles, quantiles + 1)
        assert found == pytest.approx(math.log2(math.e) / 2, rel=0.05)


def test_pairs_within_a_set_are_counted_once_and_never_with_themselves():
    assert sorted(distances.intra_distances([0, 1, 5])) == [1, 4, 5]
    assert sorted(distances.inter_distances([0, 1], [[5]])) == [4, 5]
    np.testing.assert_allclose(distances.pair_distances([[0, 0], [3, 4]], [[0, 0]]), [[0], [5]])


class TestFrechet:
    def test_of_moved_points_is_the_squared_move(self):
        x = np.random.default_rng(0).normal(size=(30, 4))
        assert distances.frechet(x, x + np.array([3, 4, 0, 0])) == pytest.approx(25)
        assert distances.frechet(x, x) == pytest.approx(0, abs=1e-9)

    def test_of_stretched_points_is_the_squared_growth_of_the_deviations(self):
        x = np.random.default_rng(0).normal(size=(50, 3))
        growth = np.sum(np.var(x, axis=0, ddof=1))
        assert distances.frechet(x - x.mean(0), 2 * (x - x.mean(0))) == pytest.approx(growth)

    @pytest.mark.parametrize(("n", "size"), [(200, 5), (10, 40)])  # also fewer rows than features
    def test_trace_agrees_with_the_matrix_square_root(self, n, size):
        rng = np.random.default_rng(2)
        x = rng.normal(size=(n, size)) @ rng.normal(size=(size, size))
        y = rng.normal(size=(n + 3, size)) + 1
        a, b = np.cov(x.T), np.cov(y.T)
        trace = np.sqrt(np.maximum(np.linalg.eigvals(a @ b).real, 0)).sum()
        expected = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(a) + np.trace(b) - 2 * trace
        assert distances.frechet(x, y) == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize(("n", "size"), [(50, 5), (10, 40)])
    def test_of_moments_is_that_of_the_rows(self, n, size):
        rng = np.random.default_rng(2)
        pairs = [(rng.normal(size=(n, size)), rng.normal(size=(n + 2, size))) for _ in range(3)]
        moments = (
            np.array([part(pair[side]) for pair in pairs])
            for side in (0, 1)
            for part in (lambda x: x.mean(axis=0), lambda x: np.cov(x.T))
        )
        assert distances.frechet_of_moments(*moments) == pytest.approx(
            [distances.frechet(*pair) for pair in pairs], rel=1e-5
        )

    def test_the_bias_at_small_n_goes_by_extrapolation(self):
        rng = np.random.default_rng(3)
        pairs = [rng.normal(size=(2, 300, 20)) for _ in range(10)]  # of one distribution
        plain = np.mean([distances.frechet(x, y) for x, y in pairs])
        freed = np.mean([distances.frechet_inf(x, y, rng) for x, y in pairs])
        assert plain > 0.5
        assert abs(freed) < plain / 5

    def test_needs_two_rows(self):
        with pytest.raises(ValueError, match="two rows"):
            distances.frechet(np.zeros((1, 3)), np.zeros((5, 3)))


class TestKernelDistance:
    def test_is_unbiased(self):
        rng = np.random.default_rng(4)
        draws = [
            distances.kernel_distance(rng.normal(size=(20, 3)), rng.normal(size=(20, 3)))
            for _ in range(300)
        ]
        assert abs(np.mean(draws)) < 3 * np.std(draws) / math.sqrt(len(draws))
        assert min(draws) < 0

    def test_by_hand(self):
        # Rows of one feature; k(0, 0) = 1, k(1, 1) = 8, k(0, 1) = 1.
        x, y = np.zeros((2, 1)), np.ones((2, 1))
        assert distances.kernel_distance(x, y) == pytest.approx(1 + 8 - 2 * 1)


class TestManifold:
    def test_identical_sets_cover_each_other(self):
        x = np.random.default_rng(5).normal(size=(40, 3))
        found = distances.manifold(x, x)
        # prdc 0.2 compares with `<`; a ball that ends at its nearest row then holds nothing.
        assert (found.precision, found.recall, found.coverage) == (1, 1, 1)
        assert distances.manifold(np.zeros((9, 2)), np.zeros((9, 2))).coverage == 1

    def test_a_collapsed_generator_is_precise_but_recalls_little(self):
        rng = np.random.default_rng(6)
        real = rng.normal(size=(200, 2))
        collapsed = 0.01 * rng.normal(size=(200, 2))
        found = distances.manifold(real, collapsed)
        assert found.precision == 1
        assert found.recall < 0.05
        assert found.coverage < 0.1

    def test_an_outlier_is_imprecise(self):
        rng = np.random.default_rng(7)
        real = rng.normal(size=(50, 2))
        fake = np.vstack([real[:49], [[50.0, 50.0]]])
        assert distances.manifold(real, fake).precision == pytest.approx(49 / 50)

    def test_by_hand(self):
        # Balls on a line with k = 1: reach 1 around 0 and 1, reach 9 around 10.
        found = distances.manifold([0, 1, 10], [1.5, 30, 31], k=1)
        assert found.precision == pytest.approx(1 / 3)
        assert found.density == pytest.approx(2 / 3)  # 1.5 lies in the balls of 1 and of 10
        assert found.coverage == pytest.approx(2 / 3)
        assert found.recall == 1  # the ball of 1.5 reaches 28.5 far

    def test_needs_more_rows_than_k(self):
        with pytest.raises(ValueError, match="more than k = 5"):
            distances.manifold(np.zeros((5, 2)), np.zeros((9, 2)))

import math

import numpy as np
import pytest
import scipy.stats

from eval import distances, resampling

POSITIONS = (0.0, 1.0, 4.0)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def histograms(rng, pieces):
    return rng.dirichlet([1, 2, 3], size=pieces)


class TestCounts:
    def test_as_given_counts_each_piece_once_on_its_side(self):
        assert resampling.as_given(2, 1).tolist() == [[[1, 1, 0]], [[0, 0, 1]]]

    def test_bootstrap_draws_as_many_as_there_are_from_each_side(self, rng):
        real, fake = resampling.bootstrap(rng, 5, 3, 200)
        assert np.all(real.sum(axis=1) == 5)
        assert np.all(fake.sum(axis=1) == 3)
        assert not real[:, 5:].any()
        assert not fake[:, :5].any()
        assert real.max() > 1
        assert real[:, :5].mean() == pytest.approx(1)

    def test_permutations_deal_every_piece_to_one_side(self, rng):
        real, fake = resampling.permutations(rng, 5, 3, 400)
        assert np.all(real + fake == 1)
        assert np.all(fake.sum(axis=1) == 3)
        assert fake.mean(axis=0) == pytest.approx(np.full(8, 3 / 8), abs=0.1)


class TestSetDistances:
    def test_of_scalars_is_wasserstein(self, rng):
        x, y = rng.normal(size=7), rng.normal(size=4)
        (found,) = resampling.set_distances(np.append(x, y), resampling.as_given(7, 4))
        assert found == pytest.approx(scipy.stats.wasserstein_distance(x, y))

    def test_of_histograms_compares_their_means(self, rng):
        x, y = histograms(rng, 6), histograms(rng, 5)
        pooled, counts = np.vstack([x, y]), resampling.as_given(6, 5)
        (ordered,) = resampling.set_distances(pooled, counts, POSITIONS)
        (unordered,) = resampling.set_distances(pooled, counts)
        x, y = x.mean(axis=0), y.mean(axis=0)
        assert ordered == pytest.approx(
            scipy.stats.wasserstein_distance(POSITIONS, POSITIONS, x, y)
        )
        assert unordered == pytest.approx(distances.jensen_shannon(x, y))

    def test_a_resample_is_the_distance_of_the_repeated_pieces(self, rng):
        pooled = rng.normal(size=9)
        counts = resampling.bootstrap(rng, 5, 4, 3)
        found = resampling.set_distances(pooled, counts)
        for i in range(3):
            repeated = [np.repeat(pooled, side[i]) for side in counts]
            assert found[i] == pytest.approx(distances.wasserstein1(*repeated))

    @pytest.mark.parametrize("positions", [(), POSITIONS])
    def test_undefined_pieces_do_not_count(self, rng, positions):
        pooled = histograms(rng, 8)
        with_holes = np.insert(pooled, [2, 7], math.nan, axis=0)
        (found,) = resampling.set_distances(with_holes, resampling.as_given(6, 4), positions)
        (expected,) = resampling.set_distances(pooled, resampling.as_given(5, 3), positions)
        assert found == pytest.approx(expected)

    @pytest.mark.parametrize("pooled", [np.full(5, math.nan), np.array([math.nan] * 3 + [1.0] * 2)])
    def test_a_side_without_defined_pieces_has_no_distance(self, pooled):
        assert np.isnan(resampling.set_distances(pooled, resampling.as_given(3, 2))).all()

    @pytest.mark.parametrize("positions", [(), POSITIONS])
    def test_permutations_take_a_shorter_way_to_the_same(self, rng, positions):
        pooled = histograms(rng, 9)
        dealt = resampling.permutations(rng, 5, 4, 6)
        twice = (2 * dealt).astype(np.uint8)  # the same means, but not dealt out
        np.testing.assert_allclose(
            resampling.set_distances(pooled, dealt, positions),
            resampling.set_distances(pooled, twice, positions),
        )

    def test_layout_does_not_matter(self, rng):
        pooled, counts = rng.normal(size=8), resampling.bootstrap(rng, 4, 4, 11)
        laid_out = resampling.by_piece(counts)
        assert np.array_equal(laid_out, counts)
        np.testing.assert_array_equal(
            resampling.set_distances(pooled, laid_out), resampling.set_distances(pooled, counts)
        )

    def test_parts_do_not_matter(self, rng, monkeypatch):
        pooled, counts = rng.normal(size=8), resampling.bootstrap(rng, 4, 4, 11)
        whole = resampling.set_distances(pooled, counts)
        monkeypatch.setattr(resampling, "SCALARS_AT_ONCE", 3 * 8)
        np.testing.assert_allclose(resampling.set_distances(pooled, counts), whole)


class TestPairComparisons:
    @pytest.mark.parametrize("size", [None, 3])
    def test_agrees_with_the_plain_functions(self, rng, size):
        shape = (30,) if size is None else (30, size)
        pooled = rng.normal(size=shape)
        pooled[12:] += 0.7
        area, divergence = resampling.pair_comparisons(
            pooled, resampling.pair_draw(resampling.as_given(12, 18))
        )
        within = distances.intra_distances(pooled[:12])
        between = distances.inter_distances(pooled[:12], pooled[12:])
        assert area[0] == pytest.approx(distances.overlapping_area(within, between), abs=0.01)
        assert divergence[0] == pytest.approx(
            distances.kl_divergence(within, between), rel=0.05, abs=0.01
        )

    def test_undefined_pieces_do_not_count(self, rng):
        pooled = rng.normal(size=12)
        with_holes = np.insert(pooled, [2, 9], math.nan)
        counts = resampling.permutations(rng, 6, 6, 4)
        holes = np.insert(counts, [2, 9], [[[1]], [[0]]], axis=2)
        found = resampling.pair_comparisons(with_holes, resampling.pair_draw(holes))
        expected = resampling.pair_comparisons(pooled, resampling.pair_draw(counts))
        np.testing.assert_allclose(found, expected)

    def test_a_piece_drawn_twice_makes_no_pair_with_itself(self):
        corners = np.array([[0, 0], [1, 0], [0.5, math.sqrt(0.75)]])  # all 1 apart
        real = [[1, 1, 0], [2, 1, 0], [2, 0, 0]]
        counts = np.array([real, [[0, 0, 1]] * 3], np.uint8)
        area, _ = resampling.pair_comparisons(corners, resampling.pair_draw(counts))
        np.testing.assert_allclose(area, [1, 1, math.nan])

    def test_without_pairs_it_is_undefined(self):
        area, divergence = resampling.pair_comparisons(
            np.array([1.0, math.nan, 2.0]), resampling.pair_draw(resampling.as_given(2, 1))
        )
        assert np.isnan(area).all()
        assert np.isnan(divergence).all()


class TestPermutationP:
    def test_counts_the_observed_one(self):
        permuted = np.array([0.1, 0.5, 0.9, 0.2])
        assert resampling.permutation_p(0.5, permuted) == pytest.approx((1 + 2) / (1 + 4))
        assert resampling.permutation_p(2.0, permuted) == pytest.approx(1 / 5)

    def test_rounding_does_not_make_a_tie_a_difference(self):
        assert resampling.permutation_p(0.3, np.full(9, 0.1 + 0.2 - 1e-16)) == 1

    def test_of_nothing_is_undefined(self):
        assert math.isnan(resampling.permutation_p(math.nan, np.zeros(3)))

    def test_is_uniform_where_there_is_no_difference(self, rng):
        p = [
            resampling.permutation_p(
                float(resampling.set_distances(pooled, resampling.as_given(8, 8))[0]),
                resampling.set_distances(pooled, resampling.permutations(rng, 8, 8, 99)),
            )
            for pooled in rng.normal(size=(300, 16))
        ]
        assert np.mean(np.array(p) <= 0.2) == pytest.approx(0.2, abs=0.07)


class TestBenjaminiHochberg:
    def test_by_hand(self):
        corrected = resampling.benjamini_hochberg(np.array([0.01, 0.04, 0.03, 0.005]))
        np.testing.assert_allclose(corrected, [0.02, 0.04, 0.04, 0.02])

    def test_agrees_with_scipy(self, rng):
        p = rng.uniform(size=40) ** 3
        np.testing.assert_allclose(
            resampling.benjamini_hochberg(p), scipy.stats.false_discovery_control(p)
        )

    def test_undefined_is_no_test(self):
        corrected = resampling.benjamini_hochberg(np.array([0.01, math.nan, 0.5]))
        np.testing.assert_allclose(corrected, [0.02, math.nan, 0.5])


class TestIntervals:
    @pytest.mark.parametrize("move", [0.0, 0.8])
    def test_cover_the_true_distance(self, rng, move):
        covered = 0
        for _ in range(60):
            pooled = rng.normal(size=50)
            pooled[25:] += move
            value = float(resampling.set_distances(pooled, resampling.as_given(25, 25))[0])
            permuted = resampling.set_distances(pooled, resampling.permutations(rng, 25, 25, 99))
            low, high = resampling.interval_of_distance(
                value,
                resampling.set_distances(pooled, resampling.bootstrap(rng, 25, 25, 200)),
                sees_difference=resampling.permutation_p(value, permuted) < 0.05,
            )
            assert 0 <= low <= value <= high
            covered += low <= move <= high
        assert covered >= 52  # 95 % of 60 is 57; fewer than 52 happens once in 500 suites

    def test_move_down_by_the_bias_that_the_bootstrap_shows(self):
        resampled = np.linspace(1, 2, 101)  # 1.025 to 1.975 in the middle, 0.5 above the estimate
        interval = resampling.interval_of_distance(1.0, resampled, sees_difference=True)
        assert interval == pytest.approx((0.025, 1.475))

    def test_bare_percentiles_never_reach_a_distance_of_0(self, rng):
        pooled = rng.normal(size=50)
        resampled = resampling.set_distances(pooled, resampling.bootstrap(rng, 25, 25, 500))
        assert resampling.quantiles(resampled)[0] > 0
        low, _ = resampling.interval_of_distance(
            float(resampling.set_distances(pooled, resampling.as_given(25, 25))[0]),
            resampled,
            sees_difference=False,
        )
        assert low == 0

    def test_of_nothing_is_undefined(self):
        interval = resampling.interval_of_distance(
            math.nan, np.full(3, math.nan), sees_difference=False
        )
        assert all(map(math.isnan, interval))

    @pytest.mark.parametrize(("successes", "count"), [(0, 10), (3, 10), (10, 10), (40, 200)])
    def test_of_a_share_agree_with_scipy(self, successes, count):
        exact = scipy.stats.binomtest(successes, count).proportion_ci(method="wilson")
        found = resampling.wilson_interval(successes / count, count)
        assert found == pytest.approx((exact.low, exact.high), abs=1e-6)

    def test_of_a_share_of_nothing_is_undefined(self):
        assert all(map(math.isnan, resampling.wilson_interval(math.nan, 0)))

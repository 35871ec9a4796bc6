import math
from functools import cache

import numpy as np
import pytest

from eval import distances, resampling, setwise, textual
from eval.features import FEATURES
from eval.setwise import SET_METRICS, VECTOR, Draw, Sample, compare_sets, feature_matrix
from rnngan.errors import UserError
from rnngan.music.piece import Piece

QUICK = {"resamples": 10, "permutations": 19}
VECTOR_METRICS = [name for name in SET_METRICS if "vector" in name]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def melody(rng, up=0):
    """Twenty random eighths and quarters on a white-key scale."""
    lengths = rng.choice([12, 24], 20)
    ends = np.cumsum(lengths)
    scale = np.array([60, 62, 64, 65, 67, 69, 71, 72])
    return Piece.from_rows(zip(ends - lengths, ends, scale[rng.integers(8, size=20)] + up))


def sample(rng, count, *, shift=0.0, up=0):
    """Melodies, and features drawn at random: heavy-tailed scalars, some of them undefined."""
    table = {}
    for name in VECTOR:
        feature = FEATURES[name]
        if feature.kind == "scalar":
            table[name] = rng.exponential(size=count) ** 2 + shift
        else:
            table[name] = rng.dirichlet(np.full(len(feature.bins), 0.3), size=count)
    table["swing_ratio"][rng.random(count) < 0.4] = math.nan
    return Sample(tuple(melody(rng, up) for _ in range(count)), table)


@pytest.fixture(scope="module")
def shifted():
    """Features three deviations higher, and melodies a semitone."""
    rng = np.random.default_rng(1)
    sets = sample(rng, 30), sample(rng, 25, shift=13, up=1), sample(rng, 40)
    return {row.name: row for row in compare_sets("fake", *sets, resamples=40, permutations=99)}


def given(first, second):
    return Draw(np.arange(first + second), resampling.as_given(first, second))


@cache
def chance_p(repeats=60):
    """P-values of comparisons of two sets of one kind, by figure: `(repeats,)`."""
    found = {name: [] for name in SET_METRICS}
    for seed in range(repeats):
        rng = np.random.default_rng(seed)
        sets = sample(rng, 14), sample(rng, 10)
        for row in compare_sets("fake", *sets, seed=seed, resamples=2, permutations=19):
            found[row.name].append(row.p)
    return {name: np.array(p) for name, p in found.items()}


class TestFeatureMatrix:
    def test_a_scalar_is_in_deviations_of_the_pieces_that_scale(self):
        table = {"pitch_range": np.array([1.0, 3.0, 6.0])}
        vectors = feature_matrix(table, ["pitch_range"], scale_by=np.array([True, True, False]))
        assert vectors.columns == ("pitch_range", "undefined")
        assert vectors.rows.tolist() == [[-1, 0], [1, 0], [4, 0]]

    def test_what_is_undefined_stands_at_the_mean_and_is_counted(self):
        table = {"pitch_range": np.array([1.0, 3.0, math.nan]), "note_count": np.array([2.0, 4, 6])}
        vectors = feature_matrix(table, list(table), scale_by=np.array([True, True, False]))
        assert vectors.rows[2, 0] == 0
        assert vectors.undefined.tolist() == [0, 0, 0.5]
        assert vectors.rows[2, 2] > 0  # and is seen

    def test_an_ordered_histogram_is_its_mean_and_deviation(self):
        histogram = np.zeros((2, 128))
        histogram[0, 60] = 1
        histogram[1, [61, 63]] = 0.5
        vectors = feature_matrix(
            {"pitch_histogram[count]": histogram},
            ["pitch_histogram[count]"],
            scale_by=np.ones(2, bool),
        )
        assert vectors.rows.tolist() == [[-1, -1, 0], [1, 1, 0]]

    def test_a_categorical_histogram_weighs_as_one_column(self, rng):
        name = "pitch_class_histogram[duration]"
        everyone = np.ones(50, bool)
        vectors = feature_matrix({name: rng.dirichlet(np.ones(12), 50)}, [name], scale_by=everyone)
        assert vectors.rows.shape == (50, 13)
        assert vectors.rows.var(axis=0).sum() == pytest.approx(1)

    def test_what_only_other_pieces_vary_in_is_scaled_by_all(self):
        table = {"pitch_range": np.array([0.1, 0.1, 0.1, 0.5]), "note_count": np.full(4, 0.1)}
        vectors = feature_matrix(table, list(table), scale_by=np.array([True] * 3 + [False]))
        assert np.ptp(vectors.rows[:, 0]) > 1
        assert not vectors.rows[:, 1].any()

    def test_no_value_counts_for_more_than_five_deviations(self, rng):
        # Real pieces hardly vary, generated ones do: a hundred deviations of the real side.
        empty = np.concatenate([[0.01], np.zeros(49), np.full(50, 0.2)])
        is_real = np.arange(100) < 50
        rows = feature_matrix({"empty_bar_rate": empty}, ["empty_bar_rate"], scale_by=is_real).rows
        assert rows[0, 0] == pytest.approx(rows[is_real, 0].max()) == 5
        assert rows[~is_real, 0].tolist() == [5] * 50
        assert distances.frechet(rows[is_real], rows[~is_real]) < 5**2 + 2

    def test_a_column_that_was_not_measured_is_named(self):
        with pytest.raises(UserError, match="note_count"):
            feature_matrix({}, ["note_count"], scale_by=np.ones(0, bool))


class TestResamples:
    def test_as_given_they_are_the_plain_figures(self, rng):
        x, y = rng.normal(size=(15, 3)), rng.normal(size=(12, 3)) + 0.5
        pool, draw = np.vstack([x, y]), given(15, 12)
        assert setwise.frechets(pool, draw, rng).item() == pytest.approx(distances.frechet(x, y))
        assert setwise.kernel_distances(pool, draw, rng).item() == pytest.approx(
            distances.kernel_distance(x, y)
        )
        assert setwise.manifolds(pool, draw, rng)[:, 0] == pytest.approx(
            np.array(distances.manifold(x, y))
        )
        assert setwise.frechets_inf(pool, draw, np.random.default_rng(1)).item() == pytest.approx(
            distances.frechet_inf(x, y, np.random.default_rng(1), sizes=setwise.INF_SIZES)
        )

    @pytest.mark.parametrize(
        "make", [setwise.frechets, setwise.kernel_distances, setwise.manifolds]
    )
    def test_permuted_they_are_the_plain_figures_of_the_new_sides(self, rng, make):
        pool = np.round(rng.normal(size=(40, 2)), 1)  # with ties
        pieces = rng.permutation(40)[:34]
        counts = resampling.permutations(rng, 27, 7, 5)
        found = make(pool, Draw(pieces, counts), rng)
        for i in range(5):
            sides = [pool[pieces[side[i] > 0]] for side in counts]
            one = make(np.vstack(sides), given(27, 7), rng)
            assert found[:, i] == pytest.approx(one[:, 0])
            if make is setwise.manifolds:
                assert one[:, 0] == pytest.approx(np.array(distances.manifold(*sides)))

    def test_a_set_covers_itself(self, rng):
        x = rng.normal(size=(20, 3))
        precision, recall, density, coverage = setwise.manifolds(
            np.vstack([x, x]), given(20, 20), rng
        )[:, 0]
        assert (precision, recall, coverage) == (1, 1, 1)
        assert density > 1

    def test_a_piece_drawn_twice_is_one_neighbour_and_makes_no_pair_with_itself(self, rng):
        pool = rng.normal(size=(16, 2))
        counts = np.ones((2, 1, 16), np.uint8)
        counts[0, 0, 8:] = counts[1, 0, :8] = 0
        doubled = counts.copy()
        doubled *= 2
        once, twice = (Draw(np.arange(16), c) for c in (counts, doubled))
        for make in (setwise.manifolds, setwise.kernel_distances):
            # Weights that are all the same leave a figure as it is.
            assert make(pool, once, rng) == pytest.approx(make(pool, twice, rng))

    def test_text_figures_are_the_plain_ones(self, rng):
        pieces = [melody(rng) for _ in range(12)]
        tokens = [textual.tokens_of(piece) for piece in pieces]
        chosen, other = tokens[2:6], tokens[6:11]
        draw = Draw(np.arange(2, 11), resampling.as_given(4, 5))
        found = setwise.bleus(textual.NGrams(tokens), draw, rng)[:, 0]
        assert found == pytest.approx(
            [textual.bleu(other, chosen, n=n) for n in textual.ORDERS]
            + [textual.self_bleu(other, n=n) for n in textual.ORDERS]
        )
        pairs = textual.rouge_l_pairs(tokens, tokens)
        assert setwise.rouges(pairs, draw, rng).item() == pytest.approx(
            textual.rouge_l(other, chosen)
        )

    def test_sides_without_enough_pieces_that_differ_have_no_figures(self, rng):
        pool = rng.normal(size=(12, 2))
        counts = np.zeros((2, 1, 12), np.uint8)
        counts[0, 0, :6], counts[1, 0, 6] = 1, 6
        draw = Draw(np.arange(12), counts)
        assert np.isnan(setwise.manifolds(pool, draw, rng)).all()
        assert np.isnan(setwise.kernel_distances(pool, draw, rng)).all()


class TestRows:
    def test_there_is_one_for_every_figure_in_order(self, shifted):
        assert list(shifted) == list(SET_METRICS)
        for name, row in shifted.items():
            assert (row.side, row.n_real, row.n_fake) == ("fake", 30, 25)
            assert (row.unit, row.direction) == (
                SET_METRICS[name].unit,
                SET_METRICS[name].direction,
            )
            low, high = SET_METRICS[name].range
            assert low <= row.interval[0] <= row.value <= row.interval[1] <= high

    @pytest.mark.parametrize("name", [n for n in SET_METRICS if "inf" not in n and "self" not in n])
    def test_a_shifted_set_is_detected_and_lies_outside_the_band(self, shifted, name):
        row = shifted[name]
        assert row.p <= 0.02
        assert row.permutations == 99
        assert not row.band[0] <= row.value <= row.band[1]

    def test_a_shift_leaves_a_set_as_varied_as_it_is(self, shifted):
        assert shifted["self_bleu[n=3]"].p > 0.05

    def test_a_set_that_repeats_itself_is_detected(self, rng):
        real, few = sample(rng, 24), sample(rng, 6)
        again = Sample(
            few.pieces * 4, {name: np.concatenate([v] * 4) for name, v in few.table.items()}
        )
        rows = {r.name: r for r in compare_sets("fake", real, again, resamples=5, permutations=99)}
        assert rows["self_bleu[n=4]"].value == 1
        assert rows["self_bleu[n=4]"].p <= 0.02

    def test_the_frechet_distance_states_its_bias_and_all_say_what_is_undefined(self, shifted):
        assert "biased upwards" in shifted["frechet[vector=1]"].note
        assert all("undefined" in shifted[name].note for name in VECTOR_METRICS)
        assert shifted["bleu[n=2]"].note == ""

    def test_short_pieces_are_left_out_of_what_compares_tokens(self, rng):
        real, fake = sample(rng, 8), sample(rng, 8)
        short = Piece.from_rows([(0, 24, 60)] * 4)
        fake = fake._replace(pieces=(short, *fake.pieces[1:]))
        rows = {row.name: row for row in compare_sets("fake", real, fake, **QUICK)}
        assert rows["bleu[n=2]"].n_fake == rows[list(SET_METRICS)[-1]].n_fake == 7
        assert "1 generated" in rows["bleu[n=2]"].note
        assert not math.isnan(rows["bleu[n=5]"].value)

    def test_too_few_pieces_have_no_figures_and_say_why(self, rng):
        rows = {r.name: r for r in compare_sets("fake", sample(rng, 5), sample(rng, 9), **QUICK)}
        row = rows["recall[vector=1,k=5]"]
        assert math.isnan(row.value)
        assert math.isnan(row.p)
        assert "6 pieces a side" in row.note
        assert not math.isnan(rows["frechet[vector=1]"].value)

    def test_equal_seeds_give_equal_rows(self, rng):
        real, fake = sample(rng, 9), sample(rng, 8)
        once, again = (repr(compare_sets("fake", real, fake, seed=3, **QUICK)) for _ in range(2))
        assert once == again

    def test_some_figures_alone(self, rng):
        real, fake = sample(rng, 9), sample(rng, 8)
        every = {row.name: row for row in compare_sets("fake", real, fake, **QUICK)}
        for name in ("frechet[vector=1]", "bleu[n=3]"):
            some = {
                row.name: row for row in compare_sets("fake", real, fake, names=[name], **QUICK)
            }
            assert some[name].value == every[name].value
            assert {row.partition("[")[0] for row in some} <= {"frechet", "bleu", "self_bleu"}
            assert len(some) < len(every)
        assert compare_sets("fake", real, fake, names=[], **QUICK) == []

    @pytest.mark.parametrize("lacking", [0, 1])
    def test_a_missing_feature_is_named(self, rng, lacking):
        real, fake = sample(rng, 4), sample(rng, 4)
        del (real, fake)[lacking].table["polyphony"]
        with pytest.raises(UserError, match="polyphony"):
            compare_sets("fake", real, fake, **QUICK)


class TestChance:
    @pytest.mark.parametrize("name", SET_METRICS)
    def test_sets_of_one_kind_are_rarely_told_apart(self, name):
        # 60 comparisons, each with a chance of 0.1 at most: 14 or more happen once in 1,000 times.
        # Tested on the scale of the real side, 42 of them show a Fréchet distance.
        assert np.sum(chance_p()[name] <= 0.1) < 14

    @pytest.mark.parametrize("name", ["frechet[vector=1]", "kernel_distance[vector=1]"])
    def test_p_is_uniform(self, name):
        # Mean 0.525 of twenty equally likely values; three standard errors either way.
        assert np.mean(chance_p()[name]) == pytest.approx(0.525, abs=3 * 0.289 / math.sqrt(60))

    def test_all_figures_together_raise_as_many_alarms_as_they_may(self):
        # Were they far fewer, the test would see nothing.
        assert 0.03 < np.mean([p <= 0.1 for p in chance_p().values()]) < 0.13

import io
import math
import wave
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.evaluation import evaluate
from eval.features import select
from eval.gallery import (
    EACH,
    MAX_BARS,
    MAX_SECONDS,
    MAX_SOUND_BYTES,
    MOST,
    SAMPLE_RATE,
    Scale,
    choose,
    opening,
    outliers,
    piece_distances,
    sound,
    sound_seconds,
)
from eval.pieces import Side
from rnngan.music.piece import Metre, Piece

QUICK = {"resamples": 20, "permutations": 19}


def column(*values):
    return np.array(values, float)[:, None]


class TestScale:
    def test_distance_is_1_at_either_end_of_the_middle(self):
        real = column(*range(51), *range(52, 151, 2))  # median 50, skewed
        scale = Scale.of(real)
        (low,), (high,) = scale.low, scale.high
        assert 50 - low < high - 50
        found = scale.distances(column(low, 50, (50 + high) / 2, high, 50 + 2 * (high - 50)), real)
        assert found.ravel() == pytest.approx([1, 0, 0.5, 1, 2])

    def test_where_real_music_never_differs_a_deviation_of_both_sides_is_the_unit(self):
        real, fake = column(1, 1, 1, 1), column(1, 1, 1, 5)
        found = Scale.of(real).distances(fake, real)
        deviation = np.std([1, 1, 1, 1, 1, 1, 1, 5])
        assert found.ravel() == pytest.approx([0, 0, 0, 4 / deviation])

    def test_the_last_digit_is_no_difference(self):
        real, fake = column(0.3, 0.1 + 0.2, 0.3, 0.1 + 0.2), column(0.1 + 0.2, 0.3, 0.5)
        found = Scale.of(real).distances(fake, real)
        assert found.ravel() == pytest.approx([0, 0, 0.2 / np.std([0.3] * 6 + [0.5])])

    def test_undefined_stays_undefined(self):
        real = np.array([[0.0, math.nan], [1.0, math.nan], [2.0, math.nan]])
        found = Scale.of(real).distances(np.array([[math.nan, 1.0], [1.0, math.nan]]), real)
        assert np.isnan(found).tolist() == [[True, True], [False, True]]

    @given(st.lists(st.integers(-50, 50), min_size=2, max_size=30), st.integers(-50, 50))
    def test_unit_and_origin_do_not_matter(self, real, value):
        real = np.array(real, float)[:, None]
        found = Scale.of(real).distances(column(value), real)
        moved = Scale.of(8 * real + 3).distances(column(8 * value + 3), 8 * real + 3)
        assert moved == pytest.approx(found)


class TestPieceDistances:
    def test_mean_of_what_is_defined(self):
        found = piece_distances(
            np.array([[1.0, 0.5], [1.0, math.nan], [math.nan, math.nan]]),
            ["pitch_count", "pitch_range"],
        )
        assert found.tolist()[:2] == [0.75, 1]
        assert math.isnan(found[2])

    def test_variants_of_one_metric_count_as_one(self):
        names = ["repetition[n=2]", "repetition[n=3]", "pitch_range"]
        assert piece_distances(np.array([[2.0, 1.0, 0.5]]), names).tolist() == [1]

    def test_no_number_counts_for_more_than_the_most(self):
        far = np.array([[1e9, 0.0]])
        assert piece_distances(far, ["pitch_count", "pitch_range"]).tolist() == [MOST / 2]


def scales(count, size, top=24, seed=0):
    """Pieces of eighths that walk up and down 8 to `top` semitones."""
    rng = np.random.default_rng(seed)
    pieces = []
    for _ in range(count):
        pitches = 60 + rng.integers(0, rng.integers(8, top), size)
        pieces.append(Piece.from_rows((12 * i, 12 * i + 12, p) for i, p in enumerate(pitches)))
    return pieces


def compared(real, *fakes, metrics="pitch_range,note_count,pitch_entropy,pitch_interval_mean"):
    sides = [Side(name=f"fake {i}", pieces=tuple(pieces)) for i, pieces in enumerate(fakes)]
    real = Side(name="real", pieces=tuple(real))
    return evaluate(real, sides, metrics=select(metrics), **QUICK)


@pytest.fixture(scope="module")
def gallery():
    """Music of 32 notes a piece; of the generated pieces number 4 is four times as long."""
    fakes = scales(20, 32, seed=1)
    fakes[4] = scales(1, 128, top=60, seed=2)[0]
    return choose(compared(scales(30, 32), fakes))


class TestChoose:
    def test_typical_and_odd_pieces_of_real_music_and_all_kinds_of_generated(self, gallery):
        real, fake = gallery
        assert [len(e) for e in real.exhibits.values()] == [1, EACH]
        assert list(real.exhibits) == ["typical", "outlier"]
        assert [len(e) for e in fake.exhibits.values()] == [1, EACH, EACH, EACH]

    def test_best_have_the_smallest_and_worst_the_largest_distance(self, gallery):
        kinds = gallery[1].exhibits
        best, worst = ([e.distance for e in kinds[kind]] for kind in ("best", "worst"))
        assert best == sorted(best)
        assert worst == sorted(worst, reverse=True)
        assert max(best) < min(worst)
        assert kinds["best"][0].farther_than < 0.2

    def test_the_spoilt_piece_is_the_worst_and_what_is_odd_is_named(self, gallery):
        worst = gallery[1].exhibits["worst"][0]
        assert (worst.index, worst.title) == (4, "fake 0, piece 5")
        assert worst.farther_than == 1
        first = worst.extremes[0]
        assert (first.feature, first.value, first.middle) == ("note_count", 128, (32, 32))
        assert first.distance > 1

    def test_outliers_are_others_than_the_worst_each_for_another_metric(self, gallery):
        kinds = gallery[1].exhibits
        outliers = kinds["outlier"]
        assert not {e.index for e in outliers} & {e.index for e in kinds["worst"]}
        farthest = [e.extremes[0].distance for e in outliers]
        assert farthest == sorted(farthest, reverse=True)

    def test_real_pieces_lie_nearer_to_real_music_than_what_is_spoilt(self):
        up = [piece.transposed(40) for piece in scales(20, 32, seed=1)]
        metrics = "pitch_range,note_count,pitch_interval_mean,polyphony"
        halves = [scales(10, 64, top=50, seed=4), up[:10]]
        far, near = choose(compared(scales(30, 32), *halves, metrics=metrics))[1:]
        worst, best = far.exhibits["best"][0], near.exhibits["worst"][-1]
        assert worst.distance > best.distance

    def test_a_piece_that_comes_twice_is_shown_once(self):
        twice = scales(4, 32, seed=1) * 5
        kinds = choose(compared(scales(30, 32), twice))[1].exhibits
        assert {e.index for exhibits in kinds.values() for e in exhibits} <= {0, 1, 2, 3}

    def test_two_pieces_are_enough_and_one_is_best_and_the_other_worst(self):
        kinds = choose(compared(scales(30, 32), scales(2, 32, seed=1)))[1].exhibits
        (best,), (worst,) = kinds["best"], kinds["worst"]
        assert {best.index, worst.index} == {0, 1}

    def test_pieces_without_a_defined_number_are_not_ranked(self):
        silent = [Piece.from_rows([])] * 3
        evaluation = compared(scales(30, 32), silent, metrics="pitch_range,pitch_entropy")
        assert choose(evaluation)[1].exhibits == {}

    def test_without_numbers_nothing_is_chosen(self):
        evaluation = compared(scales(5, 32), scales(5, 32, seed=1), metrics="pitch_histogram")
        assert choose(evaluation) == ()

    def test_the_order_of_the_pieces_says_nothing(self):
        fakes = scales(12, 32, seed=1)
        one, turned = (choose(compared(scales(30, 32), f))[1] for f in (fakes, fakes[::-1]))
        for kind in ("best", "worst"):
            distances = [[e.distance for e in side.exhibits[kind]] for side in (one, turned)]
            assert distances[0] == pytest.approx(distances[1])


def test_each_outlier_is_one_for_another_metric():
    farthest = np.array([[9, 0], [8, 1], [math.nan, 2], [7, 0]])
    assert outliers(farthest, [0, 1, 2, 3], 3) == [0, 2]
    assert outliers(farthest, [1, 3], 3) == [1]
    assert outliers(np.zeros((4, 2)), [0, 1, 2, 3], 3) == []


class TestOpening:
    def test_the_first_bars_and_what_still_sounds_is_cut(self):
        end = MAX_BARS * 72
        rows = [(0, 72, 60), (end - 24, end + 24, 62), (end, end + 24, 64)]
        piece = Piece.from_rows(rows, metres=(Metre(0, 3, 4),))
        assert opening(piece) == replace(piece, notes=[*piece.notes[:1], _cut(piece.notes[1], end)])

    def test_a_short_piece_stays_as_it_is(self):
        piece = Piece.from_rows([(0, MAX_BARS * 96, 60)])
        assert opening(piece) is piece
        assert opening(Piece.from_rows([])).end == 0


def _cut(note, end):
    note = note.copy()
    note["end"] = end
    return note


class TestSound:
    def read(self, data):
        with wave.open(io.BytesIO(data)) as file:
            shape = (file.getnchannels(), file.getsampwidth(), file.getframerate())
            return shape, np.frombuffer(file.readframes(file.getnframes()), "<i2")

    def test_a_file_of_the_asked_length_whose_loudest_tone_is_the_note(self):
        piece = Piece.from_rows([(0, 2400, 69)])  # A4, 50 s
        shape, samples = self.read(sound(piece, 2.0))
        assert shape == (1, 2, SAMPLE_RATE)
        assert len(samples) == 2 * SAMPLE_RATE
        loudest = np.abs(np.fft.rfft(samples)).argmax() / 2  # Hz, in bins of half a hertz
        assert loudest == pytest.approx(440, abs=1)

    def test_no_notes_are_silence(self):
        assert not self.read(sound(Piece.from_rows([]), 2.0))[1].any()

    def test_all_sounds_together_fit_into_the_page(self):
        assert sound_seconds(0) == sound_seconds(1) == MAX_SECONDS
        for count in (10, 50, 1000):
            assert 2 * SAMPLE_RATE * sound_seconds(count) * count <= MAX_SOUND_BYTES + 1

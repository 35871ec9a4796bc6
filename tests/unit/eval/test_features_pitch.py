import math

import numpy as np
import pretty_midi
import pytest

from eval.features.pitch import (
    entropy,
    interval_histogram,
    melodic_intervals,
    pitch_class_count,
    pitch_class_entropy,
    pitch_class_histogram,
    pitch_class_transitions,
    pitch_count,
    pitch_entropy,
    pitch_histogram,
    pitch_interval_mean,
    pitch_range,
)
from rnngan.music.piece import DRUMS, Metre, Piece, Tempo

C, D, E, G = 0, 2, 4, 7


def quarters(*pitches, **fields):
    """One note per quarter; a tuple is a chord, None a rest."""
    rows = []
    for i, pitch in enumerate(pitches):
        chord = pitch if isinstance(pitch, tuple) else () if pitch is None else (pitch,)
        rows += [(24 * i, 24 * i + 24, p) for p in chord]
    return Piece.from_rows(rows, **fields)


def test_counts_and_range():
    piece = quarters(60, 62, 60, 72)
    assert pitch_count(piece) == 3
    assert pitch_class_count(piece) == 2
    assert pitch_range(piece) == 12


def test_one_note():
    piece = quarters(60)
    assert pitch_count(piece) == 1
    assert pitch_range(piece) == 0
    assert pitch_entropy(piece) == 0
    assert pitch_class_entropy(piece) == 0
    assert math.isnan(pitch_interval_mean(piece))


@pytest.mark.parametrize(
    "piece", [pytest.param(quarters(60, 72, 84), id="Pypianoroll 1.0.4 says 4")]
)
def test_octaves_are_one_pitch_class(piece):
    assert pitch_class_count(piece) == 1


@pytest.mark.parametrize(
    "rows", [pytest.param([(0, 24, 36, 100, DRUMS)], id="MusPy 0.5.0 says -127")]
)
def test_drums_have_no_pitch_range(rows):
    assert math.isnan(pitch_range(Piece.from_rows(rows)))


def test_pitch_classes_per_bar():
    # bar 1: C D E; bar 2: the E held on; bar 3 silent; bar 4: C
    rows = [(0, 24, 60), (24, 48, 62), (48, 192, 64), (288, 300, 48)]
    assert pitch_class_count(Piece.from_rows(rows), per="bar") == (3 + 1 + 0 + 1) / 4


def test_entropy_in_bits():
    assert pitch_entropy(quarters(60, 62, 64, 65)) == 2
    assert pitch_entropy(quarters(60, 60, 60, 62)) == pytest.approx(0.75 * math.log2(4 / 3) + 0.5)
    # two octaves of one class: one bit of pitch, none of pitch class
    assert pitch_entropy(quarters(60, 72)) == 1
    assert pitch_class_entropy(quarters(60, 72)) == 0
    assert pitch_class_entropy(quarters(*range(60, 72))) == pytest.approx(math.log2(12))


def test_entropy_of_nothing_is_nan_row_by_row():
    np.testing.assert_array_equal(entropy(np.array([[0, 0], [1, 1]])), [math.nan, 1])


def test_windowed_entropy():
    # bars: C C C C | C D C D | silence | C D E F
    bars = [60] * 4 + [60, 62] * 2 + [None] * 4 + [60, 62, 64, 65]
    piece = quarters(*bars)
    assert pitch_class_entropy(piece, bars=1) == pytest.approx((0 + 1 + 2) / 3)
    whole = entropy(np.array([7, 3, 1, 1]))
    assert pitch_class_entropy(piece, bars=4) == pytest.approx(whole)
    # windows of two bars: C×6 D×2; C×2 D×2; C D E F
    pairs = [entropy(np.array([6, 2])), 1, 2]
    assert pitch_class_entropy(piece, bars=2) == pytest.approx(np.mean(pairs))


def test_window_longer_than_the_piece_is_the_piece():
    piece = quarters(60, 62, 64, 65, 60)
    assert pitch_class_entropy(piece, bars=4) == pitch_class_entropy(piece)


def test_histogram_weights():
    # C4 a quarter loud, D4 a half soft, C5 a quarter soft
    piece = Piece.from_rows([(0, 24, 60, 100), (24, 72, 62, 50), (72, 96, 72, 50)])
    for histogram, c, d, c_again in (
        (pitch_histogram, 60, 62, 72),
        (pitch_class_histogram, C, D, C),
    ):
        for weight, shares in (
            ("count", (1 / 3, 1 / 3, 1 / 3)),
            ("duration", (1 / 4, 1 / 2, 1 / 4)),
            ("duration*velocity", (2 / 5, 2 / 5, 1 / 5)),
        ):
            expected = np.zeros(128 if histogram is pitch_histogram else 12)
            np.add.at(expected, [c, d, c_again], shares)
            np.testing.assert_allclose(histogram(piece, weight=weight), expected)


def matrix(piece, **options):
    return pitch_class_transitions(piece, **options).reshape(12, 12)


def test_successive_transitions_by_hand():
    piece = quarters(60, 62, 60, 62, 64)
    counts = matrix(piece, pairs="successive", normalise="none")
    assert counts[C, D] == 2
    assert counts[D, C] == 1
    assert counts[D, E] == 1
    assert counts.sum() == 4
    assert matrix(piece, pairs="successive")[C, D] == 0.5
    rows = matrix(piece, pairs="successive", normalise="row")
    np.testing.assert_array_equal(rows[D, [C, E]], [0.5, 0.5])
    assert np.isnan(rows[E]).all()


def test_every_row_weighs_the_same():
    # C goes to D twice and to E once, D to C twice
    piece = quarters(60, 62, 60, 62, 60, 64)
    rows = matrix(piece, pairs="successive", normalise="mean row")
    assert rows[C, D] == pytest.approx(2 / 3 / 2)
    assert rows[C, E] == pytest.approx(1 / 3 / 2)
    assert rows[D, C] == pytest.approx(1 / 2)
    assert rows.sum() == pytest.approx(1)
    assert np.isnan(matrix(quarters(60), pairs="successive", normalise="mean row")).all()


def test_touching_transitions_by_hand():
    # C ends where the dyad E G begins; 1 tick at 120 is 21 ms, 3 ticks are 62 ms
    rows = [(0, 24, 60), (24, 47, 64), (24, 45, 67), (48, 72, 62)]
    counts = matrix(Piece.from_rows(rows), pairs="touching", normalise="none")
    assert counts[C, E] == counts[C, G] == 1
    assert counts[E, D] == 1
    assert counts[G, D] == 0
    assert counts.sum() == 3


def test_touching_depends_on_seconds():
    rows = [(0, 20, 60), (24, 48, 62)]
    for tempo, touches in ((120, 0), (240, 1)):  # a gap of 83 and of 42 ms
        piece = Piece.from_rows(rows, tempos=(Tempo(0, tempo),))
        assert matrix(piece, pairs="touching", normalise="none").sum() == touches


def test_a_gap_of_exactly_50_ms_is_too_wide():
    rows = [(t, t + 22, 60) for t in range(0, 24 * 99, 24)]
    piece = Piece.from_rows(rows, tempos=(Tempo(0, 100),))
    assert matrix(piece, pairs="touching", normalise="none").sum() == 0
    assert matrix(piece, pairs="successive", normalise="none").sum() == 98


def test_transitions_stay_in_a_track():
    rows = [(0, 24, 60, 64, 0, 0), (24, 48, 62, 64, 0, 1)]
    for pairs in ("touching", "successive"):
        assert matrix(Piece.from_rows(rows), pairs=pairs, normalise="none").sum() == 0
        assert np.isnan(matrix(Piece.from_rows(rows), pairs=pairs)).all()


def test_touching_transitions_agree_with_pretty_midi():
    rng = np.random.default_rng(5)
    starts = rng.integers(0, 600, 200)
    # at least 3 ticks long: pretty_midi lets a note shorter than 50 ms follow itself
    rows = [
        (s, s + rng.integers(3, 40), rng.integers(30, 90), 64, 0, t)
        for s, t in zip(starts, rng.integers(0, 3, 200), strict=True)
    ]
    piece = Piece.from_rows(rows, metres=(Metre(0, 3, 4),), tempos=(Tempo(0, 110), Tempo(300, 133)))
    midi: pretty_midi.PrettyMIDI = piece.to_pretty_midi()
    np.testing.assert_array_equal(
        matrix(piece, pairs="touching", normalise="none"),
        midi.get_pitch_class_transition_matrix(normalize=False),
    )


@pytest.mark.parametrize(
    "rows", [pytest.param([(0, 1, 60), (48, 72, 62)], id="pretty_midi says C->C once")]
)
def test_a_short_note_does_not_follow_itself(rows):
    piece = Piece.from_rows(rows)
    assert matrix(piece, pairs="touching", normalise="none").sum() == 0
    assert piece.to_pretty_midi().get_pitch_class_transition_matrix()[C, C] == 1


def test_melodic_intervals_by_hand():
    piece = quarters(60, 64, 62, 62)
    assert melodic_intervals(piece).tolist() == [4, -2, 0]
    assert pitch_interval_mean(piece) == 2
    histogram = interval_histogram(piece)
    np.testing.assert_allclose(histogram[np.array([4, -2, 0]) + 24], 1 / 3)


def test_wide_intervals_share_the_outer_bins():
    histogram = interval_histogram(quarters(30, 60, 84, 30))
    np.testing.assert_allclose(histogram[[0, -1]], [1 / 3, 2 / 3])


def test_a_part_with_a_chord_has_no_melody():
    chords = [(0, 24, 60, 64, 0, 0), (0, 24, 64, 64, 0, 0), (24, 48, 67, 64, 0, 0)]
    melody = [(0, 24, 72, 64, 0, 1), (24, 48, 77, 64, 0, 1)]
    assert math.isnan(pitch_interval_mean(Piece.from_rows(chords)))
    assert np.isnan(interval_histogram(Piece.from_rows(chords))).all()
    assert pitch_interval_mean(Piece.from_rows(chords + melody)) == 5


def test_one_tick_of_overlap_is_a_chord():
    assert melodic_intervals(Piece.from_rows([(0, 24, 60), (24, 48, 62)])).tolist() == [2]
    assert melodic_intervals(Piece.from_rows([(0, 25, 60), (24, 48, 62)])).tolist() == []

"""Every feature against the hand-worked table, and against changes that must not move it."""

import math
from dataclasses import replace

import numpy as np
import pytest
from conformance import EXPECTED, KEEPS, PIECES, TOOLS, keeps
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.features import FEATURES, features_of
from rnngan.music.keys import estimated_key
from rnngan.music.piece import DRUMS, Metre, Piece, Tempo

NAMES = [*PIECES]


def spread(feature, value):
    """A value of the table as the feature gives it: bins that are not named are 0."""
    if not isinstance(value, dict):
        return value
    assert set(value) <= set(feature.bins)
    return np.array([value.get(label, 0.0) for label in feature.bins])


@pytest.mark.parametrize("name", FEATURES)
def test_every_feature_has_its_row(name):
    assert len(EXPECTED[name]) == len(PIECES)


def test_every_row_has_its_feature():
    assert set(EXPECTED) == set(FEATURES)


def test_every_invariance_is_that_of_a_feature():
    known = {*FEATURES} | {feature.base_name for feature in FEATURES.values()}
    assert set(KEEPS) <= known
    assert all(keeps(name) for name in FEATURES)


@pytest.mark.parametrize("music", PIECES)
@pytest.mark.parametrize("name", EXPECTED)
def test_hand_worked_values(name, music):
    feature = FEATURES[name]
    truth = spread(feature, EXPECTED[name][NAMES.index(music)])
    value = feature.compute(PIECES[music])
    # assert_allclose lets one NaN stand for a histogram of them
    np.testing.assert_allclose(value, truth, atol=1e-12)


@pytest.mark.parametrize("case", TOOLS, ids=lambda c: f"{c.tool}: {c.feature} of {c.music}")
def test_what_other_tools_get_wrong(case):
    feature = FEATURES[case.feature]
    value = feature.compute(case.piece)
    np.testing.assert_allclose(value, spread(feature, case.truth), atol=1e-12)
    if case.says is not None:
        assert not np.allclose(value, spread(feature, case.says), atol=1e-3)


NOTES = st.tuples(
    st.integers(0, 400),
    st.integers(1, 100),
    st.integers(40, 80),
    st.integers(1, 127),
    st.sampled_from([0, 40, DRUMS]),
    st.integers(0, 2),
).map(lambda n: (n[0], n[0] + n[1], *n[2:]))
METRES = st.sampled_from(
    [(Metre(0, 4, 4),), (Metre(0, 6, 8),), (Metre(0, 1, 4), Metre(24, 3, 4), Metre(150, 5, 16))]
)
PIECES_AT_RANDOM = st.builds(
    # slow, so that segments of all lengths in seconds occur
    lambda rows, metres: Piece.from_rows(rows, metres=metres, tempos=(Tempo(0, 50),)),
    st.lists(NOTES, max_size=25),
    METRES,
)


def assert_same(before, after, names):
    for name in names:
        np.testing.assert_allclose(before[name], after[name], atol=1e-9, err_msg=name)


@settings(max_examples=60)
@given(PIECES_AT_RANDOM)
def test_values_lie_in_their_range(piece):
    for name, value in features_of(piece).items():
        low, high = FEATURES[name].range
        if FEATURES[name].kind != "scalar":
            if not np.isnan(value).all():
                assert value.sum() == pytest.approx(1), name
                assert low <= value.min() <= value.max() <= high + 1e-9, name
        elif not math.isnan(value):
            assert math.isfinite(value), name
            assert low - 1e-9 <= value <= high + 1e-9, name


@settings(max_examples=40)
@given(PIECES_AT_RANDOM, st.integers(-20, 20))
def test_transposition(piece, semitones):
    moved = piece.transposed(semitones)
    before, after = features_of(piece), features_of(moved)
    keys = estimated_key(piece), estimated_key(moved)
    key_moved = None in keys or keys[1] == ((keys[0][0] + semitones) % 12, keys[0][1])
    for name, value in before.items():
        match keeps(name).transposition:
            case "moved":
                value = np.roll(value, semitones)
            case "moved both ways":
                value = np.roll(value.reshape(12, 12), (semitones, semitones), (0, 1)).ravel()
            case "same, if the key is clear" if not key_moved:
                continue
        np.testing.assert_allclose(value, after[name], atol=1e-9, err_msg=name)


@settings(max_examples=40)
@given(PIECES_AT_RANDOM, st.floats(20, 300))
def test_tempo(piece, quarters_per_minute):
    other = replace(piece, tempos=(Tempo(0, quarters_per_minute),))
    before, after = features_of(piece), features_of(other)
    assert_same(before, after, [name for name in FEATURES if keeps(name).tempo])
    ratio = 50 / quarters_per_minute
    for name, power in (
        ("inter_onset_interval_mean[seconds]", 1),
        ("inter_onset_interval_mean[seconds,raw]", 1),
        ("note_density[second]", -1),
    ):
        np.testing.assert_allclose(before[name] * ratio**power, after[name])


@settings(max_examples=40)
@given(st.lists(NOTES, max_size=25), METRES, st.randoms(use_true_random=False))
def test_order_of_notes(rows, metres, random):
    shuffled = random.sample(rows, len(rows))
    assert_same(
        features_of(Piece.from_rows(rows, metres=metres)),
        features_of(Piece.from_rows(shuffled, metres=metres)),
        FEATURES,
    )


@settings(max_examples=40)
@given(PIECES_AT_RANDOM, st.randoms(use_true_random=False))
def test_splitting_into_tracks(piece, random):
    notes = piece.notes.copy()
    notes["track"] = [random.randrange(4) for _ in notes]
    names = [name for name in FEATURES if keeps(name).tracks]
    assert_same(features_of(piece, names), features_of(replace(piece, notes=notes), names), names)

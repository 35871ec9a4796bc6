"""What every feature must keep, whatever the music."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.features import FEATURES, features_of
from rnngan.music.piece import DRUMS, Metre, Piece, Tempo

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
PIECES = st.builds(
    lambda rows, metres: Piece.from_rows(rows, metres=metres),
    st.lists(NOTES, max_size=25),
    METRES,
)

IN_SECONDS = [
    name
    for name, feature in FEATURES.items()
    if feature.unit in ("seconds", "notes per second") or name == "pitch_class_transitions[50ms]"
]
BY_TRACK = ("interval", "transitions", "note_length", "tonal", "repetition", "distinct")
KEY_TIES = ("out_of_key_rate", "out_of_key_rate[harmonic]")  # of equal keys the first is taken


def assert_same(a, b, but=()):
    for name in a:
        if name not in but:
            np.testing.assert_allclose(a[name], b[name], atol=1e-9, err_msg=name)


@settings(max_examples=60)
@given(PIECES)
def test_values_are_finite_and_in_range(piece):
    for name, value in features_of(piece).items():
        feature = FEATURES[name]
        if feature.kind != "scalar":
            assert np.isnan(value).all() or value.sum() == pytest.approx(1), name
            assert not np.any(value < 0), name
        elif not np.isnan(value):
            assert np.isfinite(value), name
            assert value >= 0, name
            assert value <= 1 or feature.unit != "share", name
            assert value <= 7 or feature.unit != "bits", name


@settings(max_examples=30)
@given(PIECES, st.integers(-20, 20))
def test_transposition(piece, semitones):
    before, after = features_of(piece), features_of(piece.transposed(semitones))
    moved = [
        name
        for name, f in FEATURES.items()
        if f.base_name.endswith(("pitch_histogram", "pitch_class_histogram"))
    ]
    matrices = [name for name in FEATURES if name.startswith("pitch_class_transitions")]
    for name in moved:
        np.testing.assert_allclose(np.roll(before[name], semitones), after[name])
    for name in matrices:
        rolled = np.roll(before[name].reshape(12, 12), (semitones, semitones), axis=(0, 1))
        np.testing.assert_allclose(rolled.ravel(), after[name])
    assert_same(before, after, but=(*moved, *matrices, *KEY_TIES))


@settings(max_examples=30)
@given(PIECES, st.floats(20, 300))
def test_tempo_matters_only_in_seconds(piece, quarters_per_minute):
    other = replace(piece, tempos=(Tempo(0, quarters_per_minute),))
    before, after = features_of(piece), features_of(other)
    assert_same(before, after, but=IN_SECONDS)
    ratio = 120 / quarters_per_minute
    for name, power in (
        ("inter_onset_interval_mean[seconds]", 1),
        ("inter_onset_interval_mean[seconds,raw]", 1),
        ("note_density[second]", -1),
    ):
        np.testing.assert_allclose(before[name] * ratio**power, after[name])


@settings(max_examples=30)
@given(st.lists(NOTES, max_size=25), METRES, st.randoms(use_true_random=False))
def test_order_of_notes_is_no_matter(rows, metres, random):
    shuffled = random.sample(rows, len(rows))
    assert_same(
        features_of(Piece.from_rows(rows, metres=metres)),
        features_of(Piece.from_rows(shuffled, metres=metres)),
    )


@settings(max_examples=30)
@given(PIECES, st.randoms(use_true_random=False))
def test_splitting_into_tracks(piece, random):
    notes = piece.notes.copy()
    notes["track"] = [random.randrange(4) for _ in notes]
    names = [n for n in FEATURES if not any(word in n for word in BY_TRACK)]
    names += [n for n in FEATURES if n.startswith(("inter_onset", "note_length_histogram["))]
    names = [n for n in names if n != "note_length_histogram[24]"]
    assert_same(features_of(piece, names), features_of(replace(piece, notes=notes), names))

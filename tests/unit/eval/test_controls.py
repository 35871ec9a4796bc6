from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.controls import CONTROLS, EXPECTED, REACTING, controls_of
from eval.features import FEATURES, features_of
from rnngan.music.piece import DRUMS, Metre, Piece, Tempo

NOTES = st.tuples(
    st.integers(0, 400),
    st.integers(1, 100),
    st.integers(0, 127),
    st.integers(1, 127),
    st.sampled_from([0, 40, DRUMS]),
    st.integers(0, 2),
).map(lambda n: (n[0], n[0] + n[1], *n[2:]))
PIECES = st.lists(NOTES, max_size=20).map(Piece.from_rows)

SCALE = (0, 2, 4, 5, 7, 9, 11)


def song(seed, *, drums, chords, metres, quarters_per_minute=120.0):
    """Sixteen bars: a melody in phrases that come back, on request with chords and drums."""
    rng = np.random.default_rng(seed)
    tonic = int(rng.integers(55, 67))
    rows = []
    phrases = []
    for _ in range(3):
        lengths = rng.choice([6, 12, 12, 12, 24, 24, 36], 24)
        starts = np.cumsum([0, *lengths])
        whole = starts[:-1] < 4 * 96 - 6
        degrees = np.cumsum(rng.choice([-2, -1, -1, 0, 1, 1, 2], 24)) % 14
        phrases.append((starts[:-1][whole], lengths[whole], degrees[whole]))
    for place, phrase in enumerate((0, 1, 0, 2)):
        for start, length, degree in zip(*phrases[phrase]):
            at = place * 384 + int(start)
            pitch = tonic + 12 * (degree // 7) + SCALE[degree % 7]
            rows.append((at, at + int(length), int(pitch), 80, 0, 0))
    for bar in range(16):
        root = int(rng.choice([0, 3, 4, 5]))
        for step in (0, 2, 4) if chords else ():
            pitch = tonic - 24 + 12 * ((root + step) // 7) + SCALE[(root + step) % 7]
            rows.append((bar * 96, bar * 96 + 96, pitch, 60, 32, 1))
        for beat in range(4) if drums else ():
            rows.append((bar * 96 + beat * 24, bar * 96 + beat * 24 + 6, 36 + beat, 90, DRUMS, 2))
    tempos = (Tempo(0, quarters_per_minute), Tempo(500, quarters_per_minute * 1.25))
    return Piece.from_rows(rows, metres=metres, tempos=tempos)


@pytest.fixture(scope="module")
def songs():
    """Thirty songs: plain melodies, with chords, with chords and drums, in several metres."""
    metres = [(Metre(0, 4, 4),), (Metre(0, 3, 4),), (Metre(0, 6, 8), Metre(360, 4, 4))]
    return [
        song(
            seed,
            chords=seed % 3 > 0,
            drums=seed % 3 > 1,
            metres=metres[seed // 3 % 3],
            quarters_per_minute=60.0 + 5 * seed,
        )
        for seed in range(30)
    ]


@pytest.fixture(scope="module")
def measured(songs):
    """Features of the songs, and of every control of them."""
    by_control = {
        name: [features_of(piece) for piece in pieces]
        for name, pieces in controls_of(songs, 7).items()
    }
    return [features_of(piece) for piece in songs], by_control


def variants(names):
    """Features that a set of names stands for."""
    return [f.name for f in FEATURES.values() if f.name in names or f.base_name in names]


@pytest.mark.parametrize("control", CONTROLS)
def test_what_is_expected_to_stay_stays(control, measured):
    before, after = measured[0], measured[1][control]
    for name in variants(EXPECTED[control]):
        for real, changed in zip(before, after):
            np.testing.assert_allclose(changed[name], real[name], atol=1e-9, err_msg=name)


@pytest.mark.parametrize("control", CONTROLS)
def test_what_is_expected_to_react_reacts(control, measured):
    before, after = measured[0], measured[1][control]
    for name in variants(REACTING[control]):
        pairs = [
            (real[name], changed[name])
            for real, changed in zip(before, after)
            if not np.isnan(real[name]).any()
        ]
        moved = [not np.allclose(a, b, atol=1e-9, equal_nan=True) for a, b in pairs]
        assert pairs, name
        assert np.mean(moved) > 0.8, name


@pytest.mark.parametrize("table", [EXPECTED, REACTING])
def test_the_tables_name_known_features_of_every_control(table):
    assert list(table) == list(CONTROLS)
    for names in table.values():
        for name in names:
            assert variants({name}), name


def test_no_feature_is_expected_both_to_stay_and_to_react():
    for control in CONTROLS:
        assert not set(variants(EXPECTED[control])) & set(variants(REACTING[control]))


def change(name, piece, seed=0):
    return CONTROLS[name](piece, np.random.default_rng(seed))


def sorted_rows(notes, *names):
    return sorted(notes[list(names)].tolist())


@settings(max_examples=50, deadline=None)
@given(PIECES, st.integers(0, 99))
def test_each_control_changes_one_thing(piece, seed):
    is_drum = piece.notes["program"] == DRUMS
    drums, pitched = piece.notes[is_drum], piece.pitched
    for name in CONTROLS:
        after = change(name, piece, seed)
        assert (after.metres, after.tempos, after.tags) == (piece.metres, piece.tempos, piece.tags)
        same = {"identity": NAMES, "jittered_onsets": ("pitch", "velocity", "program", "track")}
        kept = same.get(name, ("start", "end", "velocity", "program", "track"))
        assert sorted_rows(after.notes, *kept) == sorted_rows(piece.notes, *kept)
        if name != "jittered_onsets":
            drums_after = after.notes[after.notes["program"] == DRUMS]
            assert sorted_rows(drums_after, *NAMES) == sorted_rows(drums, *NAMES)
    shuffled = change("shuffled_notes", piece, seed).pitched["pitch"]
    assert sorted(shuffled.tolist()) == sorted(pitched["pitch"].tolist())


NAMES = ("start", "end", "pitch", "velocity", "program", "track")


@settings(max_examples=50, deadline=None)
@given(PIECES, st.integers(0, 99))
def test_pitches_stay_within_bounds(piece, seed):
    before = piece.pitched["pitch"].astype(int)
    moved = change("transposed", piece, seed).pitched["pitch"].astype(int)
    drawn = change("random_pitches", piece, seed).pitched["pitch"].astype(int)
    if len(before):
        (interval,) = set((np.sort(moved) - np.sort(before)).tolist())
        assert 1 <= abs(interval) <= 6 or (before.min() < 1 and before.max() > 126)
        assert drawn.min() >= before.min()
        assert drawn.max() <= before.max()


def test_random_pitches_reach_both_ends_of_the_range_evenly():
    piece = Piece.from_rows((i, i + 1, 60 + 3 * (i % 2)) for i in range(4000))
    counts = np.bincount(change("random_pitches", piece).notes["pitch"])[60:]
    np.testing.assert_allclose(counts / 1000, np.ones(4), atol=0.1)


def test_transposition_reaches_every_interval_but_0():
    piece = Piece.from_rows([(0, 24, 60)])
    rng = np.random.default_rng(0)
    reached = {int(CONTROLS["transposed"](piece, rng).notes["pitch"][0]) - 60 for _ in range(200)}
    assert reached == set(range(-6, 7)) - {0}


@pytest.mark.parametrize(
    ("quarters_per_minute", "deviation"),
    [(250.0, 3.0), (125.0, 1.5), (30.0, 1.0)],  # the last below the floor of one tick
)
def test_jitter_is_30_ms_or_one_tick(quarters_per_minute, deviation):
    piece = Piece.from_rows(
        [(100, 120, 60)] * 4000,
        tempos=(Tempo(0, 60.0), Tempo(100, quarters_per_minute), Tempo(101, 60.0)),
    )
    after = change("jittered_onsets", piece).notes
    assert abs(after["start"].mean() - 100) < 0.15
    # Rounding to whole ticks adds a variance of 1/12.
    assert after["start"].std() == pytest.approx(np.sqrt(deviation**2 + 1 / 12), rel=0.04)
    assert (after["end"] - after["start"] == 20).all()


def test_jitter_stays_at_0_or_after():
    piece = Piece.from_rows([(0, 24, pitch) for pitch in range(100)])
    assert change("jittered_onsets", piece).notes["start"].min() == 0


def test_controls_depend_on_the_seed_alone(songs):
    once, again, other = (controls_of(songs[:4], seed) for seed in (1, 1, 2))
    assert list(once) == list(CONTROLS)
    assert once == again
    assert all(once[name] != other[name] for name in CONTROLS if name != "identity")


@pytest.mark.parametrize("control", CONTROLS)
def test_no_notes_and_drums_alone_are_fine(control, songs):
    empty = Piece.from_rows([])
    assert change(control, empty) == empty
    drums = replace(songs[2], notes=songs[2].notes[songs[2].notes["program"] == DRUMS])
    assert (change(control, drums) == drums) == (control != "jittered_onsets")

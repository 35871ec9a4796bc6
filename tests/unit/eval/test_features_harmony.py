import math

import numpy as np
import pytest

from eval.features.harmony import (
    CENTROIDS,
    chord_irregularity,
    chords,
    out_of_key_rate,
    pitch_in_key_rate,
    pitch_in_scale_rate,
    scale_consistency,
    tonal_centroids,
    tonal_distance,
    tonal_distances,
)
from rnngan.music.keys import estimated_key
from rnngan.music.piece import DRUMS, Piece

D_MAJOR = (62, 64, 66, 67, 69, 71, 73)
A_HARMONIC_MINOR = (57, 59, 60, 62, 64, 65, 68, 69)
ALL_MODES = ("major", "minor", "harmonic minor")


def quarters(*pitches, track=0, length=24):
    return [(length * i, length * i + length, p, 64, 0, track) for i, p in enumerate(pitches)]


@pytest.mark.parametrize("pitches", [pytest.param(D_MAJOR, id="C-RNN-GAN says 0.857")])
def test_an_exact_scale(pitches):
    piece = Piece.from_rows(quarters(*pitches))
    assert scale_consistency(piece) == 1
    assert pitch_in_scale_rate(piece, root=2, mode="major") == 1
    assert pitch_in_scale_rate(piece, root=11, mode="minor") == 1
    assert pitch_in_scale_rate(piece, root=0, mode="major") == 5 / 7  # F♯ and C♯ are wrong


@pytest.mark.parametrize("root", range(12))
@pytest.mark.parametrize("octave", [0, 5, 8])
def test_a_scale_is_one_on_every_tonic(root, octave):
    piece = Piece.from_rows(quarters(*(p - 62 + root + 12 * octave for p in D_MAJOR)))
    assert scale_consistency(piece) == 1


def test_harmonic_minor():
    piece = Piece.from_rows(quarters(*A_HARMONIC_MINOR))
    assert scale_consistency(piece) == pytest.approx(7 / 8)
    assert scale_consistency(piece, modes=ALL_MODES) == pytest.approx(1)


def test_chromatic_scale():
    piece = Piece.from_rows(quarters(*range(60, 72)))
    assert scale_consistency(piece) == pytest.approx(7 / 12)
    assert estimated_key(piece) is None
    assert math.isnan(out_of_key_rate(piece))


def cadence(root, third):
    """I IV V I with a long tonic; `third` is 4 in major, 3 in minor (with a major V)."""
    chords = [(0, third, 7), (5, 5 + third, 12), (7, 11, 14), (0, third, 7, 12)]
    rows = [(24 * i, 24 * i + 24, 48 + root + p) for i, c in enumerate(chords) for p in c]
    return Piece.from_rows([*rows, *((96, 192, 48 + root + p) for p in (0, third, 7))])


def test_out_of_key_rate():
    # the tonic chord of C major for two bars, then an F♯ for one 16th and one tick of the next
    chord = [(0, 192, p) for p in (60, 64, 67, 72)]
    piece = Piece.from_rows([*chord, (192, 199, 66), (199, 216, 67)])
    assert estimated_key(piece) == (0, "major")
    assert out_of_key_rate(piece) == pytest.approx(2 / 36)
    # two wrong notes in one step are one step; a silent step is a step
    assert out_of_key_rate(
        Piece.from_rows([*chord, (192, 198, 66), (192, 195, 61), (210, 216, 60)])
    ) == pytest.approx(1 / 36)


def test_pitch_in_key_rate():
    piece = cadence(9, 3)  # A minor: of 16 notes one is the leading note
    assert estimated_key(piece) == (9, "minor")
    assert pitch_in_key_rate(piece) == pytest.approx(15 / 16)
    assert pitch_in_key_rate(cadence(2, 4)) == 1
    assert math.isnan(pitch_in_key_rate(Piece.from_rows(quarters(*range(60, 72)))))


def test_leading_note_of_a_minor_key():
    piece = cadence(9, 3)
    assert out_of_key_rate(piece) == pytest.approx(
        4 / 32
    )  # the major V lasts a quarter of 32 16ths
    assert out_of_key_rate(piece, raised_seventh=True) == 0


def test_centroids_lie_on_circles():
    np.testing.assert_allclose(np.hypot(CENTROIDS[:, :3], CENTROIDS[:, 3:]), [[1, 1, 0.5]] * 12)
    fifth = np.linalg.norm(CENTROIDS[0] - CENTROIDS[7])
    # 30° on the circle of fifths, 90° on that of minor thirds, 120° on that of major thirds
    assert fifth == pytest.approx(math.sqrt((2 * math.sin(math.pi / 12)) ** 2 + 2 + 0.75))
    tritone = np.linalg.norm(CENTROIDS[0] - CENTROIDS[6])
    assert fifth < tritone == pytest.approx(math.sqrt(4 + 4))


def test_tonal_distance_by_hand():
    upper = quarters(60, 67, track=0)
    lower = quarters(48, 48, 50, track=1)  # the third beat is not shared
    fifth = math.sqrt((2 * math.sin(math.pi / 12)) ** 2 + 2 + 0.75)
    assert tonal_distance(Piece.from_rows(upper + lower)) == pytest.approx(fifth / 2)


def test_tonal_distance_weighs_pitch_classes_by_time():
    # the first beat of track 0: C for 18 ticks, G for 6
    rows = [(0, 18, 60, 64, 0, 0), (18, 30, 67, 64, 0, 0), (0, 24, 60, 64, 0, 1)]
    points = tonal_centroids(Piece.from_rows(rows))
    np.testing.assert_allclose(points[0, 0], 0.75 * CENTROIDS[0] + 0.25 * CENTROIDS[7])
    np.testing.assert_allclose(points[0, 1], CENTROIDS[7])
    np.testing.assert_allclose(points[1, 0], CENTROIDS[0])
    assert np.isnan(points[1, 1]).all()


def test_tonal_distance_is_the_mean_over_pairs_of_tracks():
    two = Piece.from_rows(quarters(60) + quarters(67, track=1))
    three = Piece.from_rows(quarters(60) + quarters(67, track=1) + quarters(72, track=2))
    assert tonal_distance(three) == pytest.approx(tonal_distance(two) * 2 / 3)
    fifth = tonal_distance(two)
    assert tonal_distances(three) == pytest.approx({(0, 1): fifth, (0, 2): 0, (1, 2): fifth})


def chord_names(*bar):
    """Names of the chords of beats; each beat is the pitches that sound in it."""
    rows = [(24 * i, 24 * i + 24, pitch) for i, beat in enumerate(bar) for pitch in beat]
    names = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
    found = chords(Piece.from_rows(rows)).tolist()
    return [names[n % 12] + ("", "m", "dim", "aug")[n // 12] for n in found]


@pytest.mark.parametrize(
    ("pitches", "name"),
    [
        ((60, 64, 67), "C"),
        ((64, 67, 72), "C"),  # first inversion
        ((55, 60, 64), "C"),
        ((57, 60, 64), "Am"),
        ((59, 62, 65), "Bdim"),
        ((60, 64, 68), "Caug"),
        ((64, 68, 72), "Eaug"),  # on its lowest note
        ((55, 59, 62, 65), "G"),  # a seventh chord
        ((60,), "C"),
        ((60, 63), "Cm"),
        ((57, 60), "Am"),
        ((64, 72), "C"),  # before E or A minor
    ],
)
def test_chord_of_a_beat(pitches, name):
    assert chord_names(pitches) == [name]


def test_what_sounds_longest_is_the_chord():
    # F and A fill more of the beat than the notes of C major that are left
    rows = [(0, 24, 48), (0, 6, 64), (6, 24, 65), (0, 6, 67), (6, 24, 69)]
    assert chords(Piece.from_rows(rows)).tolist() == [5]


def test_a_held_chord_is_the_chord_of_each_beat():
    assert chords(Piece.from_rows([(0, 60, 60), (96, 120, 62)])).tolist() == [0, 0, 0, 2]


C, F, G = (60, 64, 67), (53, 57, 60), (55, 59, 62)


@pytest.mark.parametrize(
    ("progression", "share"),
    [
        ((C, F, G), 1),
        ((C, F, G, C, F, G), 3 / 4),  # CFG FGC GCF CFG
        ((C, C, F, F, (), G, G), 1),  # held chords count once, silence not
        ((C, F, C, F, C, F), 2 / 4),
        ((C, F), math.nan),
    ],
)
def test_chord_irregularity(progression, share):
    rows = [(24 * i, 24 * i + 24, p) for i, chord in enumerate(progression) for p in chord]
    assert chord_irregularity(Piece.from_rows(rows)) == pytest.approx(share, nan_ok=True)


@pytest.mark.parametrize(
    "rows",
    [
        quarters(60, 62),
        [*quarters(60), (24, 48, 60, 64, 0, 1)],
        [*quarters(60), (0, 24, 36, 64, DRUMS, 1)],
    ],
    ids=["one track", "never together", "a track and drums"],
)
def test_tonal_distance_needs_two_tracks_at_once(rows):
    assert math.isnan(tonal_distance(Piece.from_rows(rows)))

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.features.spans import chroma
from eval.features.structure import (
    MAX_FRAMES,
    distinct,
    frame_lines,
    repetition,
    scape,
    self_similarity,
    structure,
)
from rnngan.music.piece import Piece, Tempo


def melody(pitches, track=0):
    return [(24 * i, 24 * i + 24, p, 64, 0, track) for i, p in enumerate(pitches)]


@pytest.mark.parametrize(
    ("pitches", "size", "pairs"),
    [
        ((60, 62, 64, 60, 62, 64), 2, 2),
        ((60, 62, 64, 60, 62, 64), 3, 1),
        ((60, 62, 64, 60, 62, 64), 4, 0),
        ((60, 60, 60), 2, 0),  # they overlap
        ((60, 60, 60, 60), 2, 1),
        ((60, 62, 60, 62, 60), 2, 2),  # CD CD and DC DC
        ((60,), 2, 0),
        (tuple(range(40, 49)) * 3, 9, 10 + 1),  # nine and eighteen notes apart,
    ],
)
def test_repetition(pitches, size, pairs):
    assert repetition(Piece.from_rows(melody(pitches)), size=size) == pairs


def test_repetition_looks_within_a_track():
    alone, other = melody((60, 62)), melody((60, 62), track=1)
    assert repetition(Piece.from_rows(alone + other), size=2) == 0
    twice = melody((60, 62, 60, 62)) + melody((60, 62, 60, 62), track=1)
    assert repetition(Piece.from_rows(twice), size=2) == 2


def test_distinct():
    piece = Piece.from_rows(melody((60, 62, 60, 62)))
    assert distinct(piece, size=2) == 2 / 3
    assert distinct(piece, size=3) == 1
    assert math.isnan(distinct(piece, size=5))
    twice = Piece.from_rows(melody((60, 62)) + melody((60, 62), track=1))
    assert distinct(twice, size=2) == 1 / 2


@settings(max_examples=40)
@given(
    st.lists(st.lists(st.sampled_from([0, 60, 127]), max_size=14), min_size=1, max_size=3),
    st.integers(2, 9),
)
def test_agrees_with_a_slow_loop(tracks, size):
    piece = Piece.from_rows([row for t, pitches in enumerate(tracks) for row in melody(pitches, t)])
    grams = [[tuple(p[i : i + size]) for i in range(len(p) - size + 1)] for p in tracks]
    pairs = sum(
        track[i] == track[j]
        for track in grams
        for i, j in itertools.combinations(range(len(track)), 2)
        if j - i >= size
    )
    assert repetition(piece, size=size) == pairs
    every = [gram for track in grams for gram in track]
    value = distinct(piece, size=size)
    assert value == len(set(every)) / len(every) if every else math.isnan(value)


ALL = {"shortest": 3, "longest": math.inf}


def beats(pitches, tempo=60):
    """A note, a chord or None on each beat of a second."""
    rows = []
    for i, pitch in enumerate(pitches):
        chord = pitch if isinstance(pitch, tuple) else () if pitch is None else (pitch,)
        rows += [(24 * i, 24 * i + 24, p) for p in chord]
    return Piece.from_rows(rows, tempos=(Tempo(0, tempo),))


def test_likeness_of_chords():
    major, relative, dominant = (60, 64, 67), (57, 60, 64), (55, 59, 62)
    piece = beats([major, relative, dominant, (60, 64, 67, 72), None, None, major])
    likeness = self_similarity(chroma(frame_lines(piece), piece.pitched))
    octave = 4 / math.sqrt(3 * 6)  # C doubled: (2, 1, 1) and (1, 1, 1)
    np.testing.assert_allclose(likeness[0], [1, -2, -2, octave, -2, -2, 1])
    np.testing.assert_allclose(likeness[4], [-2, -2, -2, -2, 1, -2, -2])  # silence


def test_a_phrase_and_its_repeat():
    phrase = [60, 62, 64, 65]
    # all is explained by four beats that come twice, but for themselves: half and half
    assert structure(beats(phrase * 2), shortest=3, longest=8) == pytest.approx(1 / 2)
    # three times: (12 − 4) / 12 and (12 − 4) / 12
    assert structure(beats(phrase * 3), shortest=3, longest=8) == pytest.approx(2 / 3)
    # something else between
    apart = [*phrase, 66, 68, 70, 61, *phrase]
    expected = 2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3)
    assert structure(beats(apart), shortest=4, longest=8) == pytest.approx(expected)
    # a repeat in another octave is one, a transposed one is not
    assert structure(beats([*phrase, *(p + 12 for p in phrase)]), **ALL) == pytest.approx(1 / 2)
    assert structure(beats([60, 62, 64, 66, 68, 70]), **ALL) == 0


def test_bands_are_in_seconds():
    piece = [60, 62, 64, 65] * 2
    bands = [(3, 8), (8, 15), (15, math.inf)]

    def fitness(tempo):
        return [structure(beats(piece, tempo), shortest=a, longest=b) for a, b in bands]

    assert fitness(60) == pytest.approx([1 / 2, 0, math.nan], nan_ok=True)
    # at 30 four beats last 8 s, and 6 s are three beats: (6 − 3) / 6 close, (6 − 3) / 8 covered
    assert fitness(30) == pytest.approx([3 / 7, 1 / 2, 0], nan_ok=True)
    assert fitness(120) == pytest.approx([0, math.nan, math.nan], nan_ok=True)
    assert fitness(240) == pytest.approx([math.nan] * 3, nan_ok=True)


def test_long_pieces_have_frames_of_several_beats():
    for num_beats, size in ((MAX_FRAMES, 24), (MAX_FRAMES + 1, 48), (2 * MAX_FRAMES + 1, 96)):
        lines = frame_lines(beats([60] * num_beats))
        assert set(np.diff(lines)[:-1].tolist()) == {size}
        assert lines[-1] == 24 * num_beats
        assert len(lines) - 1 <= MAX_FRAMES


def slow_fitness(likeness, start, size):
    """The best of all sets of copies that do not overlap, one by one."""
    num_frames = len(likeness)
    found = []
    for count in range(num_frames // size + 1):
        for rows in itertools.combinations(range(num_frames - size + 1), count):
            if all(b - a >= size for a, b in itertools.pairwise(rows)):
                total = sum(likeness[r + k, start + k] for r in rows for k in range(size))
                found.append((round(float(total), 6), -count))
    total, count = max(found)
    closeness = (total - size) / (-count * size)
    coverage = (-count * size - size) / num_frames
    if closeness < 1e-5 or coverage <= 0:
        return 0
    return 2 * closeness * coverage / (closeness + coverage)


@settings(max_examples=40)
@given(
    st.lists(
        st.sampled_from([None, 60, 61, (60, 64), (60, 64, 67), (57, 60, 64, 67)]), max_size=8
    ).map(lambda pitches: [60, *pitches, 60])
)
def test_scape_agrees_with_trying_every_set(pitches):
    piece = beats(pitches, tempo=20)  # a beat is as long as the shortest segment
    frames = chroma(frame_lines(piece), piece.pitched)
    fitness, likeness = scape(frames), self_similarity(frames)
    num_frames = len(frames)
    slow = {
        (size, start): slow_fitness(likeness, start, size)
        for size in range(1, num_frames // 2 + 1)
        for start in range(num_frames - size + 1)
    }
    for (size, start), value in slow.items():
        assert fitness[size - 1, start] == pytest.approx(value, abs=1e-5)
    for fewest in range(2, num_frames):
        fewer = scape(frames, fewest)
        for size in range(fewest, num_frames // 2 + 1):
            starts = num_frames - size + 1
            assert (fewer[size - fewest, :starts] == fitness[size - 1, :starts]).all()
    assert structure(piece, **ALL) == pytest.approx(max(slow.values()), abs=1e-5)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(60, 62), st.integers(0, 2)), min_size=2, max_size=24))
def test_ngrams_agree_with_counting_them_one_by_one(notes):
    piece = Piece.from_rows(
        (6 * i, 6 * i + 6, pitch, 64, 0, track) for i, (pitch, track) in enumerate(notes)
    )
    tracks = [[pitch for pitch, track in notes if track == number] for number in range(3)]
    for size in (2, 3, 9):
        grams = [
            [tuple(line[i : i + size]) for i in range(len(line) - size + 1)] for line in tracks
        ]
        every = [gram for line in grams for gram in line]
        pairs = sum(
            line[i] == line[j]
            for line in grams
            for i in range(len(line))
            for j in range(i + size, len(line))
        )
        assert repetition(piece, size=size) == pairs
        expected = len(set(every)) / len(every) if every else math.nan
        assert distinct(piece, size=size) == pytest.approx(expected, nan_ok=True)


def test_what_is_remembered_of_a_piece_is_not_taken_for_another():
    tune, other = beats([60, 62, 60, 62]), beats([60, 62, 64, 65])
    assert [repetition(piece, size=2) for piece in (tune, other, tune)] == [1, 0, 1]

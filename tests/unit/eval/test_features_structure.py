import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.features.structure import distinct, repetition
from rnngan.music.piece import Piece


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

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.features.texture import (
    empty_bar_rate,
    empty_beat_rate,
    polyphony,
    polyphony_rate,
    sounding_pitches,
)
from rnngan.music.piece import DRUMS, Metre, Piece


@pytest.mark.parametrize(
    ("rows", "mean", "rate"),
    [
        ([(0, 24, 60)], 1, 0),
        pytest.param([(0, 24, 60), (0, 24, 64)], 2, 1, id="held dyad: MusPy 0.5.0 says rate 0"),
        ([(0, 24, 60), (12, 24, 64)], 1.5, 0.5),
        ([(0, 24, 60), (24, 48, 64)], 1, 0),  # one ends where the other begins
        ([(0, 12, 60), (36, 48, 60), (36, 48, 64)], 1.5, 0.25),  # silence counts for the rate only
        ([(24, 48, 60), (24, 48, 64)], 2, 0.5),  # so does silence before the first note
        ([(0, 24, 60, 64, 0, 0), (0, 24, 60, 64, 0, 1)], 1, 0),  # unison of two tracks
        ([(0, 24, 60), (12, 36, 60), (24, 36, 64)], 4 / 3, 1 / 3),  # a pitch struck again
    ],
)
def test_polyphony(rows, mean, rate):
    assert polyphony(Piece.from_rows(rows)) == pytest.approx(mean)
    assert polyphony_rate(Piece.from_rows(rows), at_least=2) == pytest.approx(rate)


def test_polyphony_rate_counts_up_to_the_threshold():
    triad = Piece.from_rows([(0, 24, 60), (0, 24, 64), (0, 12, 67)])
    assert [polyphony_rate(triad, at_least=k) for k in (1, 2, 3, 4)] == [1, 1, 0.5, 0]


def bar_of_quarters(bar, ticks_per_bar=96):
    return [(t, t + 24, 60) for t in range(bar * ticks_per_bar, (bar + 1) * ticks_per_bar, 24)]


@pytest.mark.parametrize(
    ("rows", "bars", "beats"),
    [
        ([(0, 96, 60)], 0, 0),
        ([(0, 1, 60)], 0, 0),
        ([(0, 96, 60), (192, 216, 60)], 1 / 3, 4 / 9),  # ends on the bar line
        ([(0, 97, 60), (192, 216, 60)], 0, 3 / 9),  # one tick over it
        ([(0, 24, 36, 100, DRUMS), (96, 120, 60)], 1 / 2, 4 / 5),  # drums are bars, not sound
    ],
)
def test_empty_rates(rows, bars, beats):
    piece = Piece.from_rows(rows)
    assert empty_bar_rate(piece) == pytest.approx(bars)
    assert empty_beat_rate(piece) == pytest.approx(beats)


@pytest.mark.parametrize("silent", [pytest.param(3, id="MusPy 0.5.0 says 0")])
def test_one_silent_bar_of_eight(silent):
    rows = [row for bar in range(8) if bar != silent for row in bar_of_quarters(bar)]
    assert empty_bar_rate(Piece.from_rows(rows)) == 0.125
    assert empty_beat_rate(Piece.from_rows(rows)) == 0.125


@pytest.mark.parametrize(
    "rows", [pytest.param([(0, 24, 60), (72, 96, 60)], id="Pypianoroll 1.0.4 inverts: 2 of 4")]
)
def test_empty_beats_are_the_silent_ones(rows):
    assert empty_beat_rate(Piece.from_rows(rows)) == 0.5
    assert empty_beat_rate(Piece.from_rows([*rows, (24, 48, 62)])) == 0.25


def test_bars_and_beats_follow_the_metre():
    # a pickup of an eighth, then two bars of 3/4, the second silent but for its last beat
    metres = (Metre(0, 1, 8), Metre(12, 3, 4))
    rows = [(0, 12, 60), (132, 156, 60)]
    piece = Piece.from_rows(rows, metres=metres)
    assert empty_bar_rate(piece) == pytest.approx(1 / 3)
    assert empty_beat_rate(piece) == pytest.approx(5 / 7)


def roll(piece):
    """Slow truth: which pitch sounds at which tick, `(ticks, 128)`."""
    sounding = np.zeros((piece.end, 128), bool)
    for start, end, pitch, _, program, _ in piece.notes.tolist():
        if program != DRUMS:
            for tick in range(start, end):
                sounding[tick, pitch] = True
    return sounding


ROWS = st.lists(
    st.tuples(
        st.integers(0, 300), st.integers(1, 120), st.integers(58, 64), st.sampled_from([0, DRUMS])
    ),
    min_size=1,
    max_size=15,
).map(lambda rows: [(s, s + d, p, 64, program) for s, d, p, program in rows])
METRES = st.sampled_from(
    [
        (Metre(0, 4, 4),),
        (Metre(0, 3, 8),),
        (Metre(0, 5, 8), Metre(40, 4, 4), Metre(200, 7, 16)),
    ]
)


@settings(max_examples=60)
@given(ROWS, METRES)
def test_agrees_with_a_slow_piano_roll(rows, metres):
    piece = Piece.from_rows(rows, metres=metres)
    sounding = roll(piece)
    voices = sounding.sum(axis=1)
    if not voices.any():
        assert math.isnan(polyphony(piece))
        assert math.isnan(polyphony_rate(piece, at_least=2))
    else:
        assert polyphony(piece) == pytest.approx(voices[voices > 0].mean())
        assert polyphony_rate(piece, at_least=2) == pytest.approx((voices >= 2).mean())
        ticks, _ = sounding_pitches(piece)
        heard = np.flatnonzero(voices)
        assert ticks.sum() == heard[-1] + 1 - heard[0]

    bars, tick = [], 0
    beats = []
    while tick < piece.end:
        metre = piece.metre_at(tick)
        change = min((m.tick for m in metres if m.tick > tick), default=10**9)
        bar_end = min(tick + metre.ticks_per_bar, change)
        bars.append(not sounding[tick:bar_end].any())
        tick = bar_end
    tick = 0
    while tick < piece.end:
        change = min((m.tick for m in metres if m.tick > tick), default=10**9)
        beats.append(not sounding[tick : min(tick + 24, change)].any())
        tick = min(tick + 24, change)
    assert empty_bar_rate(piece) == pytest.approx(np.mean(bars))
    assert empty_beat_rate(piece) == pytest.approx(np.mean(beats))

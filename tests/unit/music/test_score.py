"""Scores: how pitches are spelled, what values lengths are written in, and that they are drawn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import image

from rnngan.errors import UserError
from rnngan.music.piece import DRUMS, Metre, Piece
from rnngan.music.score import MAX_BARS, _fifths, _symbols, _values, score_png, spelled

C4 = 35
LETTERS = (0, 2, 4, 5, 7, 9, 11)


@pytest.mark.parametrize(
    ("pitch", "fifths", "step", "alter"),
    [
        (60, 0, C4, 0),
        (59, 0, C4 - 1, 0),  # the B below
        (66, 0, C4 + 3, 1),  # F sharp in C major
        (66, 1, C4 + 3, 1),  # and in G major, where the signature has it
        (66, -5, C4 + 4, -1),  # G flat in D flat major
        (70, 0, C4 + 6, -1),  # B flat
        (68, 0, C4 + 4, 1),  # G sharp, the leading note of A minor
        (71, -6, C4 + 7, -1),  # C flat in G flat major is the B below C5
        (60, 6, C4 - 1, 1),  # B sharp in F sharp major is C4
        (0, 0, 0, 0),
        (127, 0, C4 + 39, 0),  # G9
    ],
)
def test_spelling_by_hand(pitch, fifths, step, alter):
    assert spelled(pitch, fifths) == (step, alter)


@given(pitch=st.integers(0, 127), fifths=st.integers(-6, 6))
def test_a_spelling_sounds_as_the_pitch(pitch, fifths):
    step, alter = spelled(pitch, fifths)
    octave, letter = divmod(step, 7)
    assert 12 * octave + LETTERS[letter] + alter == pitch and abs(alter) <= 2


@pytest.mark.parametrize("fifths", range(-5, 7))
def test_a_scale_needs_no_accidentals_and_its_key_is_found(fifths):
    tonic = 60 + 7 * fifths % 12
    scale = [tonic + rise for rise in (0, 2, 4, 5, 7, 9, 11, 12)]
    steps = [spelled(pitch, fifths)[0] for pitch in scale]
    assert np.diff(steps).tolist() == [1] * 7
    chord = [(96 + 24 * i, 192, tonic + rise) for i, rise in enumerate((0, 4, 7))]
    rows = [(12 * i, 12 * i + 12, pitch) for i, pitch in enumerate(scale)]
    assert _fifths(Piece.from_rows([*rows, *chord])) == fifths


def written(start, end, lines=(0, 96, 192)):
    found = _values((60,), start, end, np.array(lines))
    return [(s.start, s.halvings, s.dots, s.tied) for s in found]


@pytest.mark.parametrize(
    ("span", "values"),
    [
        ((0, 96), [(0, 0, 0, False)]),
        ((0, 36), [(0, 2, 1, False)]),  # a dotted quarter
        ((24, 30), [(24, 4, 0, False)]),
        ((0, 60), [(0, 1, 0, True), (48, 3, 0, False)]),  # a half tied to an eighth
        ((72, 120), [(72, 2, 0, True), (96, 2, 0, False)]),  # over the bar line
        ((0, 8), [(0, 4, 0, False)]),  # of a triplet
        ((0, 26), [(0, 2, 0, False)]),
        ((5, 7), []),
    ],
)
def test_lengths_as_values(span, values):
    assert written(*span) == values


@settings(max_examples=60)
@given(
    spans=st.lists(st.tuples(st.integers(0, 8), st.integers(1, 12)), min_size=1, max_size=10),
    metre=st.sampled_from([(4, 4), (3, 4), (6, 8), (5, 8)]),
)
def test_notes_and_rests_fill_every_bar(spans, metre):
    """On a grid of 32nds their values add up to the whole piece, and none crosses a bar line."""
    rows, tick = [], 0
    for silence, length in spans:
        rows.append((tick + 3 * silence, tick + 3 * (silence + length), 60))
        tick = rows[-1][1]
    piece = Piece.from_rows(rows, metres=(Metre(0, *metre),))
    lines = piece.bar_lines()
    free = 0
    for symbol in _symbols(piece.notes, lines):
        ticks = (96 >> symbol.halvings) * (3 if symbol.dots else 2) // 2
        assert symbol.start == free
        free += ticks
        assert np.searchsorted(lines, symbol.start, "right") == np.searchsorted(lines, free)
        sounding = any(start <= symbol.start < end for start, end, _ in rows)
        assert bool(symbol.pitches) == sounding
    assert free == lines[-1]


def test_a_choir_is_drawn_on_two_staves_and_a_flute_on_one(tmp_path):
    """More bars make the picture higher; nothing is drawn twice differently."""
    voices = [
        (24 * i, 24 * i + 24, pitch - i % 3, 80, 0, k)
        for k, pitch in enumerate((74, 67, 59, 48))
        for i in range(16)
    ]
    for name, rows in (("choir", voices), ("flute", voices[:16]), ("long", voices[:16] * 2)):
        if name == "long":
            rows = [
                (s + 384 * (i // 16), e + 384 * (i // 16), *rest)
                for i, (s, e, *rest) in enumerate(rows)
            ]
        score_png(Piece.from_rows(rows), tmp_path / f"{name}.png", title=name)
    sizes = {
        name: image.imread(tmp_path / f"{name}.png").shape for name in ("choir", "flute", "long")
    }
    assert len({size[1] for size in sizes.values()}) == 1
    assert sizes["flute"][0] < sizes["choir"][0] and sizes["flute"][0] < sizes["long"][0]
    once = (tmp_path / "choir.png").read_bytes()
    score_png(Piece.from_rows(voices), tmp_path / "again.png", title="choir")
    assert (tmp_path / "again.png").read_bytes() == once


@pytest.mark.filterwarnings("error")
def test_odd_pieces_are_drawn(tmp_path):
    """Chords, triplets, drums, changes of metre, a beginning in silence, more bars than fit."""
    odd = [
        Piece.from_rows([(0, 8, 61), (0, 8, 63), (8, 16, 62), (192, 300, 40), (300, 303, 127)]),
        Piece.from_rows(
            [(0, 36, 60), (36, 72, 61), (72, 192, 70), (0, 12, 36, 80, DRUMS, 1)],
            metres=(Metre(0, 6, 8), Metre(72, 5, 4)),
        ),
        Piece.from_rows([(96 * i, 96 * i + 96, 60) for i in range(MAX_BARS + 9)]),
        Piece.from_rows([(24 * i, 24 * i + 24, 0) for i in range(300)], metres=(Metre(0, 64, 4),)),
    ]
    for i, piece in enumerate(odd):
        score_png(piece, tmp_path / f"{i}.png", title="$odd_")
        assert image.imread(tmp_path / f"{i}.png").shape[2] >= 3


def test_there_is_no_score_of_nothing(tmp_path):
    for piece in (Piece.from_rows([]), Piece.from_rows([(0, 6, 40, 64, DRUMS)])):
        with pytest.raises(UserError, match="no score of a piece without notes"):
            score_png(piece, tmp_path / "none.png")

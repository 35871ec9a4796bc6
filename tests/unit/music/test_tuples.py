import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rnngan.errors import UserError
from rnngan.music.midi import write_midi
from rnngan.music.piece import DRUMS, MAX_QUARTERS, NOTE, Metre, Piece, Tempo
from rnngan.music.tokenizers.summary import Summary
from rnngan.music.tokenizers.tuples import Tuples, TuplesConfig

EMPTY = Piece(notes=np.empty(0, NOTE))
PLAIN = Tuples(TuplesConfig(mean=(0, 0, 0, 0), std=(1, 1, 1, 1), lowest=0, highest=127))
SCALED = Tuples(
    TuplesConfig(
        mean=(0.18923225542046407, 0.7337555212947965, 62.97539860658457, 0.7065338456978117),
        std=(0.29419641410672853, 0.779334206647207, 11.044623140153949, 0.15578829916522272),
        lowest=18,
        highest=112,
        program=33,
        metre="3/4",
        tempo=68.5,
    )
)


@st.composite
def any_pieces(draw):
    """Pieces of all kinds, short ones and such as go on for hours."""
    note = st.tuples(
        st.integers(0, 500) | st.integers(0, MAX_QUARTERS * 24 - 1),
        st.integers(1, 500) | st.integers(1, MAX_QUARTERS * 24),
        st.integers(0, 127),
        st.integers(1, 127),
        st.sampled_from([0, 33, DRUMS]),
        st.integers(0, 2),
    )
    return Piece.from_rows(
        (start, min(start + size, MAX_QUARTERS * 24), *rest)
        for start, size, *rest in draw(st.lists(note, max_size=12))
    )


def test_three_notes_by_hand():
    piece = Piece.from_rows([(12, 36, 69, 127), (12, 18, 57, 127), (60, 84, 60, 1)])
    np.testing.assert_allclose(
        PLAIN.encode(piece),
        [[0.5, 0.25, 57, 1], [0, 1, 69, 1], [2, 1, 60, 1 / 127]],
        rtol=1e-6,
    )
    assert PLAIN.decode(PLAIN.encode(piece), strict=True) == piece


@given(any_pieces(), st.sampled_from([PLAIN, SCALED]))
@settings(max_examples=200)
def test_notes_come_back_exactly(piece, tuples):
    rows = tuples.encode(piece)
    config = tuples.config
    assert rows.dtype == np.float32 and rows.shape[1:] == (4,)
    back = tuples.decode(rows, strict=True)
    np.testing.assert_array_equal(tuples.encode(back), rows)
    told = piece.pitched
    told = told[(told["pitch"] >= config.lowest) & (told["pitch"] <= config.highest)]
    told["program"], told["track"] = config.program, 0
    np.testing.assert_array_equal(back.notes, Piece(notes=told).tidied().notes)
    assert back.metres == (Metre(0, *map(int, config.metre.split("/"))),)
    assert back.tempos == (Tempo(0, config.tempo),)


def test_a_fitted_corpus_has_mean_0_and_deviation_1():
    random = np.random.default_rng(0)
    pieces = [
        Piece.from_rows(
            (int(tick), int(tick + size), int(pitch), int(velocity))
            for tick, size, pitch, velocity in zip(
                np.cumsum(random.integers(1, 30, 50)),
                random.integers(1, 50, 50),
                random.integers(30, 90, 50),
                random.integers(1, 128, 50),
            )
        ).tidied()
        for _ in range(20)
    ]
    tuples = Tuples.fit(Summary.of(pieces))
    rows = np.concatenate([tuples.encode(piece) for piece in pieces]).astype(np.float64)
    np.testing.assert_allclose(rows.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(rows.std(axis=0), 1, rtol=1e-6)


def test_fit_finds_what_stands_for_the_rest():
    waltz = Piece.from_rows([(0, 24, 60, 64, 73)], metres=(Metre(0, 3, 4),), tempos=(Tempo(0, 90),))
    march = Piece.from_rows([(0, 24, 60, 64, 73), (0, 24, 36, 64, DRUMS)])
    config = Tuples.fit(Summary.of([waltz, march, waltz]), margin=2).config
    assert (config.lowest, config.highest, config.program) == (58, 62, 73)
    assert (config.metre, config.tempo) == ("3/4", 90.0)
    assert config.mean == (0, 1, 60, 64 / 127)
    # Where all are alike there is nothing to divide by but the unit: a tick, a semitone, 1 of 127.
    assert config.std == (1 / 24, 1 / 24, 1, 1 / 127)


def test_fit_to_drums_alone_and_to_nothing():
    drums = Piece.from_rows([(0, 6, 36, 64, DRUMS)])
    for piece in (drums, EMPTY):
        tuples = Tuples.fit(Summary.of([piece]))
        assert tuples.encode(piece).shape == (0, 4)
        assert tuples.decode(tuples.encode(piece), strict=True) == EMPTY
    with pytest.raises(ValueError, match="no pieces"):
        Tuples.fit(Summary.empty())
    with pytest.raises(UserError, match="no place for tags, got style"):
        Tuples.fit(Summary.of([drums]), tags=("style",))


# Any numbers


@given(
    arrays.arrays(
        st.sampled_from([np.float32, np.float64]), st.tuples(st.integers(0, 12), st.just(4))
    ),
    st.sampled_from([PLAIN, SCALED]),
)
@settings(max_examples=150)
def test_any_numbers_decode_to_a_piece_that_can_be_written(tmp_path_factory, rows, tuples):
    piece = tuples.decode(rows)
    assert piece.tidied() == piece
    assert tuples.decode(tuples.encode(piece), strict=True) == piece
    write_midi(piece, tmp_path_factory.getbasetemp() / "any.mid")


def test_what_makes_no_sense_is_moved_to_its_bounds_or_passed_over():
    inf, nan = math.inf, math.nan
    rows = np.array(
        [
            [1, 1, 60, 0.5],
            [nan, 1, 61, 0.5],
            [-3, -inf, 62.4, 7],
            [1, 1, -inf, -1],
            [1, 1, 300, inf],
            [2, inf, 64, 0.5],
            [inf, 1, 65, 0.5],  # begins after the longest piece has ended
        ]
    )
    assert PLAIN.decode(rows).notes[["start", "end", "pitch", "velocity"]].tolist() == [
        (24, 48, 60, 64),
        (24, 25, 62, 127),
        (48, 72, 0, 1),
        (72, 96, 127, 127),
        (120, MAX_QUARTERS * 24, 64, 64),
    ]


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        ([math.nan, 1, 60, 1], "gap nan may not stand at time 1"),
        ([-1, 1, 60, 1], "gap -1 may not stand at time 1"),
        ([0, 0, 60, 1], "length 0 may not"),
        ([0, math.inf, 60, 1], "length inf may not"),
        ([0, 1, 127.6, 1], "frequency 127.6 may not"),
        ([0, 1, 60, 0], r"velocity 0 may not stand at time 1: it must be 0.003937"),
        ([0, 1, 60, 1.1], "velocity 1.1 may not"),
    ],
)
def test_strict_decoding_names_the_number_and_its_time(row, rule):
    with pytest.raises(ValueError, match=rule):
        PLAIN.decode(np.array([[0, 1, 60, 1], row]), strict=True)


def test_what_rounding_mends_is_no_error():
    piece = PLAIN.decode(np.array([[-0.01, 0.03, 59.6, 1.001]]), strict=True)
    assert piece.notes[["start", "end", "pitch", "velocity"]].tolist() == [(0, 1, 60, 127)]


@pytest.mark.parametrize("shape", [(4,), (3, 3), (1, 2, 4)])
def test_rows_of_another_shape(shape):
    with pytest.raises(ValueError, match=r"shape \(notes, 4\), got"):
        PLAIN.decode(np.zeros(shape))


# The codec itself


@pytest.mark.parametrize("tuples", [PLAIN, SCALED])
def test_json_gives_the_codec_back(tuples):
    back = Tuples.from_json(json.loads(json.dumps(tuples.to_json())))
    assert back.config == tuples.config
    assert (back.dtype, back.width, back.name) == (np.dtype("f4"), 4, "tuples")


@pytest.mark.parametrize(
    ("damage", "rule"),
    [
        ({"name": "frames"}, "not a tokenizer of kind 'tuples': 'frames'"),
        ({"unknown": 1}, "damaged"),
        ({"mean": [0, 0, 0]}, "four numbers"),
        ({"mean": [0, 0, 0, math.nan]}, "four numbers"),
        ({"mean": "abcd"}, "damaged"),
        ({"std": [1, 1, 1, 0]}, "must be positive"),
        ({"std": [1, 1, 1, math.inf]}, "must be positive"),
        ({"highest": 128}, "highest <= 127"),
        ({"program": DRUMS}, "program <= 127"),
        ({"tempo": 0}, "positive tempo"),
        ({"metre": "waltz"}, "invalid literal"),
    ],
)
def test_a_damaged_description(damage, rule):
    with pytest.raises(ValueError, match=rule):
        Tuples.from_json({**PLAIN.to_json(), **damage})

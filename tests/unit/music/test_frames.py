"""What frames write in a frame, and piano rolls; head, bars and grid are tested with the steps."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rnngan.music.piece import Metre, Piece
from rnngan.music.tokenizers.frames import Frames, FramesConfig, piece_from_roll
from rnngan.music.tokenizers.summary import Summary

COMMON = {"metres": ("1/4", "3/8"), "lowest": 58, "highest": 65, "ticks_per_frame": 12}
FRAMES = Frames(FramesConfig(**COMMON))
ROLL = Frames(FramesConfig(**COMMON, held=False))


def spelt(frames, piece):
    return " ".join(frames.vocabulary.names[i] for i in frames.encode(piece))


def decoded(frames, words, strict=True):
    tokens = np.array([frames.vocabulary.index[name] for name in words.split()])
    return frames.decode(tokens, strict=strict)


def by_hand(piece, held):
    """Frame by frame, from notes on the grid in full bars; several may share a pitch."""
    lines = piece.bar_lines().tolist()
    words = ["Start", f"Metre_{piece.metres[0].name}"]
    for line, until in pairwise(lines):
        words.append("Bar")
        words += [f"Metre_{m.name}" for m in piece.metres if m.tick == line > 0]
        for tick in range(line, until, 12):
            for pitch in range(58, 66):
                notes = piece.notes[piece.notes["pitch"] == pitch]
                notes = notes[(notes["start"] <= tick) & (tick < notes["end"])]
                if len(notes):
                    struck = tick in notes["start"] or not held
                    words.append(f"{'Pitch' if struck else 'Held'}_{pitch}")
            words.append("Frame")
    return " ".join([*words, "End"])


def roll_of(piece, num_frames, num_pitches, *, ticks, lowest):
    roll = np.zeros((num_frames, num_pitches), dtype=bool)
    for note in piece.notes:
        roll[note["start"] // ticks : note["end"] // ticks, note["pitch"] - lowest] = True
    return roll


@st.composite
def pieces_on_the_grid(draw):
    note = st.tuples(
        st.integers(0, 20), st.integers(1, 6), st.integers(58, 65), st.sampled_from([0, 33])
    )
    rows = [
        (start * 12, (start + size) * 12, pitch, 80, program)
        for start, size, pitch, program in draw(st.lists(note, min_size=1, max_size=15))
    ]
    metres = (Metre(0, 1, 4), Metre(48, 3, 8))[: 1 + (max(row[1] for row in rows) > 48)]
    return Piece.from_rows(rows, metres=metres)


def test_a_chord_and_a_note_struck_again():
    piece = Piece.from_rows([(0, 24, 64), (0, 36, 60), (24, 36, 64)])
    head = "Start Metre_1/4"
    assert spelt(FRAMES, piece) == (
        f"{head} Bar Pitch_60 Pitch_64 Frame Held_60 Held_64 Frame "
        "Bar Held_60 Pitch_64 Frame Frame End"
    )
    words = (
        f"{head} Bar Pitch_60 Pitch_64 Frame Pitch_60 Pitch_64 Frame "
        "Bar Pitch_60 Pitch_64 Frame Frame End"
    )
    assert spelt(ROLL, piece) == words
    spans = [(0, 36, 60), (0, 36, 64)]
    assert decoded(ROLL, words).notes[["start", "end", "pitch"]].tolist() == spans


@given(pieces_on_the_grid())
@settings(max_examples=100)
def test_a_piece_on_the_grid_is_written_frame_by_frame(piece):
    assert spelt(FRAMES, piece) == by_hand(piece, held=True)
    assert spelt(ROLL, piece) == by_hand(piece, held=False)


@given(pieces_on_the_grid())
@settings(max_examples=60)
def test_notes_that_do_not_overlap_come_back(piece):
    one_program = Piece(notes=piece.notes[piece.notes["program"] == 0], metres=piece.metres)
    piece = one_program.tidied()
    back = FRAMES.decode(FRAMES.encode(piece), strict=True)
    np.testing.assert_array_equal(back.notes, piece.notes)


def test_programs_share_a_pitch():
    piece = Piece.from_rows([(0, 48, 60, 80, 0, 0), (12, 24, 60, 80, 33, 1)])
    back = FRAMES.decode(FRAMES.encode(piece))
    assert back.notes[["start", "end", "program"]].tolist() == [(0, 12, 0), (12, 48, 0)]


def test_a_chord_held_for_hours_in_many_voices_takes_no_more_than_its_frames():
    rows = [(start, 400_000, 60) for start in range(20_000)]
    tokens = FRAMES.encode(Piece.from_rows(rows))
    assert len(tokens) < 6 * 400_000 / 24


def test_pitches_ascend():
    allowed = FRAMES.grammar.first_error
    index = FRAMES.vocabulary.index
    for words, place in (
        ("Pitch_60 Held_61 Pitch_62 Frame", None),
        ("Pitch_61 Pitch_60", 4),
        ("Pitch_61 Held_60", 4),
        ("Pitch_61 Held_61", 4),
        ("Pitch_65 Frame Frame Frame", 6),  # one too many
        ("Pitch_65 Bar", 4),
    ):
        tokens = np.array([index[name] for name in f"Start Metre_1/4 Bar {words}".split()])
        assert allowed(tokens) == place


def test_a_held_pitch_that_did_not_sound_is_struck():
    words = "Start Metre_1/4 Bar Held_60 Frame Held_60 Held_62 Frame End"
    back = decoded(FRAMES, words)  # also when strict
    assert back.notes[["start", "end", "pitch"]].tolist() == [(0, 24, 60), (12, 24, 62)]


@pytest.mark.parametrize(
    ("words", "notes"),
    [
        ("Pitch_60 Frame", []),  # no bar
        ("Bar Pitch_62 Held_60 Pitch_60 Frame Held_60 Held_60", [(0, 24, 60), (0, 12, 62)]),
        ("Bar Pitch_60", [(0, 12, 60)]),  # a frame that does not end
        ("Bar Frame Frame Pitch_60 Frame", []),  # a frame too many
        ("Bar Pitch_60 Bar Pitch_62 Frame", [(0, 12, 60), (24, 36, 62)]),  # frames too few
        ("Bar Pitch_60 Metre_3/8 Frame Bar Held_60", [(0, 12, 60), (24, 36, 60)]),  # too late
        ("Bar Pitch_60 Start Frame Held_60", [(0, 24, 60)]),
    ],
)
def test_nonsense_is_passed_over(words, notes):
    piece = decoded(FRAMES, words, strict=False)
    assert piece.notes[["start", "end", "pitch"]].tolist() == notes


# Piano rolls


def test_a_roll_by_hand():
    roll = np.array([[1, 0, 1], [1, 0, 0], [0, 0, 1], [0, 0, 0]], dtype=np.uint8)
    piece = piece_from_roll(roll, ticks_per_frame=24)
    assert piece.notes[["start", "end", "pitch"]].tolist() == [
        (0, 48, 21),
        (0, 24, 23),
        (48, 72, 23),
    ]
    assert piece.metres == (Metre(0, 4, 4),)
    assert piece_from_roll(roll, ticks_per_frame=6, lowest=60).notes["pitch"].tolist() == [
        60,
        62,
        62,
    ]


@given(
    arrays.arrays(bool, st.tuples(st.integers(0, 40), st.just(88))),
    st.sampled_from([6, 12, 24]),
)
@settings(max_examples=60)
def test_a_roll_comes_back_through_piece_and_tokens(roll, ticks):
    piece = piece_from_roll(roll, ticks_per_frame=ticks)
    frames = Frames.fit(Summary.of([piece]), ticks_per_frame=ticks, held=False)
    back = frames.decode(frames.encode(piece), strict=True)
    assert back == piece
    np.testing.assert_array_equal(roll_of(back, *roll.shape, ticks=ticks, lowest=21), roll)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((4,), {}),
        ((4, 88), {"lowest": 41}),
        ((4, 88), {"lowest": -1}),
        ((4, 129), {"lowest": 0}),
        ((4, 88), {"ticks_per_frame": 0}),
    ],
)
def test_what_is_no_roll(shape, options):
    with pytest.raises(ValueError, match="a roll needs shape"):
        piece_from_roll(np.zeros(shape), **{"ticks_per_frame": 6, **options})

"""What melody writes in a step; head, bars and grid are tested with the steps."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnngan.music.piece import Metre, Piece
from rnngan.music.tokenizers.melody import Melody, MelodyConfig
from rnngan.music.tokenizers.summary import Summary

TUNE = Melody(MelodyConfig(metres=("2/4", "3/8"), lowest=50, highest=70))
SIZES = {(2, 4): 8, (3, 8): 6}


def spelt(piece, melody=TUNE):
    return " ".join(melody.vocabulary.names[i] for i in melody.encode(piece))


def decoded(words):
    tokens = np.array([TUNE.vocabulary.index[name] for name in words.split()])
    return TUNE.decode(tokens, strict=True)


def by_hand(piece):
    """Step by step, from a melody on the grid in full bars."""
    lines = piece.bar_lines().tolist()
    words = ["Start", f"Metre_{piece.metres[0].name}"]
    for line, until in pairwise(lines):
        words.append("Bar")
        words += [f"Metre_{m.name}" for m in piece.metres if m.tick == line > 0]
        for tick in range(line, until, 6):
            step = "Rest"
            for note in piece.notes:
                if note["start"] <= tick < note["end"]:
                    step = f"Pitch_{note['pitch']}" if note["start"] == tick else "Hold"
            words.append(step)
    return " ".join([*words, "End"])


@st.composite
def melodies(draw):
    """On the grid, in full bars of changing metre, with rests and notes over the bar line."""
    rows, step = [], 0
    for rest, size, pitch in draw(
        st.lists(st.tuples(st.integers(0, 9), st.integers(1, 20), st.integers(50, 70)), min_size=1)
    ):
        step += rest
        rows.append((step * 6, (step + size) * 6, pitch, 80))
        step += size
    metres, line = [], 0
    while line < step:
        metre = draw(st.sampled_from(list(SIZES)))
        if not metres or metre != metres[-1][1:]:
            metres.append(Metre(line * 6, *metre))
        line += SIZES[metre]
    return Piece.from_rows(rows, metres=tuple(metres))


def test_a_melody_of_two_bars():
    melody = Piece.from_rows([(6, 18, 60), (18, 24, 62), (36, 54, 64), (90, 96, 64)])
    fitted = Melody.fit(Summary.of([melody]))
    assert spelt(melody, fitted) == (
        "Start Metre_4/4 Bar Rest Pitch_60 Hold Pitch_62 Rest Rest Pitch_64 Hold Hold "
        "Rest Rest Rest Rest Rest Rest Pitch_64 End"
    )


def test_a_note_goes_on_over_the_bar_line_and_the_change_of_metre():
    piece = Piece.from_rows([(42, 60, 60, 80)], metres=(Metre(0, 2, 4), Metre(48, 3, 8)))
    words = (
        "Start Metre_2/4 Bar Rest Rest Rest Rest Rest Rest Rest Pitch_60 "
        "Bar Metre_3/8 Hold Hold Rest Rest Rest Rest End"
    )
    assert spelt(piece) == words
    assert decoded(words) == piece


@given(melodies())
@settings(max_examples=100)
def test_a_melody_on_the_grid_is_written_step_by_step_and_comes_back(piece):
    assert spelt(piece) == by_hand(piece)
    assert TUNE.decode(TUNE.encode(piece), strict=True) == piece


@pytest.mark.parametrize(
    ("rows", "spans"),
    [
        ([(0, 24, 60), (0, 48, 55), (24, 48, 59)], [(0, 24, 60), (24, 48, 59)]),  # above a bass
        ([(0, 48, 60), (24, 48, 64)], [(0, 24, 60), (24, 48, 64)]),  # cut by the next
        ([(0, 24, 60), (0, 240, 55)], [(0, 24, 60)]),  # what is left out makes no bars
        ([(0, 3, 60), (3, 24, 55)], [(0, 6, 60)]),  # two at one step
        ([(0, 3, 55), (3, 24, 60)], [(0, 24, 60)]),
        # The overlap of 2 ticks is legato, although on the grid it would be a step.
        ([(0, 28, 64), (26, 48, 60)], [(0, 24, 64), (24, 48, 60)]),
    ],
)
def test_one_voice_of_several(rows, spans):
    back = TUNE.decode(TUNE.encode(Piece.from_rows(rows)))
    assert back.notes[["start", "end", "pitch"]].tolist() == spans
    assert back.num_bars == 1


def test_an_excerpt_may_open_with_a_note_of_unknown_pitch_which_stays_silent():
    piece = decoded("Continue Metre_3/8 Bar Hold Hold Pitch_60 Hold Rest Rest")
    assert piece.notes[["start", "end", "pitch"]].tolist() == [(12, 24, 60)]
    with pytest.raises(ValueError, match="Hold may not stand at time 3"):
        decoded("Start Metre_3/8 Bar Hold")
    with pytest.raises(ValueError, match="Hold may not stand at time 5"):
        decoded("Continue Metre_3/8 Bar Hold Rest Hold")


def test_every_bar_but_the_last_costs_nothing():
    # What the mask leaves at a bar line is Bar, and End where the bar had something in it.
    state = 0
    for token in TUNE.encode(Piece.from_rows([(0, 6, 60), (96, 102, 60)])):
        allowed = np.flatnonzero(TUNE.grammar.allowed[state])
        if token == TUNE.bar:
            assert set(allowed) <= {TUNE.bar, TUNE.vocabulary.index["End"]}
        state = TUNE.grammar.next_state[state, token]

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnngan.music.piece import DRUMS, NOTE, Piece
from rnngan.music.skyline import LEGATO_TICKS, skyline


def line_of(rows):
    return [row[:3] for row in skyline(Piece.from_rows(rows).notes).tolist()]


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ([], []),
        ([(0, 24, 36, 64, DRUMS)], []),
        ([(0, 24, 60), (0, 24, 64), (0, 48, 55)], [(0, 24, 64)]),
        ([(0, 48, 60), (24, 48, 64)], [(0, 24, 60), (24, 48, 64)]),
        ([(0, 96, 72), (24, 48, 60), (96, 120, 60)], [(0, 96, 72), (96, 120, 60)]),
        ([(0, 27, 72), (24, 48, 60)], [(0, 24, 72), (24, 48, 60)]),  # legato
        ([(0, 28, 72), (24, 48, 60)], [(0, 28, 72)]),
        ([(0, 96, 72), (24, 48, 72)], [(0, 24, 72), (24, 48, 72)]),
        # the held note ends where a higher one cuts it and does not come back
        ([(0, 96, 72), (24, 48, 76), (48, 72, 60)], [(0, 24, 72), (24, 48, 76), (48, 72, 60)]),
        ([(0, 24, 60), (0, 48, 60)], [(0, 48, 60)]),
    ],
)
def test_by_hand(rows, line):
    assert line_of(rows) == line


def test_a_melody_is_its_own_skyline():
    notes = Piece.from_rows(
        [(24 * i, 24 * i + 24, 60 + i * 5 % 7, 80, 40, 3) for i in range(9)]
    ).notes
    np.testing.assert_array_equal(skyline(notes), notes)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 100),
            st.integers(1, 60),
            st.integers(40, 60),
            st.sampled_from([0, DRUMS]),
        ),
        max_size=20,
    )
)
@settings(max_examples=80, deadline=None)
def test_one_voice_from_the_notes_on_top(drawn):
    piece = Piece.from_rows([(s, s + size, p, 64, program) for s, size, p, program in drawn])
    line = skyline(piece.notes)
    assert line.dtype == NOTE
    assert np.all(line["end"][:-1] <= line["start"][1:])
    highest = {}
    for note in piece.pitched:
        start = int(note["start"])
        highest[start] = max(highest.get(start, -1), int(note["pitch"]))
    kept = dict(zip(line["start"].tolist(), line["pitch"].tolist()))
    assert kept.items() <= highest.items()
    for start in highest.keys() - kept.keys():  # something higher of the line goes on
        onset, pitch = max((onset, pitch) for onset, pitch in kept.items() if onset < start)
        struck = piece.pitched[piece.pitched["start"] == onset]
        assert pitch > highest[start]
        assert struck["end"][struck["pitch"] == pitch].max() > start + LEGATO_TICKS
    np.testing.assert_array_equal(skyline(line), line)

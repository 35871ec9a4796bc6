"""What a piece loses on its way into tokens, worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnngan.data.loss import Loss, measure_loss
from rnngan.music.piece import DRUMS, Metre, Piece


def piece(*notes, **fields):
    """Of `(start, pitch[, program])`, each a quarter long."""
    return Piece.from_rows(
        [(start, start + 24, pitch, 64, *rest) for start, pitch, *rest in notes], **fields
    )


@pytest.mark.parametrize(
    ("before", "after", "loss"),
    [
        ([], [], (0, 0, 0, 0)),
        ([(0, 60)], [], (1, 0, 0, 0)),
        ([], [(0, 60)], (0, 1, 0, 0)),
        ([(0, 60), (30, 62)], [(0, 60), (30, 62)], (2, 2, 0, 0)),
        # 6 of 24 ticks early, 3 late.
        ([(0, 60), (30, 62), (45, 64)], [(0, 60), (24, 62), (48, 64)], (3, 3, 9 / 24, 6 / 24)),
        # Of several with its pitch a note belongs to the nearest, on either side.
        ([(0, 60), (25, 60), (48, 60)], [(24, 60), (48, 60)], (3, 2, 1 / 24, 1 / 24)),
        ([(0, 60), (100, 60)], [(40, 60), (60, 60)], (2, 2, 80 / 24, 40 / 24)),
        # What was not there before has no place that it could have moved from.
        ([(0, 60)], [(0, 60), (12, 61)], (1, 2, 0, 0)),
        ([(0, 60)], [(0, 60), (12, 90), (12, 10)], (1, 3, 0, 0)),
        # A drum is no pitch.
        ([(0, 36), (20, 36, DRUMS)], [(0, 36), (24, 36, DRUMS)], (2, 2, 4 / 24, 4 / 24)),
        ([(0, 36, DRUMS)], [(24, 36)], (1, 1, 0, 0)),
        # Instruments may be merged.
        ([(0, 60, 5), (24, 60, 40)], [(0, 60), (25, 60)], (2, 2, 1 / 24, 1 / 24)),
    ],
)
def test_losses_by_hand(before, after, loss):
    assert measure_loss(piece(*before), piece(*after)) == pytest.approx(Loss(*loss))


def test_a_bar_that_was_filled_up_moves_nothing():
    # A pickup bar of one quarter, which tokens make a whole one: the rest moves by 72 ticks.
    cut = piece((0, 60), (24, 62), (50, 64), metres=(Metre(0, 4, 4), Metre(24, 4, 4)))
    full = piece((0, 60), (96, 62), (120, 64))
    assert measure_loss(cut, full) == pytest.approx(Loss(3, 3, 2 / 24, 2 / 24))


def test_bars_that_are_not_there_any_more():
    assert measure_loss(piece((0, 60), (960, 62)), piece((0, 60))) == Loss(2, 1, 0, 0)


notes = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 127)), max_size=8)


@given(notes, notes)
def test_the_largest_is_one_of_the_errors(before, after):
    loss = measure_loss(piece(*before), piece(*after))
    assert (loss.notes, loss.kept) == (len(before), len(after))
    assert 0 <= loss.largest_error <= loss.onset_errors + 1e-9
    assert loss.onset_errors <= loss.largest_error * loss.kept + 1e-9
    own = measure_loss(piece(*before), piece(*before))
    assert own == Loss(len(before), len(before), 0, 0)

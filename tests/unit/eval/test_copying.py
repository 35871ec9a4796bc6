import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.copying import copied_share, longest_runs, top_line
from rnngan.music.piece import DRUMS, Piece

QUARTER = 24


def melody(*pitches, length=QUARTER, start=0, stretch=1.0):
    """One note after another, each held for `stretch` of its time."""
    return Piece.from_rows(
        (start + i * length, start + i * length + round(length * stretch), pitch)
        for i, pitch in enumerate(pitches)
    )


TUNE = (60, 62, 64, 65, 67, 69, 71, 72, 74, 72, 71, 69, 67, 65, 64, 62, 60, 59, 57, 60)


class TestTopLine:
    def test_of_a_chord_is_its_highest_note(self):
        chord = Piece.from_rows([(0, 24, 60), (0, 24, 67), (0, 24, 64)])
        assert top_line(chord).tolist() == [[0, 67]]

    def test_leaves_out_what_begins_below_a_note_that_still_sounds(self):
        piece = Piece.from_rows([(0, 48, 72), (24, 48, 60), (48, 72, 60)])
        assert top_line(piece).tolist() == [[0, 72], [48, 60]]

    def test_takes_a_short_overlap_for_legato(self):
        piece = Piece.from_rows([(0, 27, 72), (24, 48, 71)])
        assert top_line(piece).tolist() == [[0, 72], [24, 71]]

    def test_has_no_drums(self):
        piece = Piece.from_rows([(0, 24, 60), (24, 48, 80, 64, DRUMS)])
        assert top_line(piece).tolist() == [[0, 60]]

    def test_of_nothing_is_empty(self):
        assert top_line(Piece.from_rows([])).shape == (0, 2)


class TestLongestRuns:
    def test_a_copy_is_found_in_another_key_with_other_note_lengths(self):
        copy = melody(*(pitch + 5 for pitch in TUNE), stretch=0.5)
        (run,) = longest_runs([copy], [melody(60, 61), melody(*TUNE)])
        assert (run.num_notes, run.training_index) == (len(TUNE), 1)

    def test_other_accompaniment_does_not_hide_a_copy(self):
        above, below = melody(*TUNE), melody(36, 43, 36, length=4 * QUARTER)
        piece = Piece(notes=np.concatenate([above.notes, below.notes]))
        assert longest_runs([piece], [above])[0].num_notes == len(TUNE)

    def test_another_rhythm_is_no_copy(self):
        (run,) = longest_runs([melody(*TUNE, length=12)], [melody(*TUNE)])
        assert run.num_notes == 0
        assert run.training_index == -1

    def test_names_the_bars_on_both_sides(self):
        # Three bars of 4/4 that are TUNE's first twelve notes, after one bar of something else.
        piece = melody(50, 50, 50, 50, *TUNE[:12], 40, 40)
        (run,) = longest_runs([piece], [melody(30, 90), melody(*TUNE, start=8 * QUARTER)])
        assert run.num_notes == 12
        assert run.bars == (2, 4)
        assert run.training_bars == (3, 5)
        assert run.line_notes == 18

    def test_a_run_does_not_go_on_from_one_training_piece_into_the_next(self):
        (run,) = longest_runs([melody(*TUNE)], [melody(*TUNE[:9]), melody(*TUNE[8:])])
        assert run.num_notes == 12

    @pytest.mark.parametrize("training", [[], [Piece.from_rows([])], [melody(60)]])
    def test_nothing_to_copy_from(self, training):
        (run,) = longest_runs([melody(*TUNE)], training)
        assert run.num_notes == 0

    def test_a_piece_without_notes_copies_nothing(self):
        empty, one = longest_runs([Piece.from_rows([]), melody(60)], [melody(*TUNE)])
        assert (empty.num_notes, empty.line_notes) == (0, 0)
        assert (one.num_notes, one.line_notes) == (0, 1)

    lines = st.lists(st.lists(st.integers(60, 62), max_size=12), min_size=1, max_size=4)

    @given(lines, lines)
    @settings(max_examples=60, deadline=None)
    def test_agrees_with_trying_every_run(self, pieces, training):
        runs = longest_runs([melody(*p) for p in pieces], [melody(*p) for p in training])
        for run, pitches in zip(runs, pieces):
            assert run.num_notes == longest_by_hand(pitches, training)


def longest_by_hand(pitches, training):
    """Longest run of two notes or more that stands in training at some transposition."""
    known = {
        tuple(pitch - line[i] for pitch in line[i:j])
        for line in training
        for i in range(len(line))
        for j in range(i + 2, len(line) + 1)
    }
    return max(
        (
            j - i
            for i in range(len(pitches))
            for j in range(i + 2, len(pitches) + 1)
            if tuple(pitch - pitches[i] for pitch in pitches[i:j]) in known
        ),
        default=0,
    )


def test_copied_share_counts_the_pieces_that_are_long_enough():
    copied, short = melody(*TUNE), melody(*TUNE[:10])
    new = melody(*TUNE[::-1], length=12)
    runs = longest_runs([copied, short, new, new], [melody(*TUNE)])
    assert copied_share(runs) == pytest.approx(1 / 3)
    assert copied_share(runs, min_notes=10) == pytest.approx(2 / 4)
    assert math.isnan(copied_share(runs, min_notes=100))

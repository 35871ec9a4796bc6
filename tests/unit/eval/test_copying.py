import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval import copying
from eval.copying import copied_share, longest_runs, nearest_pieces
from rnngan.music.piece import DRUMS, Metre, Piece

QUARTER = 24


def melody(*pitches, length=QUARTER, start=0, stretch=1.0):
    """One note after another, each held for `stretch` of its time."""
    return Piece.from_rows(
        (start + i * length, start + i * length + round(length * stretch), pitch)
        for i, pitch in enumerate(pitches)
    )


NOTES = st.tuples(st.sampled_from([3, 6]), st.integers(60, 62))
LINES = st.lists(st.lists(NOTES, max_size=14), min_size=1, max_size=5)
TUNE = (60, 62, 64, 65, 67, 69, 71, 72, 74, 72, 71, 69, 67, 65, 64, 62, 60, 59, 57, 60)


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

    def test_drums_and_what_sounds_below_are_no_part_of_a_line(self):
        chords = [(i * 24, i * 24 + 24, pitch) for i, p in enumerate(TUNE) for pitch in (p, p - 7)]
        drums = [(i * 12, i * 12 + 6, 38, 64, DRUMS) for i in range(60)]
        (run,) = longest_runs([Piece.from_rows([*chords, *drums])], [melody(*TUNE)])
        assert (run.num_notes, run.line_notes) == (len(TUNE), len(TUNE))

    @given(LINES, LINES, st.sampled_from([1, 8, copying.SORTED_STEPS]))
    @settings(max_examples=80, deadline=None)
    def test_agrees_with_trying_every_run(self, pieces, training, portion):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(copying, "SORTED_STEPS", portion)
            runs = longest_runs([line(*p) for p in pieces], [line(*p) for p in training])
        for run, notes in zip(runs, pieces):
            known = {gram for other in training for gram in grams(steps_of(other))}
            shared = [len(gram) + 1 for gram in grams(steps_of(notes)) if gram in known]
            assert run.num_notes == max(shared, default=0)
            assert run.line_notes == len(notes)

    @given(LINES, LINES)
    @settings(max_examples=40, deadline=None)
    def test_the_bars_named_hold_the_same_run(self, pieces, training):
        metres = (Metre(0, 1, 32),)  # a bar is so short that it holds one note
        own = [line(*p, metres=metres) for p in pieces]
        theirs = [line(*p, metres=metres) for p in training]
        for piece, run in zip(own, longest_runs(own, theirs)):
            if run.num_notes:
                here = within(piece, run.bars)
                there = within(theirs[run.training_index], run.training_bars)
                assert len(here) == len(there) == run.num_notes
                for name in ("start", "pitch"):
                    np.testing.assert_array_equal(
                        np.diff(here[name].astype(int)), np.diff(there[name].astype(int))
                    )

    def test_an_equal_run_in_a_later_portion_does_not_replace_the_first(self, monkeypatch):
        training = [melody(60, 61), melody(*TUNE), melody(*TUNE)]
        monkeypatch.setattr(copying, "SORTED_STEPS", 1)
        # A portion is at least as long as what is looked for: so there are several here.
        (run,) = longest_runs([melody(*TUNE[:5])], training)
        assert run.training_index == 1


class TestNearestPieces:
    def test_a_copy_in_another_key_is_at_distance_0(self):
        copy = melody(*(pitch - 9 for pitch in TUNE), stretch=0.5, start=5)
        (nearest,) = nearest_pieces([copy], [melody(60, 61), melody(*TUNE)])
        assert (nearest.distance, nearest.edits, nearest.training_index) == (0, 0, 1)

    def test_a_wrong_note_changes_the_two_steps_beside_it(self):
        wrong = (*TUNE[:8], TUNE[8] + 1, *TUNE[9:])
        (nearest,) = nearest_pieces([melody(*wrong)], [melody(*TUNE)])
        assert nearest.edits == 2
        assert nearest.distance == pytest.approx(2 / 19)

    def test_a_part_is_as_far_as_what_is_missing(self):
        (nearest,) = nearest_pieces([melody(*TUNE[4:])], [melody(*TUNE)])
        assert nearest.edits == 4
        assert nearest.distance == pytest.approx(4 / 19)

    def test_another_rhythm_is_as_far_as_can_be(self):
        (nearest,) = nearest_pieces([melody(*TUNE, length=12)], [melody(*TUNE)])
        assert nearest.distance == 1

    def test_of_equally_near_pieces_the_first_is_named(self, monkeypatch):
        training = [melody(60, 61), *[melody(*TUNE)] * 3]
        for portion in (1, copying.ALIGNED_STEPS):
            monkeypatch.setattr(copying, "ALIGNED_STEPS", portion)
            assert nearest_pieces([melody(*TUNE)], training)[0].training_index == 1

    @pytest.mark.parametrize("training", [[], [Piece.from_rows([])], [melody(60)]])
    def test_nothing_to_be_near_to(self, training):
        (nearest,) = nearest_pieces([melody(*TUNE)], training)
        assert math.isnan(nearest.distance)
        assert (nearest.edits, nearest.training_index) == (-1, -1)

    def test_a_piece_without_two_notes_is_near_to_nothing(self):
        for nearest in nearest_pieces([Piece.from_rows([]), melody(60)], [melody(*TUNE)]):
            assert math.isnan(nearest.distance)

    @given(LINES, LINES, st.sampled_from([1, 8, copying.ALIGNED_STEPS]))
    @settings(max_examples=80, deadline=None)
    def test_agrees_with_the_table_of_wagner_and_fischer(self, pieces, training, portion):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(copying, "ALIGNED_STEPS", portion)
            found = nearest_pieces([line(*p) for p in pieces], [line(*p) for p in training])
        for nearest, notes in zip(found, pieces):
            own = steps_of(notes)
            theirs = [steps_of(other) for other in training]
            if len(own) and any(theirs):
                distances = [
                    edit_distance(own, other) / max(len(own), len(other)) if other else math.inf
                    for other in theirs
                ]
                assert nearest.distance == pytest.approx(min(distances))
                assert nearest.training_index == distances.index(min(distances))
                assert nearest.edits == edit_distance(own, theirs[nearest.training_index])
            else:
                assert math.isnan(nearest.distance)

    def test_lines_that_fill_several_machine_words(self):
        rng = np.random.default_rng(0)
        training = [melody(*rng.integers(60, 63, size)) for size in (1, 64, 65, 200, 2, 129)]
        query = melody(*rng.integers(60, 63, 150))
        edits = [nearest_pieces([query], [piece])[0].edits for piece in training]
        by_hand = [
            edit_distance(pitch_steps(query), pitch_steps(piece)) if len(piece.notes) > 1 else -1
            for piece in training
        ]
        assert edits == by_hand


def line(*notes, **fields):
    """Notes of one tick, each `(ticks since the last onset, pitch)`."""
    starts = np.cumsum([time for time, _ in notes], dtype=int).tolist()
    return Piece.from_rows(
        ((start, start + 1, pitch) for start, (_, pitch) in zip(starts, notes)), **fields
    )


def steps_of(notes):
    """Time and interval of each note after the first."""
    return [(time, pitch - before) for (_, before), (time, pitch) in pairwise(notes)]


def pitch_steps(piece):
    return np.diff(piece.notes["pitch"].astype(int)).tolist()


def grams(steps):
    """Every run of steps."""
    return {tuple(steps[i:j]) for i in range(len(steps)) for j in range(i + 1, len(steps) + 1)}


def within(piece, bars):
    """Notes that begin in the bars from the first to the last of `bars`."""
    lines = piece.bar_lines()
    starts = piece.notes["start"]
    return piece.notes[(starts >= lines[bars[0] - 1]) & (starts < lines[bars[1]])]


def edit_distance(a, b):
    """Levenshtein's distance, cell by cell."""
    above = list(range(len(b) + 1))
    for i, x in enumerate(a):
        row = [i + 1]
        for j, y in enumerate(b):
            row.append(min(above[j] + (x != y), above[j + 1] + 1, row[j] + 1))
        above = row
    return above[-1]


def test_the_search_for_the_nearest_shows_every_training_piece():
    training, seen = [melody(*TUNE), melody(60), melody(62, 60)], []

    def track(items, label):
        for item in items:
            seen.append(item)
            yield item

    found = nearest_pieces([melody(*TUNE)], training, track=track)
    assert [id(piece) for piece in seen] == [id(piece) for piece in training]
    assert found == nearest_pieces([melody(*TUNE)], training)


def test_copied_share_counts_the_pieces_that_are_long_enough():
    copied, short = melody(*TUNE), melody(*TUNE[:10])
    new = melody(*TUNE[::-1], length=12)
    runs = longest_runs([copied, short, new, new], [melody(*TUNE)])
    assert copied_share(runs) == pytest.approx(1 / 3)
    assert copied_share(runs, min_notes=10) == pytest.approx(2 / 4)
    assert math.isnan(copied_share(runs, min_notes=100))

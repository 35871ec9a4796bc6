"""Counts over a corpus: by hand, and the same however the corpus is divided."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnngan.music.piece import DRUMS, NOTE, Metre, Piece, Tempo
from rnngan.music.tokenizers.summary import Summary

WALTZ = Piece.from_rows(
    [
        (0, 24, 60, 64, 0, 0),
        (0, 72, 48, 50, 0, 1),
        (24, 48, 64, 64, 40, 2),
        (24, 30, 38, 100, DRUMS, 3),
        (96, 108, 60, 64, 0, 0),
    ],
    metres=(Metre(0, 3, 4), Metre(72, 2, 4)),
    tempos=(Tempo(0, 120.0), Tempo(48, 90.5)),
    tags={"style": "waltz"},
)
JIG = Piece.from_rows(
    [(12, 24, 72, 80)], metres=(Metre(0, 6, 8),), tags={"style": "jig", "composer": "trad."}
)


def plain(summary):
    """All of it, such that `==` compares."""
    arrays = {name: getattr(summary, name).tolist() for name in ("pitches", "velocities")}
    return vars(summary) | arrays | {"tags": dict(summary.tags)}


def test_one_piece_by_hand():
    summary = Summary.of([WALTZ])
    assert summary.num_pieces == 1 and summary.num_notes == 5
    # The drum's 38 is no pitch.
    assert {p: int(n) for p, n in enumerate(summary.pitches) if n} == {48: 1, 60: 2, 64: 1}
    assert {v: int(n) for v, n in enumerate(summary.velocities) if n} == {50: 1, 64: 3, 100: 1}
    assert summary.gaps == (96, 24**2 + 72**2, 72)  # 0, 0, 24, 0, 72
    lengths = [24, 72, 24, 6, 12]
    assert summary.lengths == (sum(lengths), sum(n * n for n in lengths), 72)
    assert summary.programs == {0, 40, DRUMS}
    assert summary.voices == 2  # two tracks of piano
    assert summary.metres == Counter({"3/4": 1, "2/4": 1})
    assert summary.tempos == Counter({120.0: 1, 90.5: 1})
    assert summary.tags == {"style": {"waltz"}}


def test_two_pieces_by_hand():
    summary = Summary.of([WALTZ]) + Summary.of([JIG])
    assert summary.num_pieces == 2 and summary.num_notes == 6
    assert summary.pitches[[48, 60, 64, 72]].tolist() == [1, 2, 1, 1]
    assert summary.gaps == (108, 24**2 + 72**2 + 12**2, 72)
    assert summary.voices == 2
    assert summary.metres == Counter({"3/4": 1, "2/4": 1, "6/8": 1})
    assert summary.tempos == Counter({120.0: 2, 90.5: 1})
    assert summary.tags == {"style": {"waltz", "jig"}, "composer": {"trad."}}


def test_the_drum_kit_is_one_voice():
    kit = [(0, 6, 36, 64, DRUMS, track) for track in range(5)]
    assert Summary.of([Piece.from_rows(kit)]).voices == 0
    assert Summary.of([Piece.from_rows([*kit, (0, 6, 60)])]).voices == 1


def test_a_track_counts_once_for_each_program():
    rows = [(0, 6, 60, 64, 0, 0), (0, 6, 60, 64, 0, 1), (0, 6, 60, 64, 7, 0), (6, 12, 60, 64, 0, 0)]
    assert Summary.of([Piece.from_rows(rows)]).voices == 2


@pytest.mark.parametrize(
    ("pitches", "margin", "range_"),
    [
        ([60, 64, 55], 0, (55, 64)),
        ([60, 64, 55], 6, (49, 70)),
        ([3, 125], 6, (0, 127)),
        ([], 6, (54, 66)),
    ],
)
def test_the_range_has_room_as_far_as_there_is_any(pitches, margin, range_):
    rows = [(0, 6, pitch) for pitch in pitches] + [(0, 6, 36, 64, DRUMS)]
    assert Summary.of([Piece.from_rows(rows)]).pitch_range(margin) == range_


def test_sums_are_exact_where_floats_are_not():
    # The longest piece: its last gap squared is beyond 32 bits, two such sums beyond 2**53 or so.
    far = Piece.from_rows([(479_999, 480_000, 60)])
    summary = Summary.of([far] * 1000)
    assert summary.gaps == (479_999 * 1000, 479_999**2 * 1000, 479_999)


def test_nothing_adds_nothing():
    for summary in (Summary.of([WALTZ]), Summary.empty()):
        assert plain(summary + Summary.empty()) == plain(Summary.empty() + summary)
        assert plain(summary + Summary.empty()) == plain(summary)
    silent = Summary.of([Piece(notes=np.empty(0, NOTE))])
    assert (silent.num_pieces, silent.num_notes, silent.voices) == (1, 0, 0)
    assert silent.gaps == silent.lengths == (0, 0, 0)


pieces = st.builds(
    lambda rows, metre, tempo, tags: Piece.from_rows(
        [(start, start + length, *rest) for start, length, *rest in rows],
        metres=(Metre(0, *metre),),
        tempos=(Tempo(0, tempo),),
        tags=tags,
    ),
    rows=st.lists(
        st.tuples(
            st.integers(0, 500),
            st.integers(1, 96),
            st.integers(0, 127),
            st.integers(1, 127),
            st.sampled_from([0, 40, DRUMS]),
            st.integers(0, 2),
        ),
        max_size=5,
    ),
    metre=st.sampled_from([(4, 4), (3, 4), (6, 8)]),
    tempo=st.sampled_from([60.0, 120.0]),
    tags=st.dictionaries(st.sampled_from("ab"), st.sampled_from("xyz"), max_size=2),
)


@given(st.lists(pieces, max_size=6), st.data())
@settings(max_examples=60)
def test_every_partition_gives_the_same_sum(corpus, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(corpus)), max_size=3)))
    parts = [corpus[a:b] for a, b in zip([0, *cuts], [*cuts, len(corpus)])]
    parts = data.draw(st.permutations(parts))
    total = sum(map(Summary.of, parts), Summary.empty())
    assert plain(total) == plain(Summary.of(corpus))

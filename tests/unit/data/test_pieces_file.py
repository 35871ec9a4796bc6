"""Files of many pieces."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnngan.data.pieces_file import load_pieces, save_pieces
from rnngan.errors import UserError
from rnngan.music.piece import Metre, Piece, Tempo, Timing

piece_strategy = st.builds(
    lambda rows, metre, tempo, tags, names, timing: Piece.from_rows(
        [(start, start + length, *rest) for start, length, *rest in rows],
        metres=(Metre(0, 4, 4), Metre(96, *metre)),
        tempos=(Tempo(0, tempo),),
        tags=tags,
        track_names=names,
        timing=timing,
    ),
    rows=st.lists(
        st.tuples(
            st.integers(0, 500),
            st.integers(1, 96),
            st.integers(0, 127),
            st.integers(1, 127),
            st.integers(0, 128),
            st.integers(0, 255),
        ),
        max_size=5,
    ),
    metre=st.tuples(st.integers(1, 12), st.sampled_from([2, 4, 8])),
    tempo=st.floats(5, 1000),
    tags=st.dictionaries(st.text(max_size=4), st.text(max_size=9), max_size=3),
    names=st.lists(st.text(max_size=5), max_size=2).map(tuple),
    timing=st.builds(Timing, st.sampled_from(["file", "fixed"]), st.floats(0, 1), st.floats(0, 1)),
)


@given(st.lists(piece_strategy, max_size=4))
@settings(max_examples=40)
def test_pieces_come_back_as_they_were(tmp_path_factory, pieces):
    path = tmp_path_factory.mktemp("pieces") / "pieces.npz"
    save_pieces(path, pieces)
    loaded = load_pieces(path)
    assert loaded == pieces
    assert [p.track_names for p in loaded] == [p.track_names for p in pieces]
    assert [p.timing for p in loaded] == [p.timing for p in pieces]


def test_equal_pieces_give_equal_bytes(tmp_path):
    pieces = [Piece.from_rows([(0, 24, 60)])]
    save_pieces(tmp_path / "a", pieces)
    save_pieces(tmp_path / "b", pieces)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_no_pickle_is_ever_opened(tmp_path):
    path = tmp_path / "pieces.npz"
    np.savez(path, notes=np.array([{}], dtype=object), offsets=[0, 1], about=np.zeros(1, np.uint8))
    with pytest.raises(UserError, match="cannot read the pieces"):
        load_pieces(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.npz"):
        load_pieces(tmp_path / "none.npz")

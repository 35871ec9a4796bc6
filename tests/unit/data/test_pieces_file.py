"""Files of many pieces."""

import hashlib

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
    path = tmp_path_factory.mktemp("pieces") / "pieces"
    save_pieces(path, pieces, {"about": [1, "two"]})
    loaded, about = load_pieces(path)
    assert loaded == pieces
    assert about == {"about": [1, "two"]}
    assert [p.track_names for p in loaded] == [p.track_names for p in pieces]
    assert [p.timing for p in loaded] == [p.timing for p in pieces]


def test_equal_pieces_give_equal_bytes(tmp_path):
    pieces = [Piece.from_rows([(0, 24, 60)])]
    save_pieces(tmp_path / "a", pieces)
    save_pieces(tmp_path / "b", pieces)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def signed(body):
    return b"rnngan pieces 1 " + hashlib.sha256(body).hexdigest().encode() + b"\n" + body


NOTES = Piece.from_rows([(0, 24, 60), (24, 48, 62)]).notes.tobytes()
ROW = '[%d, [[0, 4, 4]], [[0, 120.0]], {}, [], ["file", 0.0, 0.0]]'


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"rnngan pieces 1 ",
        signed(b"[null, []]\n")[:-2],
        signed(b"[null, []]\n").replace(b"pieces 1", b"pieces 2"),
        signed(b"[null, []]\n" + NOTES),  # notes of nobody
        signed(f"[null, [{ROW % 3}]]\n".encode() + NOTES),  # more than there are
        signed(f"[null, [{ROW % 2}]]\n".encode() + NOTES[:-1]),
        signed(f"[null, [{ROW % -1}, {ROW % 3}]]\n".encode() + NOTES),
        signed(f"[null, [{ROW % 2}]]\n".replace("4, 4", "0, 4").encode() + NOTES),
        signed(f"[null, [{ROW % 2}]]\n".replace("[]", "3").encode() + NOTES),
        signed(b"null\n"),
        signed(b"[1, 2, 3]\n"),
        signed(b"\x80\n"),
    ],
)
def test_damage_is_noticed(tmp_path, data):
    path = tmp_path / "pieces"
    path.write_bytes(signed(f"[null, [{ROW % 2}]]\n".encode() + NOTES))
    assert len(load_pieces(path)[0][0].notes) == 2
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"cannot read the pieces in .*; write them anew"):
        load_pieces(path)


def test_every_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "pieces"
    save_pieces(path, [Piece.from_rows([(0, 24, 60)], tags={"title": "x"})])
    data = path.read_bytes()
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(UserError, match="write them anew"):
            load_pieces(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none"):
        load_pieces(tmp_path / "none")

"""Named corpora and their cache, on a little folder that stands in for music21's."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnngan.data import corpora
from rnngan.data.corpora import CORPORA, read_corpus
from rnngan.data.pieces_file import load_pieces, save_pieces
from rnngan.errors import UserError
from rnngan.music.piece import Metre, Piece, Tempo

TUNE = "X:1\nT:{}\nR:reel\nM:4/4\nL:1/4\nK:C\n|:{}4:|\n"


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """Two files and three tunes where music21 has Ryan's collection."""
    folder = tmp_path / "wheel"
    tunes = folder / "corpus" / "ryansMammoth"
    tunes.mkdir(parents=True)
    (tunes / "B.abc").write_text(TUNE.format("Second", "D") + TUNE.format("Third", "E"))
    (tunes / "A.abc").write_text(TUNE.format("First", "C"))
    monkeypatch.setattr(corpora, "_music21_folder", lambda: folder)
    return tunes


def summary(sources):
    return [(s.name, s.piece.tags["title"], s.piece.notes["pitch"].tolist()) for s in sources]


def test_pieces_come_in_order_with_their_tags(wheel, tmp_path):
    done = []
    sources, rejects = read_corpus(
        "ryans-mammoth", cache=tmp_path, workers=1, progress=lambda *counts: done.append(counts)
    )
    assert summary(sources) == [
        ("A.abc", "First", [60]),
        ("B.abc#0", "Second", [62]),
        ("B.abc#1", "Third", [64]),
    ]
    assert rejects == []
    assert done[-1] == (2, 2)
    assert {s.piece.tags["corpus"] for s in sources} == {"ryans-mammoth"}
    assert [s.piece.tags["source"] for s in sources] == [s.name for s in sources]
    assert {s.piece.tags["style"] for s in sources} == {"reel"}


def test_the_cache_gives_the_same_without_reading(wheel, tmp_path, monkeypatch):
    cold = read_corpus("ryans-mammoth", cache=tmp_path / "cache", workers=1)
    monkeypatch.setattr(corpora, "read_folder", None)  # would raise
    assert read_corpus("ryans-mammoth", cache=tmp_path / "cache") == cold


def test_the_cache_knows_what_it_holds(wheel, tmp_path):
    def pitches(**settings):
        sources, _ = read_corpus("ryans-mammoth", cache=tmp_path, workers=1, **settings)
        return [source.piece.notes["pitch"].tolist() for source in sources]

    assert pitches() == [[60], [62], [64]]
    assert pitches(expand_repeats=True) == [[60, 60], [62, 62], [64, 64]]
    (wheel / "A.abc").write_text(TUNE.format("First", "F"))
    assert pitches() == [[65], [62], [64]]


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "other"])
def test_a_damaged_cache_is_made_anew(wheel, tmp_path, damage):
    cold = read_corpus("ryans-mammoth", cache=tmp_path / "cache", workers=1)
    [cached] = (tmp_path / "cache").iterdir()
    data = cached.read_bytes()
    half = len(data) // 2
    cached.write_bytes(
        {
            "empty": b"",
            "cut": data[:half],
            "flipped": data[:half] + bytes([data[half] ^ 0xFF]) + data[half + 1 :],
            "other": b"not an archive",
        }[damage]
    )
    assert read_corpus("ryans-mammoth", cache=tmp_path / "cache", workers=1) == cold
    assert cached.read_bytes() == data


def test_refused_files_are_listed_each_time(wheel, tmp_path):
    (wheel / "C.abc").write_text("nothing that sounds")
    for _ in range(2):
        sources, rejects = read_corpus("ryans-mammoth", cache=tmp_path / "cache", workers=1)
        assert len(sources) == 3
        assert [(reject.name, reject.reason) for reject in rejects] == [("C.abc", "no_notes")]


def test_a_cache_that_cannot_be_written_is_no_error(wheel, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match="not kept for the next time"):
        sources, _ = read_corpus("ryans-mammoth", cache=tmp_path / "file" / "cache", workers=1)
    assert len(sources) == 3


def test_only_scores_in_four_parts_are_chorales(wheel, tmp_path, monkeypatch):
    folder = wheel.parent / "bach"
    folder.mkdir()
    for parts in (4, 5):
        numbers = range(parts)
        (folder / f"{parts}.mxl").write_text(
            "<score-partwise><part-list>"
            + "".join(
                f'<score-part id="P{i}"><part-name>{i}</part-name></score-part>' for i in numbers
            )
            + "</part-list>"
            + "".join(
                f'<part id="P{i}"><measure number="1"><attributes><divisions>1</divisions>'
                "</attributes><note><pitch><step>C</step><octave>4</octave></pitch>"
                "<duration>4</duration></note></measure></part>"
                for i in numbers
            )
            + "</score-partwise>"
        )
    sources, rejects = read_corpus("bach-chorales", cache=tmp_path, workers=1)
    assert [source.name for source in sources] == ["4.mxl"]
    assert rejects == []


def test_the_default_cache_is_named_by_the_environment(wheel, tmp_path, monkeypatch):
    monkeypatch.setenv("RNNGAN_CACHE", str(tmp_path / "mine"))
    read_corpus("ryans-mammoth", workers=1)
    assert len(list((tmp_path / "mine").iterdir())) == 1


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UserError, match=r"did you mean 'ryans-mammoth'\?.*bach-chorales"):
        read_corpus("ryan-mammoth")


def test_without_music21_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "music21", None)
    monkeypatch.setattr(corpora.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'pip install "rnngan\[corpora\]"'):
        read_corpus("ryans-mammoth")


def test_names_are_those_of_the_corpora():
    assert list(CORPORA) == ["ryans-mammoth", "oneills", "airds", "bach-chorales"]
    assert all(corpus.name == name for name, corpus in CORPORA.items())


@pytest.mark.slow
@pytest.mark.parametrize("name", CORPORA)
def test_every_piece_is_there(name, tmp_path):
    pytest.importorskip("music21")
    sources, rejects = read_corpus(name, cache=tmp_path)
    assert len(sources) == CORPORA[name].num_pieces
    assert rejects == []
    assert len({source.name for source in sources}) == len(sources)


# Files of pieces

piece_strategy = st.builds(
    lambda rows, metre, tempo, tags, names: Piece.from_rows(
        [(start, start + length, *rest) for start, length, *rest in rows],
        metres=(Metre(0, 4, 4), Metre(96, *metre)),
        tempos=(Tempo(0, tempo),),
        tags=tags,
        track_names=names,
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
)


@given(st.lists(piece_strategy, max_size=4))
@settings(max_examples=40)
def test_pieces_come_back_as_they_were(tmp_path_factory, pieces):
    path = tmp_path_factory.mktemp("pieces") / "pieces.npz"
    save_pieces(path, pieces)
    loaded = load_pieces(path)
    assert loaded == pieces
    assert [p.track_names for p in loaded] == [p.track_names for p in pieces]


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

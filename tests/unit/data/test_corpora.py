"""Named corpora and their cache, on a little folder that stands in for music21's."""

import sys

import pytest

from rnngan.config import DataConfig
from rnngan.data import corpora
from rnngan.data.corpora import CORPORA, corpus_files
from rnngan.data.prepare import prepare, read_sources
from rnngan.errors import UserError

TUNE = "X:1\nT:{}\nR:reel\nM:4/4\nL:1/4\nK:C\n|:C{}4:|\n"
RYAN = DataConfig(corpus="ryans-mammoth")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RNNGAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def wheel(tmp_path, monkeypatch, cache, inline_team):
    """Two files and three tunes where music21 has Ryan's collection."""
    folder = tmp_path / "wheel"
    tunes = folder / "corpus" / "ryansMammoth"
    tunes.mkdir(parents=True)
    (tunes / "B.abc").write_text(TUNE.format("Second", "D") + TUNE.format("Third", "E"))
    (tunes / "A.abc").write_text(TUNE.format("First", "C"))
    (tunes / "__init__.py").write_text("")
    monkeypatch.setattr(corpora, "_music21_folder", lambda: folder)
    return tunes


def summary(sources):
    return [(s.name, s.piece.tags["title"], s.piece.notes["pitch"].tolist()) for s in sources]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# What there is


def test_names_are_those_of_the_corpora():
    assert list(CORPORA) == ["ryans-mammoth", "oneills", "airds", "bach-chorales"]
    for name, corpus in CORPORA.items():
        assert corpus.name == name
        assert corpus.num_pieces > 0 and corpus.source and corpus.rights


def test_a_corpus_is_its_files_in_order(wheel, cache):
    files = corpus_files("ryans-mammoth")
    assert files.corpus is CORPORA["ryans-mammoth"]
    assert files.folder == wheel
    assert files.paths == [f"{wheel}/A.abc", f"{wheel}/B.abc"]
    assert files.cache == cache / "ryans-mammoth"


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UserError, match=r"did you mean 'ryans-mammoth'\?.*bach-chorales"):
        corpus_files("ryan-mammoth")


def test_without_music21_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "music21", None)
    monkeypatch.setattr(corpora.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'pip install "rnngan\[corpora\]"'):
        corpus_files("ryans-mammoth")


def test_a_wheel_without_its_corpora(wheel, tmp_path):
    with pytest.raises(UserError, match=r"corpus folder .*airdsAirs does not exist"):
        read_sources(DataConfig(corpus="airds"))
    for path in wheel.iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"nothing is left of the 0 files of ryans-mammoth: they"):
        prepare(RYAN, tmp_path / "store", seed=0)


def test_the_cache_lies_at_home_unless_the_environment_says_otherwise(wheel, tmp_path, monkeypatch):
    monkeypatch.delenv("RNNGAN_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    expected = tmp_path / "me" / ".cache" / "rnngan" / "ryans-mammoth"
    assert corpus_files("ryans-mammoth").cache == expected
    monkeypatch.setenv("RNNGAN_CACHE", "")
    assert corpus_files("ryans-mammoth").cache == expected


# Reading them


def test_pieces_come_in_order_with_their_tags(wheel):
    sources, rejects = read_sources(RYAN)
    assert summary(sources) == [
        ("A.abc", "First", [60, 60]),
        ("B.abc#0", "Second", [60, 62]),
        ("B.abc#1", "Third", [60, 64]),
    ]
    assert rejects == []
    assert {s.piece.tags["corpus"] for s in sources} == {"ryans-mammoth"}
    assert [s.piece.tags["source"] for s in sources] == [s.name for s in sources]
    assert {s.piece.tags["style"] for s in sources} == {"reel"}


def test_a_named_corpus_becomes_a_store(wheel, tmp_path, files_read):
    store = prepare(RYAN, tmp_path / "store", seed=0)
    assert store.manifest["corpus"] == "ryans-mammoth"
    assert [entry["name"] for entry in store.entries()] == ["A.abc", "B.abc#0", "B.abc#1"]
    assert len(prepare(RYAN, tmp_path / "store", seed=0)) == 3
    assert files_read == ["A.abc", "B.abc"]
    (wheel / "A.abc").write_text(TUNE.format("First", "F"))
    with pytest.raises(UserError, match="already holds another prepared corpus"):
        prepare(RYAN, tmp_path / "store", seed=0)


def test_only_scores_in_four_parts_are_chorales(wheel, tmp_path):
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
    sources, rejects = read_sources(DataConfig(corpus="bach-chorales"))
    assert [source.name for source in sources] == ["4.mxl"]
    assert rejects == [("5.mxl", "filtered", "does not meet parts == 4")]
    assert set(sources[0].piece.notes["program"]) == {0}
    (folder / "4.mxl").unlink()
    with pytest.raises(UserError, match="nothing is left of the 1 files of bach-chorales"):
        prepare(DataConfig(corpus="bach-chorales"), tmp_path / "store", seed=0)


# The cache


def test_the_cache_gives_the_same_without_reading(wheel, files_read):
    cold = read_sources(RYAN)
    assert files_read == ["A.abc", "B.abc"]
    assert read_sources(RYAN) == cold
    assert files_read == ["A.abc", "B.abc"]


def test_stores_of_all_settings_share_what_was_read(wheel, tmp_path, files_read):
    for name, changes in (
        ("plain", {}),
        ("melody", {"tokenizer": "melody", "tags": ("style",)}),
        ("filtered", {"only": "bars >= 1", "trim": True}),
    ):
        config = DataConfig(corpus="ryans-mammoth", **changes)
        assert len(prepare(config, tmp_path / name, seed=0)) == 3
    assert files_read == ["A.abc", "B.abc"]


def test_warm_and_cold_give_the_same_store(wheel, cache, tmp_path, monkeypatch):
    cold = prepare(RYAN, tmp_path / "cold", seed=0)
    warm = prepare(RYAN, tmp_path / "warm", seed=0)
    monkeypatch.setenv("RNNGAN_CACHE", str(tmp_path / "another"))
    again = prepare(RYAN, tmp_path / "again", seed=0)
    assert contents(cold.folder) == contents(warm.folder) == contents(again.folder)
    assert (tmp_path / "another").exists()


def test_the_cache_knows_what_it_holds(wheel):
    def pitches(**settings):
        sources, _ = read_sources(DataConfig(corpus="ryans-mammoth", **settings))
        return [source.piece.notes["pitch"].tolist() for source in sources]

    assert pitches() == [[60, 60], [60, 62], [60, 64]]
    assert pitches(expand_repeats=True) == [[60, 60] * 2, [60, 62] * 2, [60, 64] * 2]
    (wheel / "A.abc").write_text(TUNE.format("First", "F"))
    assert pitches() == [[60, 65], [60, 62], [60, 64]]
    assert pitches(expand_repeats=True)[0] == [60, 65] * 2


def test_both_readings_of_repeats_are_kept(wheel, files_read):
    for _ in range(2):
        for expand in (False, True):
            read_sources(DataConfig(corpus="ryans-mammoth", expand_repeats=expand))
    assert files_read == ["A.abc", "B.abc"] * 2


@pytest.mark.parametrize("damage", ["empty", "cut", "zeros", "other"])
def test_a_damaged_cache_is_made_anew(wheel, cache, damage):
    cold = read_sources(RYAN)
    [cached] = cache.rglob("000000")
    data = cached.read_bytes()
    half = len(data) // 2
    cached.write_bytes(
        {
            "empty": b"",
            "cut": data[:half],
            "zeros": data[:half] + bytes(len(data) - half),
            "other": b"not an archive",
        }[damage]
    )
    assert read_sources(RYAN) == cold
    assert cached.read_bytes() == data


def test_refused_files_are_listed_each_time(wheel):
    (wheel / "C.abc").write_text("nothing that sounds")
    for _ in range(2):
        sources, rejects = read_sources(RYAN)
        assert len(sources) == 3
        assert [(reject.name, reject.reason) for reject in rejects] == [("C.abc", "no_notes")]


def test_a_cache_that_cannot_be_written_is_no_error(wheel, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("RNNGAN_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="what is read is not kept"):
        sources, _ = read_sources(RYAN)
    assert len(sources) == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", CORPORA)
def test_every_piece_is_there(name, cache):
    pytest.importorskip("music21")
    sources, rejects = read_sources(DataConfig(corpus=name))
    assert len(sources) == CORPORA[name].num_pieces
    assert {reject.reason for reject in rejects} <= {"filtered"}
    assert {reject.message for reject in rejects} <= {"does not meet parts == 4"}
    assert not rejects or name == "bach-chorales"
    assert len({source.name for source in sources}) == len(sources)
